//! Units of an instance as the service manager is asked for them.

use std::path::PathBuf;
use std::time::Duration;

use aegis_core::daemon::{InstanceDaemon, Ready, Restart};
use aegis_core::limits::ResourceLimits;
use aegis_core::port::PortMapping;
use aegis_core::spec::InstanceSpec;
use aegis_image::store::Store;

use super::files::{GRACE_SECS, daemon_state_dir};
use super::names::Names;
use super::reach;
use super::shares::{volume_path, workspace_path};
use crate::host::Host;
use crate::registry::Record;
use crate::supervisor::UnitId;
use crate::supervisor::plan::{
    Confinement, DaemonPlan, DoorPlan, InstancePlan, Limits, Listen, LogFields, Program, Reach,
    Readiness, Restarts,
};

/// What the guest's grace leaves aegis-vmm for unmounting and ending QEMU.
const STOP_MARGIN: Duration = Duration::from_secs(15);
/// aegis-vmm's own loop turns many times a second; half a minute without is stuck.
const WATCHDOG: Duration = Duration::from_secs(30);
/// Memory of a VM's unit beyond the guest's: QEMU itself (60 MiB), its cache of
/// translated code without KVM (at most 256 MiB as aegis-vmm starts it),
/// aegis-vmm, virtiofsd, and file cache that cannot be given back at once.
const OVERHEAD_MIB: u32 = 512;
/// QEMU has a thread per CPU and some for I/O, virtiofsd a pool of 64.
const TASKS: u32 = 512;

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
    let names = Names::of(host, record);
    let files = layout.instance(&record.handle);
    let spec = &record.spec;
    let control = Listen::Unix(layout.control_socket(&record.handle));
    let workspace = workspace_path(host, record);
    let volumes = volumes(host, record);
    let vm_spec = names.plain(&files.vm_spec());
    let words = ["--spec".to_owned(), vm_spec.display().to_string()];
    let own = [
        files.dir().to_owned(),
        layout.vm_runtime(&record.handle),
        layout.accel_cache(),
    ];
    let mut read_only = vec![names.plain(&host.libexec), names.plain(&host.guest_dir)];
    // Requests of the guest go to aegisd.
    read_only.push(names.plain(&layout.doors()));
    read_only.extend(spec.inject.iter().cloned());
    if spec.pinned.is_some() {
        read_only.push(names.plain(&Store::at(layout.images()).layers()));
    }
    read_only.extend(volumes.read_only.iter().map(|path| names.plain(path)));
    let writable = own.into_iter().chain(workspace);
    let reach = Reach {
        read_only,
        writable: writable.map(|path| names.plain(&path)).collect(),
        // A volume that is missing is what aegis-vmm tells of, and templates are anybody's
        // to remove.
        writable_if_there: volumes
            .writable
            .into_iter()
            .chain([layout.templates()])
            .map(|path| names.plain(&path))
            .collect(),
        ..Reach::default()
    };
    InstancePlan {
        handle: record.handle.clone(),
        program: program(host, &names, "aegis-vmm", words),
        listen: vec![control],
        stop_timeout: STOP_TIMEOUT,
        watchdog: WATCHDOG,
        restart: spec.restart,
        credentials: vm_credentials(host, record),
        limits: limits(spec),
        confinement: confinement(record, reach),
        log: log(record),
    }
}

/// What of the host the volumes of an instance show.
struct VolumePaths {
    read_only: Vec<PathBuf>,
    writable: Vec<PathBuf>,
}

/// The sources of the volumes for the VM's unit. One that can be written to by another
/// path is no read-only one: to the unit a path is the same wherever it is named, and
/// it is QEMU's jail that tells the volumes apart.
fn volumes(host: &Host, record: &Record) -> VolumePaths {
    let mut writable: Vec<PathBuf> = workspace_path(host, record).into_iter().collect();
    let own = writable.len();
    let volumes = record.unit_volumes();
    let paths = |read_only: bool| {
        let meant = volumes
            .iter()
            .filter(move |volume| volume.read_only == read_only);
        meant.map(|volume| volume_path(host, record, &volume.source))
    };
    writable.extend(paths(false));
    let is_writable = |path: &PathBuf| writable.iter().any(|tree| path.starts_with(tree));
    let read_only = paths(true).filter(|path| !is_writable(path)).collect();
    writable.drain(..own);
    VolumePaths {
        read_only,
        writable,
    }
}

/// The limits of a VM's unit: what the user set, else what its guest needs.
pub(crate) fn limits(spec: &InstanceSpec) -> Limits {
    let in_force = limits_in_force(spec);
    Limits {
        memory_max: in_force.memory_max_mib.map(|mib| u64::from(mib) << 20),
        tasks_max: in_force.tasks_max.map(u64::from),
        cpu_percent: in_force.cpu_quota,
    }
}

/// The same in the units people use.
pub(super) fn limits_in_force(spec: &InstanceSpec) -> ResourceLimits {
    let set = &spec.limits;
    ResourceLimits {
        memory_max_mib: set.memory_max_mib.or(Some(spec.memory_mib + OVERHEAD_MIB)),
        // Guest CPUs, and one for everything else.
        cpu_quota: set.cpu_quota.or(Some((spec.cpus + 1) * 100)),
        tasks_max: set.tasks_max.or(Some(TASKS)),
    }
}

