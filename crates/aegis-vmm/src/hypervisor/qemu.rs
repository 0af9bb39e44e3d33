//! QEMU: the order of a launch. [`running`] is the machine that comes of it, [`state`]
//! saves and loads it.
//!
//! ```text
//!  plan ─► find QEMU ─► jail or not ─► accelerator ─► share ─► start ─► greeting ─► machine
//! ```
//!
//! Each step holds what the ones before it made; a failure or a dropped future
//! gives it all back, since children die with their [`Child`] and descriptors
//! with their owners.

mod running;
mod state;

use std::fs::{self, File};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_core::platform::Platform;
use aegis_core::spec::Accel;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::accel::{Chooser, Host, KVM};
use super::argv::{Board, Invocation};
use super::binary::{Binary, OLDEST_QEMU};
use super::cmdline::{Conditions, cmdline};
use super::probe::{self, Trial};
use super::process::{Child, Exit, ExitStatus};
use super::qmp::{Command, Greeting, Qmp};
use super::system::System;
use super::tsc::{Measurement, frequency};
pub use running::QemuMachine;
use running::{QUIT_DEADLINE, Running};

use super::{
    DiskImage, EndCause, Hypervisor, Incoming, LaunchError, MAX_DISKS, Machine, MachineEnd,
    MachineError, MachineFacts, MachinePlan, SaveRefusal,
};
use crate::egress::{Egress, Ground};
use crate::jail::{self, Access, Confinement, JailError, Program, View};
use crate::share::{Share, ShareError};
use crate::snapshot::stamp::Stamp;

/// Where the jail shows the guest's kernel.
pub(super) const JAILED_KERNEL: &str = "/boot/kernel";
/// Where the jail shows the guest's initramfs.
pub(super) const JAILED_INITRAMFS: &str = "/boot/initramfs";

/// How long QEMU may take to greet. It takes 50 ms; a host that swaps or reads
/// QEMU from a cold disk needs patience.
const GREETING_DEADLINE: Duration = Duration::from_secs(30);

/// Starts guests with QEMU.
#[derive(Debug)]
pub struct Qemu {
    chooser: Chooser,
    trial_deadline: Duration,
    tsc: Measurement,
}

impl Qemu {
    /// `accel_cache` is the file that keeps the accelerator trial's answer.
    pub fn new(accel_cache: Option<PathBuf>) -> Self {
        Self {
            chooser: Chooser::new(accel_cache),
            trial_deadline: probe::DEADLINE,
            tsc: Measurement::begin(),
        }
    }

