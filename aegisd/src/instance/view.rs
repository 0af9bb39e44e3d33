//! An instance as clients see it, from its record, its units and its VM. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aegis_bus::instance::{DaemonEntry, DaemonState, InstanceView, LastExit, NextSleep};
use aegis_core::control::{CommandExit, CommandState, KernelKind, VmStatus};
use aegis_core::daemon::InstanceDaemon;
use aegis_core::fault::Fault;
use aegis_core::idle::Sleep;
use aegis_core::lifecycle::VmState;
use aegis_core::state::{InstanceState, UnitPhase};
use aegis_core::units;

use super::config::Configs;
use super::stale::Notes;
use super::{plans, sleep, update};
use crate::registry::{Intent, Record};
use crate::supervisor::UnitId;
use crate::supervisor::state::{Active, ProcessEnd, RunResult, UnitState};

/// Everything an instance's looks follow from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'a> {
    pub(super) record: &'a Record,
    pub(super) units: &'a [UnitState],
    /// `None` while there is no VM or its owner has not answered.
    pub(super) vm: Option<&'a VmStatus>,
    /// How the command last ended, from an earlier VM.
    pub(super) last_exit: Option<&'a CommandExit>,
    /// Its machine is on the disk.
    pub(super) saved: bool,
    /// Why it is not as it should be.
    pub(super) trouble: Option<&'a Fault>,
    pub(super) configs: &'a Configs,
    /// Where the daemons' config lies.
    pub(super) config_folder: &'a Path,
    /// Its kit is there.
    pub(super) kit_installed: bool,
    /// What its user should know, one sentence each.
    pub(super) notes: &'a [String],
    /// What each daemon may read, by name.
    pub(super) reads: &'a BTreeMap<String, Vec<String>>,
    /// Which versions of secrets its units have.
    pub(super) secrets: &'a Notes,
    /// In microseconds since 1970.
    pub(super) now: u64,
}

/// The phase of a service.
pub(super) fn phase(unit: Option<&UnitState>) -> UnitPhase {
    let Some(unit) = unit else {
        return UnitPhase::Inactive;
    };
    if unit.is_restarting() {
        return UnitPhase::Activating;
    }
    match unit.active {
        Active::Active | Active::Reloading if unit.stopping => UnitPhase::Deactivating,
        Active::Active | Active::Reloading => UnitPhase::Active,
        Active::Inactive => UnitPhase::Inactive,
        Active::Failed => UnitPhase::Failed,
        Active::Activating => UnitPhase::Activating,
        Active::Deactivating => UnitPhase::Deactivating,
    }
}

