//! Whether guests can boot: QEMU, kernel and files of the host's own platform, which
//! must be there, and of others, which need not.

use std::path::Path;

use aegis_bus::manager::CheckRow;
use aegis_bus::manager::CheckStatus::{Fail, Ok as Good, Warn};
use aegis_core::platform::Platform;

use super::{dotted, find, row, version};
use crate::host::Host;

/// The oldest QEMU that is tested: Debian 12's.
const OLDEST_QEMU: [u32; 2] = [7, 2];

/// QEMU for guests of the host's own platform.
pub(super) async fn qemu(host: &Host) -> CheckRow {
    match usable_qemu(host, Platform::HOST).await {
        Ok(words) => row("qemu", Good, words, ""),
        Err((words, hint)) => row("qemu", Fail, words, &hint),
    }
}

/// The QEMU of a platform in words.
///
/// # Errors
/// What is wrong with it, and what to do.
async fn usable_qemu(host: &Host, platform: Platform) -> Result<String, (String, String)> {
    let name = platform.qemu();
    let [package, _] = platform.qemu_packages();
    let install = format!("install it: apt install {package}, or the like");
    let Some(path) = find(name, &host.program_dirs) else {
        return Err((format!("{name} is not installed"), install));
    };
    match version(&path, "QEMU emulator version ").await {
        Some(version) if version >= OLDEST_QEMU => {
            Ok(format!("QEMU {} ({})", dotted(version), path.display()))
        }
        Some(version) => Err((
            format!(
                "QEMU {} is too old, {} is needed",
                dotted(version),
                dotted(OLDEST_QEMU)
            ),
            "install a newer QEMU, on Debian 11 from the backports".to_owned(),
        )),
        None => Err((
            format!("{} does not tell its version", path.display()),
            install,
        )),
    }
}

/// The kernel of guests of the host's own platform.
pub(super) fn kernel(host: &Host) -> CheckRow {
    if host.guest_dir.join(Platform::HOST.kernel()).is_file() {
        return row(
            "kernel",
            Good,
            "the project's own guest kernel is installed",
            "",
        );
    }
    let fallback = host.guest_dir.join("fallback/vmlinuz");
    if fallback.is_file() {
        return row(
            "kernel",
            Warn,
            "a distribution's kernel serves as the guest kernel and boots much slower",
            "build and install the project's own: make kernel && make install",
        );
    }
    let summary = format!("there is no guest kernel in {}", host.guest_dir.display());
    row("kernel", Fail, summary, "make kernel && make install")
}

/// What else those guests boot from.
pub(super) fn files(host: &Host) -> CheckRow {
    let missing = missing(&host.guest_dir, ["initramfs", "base.squashfs"]);
    if missing.is_empty() {
        let summary = format!("the guest's files are in {}", host.guest_dir.display());
        return row("guest-files", Good, summary, "");
    }
    let missing = missing.join(" and ");
    let summary = format!("missing in {}: {missing}", host.guest_dir.display());
    row(
        "guest-files",
        Fail,
        summary,
        "install the package again, or: make install",
    )
}

/// The same of other platforms, where somebody put files for their guests.
pub(super) async fn others(host: &Host) -> Vec<CheckRow> {
    let mut rows = Vec::new();
    for platform in Platform::ALL {
        let folder = platform.guest_dir(&host.guest_dir);
        if !platform.is_host() && folder.is_dir() {
            rows.push(other_qemu(host, platform).await);
            rows.push(other_files(platform, &folder));
        }
    }
    rows
}

async fn other_qemu(host: &Host, platform: Platform) -> CheckRow {
    let id = format!("qemu-{}", platform.architecture());
    match usable_qemu(host, platform).await {
        Ok(words) => {
            let summary = format!("guests of {platform} are translated by {words}");
            row(&id, Good, summary, "")
        }
        Err((words, hint)) => {
            let summary = format!("guests of {platform} do not start: {words}");
            row(&id, Warn, summary, &hint)
        }
    }
}

fn other_files(platform: Platform, folder: &Path) -> CheckRow {
    let id = format!("guest-files-{}", platform.architecture());
    let missing = missing(folder, [platform.kernel(), "initramfs", "base.squashfs"]);
    if missing.is_empty() {
        let summary = format!(
            "the files of guests of {platform} are in {}",
            folder.display()
        );
        return row(&id, Good, summary, "");
    }
    let summary = format!(
        "guests of {platform} do not start: missing in {}: {}",
        folder.display(),
        missing.join(" and ")
    );
    row(
        &id,
        Warn,
        summary,
        "build and install them: make kernel guest install",
    )
}

fn missing<const N: usize>(folder: &Path, wanted: [&'static str; N]) -> Vec<&'static str> {
    let wanted = wanted.into_iter();
    wanted.filter(|name| !folder.join(name).is_file()).collect()
}
