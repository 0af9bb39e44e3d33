//! The seam to the operating system's service manager, which supervises
//! everything of ours that runs and is the truth about it.
//!
//! Only reconciliation calls it. The backends are [`systemd`] (user and system
//! manager) and [`launchd`]; what they cannot do alike is data in
//! [`Capabilities`], asked beforehand, never an error at run time.
//!
//! ```text
//!                    create(Instance)                    create(Daemon)
//!                          │                                   │
//!   group ──► sockets listening ──connection or start──► VM    daemon ──fails──► restarting ─┐
//!               ▲                                        │       ▲                           │
//!               └────────────── stop(Vm), ended ─────────┘       └── delay grows to a limit ─┘
//!
//!   stop(group): every member stops, nothing of the instance is left
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`plan`] | what is asked for: units as plain data |
//! | [`state`] | what is so: states and changes of units |
//! | [`error`] | what can go wrong |
//! | [`systemd`] | transient units over D-Bus |
//! | [`launchd`] | jobs by launchctl |
//! | `bind` | which address keeps sockets from listening |

mod bind;
pub mod error;
pub mod launchd;
pub mod plan;
pub mod state;
pub mod systemd;

use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::port::PortMapping;
use aegis_core::units::{self, UnitKind};
use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use error::SupervisorError;
pub use plan::{DaemonPlan, DoorPlan, HelperPlan, InstancePlan, Limits};
pub use state::{Change, Facts, UnitState, Usage};

/// One unit of ours: an instance and what the unit is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitId {
    pub handle: Handle,
    pub kind: UnitKind,
}

impl UnitId {
    /// The group of everything that belongs to an instance.
    pub fn group(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::Slice,
        }
    }

    /// The listening sockets of an instance's VM.
    pub fn sockets(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::Socket,
        }
    }

    /// The owner of an instance's VM.
    pub fn vm(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::Vm,
        }
    }

    /// A daemon of an instance.
    pub fn daemon(handle: &Handle, daemon: &str) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::Daemon(daemon.to_owned()),
        }
    }

    /// The API socket of an instance's daemons.
    pub fn api_socket(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::ApiSocket,
        }
    }

    /// What brings the API socket to aegisd.
    pub fn door(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::Door,
        }
    }

    /// The socket of an exposed port.
    pub fn port_socket(handle: &Handle, port: PortMapping) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::PortSocket(port),
        }
    }

    /// What brings the port's socket to the owner of the VM.
    pub fn port_door(handle: &Handle, port: PortMapping) -> Self {
        Self {
            handle: handle.clone(),
            kind: UnitKind::PortDoor(port),
        }
    }

    /// The unit's name as systemd has it and people read it.
    pub fn name(&self) -> String {
        match &self.kind {
            UnitKind::Slice => units::slice(&self.handle),
            UnitKind::Socket => units::socket(&self.handle),
            UnitKind::Vm => units::vm(&self.handle),
            UnitKind::Daemon(daemon) => units::daemon(&self.handle, daemon),
            UnitKind::ApiSocket => units::api_socket(&self.handle),
            UnitKind::Door => units::door(&self.handle),
            UnitKind::PortSocket(port) => units::port_socket(&self.handle, port),
            UnitKind::PortDoor(port) => units::port_door(&self.handle, port),
        }
    }

    /// The unit a name stands for; `None` if it is not one of an instance.
    pub fn parse(name: &str) -> Option<Self> {
        units::parse(name).map(|(handle, kind)| Self { handle, kind })
    }
}

/// What a call found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service manager did what was asked.
    Changed,
    /// It was so already.
    Unchanged,
}

/// What this service manager can do beyond the common ground.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The manager itself makes the delay between restarts grow (systemd 254).
    /// Without it aegis-shim waits before it becomes the daemon.
    pub growing_delay: bool,
    /// The manager confines units and holds them to limits (systemd). launchd does
    /// neither.
    pub confinement: bool,
    /// Log lines of a unit carry its instance, kit and daemon as fields.
    pub log_fields: bool,
    /// What units write is kept in a journal (systemd). Without it in files of theirs.
    pub journal: bool,
    /// The manager itself fetches the credential of a unit at each start (systemd).
    /// Without it the program that it starts does.
    pub credentials: bool,
    /// Units of a user can outlive the user's logout (`loginctl enable-linger`).
    pub outlives_logout: bool,
    /// The least time between two starts of a unit, whatever its delay is.
    pub between_starts: Duration,
}

