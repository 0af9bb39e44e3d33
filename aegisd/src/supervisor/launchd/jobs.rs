//! Units as jobs: labels and property lists (launchd.plist(5)).
//!
//! | unit | job | started |
//! |---|---|---|
//! | VM and its sockets | `org.aegisvm.vm:HANDLE` | by a connection; again after a failure |
//! | daemon | `org.aegisvm.kit:HANDLE:DAEMON` | when it is loaded; again as its plan says |
//! | API socket and door | `org.aegisvm.api:HANDLE` | by a connection |
//! | port and door | `org.aegisvm.port:HANDLE:PORT` | by a connection |
//! | – | `org.aegisvm.session:MICROSECONDS` | never: it says since when there are jobs |

use std::path::{Path, PathBuf};

use aegis_core::restart::RestartPolicy;
use aegis_core::units::UnitKind;
use aegis_os::credential;
use plist::{Dictionary, Value};

use crate::supervisor::plan::{Listen, Program, Readiness, Restarts};
use crate::supervisor::{DaemonPlan, DoorPlan, InstancePlan, UnitId};

/// Seconds between two starts of a job, the least that launchd takes: the longer delays
/// are aegis-shim's to wait.
pub const THROTTLE_SECONDS: u64 = 1;

/// The user that jobs of the system run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitUser {
    pub name: String,
    pub uid: u32,
}

/// What all jobs have in common.
#[derive(Clone, Debug)]
pub struct JobMaker {
    /// `gui/UID`, `user/UID` or `system`.
    pub domain: String,
    /// launchctl(1), which aegis-shim asks.
    pub launchctl: PathBuf,
    /// aegis-shim.
    pub shim: PathBuf,
    /// Where programs of others are looked for: launchd's own PATH knows no Homebrew.
    pub path: String,
    /// `None` for the user whose domain it is.
    pub user: Option<UnitUser>,
}

/// The label of a unit's job; `None` for groups, which have none. A socket's is that of
/// what is behind it.
pub fn label(unit: &UnitId) -> Option<String> {
    let handle = &unit.handle;
    match &unit.kind {
        UnitKind::Vm | UnitKind::Socket => Some(format!("org.aegisvm.vm:{handle}")),
        UnitKind::Daemon(daemon) => Some(format!("org.aegisvm.kit:{handle}:{daemon}")),
        UnitKind::Door | UnitKind::ApiSocket => Some(format!("org.aegisvm.api:{handle}")),
        UnitKind::PortDoor(port) | UnitKind::PortSocket(port) => {
            Some(format!("org.aegisvm.port:{handle}:{port}"))
        }
        UnitKind::Slice => None,
    }
}

/// The unit that runs as a job; `None` if the label is not one of an instance.
pub fn unit(label: &str) -> Option<UnitId> {
    let (kind, rest) = label.strip_prefix("org.aegisvm.")?.split_once(':')?;
    let (handle, more) = match rest.split_once(':') {
        Some((handle, more)) => (handle, Some(more)),
        None => (rest, None),
    };
    let handle = handle.parse().ok()?;
    let kind = match (kind, more) {
        ("vm", None) => UnitKind::Vm,
        ("api", None) => UnitKind::Door,
        ("kit", Some(daemon)) => UnitKind::Daemon(daemon.to_owned()),
        ("port", Some(port)) => UnitKind::PortDoor(port.parse().ok()?),
        _ => return None,
    };
    Some(UnitId { handle, kind })
}

/// The socket that is there as long as the unit's job is; `None` for a daemon.
pub fn socket_of(unit: &UnitId) -> Option<UnitId> {
    let kind = match &unit.kind {
        UnitKind::Vm => UnitKind::Socket,
        UnitKind::Door => UnitKind::ApiSocket,
        UnitKind::PortDoor(port) => UnitKind::PortSocket(*port),
        _ => return None,
    };
    Some(UnitId {
        handle: unit.handle.clone(),
        kind,
    })
}

