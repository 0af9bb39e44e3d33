//! What confines a unit's processes (systemd.exec(5), "Sandboxing").
//!
//! In a user manager a unit that reaches the user's bus, or the manager's own
//! socket, is not confined at all: it asks for another unit without confinement.
//! So `/run` and every home are empty but for what a unit is given by name, and
//! the same set serves the system manager. `PrivateUsers=` is sent although newer
//! managers imply it: systemd 252 silently ignores the rest without it.

use std::path::{Path, PathBuf};

use aegis_core::layout::Mode;

use super::manager::Property;
use crate::supervisor::plan::{Reach, is_plain_path};

/// What a confined unit is for; it decides what the unit may ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// aegis-vmm, which confines QEMU and virtiofsd further in namespaces of their
    /// own. It may make namespaces and mount in them, and nothing lies over its
    /// `/proc`: the kernel refuses a fresh proc mount below one that is covered.
    Vm,
    /// An instance daemon: somebody else's program, which needs none of that.
    Daemon,
}

/// The places of this host that the sandbox is about.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) mode: Mode,
    /// Trees hidden beside `/home`, `/root` and `/run`.
    pub(super) hidden: Vec<PathBuf>,
    /// The manager's notification socket (sd_notify(3)).
    pub(super) notify: PathBuf,
    /// The folder below `/run` in which `/etc/resolv.conf` really lies.
    pub(super) resolver: Option<PathBuf>,
}

/// Trees that `ProtectHome=tmpfs` and the empty `/run` hide already.
const ALWAYS_HIDDEN: [&str; 3] = ["/home", "/root", "/run"];

/// `MS_REC` of mount(2): bind a folder with what is mounted in it.
const RECURSIVE: u64 = 16384;

/// System calls of an ordinary service, and those by which a program confines
/// itself further; 252 has no `@sandbox` set for the latter.
const SERVICE_CALLS: [&str; 5] = [
    "@system-service",
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
];

/// Unix for the journal and readiness, INET for the ports, NETLINK since libc
/// reads the host's addresses through it.
const FAMILIES: [&str; 4] = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"];
/// What is left of them without network.
const LOCAL_FAMILIES: [&str; 1] = ["AF_UNIX"];

impl Places {
    /// The places of a mode, for a user with this home directory.
    pub(super) fn new(mode: Mode, uid: u32, hidden: Vec<PathBuf>) -> Self {
        let runtime = match mode {
            Mode::User => format!("/run/user/{uid}"),
            Mode::System => "/run".to_owned(),
        };
        let resolver = std::fs::canonicalize("/etc/resolv.conf")
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned))
            .filter(|folder| folder.starts_with("/run") && folder != Path::new("/run"));
        let notify = Path::new(&runtime).join("systemd/notify");
        let hidden = hidden.into_iter().map(carried).collect();
        Self {
            mode,
            hidden: outermost(hidden),
            notify,
            resolver,
        }
    }

    /// Whether a confined unit does not see this path unless it is bound back.
    fn hides(&self, path: &Path) -> bool {
        let always = ALWAYS_HIDDEN.iter().map(Path::new);
        always
            .chain(self.hidden.iter().map(PathBuf::as_path))
            .any(|tree| path.starts_with(tree))
    }

    /// The properties that confine a unit to `reach`, with `programs` runnable.
    /// `has_second_command`: the unit has commands beside `ExecStart=`.
    pub(super) fn confine(
        &self,
        profile: Profile,
        reach: &Reach,
        programs: &[&Path],
        has_second_command: bool,
    ) -> Vec<Property> {
        let emptied: Vec<(String, &str)> = self
            .emptied()
            .map(|path| (path.display().to_string(), "ro,mode=0755"))
            .collect();
        let families = match reach.no_network {
            true => LOCAL_FAMILIES.to_vec(),
            false => FAMILIES.to_vec(),
        };
        let mut properties: Vec<Property> = vec![
            ("PrivateUsers", true.into()),
            ("ProtectSystem", "strict".into()),
            ("ProtectHome", "tmpfs".into()),
            ("PrivateTmp", true.into()),
            ("PrivateDevices", true.into()),
            ("ProtectControlGroups", true.into()),
            ("CapabilityBoundingSet", 0u64.into()),
            ("RestrictSUIDSGID", true.into()),
            ("RestrictRealtime", true.into()),
            ("LockPersonality", true.into()),
            ("KeyringMode", "private".into()),
            ("SystemCallArchitectures", vec!["native"].into()),
            ("SystemCallErrorNumber", EPERM.into()),
            ("RestrictAddressFamilies", (true, families).into()),
            ("TemporaryFileSystem", emptied.into()),
        ];
        let mut writable = binds(&reach.writable, false);
        writable.extend(binds(&reach.writable_if_there, true));
        let mut readable = binds(&reach.read_only, true);
        writable.push(bind(&self.notify, true));
        readable.push(bind(Path::new("/run/systemd/journal"), true));
        readable.extend(self.resolver.iter().map(|folder| bind(folder, true)));
        for program in programs.iter().filter(|program| self.hides(program)) {
            // Its folder, since programs of ours find each other beside themselves.
            readable.push(bind(program.parent().unwrap_or(program), true));
        }
        let mut calls = SERVICE_CALLS.to_vec();
        match profile {
            Profile::Vm => {
                calls.push("@mount");
                writable.push(bind(Path::new("/dev/kvm"), true));
                if self.mode == Mode::System {
                    // PrivateDevices= closes all other devices to the cgroup there.
                    properties.push(("DeviceAllow", vec![("/dev/kvm", "rw")].into()));
                }
            }
            Profile::Daemon => {
                if !has_second_command {
                    // systemd 252 cannot let a second command of the unit into the
                    // namespace that the first one's user namespace owns.
                    properties.push(("PrivateIPC", true.into()));
                    if reach.no_network {
                        properties.push(("PrivateNetwork", true.into()));
                    }
                }
                properties.extend([
                    ("ProtectProc", "invisible".into()),
                    ("ProtectKernelTunables", true.into()),
                    ("ProtectKernelModules", true.into()),
                    ("ProtectKernelLogs", true.into()),
                    ("ProtectClock", true.into()),
                    ("ProtectHostname", true.into()),
                    ("RestrictNamespaces", CLONE_NEWUTS.into()),
                ]);
            }
        }
        properties.push(("SystemCallFilter", (true, calls).into()));
        properties.push(("BindPaths", writable.into()));
        properties.push(("BindReadOnlyPaths", readable.into()));
        properties
    }

    /// Trees that are shown empty.
    pub(super) fn emptied(&self) -> impl Iterator<Item = &Path> {
        let always = |path: &Path| ALWAYS_HIDDEN.iter().any(|tree| path.starts_with(tree));
        let extra = self.hidden.iter().map(PathBuf::as_path);
        std::iter::once(Path::new("/run")).chain(extra.filter(move |path| !always(path)))
    }
}