pub(super) fn view(sources: Sources<'_>) -> InstanceView {
    let Sources { record, vm, .. } = sources;
    let spec = &record.spec;
    let unit = find(sources.units, &UnitId::vm(&record.handle));
    let of_vm = vm.map(|vm| vm.state);
    let state = InstanceState::derive(record.is_enabled(), phase(unit), of_vm, sources.saved);
    let machine = vm.and_then(|vm| vm.machine.as_ref());
    let kit = spec.kit.as_ref();
    let since = vm
        .map(|vm| vm.since)
        .or(unit.map(|unit| unit.since).filter(|&since| since > 0));
    let workspace = spec.workspace.as_ref().map(ToString::to_string);
    let kernel = machine.map(|machine| match machine.kernel {
        KernelKind::Own => "own",
        KernelKind::Fallback => "fallback",
    });
    InstanceView {
        handle: record.handle.to_string(),
        owner: record.owner(),
        state: state.to_string(),
        state_reason: reason(&sources, state, unit),
        enabled: record.is_enabled(),
        kit: kit.map(|kit| kit.name.clone()).unwrap_or_default(),
        kit_version: kit.map(|kit| kit.version.clone()).unwrap_or_default(),
        kit_installed: sources.kit_installed,
        notes: sources.notes.to_vec(),
        image: spec.image.clone(),
        image_id: spec
            .pinned
            .as_ref()
            .map(|image| image.id.clone())
            .unwrap_or_default(),
        command: spec.full_command(),
        memory_mib: spec.memory_mib,
        cpus: spec.cpus,
        accel: machine
            .map_or(spec.accel, |machine| machine.accel)
            .to_string(),
        platform: spec.platform.to_string(),
        kernel: kernel.unwrap_or_default().to_owned(),
        workspace: workspace.unwrap_or_default(),
        volumes: spec.volumes.iter().map(ToString::to_string).collect(),
        ports: spec.ports.iter().map(ToString::to_string).collect(),
        idle_pause: spec.idle.pause.to_string(),
        idle_hibernate: spec.idle.hibernate.to_string(),
        awake_because: vm.map(|vm| vm.awake_because.clone()).unwrap_or_default(),
        sleeps: vm.and_then(|vm| vm.sleeps).map(|(sleep, at_us)| NextSleep {
            to: match sleep {
                Sleep::Pause => InstanceState::Paused,
                Sleep::Hibernate => InstanceState::Hibernated,
            }
            .to_string(),
            at_us,
        }),
        leases: sleep::current(record, sources.now)
            .into_iter()
            .map(|lease| (lease.reason, lease.until))
            .collect(),
        cannot_hibernate: said(vm.and_then(|vm| vm.cannot_hibernate.as_ref())),
        not_restored: said(vm.and_then(|vm| vm.not_restored.as_ref())),
        network: spec.network.to_string(),
        allowed_hosts: spec.allowed_hosts.iter().map(ToString::to_string).collect(),
        network_problem: vm
            .and_then(|vm| vm.network_fault.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        labels: spec.labels.clone(),
        limits: plans::limits_in_force(spec),
        pending: vm
            .map(|vm| update::pending(record, vm.revision))
            .unwrap_or_default(),
        stale: sources
            .secrets
            .stale(record, sources.units, vm, sources.saved),
        ephemeral: spec.ephemeral,
        created_at_us: record.created_at,
        state_since_us: since.unwrap_or(record.intent_since),
        unit: units::vm(&record.handle),
        socket_unit: units::socket(&record.handle),
        slice: units::slice(&record.handle),
        qemu_pid: machine.map_or(0, |machine| machine.qemu_pid),
        execs: vm.map_or(0, |vm| vm.execs),
        attached: vm.map_or(0, |vm| vm.attached),
        terminal: spec.terminal,
        restart_policy: spec.restart.to_string(),
        restarts: unit.map_or(0, |unit| unit.restarts),
        next_start_us: next_start(&sources, unit).unwrap_or(0),
        last_exit: last_exit(&sources, unit),
        daemons: spec
            .daemons
            .iter()
            .map(|daemon| entry(&sources, daemon))
            .collect(),
        stopped_by_hand: stopped_by_hand(record),
    }
}

fn said(fault: Option<&Fault>) -> String {
    fault.map(ToString::to_string).unwrap_or_default()
}

/// The units that people know, without the group they are in.
fn stopped_by_hand(record: &Record) -> BTreeMap<String, u64> {
    let slice = units::slice(&record.handle);
    let stopped = record.stopped_by_hand.iter();
    let stopped = stopped.filter(|(name, _)| **name != slice);
    stopped.map(|(name, &at)| (name.clone(), at)).collect()
}

fn find<'a>(units: &'a [UnitState], id: &UnitId) -> Option<&'a UnitState> {
    units.iter().find(|state| state.unit == *id)
}