/// A service manager.
///
/// **Order.** `create` comes first for each unit; every other call answers
/// [`SupervisorError::NotFound`] for a unit the manager does not know, except
/// `stop` and `clear`, which answer [`Outcome::Unchanged`]. Subscribe with `changes` before
/// `list`, so that nothing happens unseen between the two.
///
/// **Idempotence.** Each call may be repeated and says in its [`Outcome`]
/// whether it did anything. Two calls about one instance at a time are the
/// caller's to avoid; calls about different instances may overlap.
///
/// **Waiting.** `create`, `start`, `stop` and `restart` return when the
/// manager's job has ended, which for a VM means that its guest answers (or that
/// aegis-vmm gave its first state) and may take as long as a boot: there is no
/// deadline here.
///
/// **Cancellation.** Dropping a call's future leaves the manager's job running;
/// `state` tells how it went. Nothing needs to be cleaned up.
///
/// **Ownership.** What was created lives on without this value and without
/// aegisd. The manager forgets a unit when it ended or was stopped; failed units
/// stay, for people to see, until `clear`, `create` or a stop of the group.
#[async_trait]
pub trait Supervisor: Send + Sync + std::fmt::Debug {
    /// Which manager this is, what it can do and since when it runs.
    ///
    /// # Errors
    /// The manager cannot be reached.
    async fn facts(&self) -> Result<Facts, SupervisorError>;

    /// Why units cannot be confined here, in words, as a trial has it; `None` where
    /// they can be.
    ///
    /// # Errors
    /// The manager cannot be reached.
    async fn confinement_obstacle(&self) -> Result<Option<String>, SupervisorError>;

    /// Makes an instance's group and its sockets listen, with the VM's service
    /// loaded behind them but not started; opens nothing if one address is taken.
    ///
    /// # Errors
    /// [`SupervisorError::Bind`] names the address that cannot be listened on;
    /// [`SupervisorError::NoUserNamespaces`] where confinement is impossible and
    /// the plan does not waive it.
    async fn open(&self, plan: &InstancePlan) -> Result<Outcome, SupervisorError>;

    /// Makes the socket of a door listen, with the door loaded behind it.
    ///
    /// # Errors
    /// As [`Supervisor::open`].
    async fn listen(&self, plan: &DoorPlan) -> Result<Outcome, SupervisorError>;

    /// Creates and starts an instance daemon, in place of an ended or failed one
    /// of that name. A running one is left as it is; `restart` does not read the
    /// plan again either: `stop` first, where the plan changed.
    ///
    /// # Errors
    /// [`SupervisorError::Job`] where the daemon could not be started at all;
    /// one that starts and fails is restarted by the manager and no error here.
    async fn launch(&self, plan: &DaemonPlan) -> Result<Outcome, SupervisorError>;

    /// Starts a helper and does not wait for it. That it could not be started shows as
    /// the end of what is at the other end of its input.
    ///
    /// # Errors
    /// The manager refused, or confinement is impossible and the plan does not waive
    /// it.
    async fn help(&self, plan: HelperPlan) -> Result<(), SupervisorError>;

    /// Starts a unit that was created: the VM of an instance whose sockets listen.
    ///
    /// # Errors
    /// [`SupervisorError::Job`] with how the start ended.
    async fn start(&self, unit: &UnitId) -> Result<Outcome, SupervisorError>;

    /// Stops a unit and waits until its processes are gone. A stopped VM leaves
    /// its sockets listening. Stopping a group stops and forgets all its members.
    ///
    /// # Errors
    /// The manager refused, or the job was replaced by another caller's.
    async fn stop(&self, unit: &UnitId) -> Result<Outcome, SupervisorError>;

    /// Stops and starts a service as it was created.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    async fn restart(&self, unit: &UnitId) -> Result<(), SupervisorError>;

    /// Sends a signal to a service's main process; `SIGHUP` is how a daemon is
    /// told to read its configuration again.
    ///
    /// # Errors
    /// [`SupervisorError::NotFound`] also where the unit has no main process.
    async fn signal(&self, unit: &UnitId, signal: i32) -> Result<(), SupervisorError>;

    /// Changes the limits of a service for as long as the manager knows it, whether
    /// it runs or not. A manager that holds nothing to limits does nothing.
    ///
    /// # Errors
    /// The manager refused; nothing is changed then.
    async fn limit(&self, unit: &UnitId, limits: &Limits) -> Result<(), SupervisorError>;

    /// What a service uses at this moment.
    ///
    /// # Errors
    /// The manager cannot be reached.
    async fn usage(&self, unit: &UnitId) -> Result<Usage, SupervisorError>;

    /// Forgets failures: a failed unit vanishes, a running one's delay between
    /// restarts starts over at the shortest.
    ///
    /// # Errors
    /// The manager cannot be reached.
    async fn clear(&self, unit: &UnitId) -> Result<Outcome, SupervisorError>;

    /// The units of all instances the manager knows, or those of one, by name.
    ///
    /// # Errors
    /// The manager cannot be reached.
    async fn list(&self, instance: Option<&Handle>) -> Result<Vec<UnitState>, SupervisorError>;

    /// The name of the unit that a process belongs to, as the kernel or the manager has
    /// it; empty where it is in none.
    ///
    /// # Errors
    /// The process is gone or hidden, or the manager cannot be reached.
    async fn place(&self, pid: u32) -> Result<String, SupervisorError>;

    /// Everything that happens to units of instances from now on. The stream
    /// ends when the manager's connection does; then connect anew and `list`.
    ///
    /// # Errors
    /// The manager cannot be reached.
    async fn changes(&self) -> Result<BoxStream<'static, Change>, SupervisorError>;
}
