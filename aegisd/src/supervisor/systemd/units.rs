//! The units of an instance as properties for `StartTransientUnit`.
//!
//! The names are those of the D-Bus interface, which differ from the keys of unit
//! files. What only newer managers take is left out for older ones by version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::layout::Mode;
use aegis_core::restart::RestartPolicy;
use aegis_core::units;
use zbus::Variant;

use super::manager::Property;
use super::sandbox::{Places, Profile};
use crate::supervisor::plan::{
    Confinement, Limits, Listen, LogFields, Program, Readiness, Restarts, is_plain_path,
};
use crate::supervisor::state::EXIT_CONFIG;
use crate::supervisor::{DaemonPlan, DoorPlan, HelperPlan, InstancePlan, SupervisorError, UnitId};

/// The first version with `RestartSteps=` (NEWS of systemd 254).
pub(super) const GROWING_DELAY_SINCE: u32 = 254;

/// No limit on time (`USEC_INFINITY` of systemd).
const INFINITY: u64 = u64::MAX;

const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay between two restarts of a VM's owner.
const VM_MAX_DELAY: Duration = Duration::from_secs(60);
/// Where the delay cannot grow: long enough for a crash loop not to eat a CPU,
/// short enough for a waiting client.
const VM_FIXED_DELAY: Duration = Duration::from_secs(1);
/// How soon a daemon that is restarted after every end starts again, where the delay
/// cannot grow: an end with success tells aegis-shim nothing to count.
const FIXED_DELAY: Duration = Duration::from_secs(1);
/// How long a daemon may take to say that it is ready, its back-off not counted
/// (`DefaultTimeoutStartSec=` of systemd-system.conf(5)).
const DAEMON_START_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a VM's unit may wait for its credential: aegisd may have to be started
/// for it, on a busy machine. aegis-vmm extends it once it runs.
const CREDENTIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// A helper ends at once when it is told to.
const HELPER_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A door waits for nothing when it is told to end.
const DOOR_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait while a VM boots; the kernel caps it at
/// net.core.somaxconn, which is 4096 by default.
const BACKLOG: u32 = 4096;
/// aegis-vmm ended by SIGTERM before it could handle it: 128 + 15.
const TERMINATED: i32 = 143;
/// A CPU quota is microseconds of CPU in a second.
pub(super) const MICROS_PER_PERCENT: u64 = 10_000;
/// aegis-vmm lost its VM.
const LOST_STATUS: i32 = 1;
/// The signals that end a process that went wrong or was killed, those of the
/// watchdog and of want of memory among them (signal(7): ILL, TRAP, ABRT, BUS, FPE,
/// KILL, SEGV, SYS).
const CRASHES: [i32; 8] = [4, 5, 6, 7, 8, 9, 11, 31];
/// The user of all units in system mode.
const SERVICE_USER: &str = "aegis";

/// Makes unit properties for one manager.
#[derive(Clone, Debug)]
pub(super) struct UnitMaker {
    pub(super) version: u32,
    pub(super) places: Places,
}

impl UnitMaker {
    /// `aegis.slice`. Like the slices in it, it goes when the last member does.
    pub(super) fn root_slice() -> Vec<Property> {
        vec![
            ("Description", "AegisVM microVMs and their daemons".into()),
            ("StopWhenUnneeded", true.into()),
        ]
    }

    /// The slice of an instance.
    pub(super) fn slice(unit: &UnitId) -> Vec<Property> {
        vec![
            (
                "Description",
                format!("AegisVM instance {}", unit.handle).into(),
            ),
            ("StopWhenUnneeded", true.into()),
        ]
    }

    /// The socket unit of an instance.
    pub(super) fn sockets(&self, plan: &InstancePlan) -> Vec<Property> {
        let listen: Vec<(&str, String)> = plan
            .listen
            .iter()
            .map(|listen| ("Stream", address(listen)))
            .collect();
        let description = format!("Sockets of AegisVM microVM {}", plan.handle);
        self.socket(&plan.handle, description, listen)
    }

