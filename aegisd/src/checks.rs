//! What `doctor` asks: whether the host can do what is needed.
//!
//! Each check looks at the real thing, changes nothing and ends soon. What it
//! says is for people; its id is for programs and does not change.

mod guests;
mod macos;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aegis_bus::manager::CheckStatus::{Fail, Ok as Good, Warn};
use aegis_bus::manager::{CheckRow, CheckStatus};
use aegis_core::fault::chain;
use aegis_core::layout::Mode;
use aegis_core::tools::{MKE2FS, PASST, SQFSTAR, Tool};

use crate::effects;
use crate::engine::Engine;
use crate::host::Host;
use crate::secrets::status::KeyState;
use crate::supervisor::state::Facts;
use crate::supervisor::{Capabilities, SupervisorError};

/// The oldest virtiofsd that can map every guest user to this one.
const OLDEST_VIRTIOFSD: [u32; 2] = [1, 13];
/// Where packages put virtiofsd, which is seldom in the PATH.
const VIRTIOFSD_DIRS: [&str; 4] = [
    "/usr/libexec",
    "/usr/lib",
    "/usr/lib/qemu",
    "/usr/local/libexec",
];
/// Where distributions keep the certificates they trust.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// How long a program may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(5);
/// Free bytes below which the next large write is likely to fail.
const LITTLE_SPACE: u64 = 1 << 30;
/// Free bytes below which nothing can be relied on.
const NO_SPACE: u64 = 64 << 20;

/// What to do where nothing seals the key of secrets.
const UNSEALED_HINT: &str = "systemd 256 or newer seals it, for the system mode 250; \
     until then backups should hold the key's file or the registry, not both";
/// What to do where the key of secrets does not open.
const SHUT_HINT: &str = "put back what it was sealed with, or set the secrets again: \
     aegisctl secret list";

/// Every check, in the order people read them.
pub async fn check(engine: &Engine) -> Vec<CheckRow> {
    let shared = engine.shared();
    // Lingering can be switched at any time.
    let facts = shared
        .supervisor
        .facts()
        .await
        .unwrap_or_else(|_| shared.facts.clone());
    if let Some(lingering) = facts.lingering {
        engine.board().change(|shown| shown.lingering = lingering);
    }
    let mut rows = vec![row("service-manager", Good, facts.name.clone(), "")];
    rows.extend(lingering(&facts));
    let obstacle = shared.supervisor.confinement_obstacle().await;
    rows.push(match obstacle {
        Ok(Some(obstacle)) if !facts.capabilities.confinement => row("sandbox", Warn, obstacle, ""),
        obstacle => confinement(obstacle),
    });
    rows.extend(shortcomings(facts.capabilities));
    rows.push(programs(&shared.host));
    rows.push(guests::qemu(&shared.host).await);
    let is_mac = cfg!(target_os = "macos");
    rows.push(if is_mac { macos::hvf().await } else { kvm() });
    rows.push(guests::kernel(&shared.host));
    rows.push(guests::files(&shared.host));
    rows.extend(guests::others(&shared.host).await);
    rows.extend(match is_mac {
        true => [macos::workspaces(), macos::network()],
        false => [virtiofsd(&shared.host).await, network()],
    });
    rows.push(tool("images", SQFSTAR, "layers of images are made by"));
    rows.push(tool("disks", MKE2FS, "disks of instances are made by"));
    rows.push(certificates());
    rows.push(space(&shared.host));
    rows.push(registry(engine));
    rows.push(secrets(engine).await);
    rows
}

fn row(id: &str, status: CheckStatus, summary: impl Into<String>, hint: &str) -> CheckRow {
    CheckRow::new(id, status, summary, hint)
}

fn lingering(facts: &Facts) -> Option<CheckRow> {
    if facts.mode == Mode::System {
        return None;
    }
    if !facts.capabilities.outlives_logout {
        let words = "this service manager ends all instances at logout";
        return Some(row("lingering", Warn, words, ""));
    }
    Some(match facts.lingering {
        Some(true) => row("lingering", Good, "instances go on after logout", ""),
        Some(false) => row(
            "lingering",
            Warn,
            "without lingering all instances end at logout",
            "loginctl enable-linger",
        ),
        None => row(
            "lingering",
            Warn,
            "cannot tell whether lingering is enabled",
            "",
        ),
    })
}

