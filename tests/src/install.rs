//! What an installation of AegisVM consists of, and putting it somewhere.
//!
//! The lists are data, one entry a line. They are all there is to say: `make install`,
//! `make uninstall`, the packages of `make dist` and the test machines follow them.
//!
//! | list | package |
//! |---|---|
//! | `packaging/files` | aegisvm: programs, units, what else the host needs |
//! | `packaging/guest` | aegisvm-guest: kernel, harness, base image |
//! | `packaging/agent-kit` | aegisvm-agent-kit: the Agent Kit |
//! | `packaging/guest-aarch64` | none, only a tarball: guests of another architecture |

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::cache;

/// What is packaged apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// The programs of the host.
    Aegisvm,
    /// What guests boot from.
    Guest,
    /// The Agent Kit.
    AgentKit,
    /// What guests of another architecture boot from.
    ForeignGuest,
}

impl Package {
    /// Those that there are for distributions, in an order in which each can be
    /// installed.
    pub const ALL: [Self; 3] = [Self::Guest, Self::Aegisvm, Self::AgentKit];
    /// What `make install` installs, as far as it is built.
    pub const INSTALLED: [Self; 4] = [
        Self::Guest,
        Self::Aegisvm,
        Self::AgentKit,
        Self::ForeignGuest,
    ];

    /// Its name in every format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aegisvm => "aegisvm",
            Self::Guest => "aegisvm-guest",
            Self::AgentKit => "aegisvm-agent-kit",
            Self::ForeignGuest => "aegisvm-guest-aarch64",
        }
    }

    fn list(self) -> &'static str {
        match self {
            Self::Aegisvm => "packaging/files",
            Self::Guest => "packaging/guest",
            Self::AgentKit => "packaging/agent-kit",
            Self::ForeignGuest => "packaging/guest-aarch64",
        }
    }
}

/// All entries of the list, for one prefix.
#[derive(Debug)]
pub struct Plan {
    /// In the order of the list.
    pub entries: Vec<Entry>,
}

/// One file or link of an installation.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The absolute path it is installed as.
    pub destination: String,
    /// Permission bits of a file.
    pub mode: u32,
    /// An installation is whole without it.
    pub optional: bool,
    /// It is for the system's service manager.
    pub system: bool,
    /// What is installed.
    pub content: Content,
}

/// Where an entry's content comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A copy of a built file.
    File(PathBuf),
    /// Text with the prefix filled in.
    Text(String),
    /// A symbolic link to this.
    Link(String),
}

impl Plan {
    /// Reads the lists of AegisVM with its guest, for an installation under `prefix`.
    ///
    /// # Errors
    /// As of [`Plan::of`].
    pub fn read(prefix: &str) -> Result<Self> {
        let mut plan = Self::of(Package::Aegisvm, prefix)?;
        plan.entries
            .extend(Self::of(Package::Guest, prefix)?.entries);
        Ok(plan)
    }