fn reason(sources: &Sources<'_>, state: InstanceState, unit: Option<&UnitState>) -> String {
    let Sources { record, vm, .. } = sources;
    if matches!(record.intent, Intent::Deleting | Intent::Purging) {
        return match sources.trouble {
            Some(fault) => format!("being deleted: {fault}"),
            None => "being deleted".to_owned(),
        };
    }
    if let Some(fault) = sources.trouble {
        return fault.to_string();
    }
    let (socket, vm_unit) = (units::socket(&record.handle), units::vm(&record.handle));
    match (state, vm) {
        (InstanceState::Failed, Some(vm)) if vm.state == VmState::Failed => vm
            .fault
            .as_ref()
            .map_or_else(|| vm.words.clone(), ToString::to_string),
        (InstanceState::Failed, _) => unit.map(end).unwrap_or_default(),
        (InstanceState::Running, Some(vm)) if !vm.awake_because.is_empty() => {
            format!("awake: {}", vm.awake_because.join(", "))
        }
        (
            InstanceState::Starting | InstanceState::Stopping | InstanceState::Hibernating,
            Some(vm),
        ) => vm.words.clone(),
        (InstanceState::Stopped, Some(vm)) if vm.state == VmState::Resting => resting(sources, vm),
        (InstanceState::Starting, None) if unit.is_some_and(UnitState::is_restarting) => {
            let killed = unit.filter(|unit| unit.want_of_memory().is_some()).map(end);
            let exit = killed.or_else(|| sources.last_exit.map(CommandExit::words));
            format!(
                "starting again after its delay: {}",
                exit.unwrap_or_default()
            )
        }
        _ if record.stopped_by_hand.contains_key(&socket) => {
            format!("{socket} was stopped by systemctl; starting the instance opens it again")
        }
        (InstanceState::Stopped, _) if record.stopped_by_hand.contains_key(&vm_unit) => {
            format!("{vm_unit} was stopped by systemctl; any use starts it again")
        }
        (InstanceState::Stopped, None) => gave_up(sources).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Why connections are reset.
fn resting(sources: &Sources<'_>, vm: &VmStatus) -> String {
    match latest_exit(sources) {
        Some(exit) => format!("{}; connections are reset for a while", exit.words()),
        None => vm.words.clone(),
    }
}

/// Why its policy does not start it any more.
fn gave_up(sources: &Sources<'_>) -> Option<String> {
    let exit = sources.last_exit.filter(|exit| exit.follow_up.gave_up)?;
    Some(format!(
        "given up after {} restarts: {}",
        exit.follow_up.restarts,
        exit.words()
    ))
}

/// When it starts by its policy, or connections start it again.
fn next_start(sources: &Sources<'_>, unit: Option<&UnitState>) -> Option<u64> {
    if let Some(next) = unit.and_then(|unit| unit.next_restart) {
        return Some(next);
    }
    match sources.vm {
        Some(vm) => vm.rests_until,
        None if matches!(phase(unit), UnitPhase::Inactive | UnitPhase::Failed) => {
            let rests_until = sources.last_exit?.follow_up.rests_until;
            rests_until.filter(|&until| until > sources.now)
        }
        None => None,
    }
}

/// How the command ended in this VM, else in the last one.
fn latest_exit<'a>(sources: &Sources<'a>) -> Option<&'a CommandExit> {
    match sources.vm.map(|vm| &vm.command) {
        Some(CommandState::Ended(exit)) => Some(exit),
        _ => sources.last_exit,
    }
}

fn last_exit(sources: &Sources<'_>, unit: Option<&UnitState>) -> Option<LastExit> {
    if let Some(unit) = unit.filter(|unit| unit.want_of_memory().is_some()) {
        return Some(killed_with_its_vm(unit));
    }
    let exit = latest_exit(sources)?;
    Some(LastExit {
        code: exit.code,
        signal: exit.signal,
        failure: exit
            .fault
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        at_us: exit.at,
        oom: exit.oom,
        oom_host: false,
        gave_up: exit.follow_up.gave_up,
    })
}

