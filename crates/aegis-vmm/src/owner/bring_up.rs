//! From a spec to a guest that is ready, as a chain of types.
//!
//! ```text
//!  Planned ──hold──► Held ──launch──► Launched ──greet──► Greeted ──boot──► Up
//!  files are there   disk, console,   a machine runs      the guest said    READY
//!                    link, scratch                        who it is
//! ```
//!
//! Where a snapshot is, [`wake`] takes the place of the steps after `Held`, and where a
//! template of the guest is, [`template`] does.
//!
//! Each step consumes the one before. Dropping any of them, or the future of a
//! step, gives back all that was taken: nothing of a failed or cancelled start is
//! left.

mod shape;
mod template;
mod wake;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::fault::{Fault, Symbol};
use aegis_core::vm_spec::{VmSpec, VmVolume};
use aegis_core::volume::WORKSPACE;
use aegis_fault_points::around_async;
use aegis_link::message::{Event, Hello};
use aegis_link::{CallError, Handle, Incoming, LinkError, Received, Role};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{info, warn};

use super::up::{Beginning, Parts, Up, blocking};
use crate::command_log::CommandLog;
use crate::console::{self, ConsoleTail};
use crate::disk::{self, DiskError};
use crate::guest;
use crate::hypervisor::kernel::KernelKind;
use crate::hypervisor::layers::{LayerDisk, LayersError};
use crate::hypervisor::{
    DiskImage, DiskPlan, DiskSerial, GuestKernel, Hypervisor, LaunchError, Machine, MachineEnd,
    MachineError, MachinePlan, SharePlan,
};
use crate::inject::{self, InjectError};
use crate::snapshot::stamp::Stamp;
use crate::snapshot::{Place, SnapshotError};
use crate::status::StatusDoor;
use template::Mold;
use wake::NotWoken;

/// How long the project's own kernel may take until the guest is ready. It needs
/// one second translated on an idle host.
const BOOT_DEADLINE_OWN: Duration = Duration::from_secs(60);

/// The same for a distribution's kernel, which takes nine times as long.
const BOOT_DEADLINE_FALLBACK: Duration = Duration::from_secs(180);

