//! The Debian trees that machines boot from.
//!
//! A root is made by mmdebstrap from the files under `tests/roots/` and cached
//! under the hash of exactly these files and the arguments: change one and it
//! is another root. It is built beside its final place and renamed into it, so
//! a cached root is always whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Systemd;
use crate::cache;

/// What Debian packages leave out of a root: nobody reads it there, and it is
/// a third of the files.
const EXCLUDED: [&str; 3] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
];

/// One kind of root, before it is known whether the cache has it.
#[derive(Debug)]
pub struct Root {
    systemd: Systemd,
    definition: PathBuf,
    suite: &'static str,
    packages: String,
    path: PathBuf,
    log: PathBuf,
}

impl Root {
    /// Reads the definition of the root with this systemd.
    ///
    /// # Errors
    /// A file of the definition cannot be read.
    pub fn of(systemd: Systemd) -> Result<Self> {
        Self::with_packages(systemd, &[])
    }

    /// The same with more Debian packages.
    ///
    /// # Errors
    /// A file of the definition cannot be read.
    pub fn with_packages(systemd: Systemd, more: &[&str]) -> Result<Self> {
        let roots = cache::repository().join("tests/roots");
        let definition = roots.join(systemd.number());
        let suite = match systemd {
            Systemd::V257 => "trixie",
            Systemd::V252 => "bookworm",
        };
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let lists = [
            read(&roots.join("packages"))?,
            read(&definition.join("packages"))?,
        ];
        let packages = lists
            .iter()
            .flat_map(|list| list.lines())
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .chain(more.iter().copied())
            .collect::<Vec<_>>()
            .join(",");
        let mut content = format!("{suite}\n{packages}\n{}\n", EXCLUDED.join(" "));
        content += &read(&roots.join("customize"))?;
        content += &read(&definition.join("sources.list"))?;
        content += &fs::read_to_string(definition.join("preferences")).unwrap_or_default();
        let directory = cache::directory()?.join("roots");
        let path = directory.join(format!("{suite}-{}", cache::key(content.as_bytes())?));
        let log = directory.join(format!("{suite}.log"));
        Ok(Self {
            systemd,
            definition,
            suite,
            packages,
            path,
            log,
        })
    }

    /// The systemd in it.
    #[must_use]
    pub fn systemd(&self) -> Systemd {
        self.systemd
    }

    /// Where the root is once it is built.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where mmdebstrap reports while it builds.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether the cache has it.
    #[must_use]
    pub fn is_built(&self) -> bool {
        self.path.exists()
    }

    /// Builds the root unless the cache has it. Several callers may build at
    /// once: one does, the others wait for it.
    ///
    /// # Errors
    /// mmdebstrap is missing or fails; the text then ends with its last lines.
    pub fn build(&self) -> Result<()> {
        if self.is_built() {
            return Ok(());
        }
        let directory = self.path.parent().context("a root's path has a parent")?;
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let lock_path = directory.join(format!("{}.lock", self.suite));
        let lock = fs::File::create(&lock_path)
            .with_context(|| format!("opening {}", lock_path.display()))?;
        lock.lock()
            .with_context(|| format!("locking {}", lock_path.display()))?;
        if self.is_built() {
            return Ok(());
        }
        let unfinished = directory.join(format!("{}.unfinished", self.suite));
        remove_tree(&unfinished)?;
        self.run_mmdebstrap(&unfinished)?;
        fs::rename(&unfinished, &self.path)
            .with_context(|| format!("renaming {} into place", unfinished.display()))
    }

    fn run_mmdebstrap(&self, target: &Path) -> Result<()> {
        let log = fs::File::create(&self.log)
            .with_context(|| format!("creating {}", self.log.display()))?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--mode=root", "--variant=minbase"]);
        command.arg(format!("--include={}", self.packages));
        command.args(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")));
        let preferences = self.definition.join("preferences");
        if preferences.exists() {
            command.arg(format!(
                "--setup-hook=install -D -m 644 '{}' \"$1/etc/apt/preferences.d/aegisvm\"",
                preferences.display()
            ));
        }
        let customize = cache::repository().join("tests/roots/customize");
        command.arg(format!("--customize-hook={}", customize.display()));
        command
            .arg(self.suite)
            .arg(target)
            .arg(self.definition.join("sources.list"));
        let status = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log of mmdebstrap")?)
            .stderr(log)
            .status()
            .context("running mmdebstrap (apt-get install mmdebstrap)")?;
        if !status.success() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(15)..];
            bail!(
                "mmdebstrap could not make the {} root ({status}); the whole log is {}\n{}",
                self.suite,
                self.log.display(),
                tail.join("\n")
            );
        }
        Ok(())
    }
}

/// Removes a tree that may not exist.
///
/// # Errors
/// Something of it cannot be removed.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