/// The one kind of namespace a daemon may make (unshare(2)). It takes a privilege
/// that only the forbidden user namespaces could give, so this means none; but
/// none at all is written down as an empty setting, which a reload of the manager
/// reads as no restriction.
const CLONE_NEWUTS: u64 = 0x0400_0000;

/// `EPERM` of errno(3): a filtered system call fails instead of killing, since
/// many programs try a newer call and fall back.
const EPERM: i32 = 1;

type Bind = (String, String, bool, u64);

fn bind(path: &Path, may_be_absent: bool) -> Bind {
    let path = path.display().to_string();
    (path.clone(), path, may_be_absent, RECURSIVE)
}

fn binds(paths: &[PathBuf], may_be_absent: bool) -> Vec<Bind> {
    paths.iter().map(|path| bind(path, may_be_absent)).collect()
}

/// A tree to hide as a unit can carry it: the whole folder around one that has no
/// plain name. Where that is everything the unit is refused with the name itself.
fn carried(path: PathBuf) -> PathBuf {
    match path.ancestors().find(|path| is_plain_path(path)) {
        Some(around) if around != Path::new("/") => around.to_owned(),
        _ => path,
    }
}

/// Leaves out what lies below another of the paths.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| {
        !all.iter()
            .any(|other| other != path && path.starts_with(other))
    });
    paths
}

/// Why this host cannot confine units of a mode; `None` where it can.
pub(super) fn obstacle(mode: Mode) -> Option<&'static str> {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    if number("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Some("user namespaces are switched off (sysctl user.max_user_namespaces is 0)");
    }
    if mode == Mode::System {
        return None;
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Some(
            "ordinary users may not make user namespaces (sysctl kernel.unprivileged_userns_clone is 0)",
        );
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Some(
            "AppArmor keeps ordinary users from user namespaces \
             (sysctl kernel.apparmor_restrict_unprivileged_userns is 1)",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    fn places(hidden: &[&str]) -> Places {
        Places::new(Mode::User, 1000, hidden.iter().map(PathBuf::from).collect())
    }

    fn value<'a>(properties: &'a [Property], name: &str) -> Option<&'a Variant<'static>> {
        properties
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn a_daemon_can_make_no_namespaces_and_a_vm_can_mount() {
        let reach = Reach::default();
        let daemon = places(&[]).confine(Profile::Daemon, &reach, &[], false);
        let vm = places(&[]).confine(Profile::Vm, &reach, &[], false);
        assert!(value(&daemon, "RestrictNamespaces").is_some());
        assert!(value(&vm, "RestrictNamespaces").is_none());
        assert!(
            value(&vm, "ProtectKernelTunables").is_none(),
            "covers parts of /proc"
        );
        for properties in [&daemon, &vm] {
            assert_eq!(value(properties, "PrivateUsers"), Some(&true.into()));
        }
    }

    #[test]
    fn a_daemon_without_network_can_make_no_socket_of_it() {
        let reach = Reach {
            no_network: true,
            ..Reach::default()
        };
        let properties = places(&[]).confine(Profile::Daemon, &reach, &[], false);
        assert!(value(&properties, "PrivateNetwork").is_some());
        let local: Variant<'static> = (true, vec!["AF_UNIX"]).into();
        assert_eq!(value(&properties, "RestrictAddressFamilies"), Some(&local));
        let old = places(&[]).confine(Profile::Daemon, &reach, &[], true);
        assert!(value(&old, "PrivateNetwork").is_none());
        assert_eq!(value(&old, "RestrictAddressFamilies"), Some(&local));
    }

    #[test]
    fn homes_outside_the_usual_places_are_hidden_too() {
        let emptied = |hidden: &[&str]| -> Vec<PathBuf> {
            places(hidden).emptied().map(Path::to_owned).collect()
        };
        let paths = emptied(&["/data/alice", "/data/alice/.aegis", "/home/bob"]);
        assert_eq!(paths, [Path::new("/run"), Path::new("/data/alice")]);
        let paths = emptied(&["/data/my user/.aegis", "/home/my user"]);
        assert_eq!(paths, [Path::new("/run"), Path::new("/data")]);
    }

    #[test]
    fn only_hidden_programs_are_bound() {
        let places = places(&[]);
        assert!(places.hides(Path::new("/home/alice/.local/libexec/aegisvm/aegis-shim")));
        assert!(!places.hides(Path::new("/usr/libexec/aegisvm/aegis-shim")));
        assert!(!places.hides(Path::new("/homestead/x")));
    }
}