/// What the harness writes to the console when it cannot reach the link.
const BOOT_FAILED: &str = "aegis-harness: boot failed: ";

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the secrets of the instance cannot be had: {0}")]
    Secrets(Fault),
    #[error("the base image {} is missing", .0.display())]
    NoBaseImage(PathBuf),
    #[error("cannot use the layers of the image")]
    Layers(#[from] LayersError),
    #[error("cannot make the disk of the instance")]
    Disk(#[source] DiskError),
    #[error("cannot add the kit's programs to the image")]
    Inject(#[from] InjectError),
    #[error("cannot open the {what} {}", path.display())]
    Log {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a {what} for the machine")]
    Resource {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the machine is on the disk and sealed, and its key cannot be had")]
    NoSnapshotKey,
    #[error("the snapshot of the instance cannot be removed")]
    Snapshot(#[source] SnapshotError),
    #[error("cannot look at {}", path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the machine")]
    Launch(#[source] LaunchError),
    #[error("the guest could not boot: {0}")]
    BootFailed(String),
    #[error(
        "the guest did not answer within {} s; its console ends with: {console}", after.as_secs()
    )]
    Timeout { after: Duration, console: String },
    #[error(
        "the machine ended before the guest was ready: {end}; its console ends with: {console}"
    )]
    Ended { end: MachineEnd, console: String },
    #[error("the link to the guest failed before the guest was ready")]
    Link(#[source] LinkError),
    #[error("the machine does not run on after a template was made of it")]
    RunOn(#[source] MachineError),
    #[error("the guest refused its boot order")]
    Boot(#[source] CallError),
}

impl From<StartError> for Fault {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Secrets(ref fault) => Fault {
                hint: fault.hint.clone(),
                ..Fault::from_error(fault.symbol, &error)
            },
            StartError::Launch(error) => error.into(),
            StartError::RunOn(error) => error.into(),
            StartError::Disk(error) => error.into(),
            StartError::Inject(error) => error.into(),
            StartError::Layers(error) => error.into(),
            StartError::Boot(error) => guest::call_fault(&error),
            StartError::NoBaseImage(_) => Fault::from_error(Symbol::GuestFilesMissing, &error)
                .with_hint("install the guest files again"),
            StartError::NoSnapshotKey => Fault::from_error(Symbol::SecretKeyLost, &error).with_hint(
                "bring the key of the host back (aegisctl secret status), or throw the machine \
                 away: aegisctl instance stop NAME --grace 0",
            ),
            StartError::Log { ref source, .. } | StartError::Resource { ref source, .. }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                Fault::from_error(Symbol::NoSpace, &error)
                    .with_hint("free some space on the disk of the instance")
            }
            StartError::Log { .. }
            | StartError::Resource { .. }
            | StartError::Snapshot(_)
            | StartError::Look { .. } => {
                Fault::from_error(Symbol::Internal, &error)
            }
            StartError::BootFailed(_) => Fault::from_error(Symbol::GuestBootFailed, &error),
            StartError::Timeout { .. } => Fault::from_error(Symbol::GuestTimeout, &error)
                .with_hint("give the host time, or the guest more memory; log/console.log in the instance's folder holds the whole console"),
            StartError::Ended { .. } => Fault::from_error(Symbol::GuestBootFailed, &error),
            StartError::Link(ref link) if guest::is_violation(link) => {
                Fault::from_error(Symbol::LinkViolation, &error)
            }
            StartError::Link(_) => Fault::from_error(Symbol::GuestBootFailed, &error),
        }
    }
}

/// Starts a guest: restores it if there is a snapshot of it, else boots it. Tells in
/// the status how far it is. [`Up::beginning`] says which it was.
///
/// # Errors
/// Why there is none; nothing of it is left.
pub async fn bring_up<H: Hypervisor>(
    spec: Arc<VmSpec>,
    hypervisor: Arc<H>,
    status: Arc<StatusDoor>,
) -> Result<Up<H::Machine>, StartError> {
    let tell = |words: &str| status.change(|status| words.clone_into(&mut status.words));
    let place = Place::of(&spec.dir, spec.credential.snapshot_key.clone());
    let mut refused = None;
    if !place.is_empty() {
        tell("starting: the VM is being restored");
        let planned = Planned::new(Arc::clone(&spec))?;
        // Most starts need no room for it.
        match Box::pin(wake::wake(planned, &*hypervisor, &place)).await {
            Ok(up) => return Ok(up),
            Err(NotWoken::Start(error)) => return Err(error),
            Err(NotWoken::Nothing) => {}
            Err(NotWoken::Unusable(reason)) => {
                let fault = Fault::from(&reason);
                warn!("{fault}");
                refused = Some(Box::new(fault));
            }
        }
        // Also one that was begun and is not whole.
        let removed = blocking(move || place.remove()).await;
        removed.map_err(StartError::Snapshot)?;
    }
    tell("starting: the machine is being prepared");
    let mut held = hold(Arc::clone(&spec)).await?;
    if let Some(mold) = held.mold.clone()
        && let Some((stored, header)) = mold.open().await
    {
        tell("starting: the guest is loaded from its template");
        match Box::pin(held.begin_from(&*hypervisor, stored, header)).await {
            Ok(mut up) => {
                up.beginning = Beginning::Booted { refused };
                return Ok(up);
            }
            Err(NotWoken::Unusable(reason)) => mold.discard(&reason).await,
            // Whether it is the template's doing shows in a boot.
            Err(NotWoken::Start(error)) => warn!("{}, booting", aegis_core::fault::chain(&error)),
            Err(NotWoken::Nothing) => {}
        }
        held = hold(spec).await?;
        // A state that this host cannot load is not made again for the next start.
        held.mold = None;
    }
    tell("starting: the machine is being started");
    let launch = held.launch(&*hypervisor);
    let launched = around_async("vm.launch", resource("machine"), launch).await?;
    tell("starting: the guest boots");
    let ready = launched.ready(Beginning::Booted { refused });
    around_async("vm.boot", resource("link"), ready).await
}

async fn hold(spec: Arc<VmSpec>) -> Result<Held, StartError> {
    let planned = Planned::new(spec)?;
    around_async("vm.hold", resource("machine"), planned.hold()).await
}

/// How something of the host is shared.
fn share_plan(shared: VmVolume) -> SharePlan {
    SharePlan {
        symbol: match shared.target.as_str() {
            WORKSPACE => Symbol::WorkspaceUnavailable,
            _ => Symbol::VolumeUnavailable,
        },
        path: shared.source,
        read_only: shared.read_only,
    }
}

/// What could not be had.
fn resource(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Resource { what, source }
}

/// All files that were installed are there, and so are the secrets.
struct Planned {
    spec: Arc<VmSpec>,
    kernel: GuestKernel,
    /// The lowest of the root's disks.
    base: DiskImage,
}

impl Planned {
    fn new(spec: Arc<VmSpec>) -> Result<Self, StartError> {
        if let Some(fault) = &spec.credential.fault {
            return Err(StartError::Secrets(fault.clone()));
        }
        let kernel =
            GuestKernel::find(&spec.guest_dir, spec.platform).map_err(StartError::Launch)?;
        let base = if spec.layers.is_empty() {
            let path = spec.guest_dir.join("base.squashfs");
            if !path.is_file() {
                return Err(StartError::NoBaseImage(path));
            }
            DiskImage::Raw {
                path,
                read_only: true,
            }
        } else {
            DiskImage::Layers(LayerDisk::open(&spec.layers)?)
        };
        Ok(Self { spec, kernel, base })
    }

    async fn hold(self) -> Result<Held, StartError> {
        let Self { spec, kernel, base } = self;
        let mut shape = shape::machine_of(&spec, &kernel)?;
        let mut disks = vec![DiskPlan {
            image: base,
            serial: DiskSerial::Base,
        }];
        let raw = |path, read_only, serial| DiskPlan {
            image: DiskImage::Raw { path, read_only },
            serial,
        };
        if let Some(path) = inject::ensure(&spec.dir, &spec.inject).await? {
            shape = shape::with_file(shape, "the layer of the kit's programs", &path)?;
            disks.push(raw(path, true, DiskSerial::Kit));
        }
        if let Some(disk) = spec.root_disk() {
            let made = disk::ensure(disk);
            let made = async { made.await.map_err(StartError::Disk) };
            around_async("vm.disk", resource("disk"), made).await?;
            disks.push(raw(disk.path.clone(), false, DiskSerial::Upper));
        }
        let scratch = tempfile::Builder::new()
            .prefix("aegis-vmm-")
            .tempdir()
            .map_err(resource("scratch directory"))?;
        let (link, guest_link) = StdUnixStream::pair().map_err(resource("link"))?;
        link.set_nonblocking(true).map_err(resource("link"))?;
        let log_dir = spec.dir.join("log");
        let path = log_dir.join("console.log");
        let (console, tail) = console::keep(path.clone()).map_err(|source| StartError::Log {
            what: "console log",
            path,
            source,
        })?;
        let path = log_dir.join("command.log");
        let log = CommandLog::open(path.clone()).map_err(|source| StartError::Log {
            what: "log of the command",
            path,
            source,
        })?;
        let kind = kernel.kind();
        let stamp = shape.clone().and(shape::instance_of(&spec));
        let mold = Mold::of(&spec, shape);
        let plan = MachinePlan {
            kernel,
            memory_mib: spec.memory_mib,
            cpus: spec.cpus,
            accel: spec.accel,
            disks,
            shares: spec.shares().into_iter().map(share_plan).collect(),
            link: OwnedFd::from(guest_link),
            network: guest::network_plan(&spec),
            console,
            scratch: scratch.path().to_owned(),
            insecure: spec.insecure,
            incoming: None,
        };
        Ok(Held {
            spec,
            plan,
            kind,
            mold,
            rest: Rest {
                scratch,
                log,
                console: tail,
                stamp,
            },
            link,
        })
    }
}

/// What a guest needs besides its machine, taken.
struct Held {
    spec: Arc<VmSpec>,
    plan: MachinePlan,
    kind: KernelKind,
    mold: Option<Mold>,
    link: StdUnixStream,
    rest: Rest,
}

/// What lives as long as the machine.
pub(super) struct Rest {
    pub(super) scratch: TempDir,
    pub(super) log: CommandLog,
    console: ConsoleTail,
    /// What the instance and its files were when it began.
    pub(super) stamp: Stamp,
}

impl Held {
    async fn launch<H: Hypervisor>(
        self,
        hypervisor: &H,
    ) -> Result<Launched<H::Machine>, StartError> {
        let channel = UnixStream::from_std(self.link).map_err(|source| StartError::Resource {
            what: "link",
            source,
        })?;
        let machine = hypervisor
            .launch(self.plan)
            .await
            .map_err(StartError::Launch)?;
        let (link, incoming) = aegis_link::start(channel, Role::Host);
        Ok(Launched {
            spec: self.spec,
            machine,
            kind: self.kind,
            mold: self.mold,
            link,
            incoming,
            rest: self.rest,
        })
    }
}

/// A machine runs; its guest has not said anything.
struct Launched<M> {
    spec: Arc<VmSpec>,
    machine: M,
    kind: KernelKind,
    mold: Option<Mold>,
    link: Handle,
    incoming: Incoming,
    rest: Rest,
}

impl<M: Machine> Launched<M> {
    /// Greets and boots the guest within the deadline.
    async fn ready(mut self, beginning: Beginning) -> Result<Up<M>, StartError> {
        let deadline = match self.kind {
            KernelKind::Own => BOOT_DEADLINE_OWN,
            KernelKind::Fallback => BOOT_DEADLINE_FALLBACK,
        };
        let failure = tokio::select! {
            talked = timeout(deadline, talk(&self.spec, &self.machine, self.mold.as_ref(), &self.link, &mut self.incoming)) => {
                match talked {
                    Ok(Ok(())) => None,
                    // The link of a guest that resets itself ends just before its
                    // machine, which knows more.
                    Ok(Err(StartError::Link(link))) if !guest::is_violation(&link) => {
                        match timeout(END_PATIENCE, self.machine.wait()).await {
                            Ok(end) => Some(Failure::Ended(end)),
                            Err(_) => Some(Failure::Other(StartError::Link(link))),
                        }
                    }
                    Ok(Err(error)) => Some(Failure::Other(error)),
                    Err(_) => Some(Failure::Timeout(deadline)),
                }
            }
            end = self.machine.wait() => Some(Failure::Ended(end)),
        };
        match failure {
            None => Ok(Up::new(
                Parts {
                    machine: self.machine,
                    link: self.link,
                    incoming: self.incoming,
                    spec: self.spec,
                    rest: self.rest,
                },
                beginning,
            )),
            Some(failure) => Err(self.explain(failure).await),
        }
    }

    /// Looks into the console for the reason; the machine is ended for that.
    async fn explain(self, failure: Failure) -> StartError {
        let mut console = self.rest.console;
        if let Failure::Other(error) = failure {
            return error;
        }
        self.machine.quit().await;
        console.complete().await;
        if let Some(reason) = console.after(BOOT_FAILED) {
            return StartError::BootFailed(reason);
        }
        let console = console.last_lines();
        match failure {
            Failure::Timeout(after) => StartError::Timeout { after, console },
            Failure::Ended(end) => StartError::Ended { end, console },
            Failure::Other(error) => error,
        }
    }
}

/// How long a machine may outlive the link of its guest.
const END_PATIENCE: Duration = Duration::from_secs(5);

enum Failure {
    Timeout(Duration),
    Ended(MachineEnd),
    Other(StartError),
}

async fn talk<M: Machine>(
    spec: &VmSpec,
    machine: &M,
    mold: Option<&Mold>,
    link: &Handle,
    incoming: &mut Incoming,
) -> Result<(), StartError> {
    let hello = greeting(incoming).await.map_err(StartError::Link)?;
    info!(
        "the guest speaks: harness {}, kernel {}",
        hello.harness, hello.kernel
    );
    if let Some(mold) = mold {
        mold.keep(machine, link, &hello).await?;
    }
    let order = guest::boot_order(spec, &hello, machine.facts());
    let booted = async { link.boot(order).await.map_err(StartError::Boot) };
    let booted = around_async("vm.order", resource("boot order"), booted).await?;
    info!(
        "the guest is ready after {} ms of its own time",
        booted.uptime_ms
    );
    Ok(())
}

/// A guest's first word is its greeting; what else it may say is not for us.
async fn greeting(incoming: &mut Incoming) -> Result<Hello, LinkError> {
    loop {
        if let Received::Event {
            event: Event::Hello(hello),
            ..
        } = incoming.next().await?
        {
            return Ok(hello);
        }
    }
}