    /// A socket unit. In system mode too its files are of the user of the units: doors
    /// connect to what VMs' owners listen on.
    fn socket(
        &self,
        handle: &Handle,
        description: String,
        listen: Vec<(&'static str, String)>,
    ) -> Vec<Property> {
        let mut properties = vec![
            ("Description", description.into()),
            ("Slice", units::slice(handle).into()),
            ("Listen", listen.into()),
            ("FileDescriptorName", "aegis".into()),
            ("SocketMode", 0o600u32.into()),
            ("DirectoryMode", 0o700u32.into()),
            ("BindIPv6Only", "ipv6-only".into()),
            ("Backlog", BACKLOG.into()),
            ("RemoveOnStop", true.into()),
            // No limit: reaching it would close the socket for good.
            ("TriggerLimitIntervalUSec", 0u64.into()),
        ];
        if self.places.mode == Mode::System {
            properties.push(("SocketUser", SERVICE_USER.into()));
        }
        properties
    }

    /// The service of an instance's VM.
    ///
    /// # Errors
    /// [`SupervisorError::Word`] where the program cannot be passed on unharmed.
    pub(super) fn vm(&self, plan: &InstancePlan) -> Result<Vec<Property>, SupervisorError> {
        let unit = UnitId::vm(&plan.handle);
        let mut properties = vec![
            (
                "Description",
                format!("AegisVM microVM {}", plan.handle).into(),
            ),
            ("Slice", units::slice(&plan.handle).into()),
            ("ExecStart", command(&unit.name(), &[&plan.program])?),
            ("Type", "notify".into()),
            ("NotifyAccess", "main".into()),
            // aegis-vmm has a deadline for the boot and says why it was missed.
            ("TimeoutStartUSec", micros(CREDENTIAL_TIMEOUT).into()),
            ("TimeoutStopUSec", micros(plan.stop_timeout).into()),
            ("WatchdogUSec", micros(plan.watchdog).into()),
            ("KillMode", "mixed".into()),
            ("OOMPolicy", "kill".into()),
            (
                "SuccessExitStatus",
                (vec![TERMINATED], Vec::<i32>::new()).into(),
            ),
            ("SyslogIdentifier", "aegis-vmm".into()),
        ];
        properties.extend(vm_restart(plan.restart));
        properties.extend(self.restart_delay(VM_MAX_DELAY, VM_FIXED_DELAY));
        properties.extend(log_fields(&unit, None, &plan.log));
        properties.extend(limits(&plan.limits));
        properties.extend(credential(&unit.name(), plan.credentials.as_deref())?);
        properties.extend(self.common(
            &unit.name(),
            Profile::Vm,
            &plan.confinement,
            &[&plan.program],
        )?);
        Ok(properties)
    }

    /// The service of an instance daemon.
    ///
    /// # Errors
    /// [`SupervisorError::Word`] where the program cannot be passed on unharmed.
    pub(super) fn daemon(&self, plan: &DaemonPlan) -> Result<Vec<Property>, SupervisorError> {
        let unit = UnitId::daemon(&plan.handle, &plan.daemon);
        let description = format!("{} of AegisVM instance {}", plan.label, plan.handle);
        let mut program = plan.program.clone();
        if !self.grows_delays() {
            program.arguments.extend(back_off(plan));
        }
        let mut properties = vec![
            ("Description", description.into()),
            ("Slice", units::slice(&plan.handle).into()),
            ("ExecStart", command(&unit.name(), &[&program])?),
            (
                "Type",
                match plan.readiness {
                    Readiness::Started => "exec".into(),
                    Readiness::Notify => "notify".into(),
                },
            ),
            ("NotifyAccess", "main".into()),
            ("TimeoutStartUSec", micros(DAEMON_START_TIMEOUT).into()),
            ("TimeoutStopUSec", micros(plan.stop_timeout).into()),
            // An end with code 0 stays to be seen as exited; else the unit would vanish.
            // It is no end for the manager then, so it would not restart it either.
            (
                "RemainAfterExit",
                (plan.restarts != Restarts::Always).into(),
            ),
            (
                "RestartPreventExitStatus",
                (vec![EXIT_CONFIG], Vec::<i32>::new()).into(),
            ),
            ("KillMode", "mixed".into()),
            (
                "SyslogIdentifier",
                units::daemon_identifier(&unit.name()).to_owned().into(),
            ),
        ];
        if !self.grows_delays() {
            let mut ended = plan.ended.clone();
            ended.arguments.extend(back_off(plan));
            properties.push(("ExecStopPost", command(&unit.name(), &[&ended])?));
        }
        let longest = plan.restart_max_delay;
        // The shim waits where the delay cannot grow, so the manager need not.
        let (word, fixed) = match plan.restarts {
            Restarts::OnFailure => ("on-failure", FIRST_DELAY),
            Restarts::Always => ("always", FIXED_DELAY.min(longest)),
            Restarts::Never => ("no", FIRST_DELAY),
        };
        properties.push(("Restart", word.into()));
        properties.extend(self.restart_delay(longest, fixed));
        properties.extend(log_fields(&unit, Some(&plan.daemon), &plan.log));
        properties.extend(limits(&plan.limits));
        properties.extend(credential(&unit.name(), plan.credentials.as_deref())?);
        let programs = [&plan.program, &plan.ended];
        properties.extend(self.common(
            &unit.name(),
            Profile::Daemon,
            &plan.confinement,
            &programs,
        )?);
        Ok(properties)
    }

    /// The socket unit of a door.
    pub(super) fn door_socket(&self, plan: &DoorPlan) -> Vec<Property> {
        let handle = &plan.socket.handle;
        let description = format!("{} of AegisVM instance {handle}", plan.label);
        let listen = vec![("Stream", address(&plan.listen))];
        self.socket(handle, description, listen)
    }

    /// The service that brings a socket to who serves it.
    ///
    /// # Errors
    /// [`SupervisorError::Word`] where the program cannot be passed on unharmed.
    pub(super) fn door(&self, plan: &DoorPlan) -> Result<Vec<Property>, SupervisorError> {
        let unit = &plan.door;
        let description = format!(
            "Door of the {} of AegisVM instance {}",
            plan.label, unit.handle
        );
        let mut properties = vec![
            ("Description", description.into()),
            ("Slice", units::slice(&unit.handle).into()),
            ("ExecStart", command(&unit.name(), &[&plan.program])?),
            ("Type", "exec".into()),
            ("TimeoutStopUSec", micros(DOOR_STOP_TIMEOUT).into()),
            // Who serves the socket shares this with the door, and never waits in accept().
            ("NonBlocking", true.into()),
            ("SyslogIdentifier", "aegis-door".into()),
        ];
        properties.push(("Restart", "on-failure".into()));
        properties.extend(self.restart_delay(VM_MAX_DELAY, VM_FIXED_DELAY));
        properties.extend(log_fields(unit, None, &LogFields::default()));
        properties.extend(self.common(
            &unit.name(),
            Profile::Daemon,
            &plan.confinement,
            &[&plan.program],
        )?);
        Ok(properties)
    }

    /// The service of a helper.
    ///
    /// # Errors
    /// [`SupervisorError::Word`] where the program cannot be passed on unharmed.
    pub(super) fn helper(
        &self,
        unit: &str,
        plan: HelperPlan,
    ) -> Result<Vec<Property>, SupervisorError> {
        let mut properties = vec![
            ("Description", plan.description.into()),
            ("Slice", units::ROOT_SLICE.into()),
            ("ExecStart", command(unit, &[&plan.program])?),
            ("Type", "exec".into()),
            ("TimeoutStopUSec", micros(HELPER_STOP_TIMEOUT).into()),
            // What went wrong is told to aegisd and in the journal.
            ("CollectMode", "inactive-or-failed".into()),
            ("OOMPolicy", "kill".into()),
        ];
        let profile = Profile::Daemon;
        properties.extend(self.common(unit, profile, &plan.confinement, &[&plan.program])?);
        let input = zbus::Fd::from(plan.input);
        properties.push(("StandardInputFileDescriptor", Variant::Fd(input)));
        Ok(properties)
    }

    /// Whether the manager makes the delay between restarts grow.
    pub(super) fn grows_delays(&self) -> bool {
        self.version >= GROWING_DELAY_SINCE
    }

    /// Restarts for ever; with a growing delay where the manager has it.
    fn restart_delay(&self, longest: Duration, fixed: Duration) -> Vec<Property> {
        let mut properties: Vec<Property> = vec![("StartLimitIntervalUSec", 0u64.into())];
        if self.grows_delays() {
            properties.extend([
                ("RestartUSec", micros(FIRST_DELAY).into()),
                (
                    "RestartMaxDelayUSec",
                    micros(longest.max(FIRST_DELAY)).into(),
                ),
                ("RestartSteps", restart_steps(longest).into()),
            ]);
        } else {
            properties.push(("RestartUSec", micros(fixed).into()));
        }
        properties
    }

    fn common(
        &self,
        unit: &str,
        profile: Profile,
        confinement: &Confinement,
        programs: &[&Program],
    ) -> Result<Vec<Property>, SupervisorError> {
        let mut properties: Vec<Property> = vec![
            ("NoNewPrivileges", true.into()),
            ("LimitCORE", 0u64.into()),
            ("UMask", 0o077u32.into()),
        ];
        if self.places.mode == Mode::System {
            properties.push(("User", SERVICE_USER.into()));
        }
        if let Confinement::Reach(reach) = confinement {
            let hidden = self.places.emptied();
            let given = [&reach.writable, &reach.writable_if_there, &reach.read_only];
            let given = given.into_iter().flatten();
            for path in given.map(PathBuf::as_path).chain(hidden) {
                check_path(unit, path)?;
            }
            let has_second_command = profile == Profile::Daemon && !self.grows_delays();
            let programs: Vec<&Path> = programs
                .iter()
                .map(|program| program.path.as_path())
                .collect();
            properties.extend(
                self.places
                    .confine(profile, reach, &programs, has_second_command),
            );
        }
        Ok(properties)
    }
}

/// Which ends of a VM's owner the manager starts it again after.
///
/// Without a policy a run that went wrong is not repeated. One that could not even
/// begin is, whatever the policy says: the sockets trigger the unit for as long as
/// a client waits, and the delay between restarts is all that makes that slow.
fn vm_restart(policy: RestartPolicy) -> Vec<Property> {
    match policy {
        RestartPolicy::No => vec![
            ("Restart", "on-failure".into()),
            (
                "RestartPreventExitStatus",
                (vec![LOST_STATUS], CRASHES.to_vec()).into(),
            ),
        ],
        RestartPolicy::OnFailure { .. } => vec![("Restart", "on-failure".into())],
        RestartPolicy::Always | RestartPolicy::UnlessStopped => {
            vec![("Restart", "always".into())]
        }
    }
}

/// The number of steps in which the delay doubles from the first to the longest
/// (the ratio of systemd.service(5), `RestartSteps=`), at least one.
fn restart_steps(longest: Duration) -> u32 {
    let ratio = longest.as_millis() / FIRST_DELAY.as_millis();
    ratio.max(1).ilog2().max(1)
}

/// The one credential of a unit (systemd.exec(5), `LoadCredential=`): nothing of it
/// stands in the unit, and it is asked for at each start.
fn credential(unit: &str, socket: Option<&Path>) -> Result<Vec<Property>, SupervisorError> {
    let Some(socket) = socket else {
        return Ok(Vec::new());
    };
    check_path(unit, socket)?;
    let source = (
        aegis_core::credential::NAME.to_owned(),
        socket.display().to_string(),
    );
    Ok(vec![("LoadCredential", vec![source].into())])
}

fn back_off(plan: &DaemonPlan) -> [String; 2] {
    ["--back-off".to_owned(), plan.back_off.display().to_string()]
}

fn address(listen: &Listen) -> String {
    match listen {
        Listen::Unix(path) => path.display().to_string(),
        Listen::Tcp(address) => address.to_string(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(INFINITY)
}

/// Limits as properties. Those that are not set are left out.
pub(super) fn limits(limits: &Limits) -> Vec<Property> {
    let cpu = limits
        .cpu_percent
        .map(|percent| u64::from(percent) * MICROS_PER_PERCENT);
    [
        ("MemoryMax", limits.memory_max),
        ("TasksMax", limits.tasks_max),
        ("CPUQuotaPerSecUSec", cpu),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?.into())))
    .collect()
}

fn log_fields(unit: &UnitId, daemon: Option<&str>, log: &LogFields) -> Vec<Property> {
    let fields = [
        Some(format!("AEGIS_INSTANCE={}", unit.handle)),
        log.kit.as_ref().map(|kit| format!("AEGIS_KIT={kit}")),
        daemon.map(|daemon| format!("AEGIS_DAEMON={daemon}")),
    ];
    let fields: Vec<Vec<u8>> = fields
        .into_iter()
        .flatten()
        .map(String::into_bytes)
        .collect();
    vec![("LogExtraFields", fields.into())]
}

/// Command lines as `a(sasb)`: path, argv, whether a failure is ignored.
fn command(unit: &str, programs: &[&Program]) -> Result<Variant<'static>, SupervisorError> {
    let mut lines = Vec::new();
    for program in programs {
        let path = program.path.display().to_string();
        let argv: Vec<String> = std::iter::once(path.clone())
            .chain(program.arguments.iter().cloned())
            .collect();
        if let Some(word) = argv.iter().find(|word| !is_plain(word)) {
            return Err(SupervisorError::Word {
                unit: unit.to_owned(),
                word: word.clone(),
            });
        }
        lines.push((path, argv, false));
    }
    Ok(lines.into())
}

fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.,:=@+-".contains(c);
    !word.is_empty() && word.chars().all(plain)
}

/// Whether a path can be bound.
fn check_path(unit: &str, path: &Path) -> Result<(), SupervisorError> {
    if is_plain_path(path) {
        return Ok(());
    }
    Err(SupervisorError::Word {
        unit: unit.to_owned(),
        word: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_the_longest() {
        for (longest, steps) in [(0, 1), (1, 3), (3, 4), (60, 9), (300, 11)] {
            assert_eq!(
                restart_steps(Duration::from_secs(longest)),
                steps,
                "{longest} s"
            );
        }
    }

    #[test]
    fn words_that_do_not_survive_a_reload_are_refused() {
        let unit = "aegis-vm-web.service";
        for word in ["a b", "$x", "it's", "a;b", "%h", ""] {
            let program = Program {
                path: "/usr/bin/x".into(),
                arguments: vec![word.to_owned()],
            };
            let refused = command(unit, &[&program]);
            assert!(
                matches!(refused, Err(SupervisorError::Word { .. })),
                "{word:?}"
            );
        }
    }

    #[test]
    fn paths_that_do_not_survive_a_reload_are_refused() {
        let unit = "aegis-vm-web.service";
        for path in [
            "/a b", "/a\\b", "/a'b", "/a\"b", "/a:b", "/a\tb", "/ü", "/a%b", "a", "",
        ] {
            let refused = check_path(unit, Path::new(path));
            assert!(
                matches!(refused, Err(SupervisorError::Word { .. })),
                "{path:?}"
            );
        }
        for path in ["/", "/a-b_c.d,e=f@g+h"] {
            assert!(check_path(unit, Path::new(path)).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_policy_is_what_the_manager_does_after_an_end() {
        for (policy, restart, prevented) in [
            (RestartPolicy::No, "on-failure", true),
            (
                RestartPolicy::OnFailure { most: Some(3) },
                "on-failure",
                false,
            ),
            (RestartPolicy::Always, "always", false),
            (RestartPolicy::UnlessStopped, "always", false),
        ] {
            let properties = vm_restart(policy);
            assert_eq!(properties[0], ("Restart", restart.into()), "{policy}");
            assert_eq!(properties.len() > 1, prevented, "{policy}");
            let limit = properties.iter().any(|(name, _)| name.contains("Limit"));
            assert!(!limit, "a socket's service has no start limit");
        }
    }

    #[test]
    fn old_managers_are_not_asked_for_growing_delays() {
        let places = Places::new(Mode::User, 1000, Vec::new());
        let names = |version| {
            let maker = UnitMaker {
                version,
                places: places.clone(),
            };
            let properties = maker.restart_delay(Duration::from_secs(60), FIRST_DELAY);
            properties
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert!(names(254).contains(&"RestartSteps"));
        assert!(!names(252).contains(&"RestartSteps"));
    }
}