    /// Whether the host lets a program be jailed, tried with QEMU itself.
    async fn can_jail(binary: &Binary, root: &Path) -> Result<bool, JailError> {
        let program = |output| Program {
            path: binary.path().to_owned(),
            args: vec!["-version".to_owned()],
            input: None,
            descriptors: Vec::new(),
            output,
            capabilities: 0,
        };
        let view = View::of(binary.path(), root);
        match Child::spawn("version", program, Confinement::Jailed(view)).await {
            Ok(child) => {
                child.wait().await;
                Ok(true)
            }
            Err(error) if error.is_forbidden() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Hypervisor for Qemu {
    type Machine = QemuMachine;

    async fn launch(&self, mut plan: MachinePlan) -> Result<QemuMachine, LaunchError> {
        if plan.disks.len() > MAX_DISKS {
            return Err(LaunchError::TooManyDisks(plan.disks.len()));
        }
        let tsc = self.tsc.recent();
        let platform = plan.kernel.platform();
        let binary = Binary::find(platform)?;
        let start = |source| LaunchError::Start {
            program: binary.path().to_owned(),
            source,
        };
        let root = plan.scratch.join("jail");
        fs::create_dir_all(&root)
            .map_err(JailError::Prepare)
            .map_err(start)?;
        let jailed = match (jail::IS_THERE, plan.insecure) {
            (false, _) => false,
            (true, false) => true,
            (true, true) => Self::can_jail(&binary, &root).await.map_err(start)?,
        };
        let jail_root = jailed.then_some(root.as_path());

        let trial = Trial {
            binary: &binary,
            kernel: &plan.kernel,
            scratch: &plan.scratch,
            jail_root,
            deadline: self.trial_deadline,
        };
        let host = Host::with(&binary);
        let accel = self
            .chooser
            .choose(plan.accel, platform, host, |accel| trial.run(accel))
            .await?;

        let share = Share::prepare(&plan.shares, accel, &plan.scratch, jail_root)
            .await
            .map_err(LaunchError::Share)?;
        // Only a PC has that counter. The kernel in a state was told long ago.
        let counter = (platform == Platform::Amd64).then_some(tsc);
        let tsc_khz = match plan.incoming {
            None => frequency(counter).await,
            Some(_) => None,
        };
        let network = match plan.network.take() {
            Some(wanted) => {
                let hardware = wanted.hardware;
                let ground = Ground {
                    scratch: plan.scratch.clone(),
                    jail_root: jail_root.map(Path::to_owned),
                };
                let (socket, egress) =
                    Egress::start(wanted, ground).map_err(LaunchError::Network)?;
                Some((socket, hardware, egress))
            }
            None => None,
        };
        let cmdline = cmdline(Conditions {
            platform,
            kernel: plan.kernel.kind(),
            accel,
            cpus: plan.cpus,
            tsc_khz,
            quiet: true,
        });
        let facts = MachineFacts {
            accel,
            machine: plan.kernel.machine(),
            kernel: plan.kernel.kind(),
            version: String::new(),
            share: share.as_ref().map(Share::kind),
            jailed,
            stamp: Stamp::default(),
        };
        let prepared = Prepared::new(plan, accel, &binary, &cmdline, jail_root, share, network)?;
        prepared.start(binary, facts, counter).await
    }
}

/// Everything QEMU is started with.
struct Prepared {
    invocation: Invocation,
    confinement: Confinement,
    qmp: UnixStream,
    server: Option<Child>,
    /// The stamp of the state to load, and the descriptor that it comes from.
    incoming: Option<(Stamp, RawFd)>,
    stamp: Stamp,
    network: Option<Egress>,
}

impl Prepared {
    fn new(
        plan: MachinePlan,
        accel: Accel,
        binary: &Binary,
        cmdline: &str,
        jail_root: Option<&Path>,
        share: Option<Share>,
        network: Option<(OwnedFd, [u8; 6], Egress)>,
    ) -> Result<Self, LaunchError> {
        let (kernel, initramfs) = match jail_root {
            Some(_) => (Path::new(JAILED_KERNEL), Path::new(JAILED_INITRAMFS)),
            None => (plan.kernel.image(), plan.kernel.initramfs()),
        };
        let confinement = match jail_root {
            Some(root) => {
                let mut view = View::of(binary.path(), root);
                view.bind(plan.kernel.image(), kernel, Access::Read);
                view.bind(plan.kernel.initramfs(), initramfs, Access::Read);
                if accel == Accel::Kvm {
                    view.bind(Path::new(KVM), Path::new(KVM), Access::Device);
                }
                for bind in share.iter().flat_map(|share| &share.binds) {
                    view.bind(&bind.from, &bind.to, bind.access);
                }
                Confinement::Jailed(view)
            }
            None => Confinement::Open,
        };
        let mut invocation = Invocation::new(&Board {
            system: System::HERE,
            machine: plan.kernel.machine(),
            accel,
            memory_mib: plan.memory_mib,
            cpus: plan.cpus,
            shared_memory: share.as_ref().is_some_and(|share| share.server.is_some()),
            kernel,
            initramfs,
            cmdline,
        });
        let (qmp, theirs) = qmp_pair().map_err(LaunchError::Descriptor)?;
        invocation.qmp(theirs);
        invocation.console(plan.console);
        invocation.link(plan.link);
        for disk in plan.disks {
            match disk.image {
                DiskImage::Raw { path, read_only } => {
                    let image = File::options().read(true).write(!read_only).open(&path);
                    let image = image.map_err(|source| LaunchError::Disk { path, source })?;
                    invocation.disk(image, disk.serial, read_only);
                }
                DiskImage::Layers(layers) => invocation
                    .layers(layers, disk.serial)
                    .map_err(LaunchError::Descriptor)?,
            }
        }
        let server = share.and_then(|share| {
            invocation.share(share.carrier);
            share.server
        });
        let network = network.map(|(socket, hardware, egress)| {
            invocation.network(socket, hardware);
            egress
        });
        invocation.entropy();
        invocation.balloon();
        let stamp = invocation.stamp(Stamp::default());
        let incoming = plan.incoming.map(|Incoming { stamp, state }| {
            let descriptor = invocation.incoming(state);
            (stamp, descriptor)
        });
        Ok(Self {
            invocation,
            confinement,
            qmp,
            server,
            incoming,
            stamp,
            network,
        })
    }

    /// Starts it; `counter` is what its stamp tells the frequency of.
    async fn start(
        self,
        binary: Binary,
        facts: MachineFacts,
        counter: Option<Measurement>,
    ) -> Result<QemuMachine, LaunchError> {
        let Self {
            invocation,
            confinement,
            qmp,
            server,
            incoming,
            stamp,
            network,
        } = self;
        // Before it runs: what is there afterwards may be another one.
        let file = binary.file();
        let layers = invocation.layers;
        let program = |output| Program {
            path: binary.path().to_owned(),
            args: invocation.args,
            input: None,
            descriptors: invocation.descriptors,
            output,
            capabilities: 0,
        };
        let child = Child::spawn("qemu", program, confinement)
            .await
            .map_err(|source| LaunchError::Start {
                program: binary.path().to_owned(),
                source,
            })?;
        let (qmp, greeting) = tokio::select! {
            // An end tells more than the silence it causes.
            biased;
            exit = server_end(server.as_ref()) => {
                return Err(LaunchError::Share(ShareError::Ended(exit)));
            }
            connected = timeout(GREETING_DEADLINE, Qmp::connect(qmp)) => match connected {
                Ok(Ok(connected)) => connected,
                Ok(Err(error)) => {
                    // A QEMU that dislikes its command line closes the connection and ends.
                    return Err(match timeout(QUIT_DEADLINE, child.wait()).await {
                        Ok(exit) => Self::explain(&binary, server.as_ref(), exit).await,
                        Err(_) => LaunchError::Qmp(error),
                    });
                }
                Err(_) => return Err(LaunchError::Silent { after: GREETING_DEADLINE }),
            },
        };
        if greeting.version < OLDEST_QEMU {
            let path = binary.path().to_owned();
            return Err(LaunchError::QemuTooOld {
                path,
                found: greeting.version,
            });
        }
        let version = describe(&greeting);
        // Its baseline has passed meanwhile.
        let host = state::stamp_of_host(facts.accel, frequency(counter).await);
        let stamp = state::stamp_of_qemu(&binary, &version, stamp, host);
        let facts = MachineFacts {
            version,
            stamp,
            ..facts
        };
        let program = Running {
            binary,
            file,
            layers,
        };
        let machine = QemuMachine::watch(child, server, network, qmp, facts, program);
        if let Some((stamp, descriptor)) = incoming {
            machine
                .load(&stamp, descriptor)
                .await
                .map_err(LaunchError::Load)?;
        }
        Ok(machine)
    }

    /// Why QEMU ended before it greeted.
    async fn explain(binary: &Binary, server: Option<&Child>, exit: Exit) -> LaunchError {
        let path = binary.path().to_owned();
        match binary.ask_version().await {
            Some(found) if found < OLDEST_QEMU => return LaunchError::QemuTooOld { path, found },
            _ => {}
        }
        // QEMU cannot do without its file server, which may have ended first.
        if let Some(server) = server
            && let Ok(exit) = timeout(Duration::ZERO, server.wait()).await
        {
            return LaunchError::Share(ShareError::Ended(exit));
        }
        LaunchError::Ended(MachineEnd {
            cause: cause_of(exit.status),
            last_words: exit.last_words,
        })
    }
}

/// Our end and QEMU's of the protocol's connection.
fn qmp_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// The end of the file server; without one there is none.
async fn server_end(server: Option<&Child>) -> Exit {
    match server {
        Some(server) => server.wait().await,
        None => std::future::pending().await,
    }
}

fn describe(greeting: &Greeting) -> String {
    match greeting.package.trim() {
        "" => greeting.version.to_string(),
        package => format!("{} ({package})", greeting.version),
    }
}

fn cause_of(status: ExitStatus) -> EndCause {
    match status {
        ExitStatus::Exited(code) => EndCause::Exited(code),
        ExitStatus::Signaled(signal) => EndCause::Signaled(signal),
    }
}