/// What else the service manager cannot do.
fn shortcomings(capabilities: Capabilities) -> Vec<CheckRow> {
    let mut rows = Vec::new();
    if !capabilities.credentials {
        let words = "this service manager gives units no secrets: in user mode they fetch \
             theirs from aegisd, and wait for it; in system mode an instance that has some \
             does not start";
        rows.push(row("unit-secrets", Warn, words, ""));
    }
    if !capabilities.journal {
        let words = "this service manager keeps no journal: what daemons last wrote is in the \
             folder 'log' of their instance";
        rows.push(row("journal", Warn, words, ""));
    }
    rows
}

fn confinement(obstacle: Result<Option<String>, SupervisorError>) -> CheckRow {
    match obstacle {
        Ok(None) => row("sandbox", Good, "units can be confined: tried", ""),
        Err(error) => row(
            "sandbox",
            Fail,
            format!("it could not be tried: {}", chain(&error)),
            "",
        ),
        Ok(Some(obstacle)) => row(
            "sandbox",
            Fail,
            format!("units cannot be confined: {obstacle}"),
            "allow unprivileged user namespaces: sysctl user.max_user_namespaces=15000, and on \
             Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; or start with --insecure",
        ),
    }
}

fn programs(host: &Host) -> CheckRow {
    let own = ["aegis-vmm", "aegis-shim"].map(|name| host.program(name));
    let missing: Vec<_> = own.iter().filter(|path| !path.is_file()).collect();
    if missing.is_empty() {
        let summary = format!("the programs of AegisVM are in {}", host.libexec.display());
        return row("programs", Good, summary, "");
    }
    let missing: Vec<_> = missing
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let hint = "install the package again, or set AEGIS_LIBEXEC";
    row(
        "programs",
        Fail,
        format!("missing: {}", missing.join(", ")),
        hint,
    )
}

fn kvm() -> CheckRow {
    let path = Path::new("/dev/kvm");
    #[expect(
        clippy::disallowed_methods,
        reason = "opening a device changes nothing"
    )]
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path);
    match opened {
        Ok(_) => row("kvm", Good, "/dev/kvm can be opened", ""),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => row(
            "kvm",
            Warn,
            "/dev/kvm may not be opened; guests run slowly, by translation",
            "join the group of /dev/kvm: sudo usermod -aG kvm $USER, then log in again",
        ),
        Err(_) => row(
            "kvm",
            Warn,
            "there is no KVM; guests run slowly, by translation",
            "enable virtualisation in the firmware, or nested virtualisation in the VM's host",
        ),
    }
}

async fn virtiofsd(host: &Host) -> CheckRow {
    let places = VIRTIOFSD_DIRS.iter().map(PathBuf::from);
    let places: Vec<_> = places.chain(host.program_dirs.iter().cloned()).collect();
    let found = match find("virtiofsd", &places) {
        Some(path) => version(&path, "virtiofsd ").await,
        None => None,
    };
    let hint = "install virtiofsd 1.13 or newer for faster workspaces";
    match found {
        Some(version) if version >= OLDEST_VIRTIOFSD => row(
            "workspaces",
            Good,
            format!(
                "shared by virtiofsd {}, by 9p where a guest is emulated",
                dotted(version)
            ),
            "",
        ),
        Some(version) => {
            let summary = format!("shared by 9p: virtiofsd {} is too old", dotted(version));
            row("workspaces", Warn, summary, hint)
        }
        None => row(
            "workspaces",
            Warn,
            "shared by 9p: there is no virtiofsd",
            hint,
        ),
    }
}

fn tool(id: &str, tool: Tool, purpose: &str) -> CheckRow {
    let found = tool.places.iter().find(|path| Path::new(path).is_file());
    match found {
        Some(path) => row(id, Good, format!("{purpose} {path}"), ""),
        None => {
            let summary = format!("{} is not installed", tool.name);
            let hint = format!("install the package {}", tool.package);
            row(id, Fail, summary, &hint)
        }
    }
}

/// Guests run without it, with ports and without a way out.
fn network() -> CheckRow {
    let found = PASST.places.iter().find(|path| Path::new(path).is_file());
    match found {
        Some(path) => row("network", Good, format!("guests reach it by {path}"), ""),
        None => row(
            "network",
            Warn,
            "guests have no network: passt is not installed",
            "install the package passt",
        ),
    }
}