/// The end of a command whose VM was killed, aegis-vmm with it: it wrote nothing down.
fn killed_with_its_vm(unit: &UnitState) -> LastExit {
    let signal = match unit.last_end {
        Some(ProcessEnd::Signal(signal)) => Some(signal),
        Some(ProcessEnd::Code(_)) | None => None,
    };
    LastExit {
        code: None,
        signal,
        failure: format!("the VM ended: {}", end(unit)),
        at_us: unit.since,
        oom: false,
        oom_host: true,
        gave_up: false,
    }
}

fn entry(sources: &Sources<'_>, daemon: &InstanceDaemon) -> DaemonEntry {
    let id = UnitId::daemon(&sources.record.handle, &daemon.name);
    let unit = find(sources.units, &id);
    let next = unit.and_then(|unit| unit.next_restart);
    DaemonEntry {
        name: daemon.name.clone(),
        label: daemon.label.clone(),
        unit: id.name(),
        state: unit.map_or(DaemonState::Stopped, daemon_state),
        restarts: unit.map_or(0, |unit| unit.restarts),
        next_restart_in_us: next.map_or(0, |next| next.saturating_sub(sources.now)),
        last_exit: unit.map(end).unwrap_or_default(),
        oom: unit.is_some_and(|unit| unit.want_of_memory().is_some()),
        since_us: unit.map_or(0, |unit| unit.since),
        pid: unit.and_then(|unit| unit.main_pid).unwrap_or(0),
        config: daemon.config.as_ref().map(|config| {
            let configs = sources.configs;
            configs.view(&daemon.name, config, sources.config_folder)
        }),
        reads: sources.reads.get(&daemon.name).cloned().unwrap_or_default(),
        writes: writes(sources, daemon),
    }
}

/// What a daemon may write: its config folder and what its kit asks for.
fn writes(sources: &Sources<'_>, daemon: &InstanceDaemon) -> Vec<String> {
    let own = std::iter::once(sources.config_folder);
    let asked = daemon.sandbox.write.iter().map(PathBuf::as_path);
    own.chain(asked)
        .map(|path| path.display().to_string())
        .collect()
}

fn daemon_state(unit: &UnitState) -> DaemonState {
    if unit.is_restarting() {
        return DaemonState::Restarting;
    }
    if unit.waits_for_config() {
        return DaemonState::WaitingForConfig;
    }
    if unit.has_exited() {
        return DaemonState::Exited;
    }
    match unit.active {
        Active::Active | Active::Reloading => DaemonState::Running,
        Active::Activating => DaemonState::Starting,
        Active::Failed => DaemonState::Failed,
        Active::Inactive | Active::Deactivating => DaemonState::Stopped,
    }
}