    /// Reads the list of one package.
    ///
    /// # Errors
    /// The list or a text file it names cannot be read, or a line of it is
    /// malformed.
    pub fn of(package: Package, prefix: &str) -> Result<Self> {
        let repository = cache::repository();
        let path = repository.join(package.list());
        let list =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let places = Places::find(&repository);
        let entries = list
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| {
                parse(line, prefix, &places)
                    .with_context(|| format!("in {}: {line:?}", path.display()))
                    .transpose()
            })
            .collect::<Result<_>>()?;
        Ok(Self { entries })
    }

    /// Installs everything under `destdir`.
    ///
    /// # Errors
    /// Something that is not optional is not built, or cannot be written.
    pub fn install(&self, destdir: &Path) -> Result<()> {
        let missing: Vec<&str> = self
            .entries
            .iter()
            .filter(|entry| !entry.optional && !entry.is_built())
            .map(|entry| entry.destination.as_str())
            .collect();
        if !missing.is_empty() {
            bail!(
                "not built: {}; run make build and make guest first",
                missing.join(", ")
            );
        }
        for entry in self.entries.iter().filter(|entry| entry.is_built()) {
            entry.install(destdir)?;
        }
        Ok(())
    }

    /// Removes everything from under `destdir`, then the folders that are empty by that,
    /// up to `prefix`. What is not there is passed over, and what is not in the list stays.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn uninstall(&self, destdir: &Path, prefix: &str) -> Result<()> {
        let top = destdir.join(prefix.trim_matches('/'));
        for entry in &self.entries {
            let path = destdir.join(entry.destination.trim_start_matches('/'));
            match fs::remove_file(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                removed => removed.with_context(|| format!("removing {}", path.display()))?,
            }
            let folders = path.ancestors().skip(1);
            for folder in folders.take_while(|folder| *folder != top) {
                // One that holds something else stays, and so do those above it.
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Whether there is something to install.
    #[must_use]
    pub fn is_built(&self) -> bool {
        match &self.content {
            Content::File(source) => source.exists(),
            Content::Text(_) | Content::Link(_) => true,
        }
    }

    /// A line that changes whenever the installed thing would.
    #[must_use]
    pub fn signature(&self) -> String {
        let content = match &self.content {
            Content::File(source) => fs::metadata(source).map_or_else(
                |_| "absent".to_owned(),
                |metadata| {
                    let modified = metadata.modified().ok();
                    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                    format!(
                        "{}:{}",
                        metadata.len(),
                        since.unwrap_or_default().as_nanos()
                    )
                },
            ),
            Content::Text(text) => format!("{text:?}"),
            Content::Link(target) => target.clone(),
        };
        format!("{} {:o} {content}", self.destination, self.mode)
    }

    /// Puts the entry under `destdir`, in the place of an older one.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn install(&self, destdir: &Path) -> Result<()> {
        let path = destdir.join(self.destination.trim_start_matches('/'));
        self.install_as(&path)
            .with_context(|| format!("installing {}", path.display()))
    }

    fn install_as(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        if path.symlink_metadata().is_ok() {
            fs::remove_file(path)?;
        }
        match &self.content {
            Content::Link(target) => return Ok(std::os::unix::fs::symlink(target, path)?),
            Content::File(source) => {
                fs::copy(source, path)?;
            }
            Content::Text(text) => fs::write(path, text)?,
        }
        Ok(fs::set_permissions(
            path,
            fs::Permissions::from_mode(self.mode),
        )?)
    }
}

/// The directories that the sources of the list are relative to.
struct Places {
    /// Committed files.
    repository: PathBuf,
    /// Programs that cargo built.
    programs: PathBuf,
    /// Guest files that `guest/build` made.
    guest: PathBuf,
    /// The project's own kernels, if their source package is installed; each has a
    /// name of its own.
    kernels: Vec<PathBuf>,
    /// The licences of what is linked in, as `xtask` gathers them.
    licences: PathBuf,
    /// The user's home directory; one that is `/` is no home.
    home: Option<PathBuf>,
}

impl Places {
    fn find(repository: &Path) -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| repository.join("target"), PathBuf::from);
        // Without Debian's source package they have no names, and so are not built.
        let kernels = Command::new(repository.join("guest/kernel/build"))
            .args(["--path", "x86_64", "aarch64"])
            .output()
            .ok()
            .filter(|output| output.status.success())
            .and_then(|output| String::from_utf8(output.stdout).ok())
            .unwrap_or_default();
        Self {
            repository: repository.to_path_buf(),
            programs: target.join("release"),
            guest: target.join("guest"),
            licences: repository.join("target/licences"),
            kernels: kernels.lines().map(PathBuf::from).collect(),
            home: std::env::var_os("HOME")
                .map(PathBuf::from)
                .filter(|home| home.parent().is_some()),
        }
    }
}

