//! launchd: jobs as property lists (launchd.plist(5)).
//!
//! Only the rendering exists: there is no backend yet, and nothing of this was run
//! on a Mac. It is here so that the [`Supervisor`](super::Supervisor) seam is held
//! to what launchd can do:
//!
//! | the seam | launchd |
//! |---|---|
//! | group | none: all jobs whose label begins with the instance's |
//! | open | `launchctl bootstrap` of [`vm_job`]; its sockets listen from then on |
//! | listen | `launchctl bootstrap` of [`door_job`] |
//! | launch | `launchctl bootstrap` of [`daemon_job`] |
//! | start, restart | `launchctl kickstart`, with `-k` |
//! | stop of a VM | `launchctl kill SIGTERM`; the job stays, so its sockets do |
//! | stop of all else | `launchctl bootout`, then `print` until it is not found |
//! | list, changes | `launchctl print`, polled |
//! | clear | removes the back-off that aegis-shim keeps |
//!
//! launchd confines nothing, limits no memory and knows no readiness. The distance
//! between two starts is fixed ([`THROTTLE_SECONDS`]); what goes beyond it is
//! aegis-shim's to wait, which first has to learn how a run ended: launchd has no
//! counterpart of `ExecStopPost=`.

use std::path::Path;

use aegis_core::units::UnitKind;
use plist::{Dictionary, Value};

use super::plan::{Listen, Program, Restarts};
use super::{Capabilities, DaemonPlan, DoorPlan, InstancePlan, UnitId};

/// What launchd can do.
pub const CAPABILITIES: Capabilities = Capabilities {
    growing_delay: false,
    confinement: false,
    log_fields: false,
};

/// Seconds between two starts of a job. Below 10, the default, launchd is not known
/// to be reliable, but a daemon that was killed should not be missed for that long.
pub const THROTTLE_SECONDS: u64 = 5;

/// Why a property list could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error("cannot render the property list of {label}")]
    Write {
        label: String,
        #[source]
        source: plist::Error,
    },
}

/// The label of a unit's job; `None` for groups and sockets, which have no job of
/// their own.
pub fn label(unit: &UnitId) -> Option<String> {
    match &unit.kind {
        UnitKind::Vm => Some(format!("org.aegisvm.vm:{}", unit.handle)),
        UnitKind::Daemon(daemon) => Some(format!("org.aegisvm.kit:{}:{daemon}", unit.handle)),
        UnitKind::Door => Some(format!("org.aegisvm.api:{}", unit.handle)),
        UnitKind::PortDoor(port) => Some(format!("org.aegisvm.port:{}:{port}", unit.handle)),
        UnitKind::Slice | UnitKind::Socket | UnitKind::ApiSocket | UnitKind::PortSocket(_) => None,
    }
}

/// The job of an instance's VM: started by the first connection to a socket, and
/// again by the next one after it ended in whatever way. `logs` gets its stderr.
pub fn vm_job(plan: &InstancePlan, logs: &Path) -> Dictionary {
    let name = format!("org.aegisvm.vm:{}", plan.handle);
    let mut job = common(&name, &plan.program, logs);
    let sockets: Vec<Value> = plan.listen.iter().map(socket).collect();
    let mut named = Dictionary::new();
    named.insert("aegis".into(), Value::Array(sockets));
    job.insert("Sockets".into(), Value::Dictionary(named));
    job.insert("ExitTimeOut".into(), plan.stop_timeout.as_secs().into());
    job
}

/// The job of an instance daemon: started when it is bootstrapped, and again as its
/// plan says. `logs` gets its stderr.
pub fn daemon_job(plan: &DaemonPlan, logs: &Path) -> Dictionary {
    let name = format!("org.aegisvm.kit:{}:{}", plan.handle, plan.daemon);
    let mut program = plan.program.clone();
    program
        .arguments
        .extend(["--back-off".to_owned(), plan.back_off.display().to_string()]);
    let mut job = common(&name, &program, logs);
    let keep_alive = match plan.restarts {
        Restarts::OnFailure => {
            let mut failures = Dictionary::new();
            failures.insert("SuccessfulExit".into(), false.into());
            Value::Dictionary(failures)
        }
        Restarts::Always => true.into(),
        Restarts::Never => false.into(),
    };
    job.insert("KeepAlive".into(), keep_alive);
    job.insert("RunAtLoad".into(), true.into());
    job.insert("ThrottleInterval".into(), THROTTLE_SECONDS.into());
    job.insert("ExitTimeOut".into(), plan.stop_timeout.as_secs().into());
    job
}