/// The limits that a VM's unit can have at this moment. A guest keeps its memory
/// and CPUs until it ends, so what follows from their number does not shrink
/// under a VM that runs; what the user set applies at once.
pub(crate) fn limits_now(spec: &InstanceSpec, now: &Limits, vm_runs: bool) -> Limits {
    let wanted = limits(spec);
    if !vm_runs {
        return wanted;
    }
    // No limit is the largest.
    fn larger<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
        Some(a?.max(b?))
    }
    let set = &spec.limits;
    Limits {
        memory_max: match set.memory_max_mib {
            Some(_) => wanted.memory_max,
            None => larger(wanted.memory_max, now.memory_max),
        },
        cpu_percent: match set.cpu_quota {
            Some(_) => wanted.cpu_percent,
            None => larger(wanted.cpu_percent, now.cpu_percent),
        },
        tasks_max: wanted.tasks_max,
    }
}

/// Whether a VM's unit has the limits it shall have in the end.
pub(crate) fn has_limits(spec: &InstanceSpec, now: &Limits) -> bool {
    limits(spec) == *now
}

/// What a daemon's program needs to run, by names that units can carry.
fn program_reach(host: &Host, names: &Names, daemon: &InstanceDaemon) -> Vec<PathBuf> {
    let needed = reach::program(&daemon.program, host);
    needed.iter().map(|path| names.plain(path)).collect()
}

/// One daemon of an instance.
pub(super) fn daemon(host: &Host, record: &Record, daemon: &InstanceDaemon) -> DaemonPlan {
    let names = Names::of(host, record);
    let files = host.layout.instance(&record.handle);
    let spec = names.plain(&files.daemon_spec(&daemon.name));
    let state_dir = names.plain(&daemon_state_dir(host, &record.handle, &daemon.name));
    let back_off = state_dir.join("back-off.json");
    let words = [
        "daemon".to_owned(),
        "--spec".to_owned(),
        spec.display().to_string(),
    ];
    let sandbox = &daemon.sandbox;
    let api = names.plain(&host.layout.api_runtime(&record.handle));
    let mut read_only = vec![names.plain(&host.libexec), spec, api];
    read_only.extend(program_reach(host, &names, daemon));
    read_only.extend(sandbox.read.iter().cloned());
    let config = names.plain(&host.layout.daemon_config(&record.handle));
    let reach = Reach {
        read_only,
        writable: vec![config, state_dir],
        writable_if_there: sandbox.write.clone(),
        no_network: !sandbox.network,
    };
    DaemonPlan {
        handle: record.handle.clone(),
        daemon: daemon.name.clone(),
        label: daemon.label.clone(),
        program: program(host, &names, "aegis-shim", words),
        ended: program(host, &names, "aegis-shim", ["ended".to_owned()]),
        back_off,
        readiness: match daemon.ready {
            Ready::Started => Readiness::Started,
            Ready::Notify => Readiness::Notify,
        },
        restarts: match daemon.restart {
            Restart::OnFailure => Restarts::OnFailure,
            Restart::Always => Restarts::Always,
            Restart::No => Restarts::Never,
        },
        restart_max_delay: Duration::from_millis(daemon.restart_max_delay_ms),
        stop_timeout: Duration::from_millis(daemon.stop_timeout_ms),
        credentials: credentials(host, record),
        limits: Limits {
            memory_max: daemon.limits.memory_mib.map(|mib| mib << 20),
            tasks_max: Some(u64::from(daemon.limits.tasks)),
            cpu_percent: daemon.limits.cpu_percent,
        },
        confinement: confinement(record, reach),
        log: log(record),
    }
}

/// The API socket of an instance's daemons.
pub(super) fn api(host: &Host, record: &Record) -> DoorPlan {
    let names = Names::of(host, record);
    let aegisd = names.plain(&host.layout.door_socket());
    let words = ["door", "--to"].map(str::to_owned);
    let words = words.into_iter().chain([aegisd.display().to_string()]);
    let reach = Reach {
        read_only: vec![
            names.plain(&host.libexec),
            names.plain(&host.layout.doors()),
        ],
        ..Reach::default()
    };
    DoorPlan {
        socket: UnitId::api_socket(&record.handle),
        door: UnitId::door(&record.handle),
        label: "API socket".to_owned(),
        listen: Listen::Unix(host.layout.api_socket(&record.handle)),
        program: program(host, &names, "aegis-shim", words),
        confinement: confinement(record, reach),
    }
}

/// An exposed port.
pub(super) fn port(host: &Host, record: &Record, port: PortMapping) -> DoorPlan {
    let names = Names::of(host, record);
    let handle = &record.handle;
    let control = names.plain(&host.layout.control_socket(handle));
    let words = [
        "port".to_owned(),
        "--to".to_owned(),
        control.display().to_string(),
        "--guest".to_owned(),
        port.guest.to_string(),
    ];
    let reach = Reach {
        read_only: vec![
            names.plain(&host.libexec),
            names.plain(&host.layout.vm_runtime(handle)),
        ],
        ..Reach::default()
    };
    DoorPlan {
        socket: UnitId::port_socket(handle, port),
        door: UnitId::port_door(handle, port),
        label: format!("port {port}"),
        listen: Listen::Tcp(port.host),
        program: program(host, &names, "aegis-shim", words),
        confinement: confinement(record, reach),
    }
}