/// Reads one line: `MODE SOURCE DESTINATION [optional|system]`, MODE in octal
/// or the word `link`; SOURCE starts with the place it is relative to. `None`
/// if it has no place under this prefix.
fn parse(line: &str, prefix: &str, places: &Places) -> Result<Option<Entry>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (mode, source, destination, kind) = match fields[..] {
        [mode, source, destination] => (mode, source, destination, ""),
        [mode, source, destination, kind @ ("optional" | "system")] => {
            (mode, source, destination, kind)
        }
        _ => bail!("expected MODE SOURCE DESTINATION [optional|system]"),
    };
    let (optional, system) = (kind == "optional", kind == "system");
    let in_home = places
        .home
        .as_ref()
        .is_some_and(|home| Path::new(prefix).starts_with(home));
    if in_home && system {
        return Ok(None);
    }
    // User units of a home are found in share, not in lib (systemd.unit(5)).
    let destination = match destination.strip_prefix("lib/systemd/user/") {
        Some(unit) if in_home => format!("share/systemd/user/{unit}"),
        _ => destination.to_owned(),
    };
    let destination = format!("{}/{destination}", prefix.trim_end_matches('/'));
    if mode == "link" {
        let content = Content::Link(source.to_owned());
        return Ok(Some(Entry {
            destination,
            mode: 0o777,
            optional,
            system,
            content,
        }));
    }
    let mode = u32::from_str_radix(mode, 8).context("the mode is not octal")?;
    let (place, rest) = source.split_once('/').unwrap_or((source, ""));
    let content = match place {
        "@programs" => Content::File(places.programs.join(rest)),
        "@guest" => Content::File(places.guest.join(rest)),
        "@kernel" => {
            let mut kernels = places.kernels.iter();
            let built = kernels.find(|kernel| kernel.ends_with(rest)).cloned();
            Content::File(built.unwrap_or_else(|| places.guest.join("no-kernel").join(rest)))
        }
        "@licences" => Content::File(places.licences.join(rest)),
        _ => {
            let path = places.repository.join(source);
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            Content::Text(text.replace("@PREFIX@", prefix.trim_end_matches('/')))
        }
    };
    Ok(Some(Entry {
        destination,
        mode,
        optional,
        system,
        content,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_lists_are_well_formed_and_have_no_path_twice() {
        let plan = Plan::read("/usr/local/").unwrap();
        let kit = Plan::of(Package::AgentKit, "/usr/local/").unwrap();
        let foreign = Plan::of(Package::ForeignGuest, "/usr/local/").unwrap();
        let mut paths: Vec<_> = plan
            .entries
            .iter()
            .chain(&kit.entries)
            .chain(&foreign.entries)
            .map(|entry| &entry.destination)
            .collect();
        assert!(paths.iter().all(|path| path.starts_with("/usr/local/")));
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }

    #[test]
    fn an_installation_in_a_home_is_for_its_user_manager_alone() {
        let home = std::env::var("HOME").unwrap();
        let prefix = format!("{home}/.local");
        let plan = Plan::read(&prefix).unwrap();
        let has = |path: &str| {
            plan.entries
                .iter()
                .any(|entry| entry.destination == prefix.clone() + path)
        };
        assert!(has("/share/systemd/user/aegisd.service"));
        assert!(has("/share/dbus-1/services/org.aegisvm.Aegis1.service"));
        assert!(
            !plan
                .entries
                .iter()
                .any(|entry| entry.destination.contains("system-services"))
        );
    }

    #[test]
    fn uninstalling_removes_what_was_installed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let list = || {
            let found = Command::new("find").arg(root.path()).output();
            let text = String::from_utf8(found.unwrap().stdout).unwrap();
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        for path in ["usr/bin/other", "usr/share/man/man1/other.1"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let before = list();
        let mut plan = Plan::read("/usr").unwrap();
        plan.entries.retain(Entry::is_built);
        plan.install(root.path()).unwrap();
        assert!(root.path().join("usr/bin/aegis").is_symlink());
        plan.uninstall(root.path(), "/usr").unwrap();
        assert_eq!(list(), before);
        plan.uninstall(root.path(), "/usr").unwrap();
    }

    #[test]
    fn the_prefix_is_filled_into_every_text() {
        for entry in Plan::read("/opt/aegis").unwrap().entries {
            if let Content::Text(text) = entry.content {
                assert!(!text.contains("@PREFIX@"), "{}", entry.destination);
            }
        }
    }
}