/// The unit whose job has this process, of what launchd says of all jobs.
pub fn with_process(jobs: &str, pid: u32) -> Option<UnitId> {
    let pid = pid.to_string();
    let row = aegis_core::launchd::rows(jobs).find(|row| {
        let mut words = row.split_whitespace();
        words.next() == Some(&*pid) && words.next_back().is_some_and(|label| unit(label).is_some())
    });
    unit(row?.split_whitespace().last()?)
}

const SESSION: &str = "org.aegisvm.session:";

/// The label of the job that says since when launchd has jobs of ours.
pub fn session_label(micros: u64) -> String {
    format!("{SESSION}{micros}")
}

/// When the session of that label began, in microseconds since 1970.
pub fn session_began(label: &str) -> Option<u64> {
    label.strip_prefix(SESSION)?.parse().ok()
}

/// A job that never runs. It is forgotten when all others are: at a logout or a boot.
pub fn session_job(label: &str) -> Dictionary {
    let mut job = Dictionary::new();
    job.insert("Label".into(), label.into());
    let program = Value::Array(vec!["/usr/bin/true".into()]);
    job.insert("ProgramArguments".into(), program);
    job
}

impl JobMaker {
    /// What names a job to launchctl.
    pub fn target(&self, label: &str) -> String {
        format!("{}/{label}", self.domain)
    }

    /// The job of an instance's VM. `log` gets its stderr, `record` what aegis-shim
    /// knows of its runs; it says on the socket `notify` when it is ready.
    pub fn vm(&self, plan: &InstancePlan, files: &JobFiles) -> Dictionary {
        let label = format!("org.aegisvm.vm:{}", plan.handle);
        let mut arguments = vec!["activate".to_owned()];
        arguments.extend(self.job_arguments(&label, &files.record));
        if plan.restart == RestartPolicy::No {
            arguments.push("--once".to_owned());
        }
        arguments.push("--".to_owned());
        arguments.push(text(&plan.program.path));
        arguments.extend(plan.program.arguments.iter().cloned());
        let program = Program {
            path: self.shim.clone(),
            arguments,
        };
        let given = Given {
            notify: Some(&files.notify),
            credentials: plan.credentials.as_deref(),
        };
        let mut job = self.common(&label, &program, &files.log, given);
        let sockets = plan.listen.iter().map(|listen| socket(listen, None));
        job.insert("Sockets".into(), sockets_entry(sockets.collect()));
        job.insert("KeepAlive".into(), after_failures());
        job.insert("ExitTimeOut".into(), plan.stop_timeout.as_secs().into());
        job
    }

    /// The job of an instance daemon.
    pub fn daemon(&self, plan: &DaemonPlan, files: &JobFiles) -> Dictionary {
        let label = format!("org.aegisvm.kit:{}:{}", plan.handle, plan.daemon);
        let mut program = plan.program.clone();
        program
            .arguments
            .extend(self.job_arguments(&label, &files.record));
        let given = Given {
            notify: (plan.readiness == Readiness::Notify).then_some(&*files.notify),
            credentials: plan.credentials.as_deref(),
        };
        let mut job = self.common(&label, &program, &files.log, given);
        let keep_alive = match plan.restarts {
            Restarts::OnFailure => after_failures(),
            Restarts::Always => true.into(),
            Restarts::Never => false.into(),
        };
        job.insert("KeepAlive".into(), keep_alive);
        job.insert("RunAtLoad".into(), true.into());
        job.insert("ExitTimeOut".into(), plan.stop_timeout.as_secs().into());
        job
    }

    /// The job of a door. It keeps no record: each of its runs was asked for.
    pub fn door(&self, plan: &DoorPlan, label: &str, log: &Path) -> Dictionary {
        let mut job = self.common(label, &plan.program, log, Given::default());
        let listening = socket(&plan.listen, self.user.as_ref());
        job.insert("Sockets".into(), sockets_entry(vec![listening]));
        job
    }

