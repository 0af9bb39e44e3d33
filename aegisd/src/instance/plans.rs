//! Units of an instance as the service manager is asked for them. Pure.

use std::time::Duration;

use aegis_core::spec::InstanceDaemon;

use super::files::{GRACE_SECS, daemon_state_dir, workspace_path};
use crate::host::Host;
use crate::registry::Record;
use crate::supervisor::plan::{
    Confinement, DaemonPlan, InstancePlan, Limits, Listen, LogFields, Program, Reach, Readiness,
};

/// What the guest's grace leaves aegis-vmm for unmounting and ending QEMU.
const STOP_MARGIN: Duration = Duration::from_secs(15);
/// How long a daemon may take to stop.
const DAEMON_STOP: Duration = Duration::from_secs(10);
/// aegis-vmm's own loop turns many times a second; half a minute without is stuck.
const WATCHDOG: Duration = Duration::from_secs(30);
/// Memory of a VM's unit beyond the guest's: QEMU itself (60 MiB), its cache of
/// translated code without KVM (at most 256 MiB as aegis-vmm starts it),
/// aegis-vmm, virtiofsd, and file cache that cannot be given back at once.
const OVERHEAD_MIB: u64 = 512;
/// QEMU has a thread per CPU and some for I/O, virtiofsd a pool of 64.
const TASKS: u64 = 512;

/// How long stopping a VM's unit takes at most before all of it is killed.
pub(super) const STOP_TIMEOUT: Duration =
    Duration::from_secs(GRACE_SECS).saturating_add(STOP_MARGIN);

const _: () = assert!(
    STOP_TIMEOUT.as_secs() > GRACE_SECS,
    "the guest's own stop comes first"
);

/// An instance at rest.
pub(super) fn instance(host: &Host, record: &Record) -> InstancePlan {
    let layout = &host.layout;
    let files = layout.instance(&record.handle);
    let spec = &record.spec;
    let control = Listen::Unix(layout.control_socket(&record.handle));
    let ports = spec.ports.iter().map(|port| Listen::Tcp(port.host));
    let workspace = spec
        .workspace
        .iter()
        .map(|workspace| workspace_path(host, workspace));
    let words = ["--spec".to_owned(), files.vm_spec().display().to_string()];
    let own = [
        files.dir().to_owned(),
        layout.vm_runtime(&record.handle),
        layout.accel_cache(),
    ];
    let reach = Reach {
        read_only: vec![host.libexec.clone(), host.guest_dir.clone()],
        writable: own.into_iter().chain(workspace).collect(),
    };
    InstancePlan {
        handle: record.handle.clone(),
        program: program(host, "aegis-vmm", words),
        listen: std::iter::once(control).chain(ports).collect(),
        stop_timeout: STOP_TIMEOUT,
        watchdog: WATCHDOG,
        limits: Limits {
            memory_max: Some((u64::from(spec.memory_mib) + OVERHEAD_MIB) << 20),
            tasks_max: Some(TASKS),
            // Guest CPUs, and one for everything else.
            cpu_percent: Some((spec.cpus + 1) * 100),
        },
        confinement: confinement(record, reach),
        log: log(record),
    }
}

/// One daemon of an instance.
pub(super) fn daemon(host: &Host, record: &Record, daemon: &InstanceDaemon) -> DaemonPlan {
    let spec = host
        .layout
        .instance(&record.handle)
        .daemon_spec(&daemon.name);
    let state_dir = daemon_state_dir(host, &record.handle, &daemon.name);
    let back_off = state_dir.join("back-off.json");
    let words = [
        "daemon".to_owned(),
        "--spec".to_owned(),
        spec.display().to_string(),
    ];
    // The program may be a link into a folder that would stay hidden.
    let target = daemon
        .program
        .canonicalize()
        .unwrap_or(daemon.program.clone());
    let mut read_only = vec![host.libexec.clone(), spec.clone(), target];
    if !read_only.contains(&daemon.program) {
        read_only.push(daemon.program.clone());
    }
    let reach = Reach {
        read_only,
        writable: vec![host.layout.daemon_config(&record.handle), state_dir],
    };
    DaemonPlan {
        handle: record.handle.clone(),
        daemon: daemon.name.clone(),
        label: daemon.label.clone(),
        program: program(host, "aegis-shim", words),
        ended: program(host, "aegis-shim", ["ended".to_owned()]),
        back_off,
        readiness: Readiness::Started,
        restart_max_delay: Duration::from_millis(daemon.restart_max_delay_ms),
        stop_timeout: DAEMON_STOP,
        limits: Limits::default(),
        confinement: confinement(record, reach),
        log: log(record),
    }
}

fn program(host: &Host, name: &str, words: impl IntoIterator<Item = String>) -> Program {
    Program {
        path: host.program(name),
        arguments: words.into_iter().collect(),
    }
}

fn confinement(record: &Record, reach: Reach) -> Confinement {
    if record.spec.insecure {
        Confinement::Waived
    } else {
        Confinement::Reach(reach)
    }
}

fn log(record: &Record) -> LogFields {
    LogFields {
        kit: record.spec.kit.as_ref().map(|kit| kit.name.clone()),
    }
}