fn certificates() -> CheckRow {
    let is_there = |path: &&&str| Path::new(path).metadata().is_ok_and(|file| file.len() > 0);
    match CERTIFICATES.iter().find(is_there) {
        Some(path) => row(
            "certificates",
            Good,
            format!("registries are checked with {path}"),
            "",
        ),
        None => row(
            "certificates",
            Warn,
            "there are no certificates to check registries with",
            "install the package ca-certificates",
        ),
    }
}

fn space(host: &Host) -> CheckRow {
    let home = &host.layout.home;
    let Ok(disk) = rustix::fs::statvfs(home) else {
        return row(
            "disk",
            Fail,
            format!("{} cannot be read", home.display()),
            "",
        );
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let status = match free {
        0..NO_SPACE => Fail,
        NO_SPACE..LITTLE_SPACE => Warn,
        LITTLE_SPACE.. => Good,
    };
    let hint = if status == Good {
        ""
    } else {
        "free some space"
    };
    row(
        "disk",
        status,
        format!("{} MiB free in {}", free >> 20, home.display()),
        hint,
    )
}

fn registry(engine: &Engine) -> CheckRow {
    if let Some(fault) = engine.unusable() {
        return row(
            "registry",
            Fail,
            fault.to_string(),
            fault.hint.as_deref().unwrap_or(""),
        );
    }
    let quarantined = engine.board().follow().borrow().quarantined.clone();
    if quarantined.is_empty() {
        return row("registry", Good, "every record can be read", "");
    }
    let path = engine.shared().host.layout.registry();
    let hint = format!(
        "correct or remove the record in {} with sqlite3",
        path.display()
    );
    let summary = format!("records that cannot be read: {}", quarantined.join("; "));
    row("registry", Warn, summary, &hint)
}

/// What protects the key of secrets beside the mode of its file.
async fn secrets(engine: &Engine) -> CheckRow {
    let status = engine.shared().vault.key_status().await;
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let fault = error.fault();
            let hint = fault.hint.as_deref().unwrap_or_default();
            return row("secrets", Fail, fault.to_string(), hint);
        }
    };
    let path = status.path.display();
    match status.state {
        KeyState::Sealed { by, with } => {
            let summary = format!("their key is sealed by {by}, it opens with {with}");
            row("secrets", Good, summary, "")
        }
        KeyState::Missing(Ok(by)) => {
            let summary = format!("their key will be sealed by {by}");
            row("secrets", Good, summary, "")
        }
        KeyState::Shut { by, why } => row(
            "secrets",
            Fail,
            format!("their key, sealed by {by}, does not open: {why}"),
            SHUT_HINT,
        ),
        KeyState::Clear(Ok(by)) => row(
            "secrets",
            Warn,
            format!("their key is in clear in {path}, and {by} could seal one"),
            "aegisctl secret rotate-key",
        ),
        KeyState::Missing(Err(why)) => row(
            "secrets",
            Warn,
            format!("their key will be in clear in {path}: {why}"),
            UNSEALED_HINT,
        ),
        KeyState::Clear(Err(why)) => row(
            "secrets",
            Warn,
            format!("their key is in clear in {path}: {why}"),
            UNSEALED_HINT,
        ),
    }
}

fn find(name: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The first two numbers after a program's own name in its `--version`.
async fn version(program: &Path, prefix: &str) -> Option<[u32; 2]> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = tokio::time::timeout(VERSION_DEADLINE, effects::run(command))
        .await
        .ok()?
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout), prefix)
}

fn parse_version(text: &str, prefix: &str) -> Option<[u32; 2]> {
    let numbers = text.lines().next()?.strip_prefix(prefix)?;
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit());
    Some([numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?])
}

fn dotted([major, minor]: [u32; 2]) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let qemu = "QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg)\nCopyright";
        assert_eq!(parse_version(qemu, "QEMU emulator version "), Some([7, 2]));
        assert_eq!(
            parse_version("virtiofsd 1.13.2", "virtiofsd "),
            Some([1, 13])
        );
        assert_eq!(parse_version("something else", "virtiofsd "), None);
    }
}