/// How a service's process last ended, in words; empty if none has.
fn end(unit: &UnitState) -> String {
    let process = match unit.last_end {
        Some(ProcessEnd::Code(code)) => format!("exit code {code}"),
        Some(ProcessEnd::Signal(signal)) => format!("killed by signal {signal}"),
        None => String::new(),
    };
    let memory = unit.want_of_memory().map(|want| want.to_string());
    let cause = match &unit.result {
        RunResult::Success | RunResult::ExitCode | RunResult::Signal | RunResult::CoreDump => {
            return process;
        }
        RunResult::OutOfMemory => memory.as_deref().unwrap_or("out of memory on the host"),
        RunResult::Watchdog => "it did not prove to be alive in time",
        RunResult::Timeout => "it did not start or stop in time",
        RunResult::Protocol => "it did not say that it is ready",
        RunResult::Resources => "the service manager could not set it up",
        RunResult::Other(word) => word,
    };
    match process.is_empty() {
        true => cause.to_owned(),
        false => format!("{process} ({cause})"),
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::fault::Symbol;
    use aegis_core::spec::InstanceSpec;

    use super::*;
    use crate::testing::{unit_state, vm_status};

    fn record() -> Record {
        let daemon = InstanceDaemon::new("gateway", "/g");
        let spec = InstanceSpec {
            daemons: vec![daemon],
            ..Default::default()
        };
        Record {
            intent: Intent::Enabled,
            ..Record::new("web".parse().unwrap(), spec, 5)
        }
    }

    fn look(record: &Record, units: &[UnitState], vm: Option<&VmStatus>) -> InstanceView {
        view(Sources {
            record,
            units,
            vm,
            last_exit: None,
            saved: false,
            trouble: None,
            configs: &Configs::default(),
            config_folder: Path::new("/kits/web"),
            kit_installed: true,
            notes: &[],
            reads: &BTreeMap::new(),
            secrets: &Notes::default(),
            now: 1_000,
        })
    }

    #[test]
    fn an_instance_without_units_is_asleep_since_it_was_made() {
        let view = look(&record(), &[], None);
        assert_eq!((view.state.as_str(), view.state_since_us), ("stopped", 5));
        assert_eq!(view.daemons[0].state, DaemonState::Stopped);
    }

    #[test]
    fn a_vm_that_cannot_start_says_why() {
        let record = record();
        let vm = unit_state(UnitId::vm(&record.handle), Active::Activating);
        let mut status = vm_status(VmState::Failed);
        status.fault = Some(Fault::new(Symbol::QemuMissing, "QEMU is not installed"));
        let view = look(&record, &[vm], Some(&status));
        assert_eq!(view.state, "failed");
        assert_eq!(view.state_reason, "QEMU is not installed");
    }

    #[test]
    fn daemons_are_as_their_units_are() {
        let record = record();
        let id = UnitId::daemon(&record.handle, "gateway");
        let mut unit = unit_state(id, Active::Activating);
        unit.next_restart = Some(1_400);
        unit.last_end = Some(ProcessEnd::Code(3));
        unit.restarts = 2;
        let daemon = look(&record, &[unit.clone()], None).daemons.remove(0);
        assert_eq!(daemon.state, DaemonState::Restarting);
        assert_eq!((daemon.restarts, daemon.next_restart_in_us), (2, 400));
        assert_eq!(daemon.last_exit, "exit code 3");

        unit.next_restart = None;
        unit.active = Active::Failed;
        unit.last_end = Some(ProcessEnd::Code(78));
        let daemon = look(&record, &[unit], None).daemons.remove(0);
        assert_eq!(daemon.state, DaemonState::WaitingForConfig);
    }

    #[test]
    fn want_of_memory_on_the_host_is_said_with_the_limit() {
        let record = record();
        let killed = |id| {
            let mut unit = unit_state(id, Active::Failed);
            unit.result = RunResult::OutOfMemory;
            unit.last_end = Some(ProcessEnd::Signal(9));
            unit.limits.memory_max = Some(64 << 20);
            unit
        };
        let vm = killed(UnitId::vm(&record.handle));
        let daemon = killed(UnitId::daemon(&record.handle, "gateway"));
        let view = look(&record, &[vm, daemon], None);
        let words = "killed by signal 9 (out of memory on the host, where its limit is 64 MiB)";
        assert_eq!(view.state_reason, words);
        let exit = view.last_exit.unwrap();
        assert!(exit.oom_host && !exit.oom);
        assert_eq!(exit.failure, format!("the VM ended: {words}"));
        assert!(view.daemons[0].oom);
        assert_eq!(view.daemons[0].last_exit, words);
    }

    #[test]
    fn a_socket_stopped_by_hand_is_said() {
        let mut record = record();
        record
            .stopped_by_hand
            .insert("aegis-vm-web.socket".into(), 7);
        record.stopped_by_hand.insert("aegis-web.slice".into(), 7);
        let view = look(&record, &[], None);
        assert_eq!(view.state, "stopped");
        assert!(view.state_reason.contains("stopped by systemctl"));
        let listed = [("aegis-vm-web.socket".to_owned(), 7)];
        assert_eq!(view.stopped_by_hand, listed.into());
    }
}