    fn job_arguments(&self, label: &str, record: &Path) -> [String; 6] {
        [
            "--job".to_owned(),
            self.target(label),
            "--launchctl".to_owned(),
            text(&self.launchctl),
            "--record".to_owned(),
            text(record),
        ]
    }

    fn common(&self, label: &str, program: &Program, log: &Path, given: Given<'_>) -> Dictionary {
        let argv = std::iter::once(text(&program.path)).chain(program.arguments.iter().cloned());
        let mut no_core = Dictionary::new();
        no_core.insert("Core".into(), 0u64.into());
        let mut environment = Dictionary::new();
        environment.insert("PATH".into(), self.path.clone().into());
        let given = [
            ("NOTIFY_SOCKET", given.notify),
            (credential::SOCKET_ENV, given.credentials),
        ];
        for (name, socket) in given {
            if let Some(socket) = socket {
                environment.insert(name.into(), text(socket).into());
            }
        }
        let mut job = Dictionary::new();
        job.insert("Label".into(), label.into());
        job.insert(
            "ProgramArguments".into(),
            Value::Array(argv.map(Value::String).collect()),
        );
        job.insert("EnvironmentVariables".into(), environment.into());
        // Background jobs are throttled, and a person waits for this one.
        job.insert("ProcessType".into(), "Interactive".into());
        job.insert("ThrottleInterval".into(), THROTTLE_SECONDS.into());
        job.insert("Umask".into(), 0o077u64.into());
        job.insert("HardResourceLimits".into(), no_core.clone().into());
        job.insert("SoftResourceLimits".into(), no_core.into());
        job.insert("StandardErrorPath".into(), text(log).into());
        job.insert("StandardOutPath".into(), text(log).into());
        if let Some(user) = &self.user {
            job.insert("UserName".into(), user.name.clone().into());
        }
        job
    }
}

/// The sockets of aegisd's that a job may use.
#[derive(Clone, Copy, Debug, Default)]
struct Given<'a> {
    /// Where it says that it is ready.
    notify: Option<&'a Path>,
    /// Where it asks for its credential.
    credentials: Option<&'a Path>,
}

/// The files of a job beside its property list.
#[derive(Clone, Debug)]
pub struct JobFiles {
    /// Gets what it writes to stdout and stderr.
    pub log: PathBuf,
    /// What aegis-shim keeps of its runs.
    pub record: PathBuf,
    /// The socket on which it says that it is ready.
    pub notify: PathBuf,
}

fn after_failures() -> Value {
    let mut failures = Dictionary::new();
    failures.insert("SuccessfulExit".into(), false.into());
    failures.into()
}

/// All sockets under one name, by which aegis-shim takes them.
fn sockets_entry(sockets: Vec<Value>) -> Value {
    let mut named = Dictionary::new();
    named.insert("aegis".into(), Value::Array(sockets));
    named.into()
}

fn socket(listen: &Listen, owner: Option<&UnitUser>) -> Value {
    let mut socket = Dictionary::new();
    match listen {
        Listen::Unix(path) => {
            socket.insert("SockPathName".into(), text(path).into());
            socket.insert("SockPathMode".into(), 0o600u64.into());
            if let Some(user) = owner {
                socket.insert("SockPathOwner".into(), u64::from(user.uid).into());
            }
        }
        Listen::Tcp(address) => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            socket.insert("SockNodeName".into(), address.ip().to_string().into());
            socket.insert("SockServiceName".into(), address.port().to_string().into());
            socket.insert("SockFamily".into(), family.into());
            socket.insert("SockType".into(), "stream".into());
        }
    }
    socket.into()
}

/// A path of ours: they are plain ([`crate::supervisor::plan::is_plain_path`]).
fn text(path: &Path) -> String {
    path.display().to_string()
}
