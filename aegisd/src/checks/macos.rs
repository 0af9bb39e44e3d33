//! What is other on macOS: Hypervisor.framework in place of KVM, no virtiofsd, no passt.

use aegis_bus::manager::CheckRow;
use aegis_bus::manager::CheckStatus::{Ok as Good, Warn};

use super::row;
use crate::effects;

/// sysctl(8), where macOS has it.
const SYSCTL: &str = "/usr/sbin/sysctl";

/// Whether the machine can run guests by itself.
pub(super) async fn hvf() -> CheckRow {
    let mut command = std::process::Command::new(SYSCTL);
    command.args(["-n", "kern.hv_support"]);
    let said = effects::run(command).await;
    of_support(said.ok().map(|output| output.stdout).as_deref())
}

/// What the answer of `sysctl -n kern.hv_support` means.
fn of_support(said: Option<&[u8]>) -> CheckRow {
    match said.map(<[u8]>::trim_ascii) {
        Some(b"1") => row("hvf", Good, "guests run by Hypervisor.framework", ""),
        Some(b"0") => row(
            "hvf",
            Warn,
            "this machine has no Hypervisor.framework; guests run slowly, by translation",
            "in a virtual machine, enable nested virtualisation in its host",
        ),
        _ => row(
            "hvf",
            Warn,
            "it cannot be told whether there is Hypervisor.framework",
            "sysctl kern.hv_support shows it",
        ),
    }
}

pub(super) fn workspaces() -> CheckRow {
    let words = "shared by 9p; one workspace or volume for each instance";
    row("workspaces", Good, words, "")
}

pub(super) fn network() -> CheckRow {
    let words = "guests have no network of their own: there is no passt for macOS; ports work";
    row("network", Warn, words, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_sysctl_is_understood() {
        let status = |said: Option<&[u8]>| of_support(said).status;
        assert_eq!(status(Some(b"1\n")), "ok");
        assert_eq!(status(Some(b"0\n")), "warn");
        assert_eq!(status(Some(b"")), "warn");
        assert_eq!(status(None), "warn");
    }
}