fn program(
    host: &Host,
    names: &Names,
    name: &str,
    words: impl IntoIterator<Item = String>,
) -> Program {
    Program {
        path: names.plain(&host.program(name)),
        arguments: words.into_iter().collect(),
    }
}

/// Where the instance's units ask for its secrets. Those of one without any ask
/// nobody, so that no start of them waits for aegisd.
fn credentials(host: &Host, record: &Record) -> Option<PathBuf> {
    let has_some = !record.spec.secrets.is_empty();
    has_some.then(|| host.layout.credentials_socket())
}

/// Where its VM asks for them and for the key of its snapshots.
fn vm_credentials(host: &Host, record: &Record) -> Option<PathBuf> {
    super::files::vm_needs_secrets(host, record).then(|| host.layout.credentials_socket())
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

#[cfg(test)]
mod tests {
    use aegis_core::secret::{GIVEN_MARK, SecretSource};

    use super::*;

    fn spec(memory_mib: u32, cpus: u32, limits: ResourceLimits) -> InstanceSpec {
        InstanceSpec {
            memory_mib,
            cpus,
            limits,
            ..InstanceSpec::default()
        }
    }

    #[test]
    fn only_units_of_an_instance_with_secrets_ask_for_them() {
        let root = tempfile::tempdir().unwrap();
        let host = crate::testing::host(root.path());
        let daemon = InstanceDaemon::new("gateway", "/usr/bin/gateway");
        let mut record = Record::new("web".parse().unwrap(), InstanceSpec::default(), 0);
        assert_eq!(instance(&host, &record).credentials, None);
        assert_eq!(super::daemon(&host, &record, &daemon).credentials, None);
        record.spec.secrets = [("KEY".to_owned(), SecretSource::Own)].into();
        let asked = Some(host.layout.credentials_socket());
        assert_eq!(instance(&host, &record).credentials, asked);
        assert_eq!(super::daemon(&host, &record, &daemon).credentials, asked);
        // One that was given some by an exec has snapshots that are to be sealed.
        record.spec.secrets.clear();
        let mark = host.layout.instance(&record.handle).dir().join(GIVEN_MARK);
        std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
        std::fs::write(mark, "").unwrap();
        assert_eq!(instance(&host, &record).credentials, asked);
        assert_eq!(super::daemon(&host, &record, &daemon).credentials, None);
    }

    #[test]
    fn the_unit_has_each_source_once_and_writable_if_any_volume_is() {
        let root = tempfile::tempdir().unwrap();
        let host = crate::testing::host(root.path());
        let mut record = Record::new("web".parse().unwrap(), InstanceSpec::default(), 0);
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        record.spec.volumes = parse(&["/a:/1", "/a:/2:ro", "/a/b:/3:ro", "/c:/4:ro", "n:/5"]);
        let found = volumes(&host, &record);
        assert_eq!(found.read_only, [PathBuf::from("/c")]);
        assert_eq!(
            found.writable,
            [PathBuf::from("/a"), host.layout.volume(None, "n")]
        );
        record.volumes_before = Some(parse(&["/old:/1"]));
        assert_eq!(volumes(&host, &record).writable, [PathBuf::from("/old")]);
    }

    #[test]
    fn limits_follow_from_the_guest_unless_the_user_set_them() {
        let none = ResourceLimits::default();
        let followed = limits(&spec(256, 2, none));
        assert_eq!(followed.memory_max, Some(768 << 20));
        assert_eq!(
            (followed.cpu_percent, followed.tasks_max),
            (Some(300), Some(512))
        );
        let set = ResourceLimits {
            memory_max_mib: Some(100),
            cpu_quota: Some(50),
            tasks_max: Some(64),
        };
        let set = limits(&spec(256, 2, set));
        assert_eq!(set.memory_max, Some(100 << 20));
        assert_eq!((set.cpu_percent, set.tasks_max), (Some(50), Some(64)));
    }

    #[test]
    fn what_follows_from_the_guest_does_not_shrink_under_it() {
        let none = ResourceLimits::default();
        let before = limits(&spec(512, 2, none));
        let smaller = spec(256, 1, none);
        assert_eq!(limits_now(&smaller, &before, true), before);
        assert_eq!(limits_now(&smaller, &before, false), limits(&smaller));
        let larger = spec(1024, 4, none);
        assert_eq!(limits_now(&larger, &before, true), limits(&larger));
        let unlimited = Limits::default();
        assert_eq!(limits_now(&smaller, &unlimited, true).memory_max, None);
        let set = ResourceLimits {
            memory_max_mib: Some(100),
            ..none
        };
        let shrunk = limits_now(&spec(512, 2, set), &before, true);
        assert_eq!(shrunk.memory_max, Some(100 << 20));
    }
}
