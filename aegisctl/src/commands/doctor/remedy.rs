//! What can be done about a check that did not pass. Pure: the host is an argument.

use aegis_bus::manager::{CheckRow, CheckStatus};
use aegis_core::layout::Mode;
use aegis_core::units;

/// Who has to run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runner {
    Anybody,
    /// Its user may, on most hosts; root may on all.
    AnybodyOrRoot,
    Root,
}

/// What repairs a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remedy {
    pub(super) command: Vec<String>,
    pub(super) runner: Runner,
    /// What is left to the user; or empty.
    pub(super) afterwards: &'static str,
}

/// What remedies depend on.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) mode: Mode,
    /// The name of who asks.
    pub(super) user: String,
    pub(super) family: Option<Family>,
    /// The group of `/dev/kvm`, where that is there.
    pub(super) kvm_group: Option<String>,
}

/// Distributions with the same packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Debian,
    Fedora,
    Suse,
    Arch,
}

impl Family {
    /// The family that os-release(5) names, in `ID` or `ID_LIKE`.
    pub(super) fn of(os_release: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default()
                .trim_matches(['"', '\''])
                .to_owned()
        };
        let words = format!("{} {}", value("ID="), value("ID_LIKE="));
        words.split_whitespace().find_map(|word| match word {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::Fedora),
            "suse" | "opensuse" | "opensuse-tumbleweed" | "opensuse-leap" => Some(Self::Suse),
            "arch" | "archlinux" => Some(Self::Arch),
            _ => None,
        })
    }

    fn install(self, package: &str) -> Vec<String> {
        let command = match self {
            Self::Debian => "apt-get install --yes",
            Self::Fedora => "dnf install --assumeyes",
            Self::Suse => "zypper --non-interactive install",
            Self::Arch => "pacman --sync --needed --noconfirm",
        };
        words(&format!("{command} {package}"))
    }

    /// The package that a check misses.
    fn package(self, check: &str) -> Option<&'static str> {
        Some(match (check, self) {
            ("qemu", Self::Debian) => "qemu-system-x86",
            ("qemu", Self::Fedora) => "qemu-system-x86-core",
            ("qemu", Self::Suse) => "qemu-x86",
            ("qemu", Self::Arch) => "qemu-base",
            ("qemu-arm64", Self::Debian) => "qemu-system-arm",
            ("qemu-arm64", Self::Fedora) => "qemu-system-aarch64-core",
            ("qemu-arm64", Self::Suse) => "qemu-arm",
            ("qemu-arm64", Self::Arch) => "qemu-system-aarch64",
            ("images", Self::Suse) => "squashfs",
            ("images", _) => "squashfs-tools",
            ("disks", _) => "e2fsprogs",
            ("network", _) => "passt",
            ("workspaces", _) => "virtiofsd",
            ("certificates", _) => "ca-certificates",
            _ => return None,
        })
    }
}

/// What repairs this check; `None` if nothing is wrong, or only people can.
pub(super) fn remedy(row: &CheckRow, host: &Host) -> Option<Remedy> {
    if row.status == CheckStatus::Ok.as_str() {
        return None;
    }
    let scope = match host.mode {
        Mode::User => "--user",
        Mode::System => "--system",
    };
    let managers = match host.mode {
        Mode::User => Runner::Anybody,
        Mode::System => Runner::Root,
    };
    let of = |command: String, runner| Remedy {
        command: words(&command),
        runner,
        afterwards: "",
    };
    Some(match row.id.as_str() {
        "unit-files" => of(format!("systemctl {scope} daemon-reload"), managers),
        "aegisd" | "version" => of(
            format!("systemctl {scope} restart {}", units::AEGISD),
            managers,
        ),
        "lingering" if host.mode == Mode::User => of(
            format!("loginctl enable-linger {}", host.user),
            Runner::AnybodyOrRoot,
        ),
        "kvm" if host.mode == Mode::User => Remedy {
            afterwards: "log in again: only then your programs are in the group",
            ..of(
                format!(
                    "usermod --append --groups {} {}",
                    host.kvm_group.as_ref()?,
                    host.user
                ),
                Runner::Root,
            )
        },
        check => Remedy {
            command: host.family?.install(host.family?.package(check)?),
            runner: Runner::Root,
            afterwards: "",
        },
    })
}

/// Words of a command of ours, none of which has spaces.
fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mode: Mode, family: Option<Family>) -> Host {
        Host {
            mode,
            user: "alice".to_owned(),
            family,
            kvm_group: Some("kvm".to_owned()),
        }
    }

    fn command(check: &str, host: &Host) -> Option<(String, Runner)> {
        let row = CheckRow::new(check, CheckStatus::Warn, "", "");
        remedy(&row, host).map(|remedy| (remedy.command.join(" "), remedy.runner))
    }

    #[test]
    fn what_a_package_brings_is_installed_as_the_distribution_does() {
        let cases = [
            (Family::Debian, "network", "apt-get install --yes passt"),
            (
                Family::Fedora,
                "qemu",
                "dnf install --assumeyes qemu-system-x86-core",
            ),
            (
                Family::Suse,
                "images",
                "zypper --non-interactive install squashfs",
            ),
            (
                Family::Arch,
                "disks",
                "pacman --sync --needed --noconfirm e2fsprogs",
            ),
        ];
        for (family, check, wanted) in cases {
            let told = command(check, &host(Mode::User, Some(family)));
            assert_eq!(told, Some((wanted.to_owned(), Runner::Root)));
        }
        assert_eq!(command("network", &host(Mode::User, None)), None);
        assert_eq!(command("disk", &host(Mode::User, Some(Family::Arch))), None);
        let good = CheckRow::new("network", CheckStatus::Ok, "", "");
        assert_eq!(remedy(&good, &host(Mode::User, Some(Family::Arch))), None);
    }

    #[test]
    fn what_is_the_users_own_needs_no_root() {
        let (user, system) = (host(Mode::User, None), host(Mode::System, None));
        let reload = "systemctl --user daemon-reload".to_owned();
        assert_eq!(
            command("unit-files", &user),
            Some((reload, Runner::Anybody))
        );
        let restart = "systemctl --system restart aegisd.service".to_owned();
        assert_eq!(command("version", &system), Some((restart, Runner::Root)));
        let linger = "loginctl enable-linger alice".to_owned();
        assert_eq!(
            command("lingering", &user),
            Some((linger, Runner::AnybodyOrRoot))
        );
        let join = "usermod --append --groups kvm alice".to_owned();
        assert_eq!(command("kvm", &user), Some((join, Runner::Root)));
        let without = Host {
            kvm_group: None,
            ..user
        };
        assert_eq!(command("kvm", &without), None, "there is no KVM to join");
        assert_eq!(command("kvm", &system), None);
    }

    #[test]
    fn families_are_told_by_os_release() {
        let of = Family::of;
        assert_eq!(of("NAME=x\nID=debian\n"), Some(Family::Debian));
        assert_eq!(
            of("ID=linuxmint\nID_LIKE=\"ubuntu debian\""),
            Some(Family::Debian)
        );
        assert_eq!(
            of("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\""),
            Some(Family::Suse)
        );
        assert_eq!(
            of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\""),
            Some(Family::Fedora)
        );
        assert_eq!(of("ID=arch"), Some(Family::Arch));
        assert_eq!(of("VERSION_ID=debian\nID=nixos"), None);
    }
}