/// The job of an instance's door: started by the first connection to its socket.
/// `logs` gets its stderr.
pub fn door_job(plan: &DoorPlan, logs: &Path) -> Dictionary {
    let name = label(&plan.door).unwrap_or_default();
    let mut job = common(&name, &plan.program, logs);
    let mut named = Dictionary::new();
    named.insert("aegis".into(), Value::Array(vec![socket(&plan.listen)]));
    job.insert("Sockets".into(), Value::Dictionary(named));
    job
}

/// A job as the text that `launchctl bootstrap` reads.
///
/// # Errors
/// The property list could not be written.
pub fn render(job: &Dictionary) -> Result<Vec<u8>, RenderError> {
    let mut text = Vec::new();
    plist::to_writer_xml(&mut text, job).map_err(|source| RenderError::Write {
        label: job
            .get("Label")
            .and_then(Value::as_string)
            .unwrap_or_default()
            .to_owned(),
        source,
    })?;
    Ok(text)
}

fn common(label: &str, program: &Program, logs: &Path) -> Dictionary {
    let path = program.path.display().to_string();
    let argv = std::iter::once(path).chain(program.arguments.iter().cloned());
    let mut no_core = Dictionary::new();
    no_core.insert("Core".into(), 0u64.into());
    let mut job = Dictionary::new();
    job.insert("Label".into(), label.into());
    job.insert(
        "ProgramArguments".into(),
        Value::Array(argv.map(Value::String).collect()),
    );
    // Background jobs are throttled, and a person waits for this one.
    job.insert("ProcessType".into(), "Interactive".into());
    job.insert("Umask".into(), 0o077u64.into());
    job.insert(
        "HardResourceLimits".into(),
        Value::Dictionary(no_core.clone()),
    );
    job.insert("SoftResourceLimits".into(), Value::Dictionary(no_core));
    job.insert(
        "StandardErrorPath".into(),
        logs.display().to_string().into(),
    );
    job
}

fn socket(listen: &Listen) -> Value {
    let mut socket = Dictionary::new();
    match listen {
        Listen::Unix(path) => {
            socket.insert("SockPathName".into(), path.display().to_string().into());
            socket.insert("SockPathMode".into(), 0o600u64.into());
        }
        Listen::Tcp(address) => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            socket.insert("SockNodeName".into(), address.ip().to_string().into());
            socket.insert("SockServiceName".into(), address.port().to_string().into());
            socket.insert("SockFamily".into(), family.into());
            socket.insert("SockType".into(), "stream".into());
        }
    }
    Value::Dictionary(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::plan::{Confinement, Limits, LogFields, Readiness};
    use super::*;

    fn program(path: &str) -> Program {
        Program {
            path: path.into(),
            arguments: vec!["--spec".into(), "/i/spec.json".into()],
        }
    }

    fn vm() -> InstancePlan {
        InstancePlan {
            handle: "web".parse().unwrap(),
            program: program("/opt/homebrew/libexec/aegisvm/aegis-vmm"),
            listen: vec![
                Listen::Unix("/tmp/aegis/web/control.sock".into()),
                Listen::Tcp("127.0.0.1:8080".parse().unwrap()),
                Listen::Tcp("[::1]:8081".parse().unwrap()),
            ],
            stop_timeout: Duration::from_secs(25),
            watchdog: Duration::from_secs(30),
            restart: aegis_core::restart::RestartPolicy::OnFailure { most: None },
            credentials: None,
            limits: Limits::default(),
            confinement: Confinement::Waived,
            log: LogFields::default(),
        }
    }

    fn daemon() -> DaemonPlan {
        DaemonPlan {
            handle: "web".parse().unwrap(),
            daemon: "gateway".into(),
            label: "Gateway".into(),
            program: program("/opt/homebrew/libexec/aegisvm/aegis-shim"),
            ended: program("/opt/homebrew/libexec/aegisvm/aegis-shim"),
            back_off: "/i/back-off.json".into(),
            readiness: Readiness::Started,
            restarts: Restarts::OnFailure,
            restart_max_delay: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(20),
            credentials: None,
            limits: Limits::default(),
            confinement: Confinement::Waived,
            log: LogFields::default(),
        }
    }

    /// What launchd would read.
    fn read_back(job: &Dictionary) -> Dictionary {
        plist::from_bytes(&render(job).unwrap()).unwrap()
    }

    #[test]
    fn a_vm_waits_for_its_sockets() {
        let job = read_back(&vm_job(&vm(), Path::new("/i/log/vm.log")));
        assert_eq!(job["Label"].as_string(), Some("org.aegisvm.vm:web"));
        assert!(
            !job.contains_key("KeepAlive") && !job.contains_key("RunAtLoad"),
            "on demand only"
        );
        let sockets = job["Sockets"].as_dictionary().unwrap()["aegis"]
            .as_array()
            .unwrap();
        let word = |index: usize, key: &str| {
            sockets[index].as_dictionary().unwrap()[key]
                .as_string()
                .unwrap()
                .to_owned()
        };
        assert_eq!(word(0, "SockPathName"), "/tmp/aegis/web/control.sock");
        let mode = &sockets[0].as_dictionary().unwrap()["SockPathMode"];
        assert_eq!(mode.as_unsigned_integer(), Some(0o600));
        assert_eq!(
            (word(1, "SockNodeName"), word(1, "SockServiceName")),
            ("127.0.0.1".into(), "8080".into())
        );
        assert_eq!(
            (word(2, "SockNodeName"), word(2, "SockFamily")),
            ("::1".into(), "IPv6".into())
        );
    }

    #[test]
    fn a_door_waits_for_its_port() {
        let (handle, port) = ("web".parse().unwrap(), "8080:80".parse().unwrap());
        let plan = DoorPlan {
            socket: UnitId::port_socket(&handle, port),
            door: UnitId::port_door(&handle, port),
            label: "Port".into(),
            listen: Listen::Tcp(port.host),
            program: program("/opt/homebrew/libexec/aegisvm/aegis-shim"),
            confinement: Confinement::Waived,
        };
        let job = read_back(&door_job(&plan, Path::new("/i/log/port.log")));
        let label = "org.aegisvm.port:web:127.0.0.1:8080:80";
        assert_eq!(job["Label"].as_string(), Some(label));
        let sockets = job["Sockets"].as_dictionary().unwrap();
        assert_eq!(sockets["aegis"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_daemon_runs_until_it_ends_with_0() {
        let job = read_back(&daemon_job(&daemon(), Path::new("/i/log/gateway.log")));
        let keep_alive = job["KeepAlive"].as_dictionary().unwrap();
        assert_eq!(keep_alive["SuccessfulExit"].as_boolean(), Some(false));
        let argv = job["ProgramArguments"].as_array().unwrap();
        assert_eq!(argv.last().unwrap().as_string(), Some("/i/back-off.json"));
        assert_eq!(job["ExitTimeOut"].as_unsigned_integer(), Some(20));
    }

    #[test]
    fn labels_are_those_of_the_jobs() {
        let handle = "web".parse().unwrap();
        let vm_label = vm_job(&vm(), Path::new("/x"))["Label"]
            .as_string()
            .map(str::to_owned);
        assert_eq!(label(&UnitId::vm(&handle)), vm_label);
        let daemon_label = daemon_job(&daemon(), Path::new("/x"))["Label"]
            .as_string()
            .map(str::to_owned);
        assert_eq!(label(&UnitId::daemon(&handle, "gateway")), daemon_label);
        assert_eq!(label(&UnitId::group(&handle)), None);
        assert_eq!(label(&UnitId::sockets(&handle)), None);
    }
}
