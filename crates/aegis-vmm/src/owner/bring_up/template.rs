//! A start without a boot: from the template of a guest's shape, and how one is made.
//!
//! ```text
//!  Held ──begin_from──► loaded, every byte checked ──► runs on ──► told what to become ──► Up
//!   ▲                                                                  ▲
//!   └─ there is none, or it is of no use: the guest boots ──► hello ──keep──► template
//! ```
//!
//! Only a VM whose guest keeps nothing begins from one: a kernel that has looked at a disk
//! remembers what it read, and a share knows its guest.

use std::time::{Duration, Instant};

use aegis_core::vm_spec::VmSpec;
use aegis_link::message::Hello;
use aegis_link::{CallError, Handle};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::wake::{self, Loaded, NotWoken, Unusable};
use super::{Held, StartError};
use crate::guest;
use crate::hypervisor::{Hypervisor, Machine};
use crate::owner::up::{Beginning, Parts, SaveError, Up, blocking, save_into};
use crate::snapshot::stamp::Stamp;
use crate::snapshot::template::{Header, Templates, Unfinished};
use crate::snapshot::{SnapshotError, Stored};

/// MiB of memory that a guest of a template may have: what describes its pages is in the
/// template.
const MOST_MEMORY: u32 = 4096;

/// How long a guest that has said hello may take to fall silent.
const QUIET: Duration = Duration::from_secs(10);

/// Where the template of a guest is, or is to be.
#[derive(Clone, Debug)]
pub(super) struct Mold {
    templates: Templates,
    shape: Stamp,
}

impl Mold {
    /// That of an instance whose guest sees this of its VM, if it can have one.
    pub(super) fn of(spec: &VmSpec, shape: Stamp) -> Option<Self> {
        let folder = spec.templates.clone().filter(|_| spec.starts_afresh())?;
        // A kit's programs are on a disk of the instance's own.
        let is_common = spec.inject.is_empty() && spec.memory_mib <= MOST_MEMORY;
        let shape = shape
            .with("the accelerator", spec.accel)
            // Of which the kernel's command line is.
            .with("the version", env!("CARGO_PKG_VERSION"));
        // Whoever removed the folder wants none.
        (is_common && folder.is_dir()).then_some(Self {
            templates: Templates::in_folder(folder),
            shape,
        })
    }

    /// The template, if there is one that is of use.
    pub(super) async fn open(&self) -> Option<(Stored, Header)> {
        let this = self.clone();
        match blocking(move || this.templates.open(&this.shape)).await {
            Ok(found) => found,
            Err(error) => {
                self.discard(&error).await;
                None
            }
        }
    }

    /// Removes a template that is of no use.
    pub(super) async fn discard(&self, reason: &dyn std::error::Error) {
        let words = aegis_core::fault::chain(reason);
        warn!("the template of the guest is of no use and goes: {words}");
        let this = self.clone();
        if let Err(error) = blocking(move || this.templates.remove(&this.shape)).await {
            warn!("{}, ignoring", aegis_core::fault::chain(&error));
        }
    }

    /// Keeps a guest that has just said hello, unless one is kept already. The machine
    /// runs on afterwards, whatever came of it.
    ///
    /// # Errors
    /// It does not run on.
    pub(super) async fn keep<M: Machine>(
        &self,
        machine: &M,
        link: &Handle,
        hello: &Hello,
    ) -> Result<(), StartError> {
        if let Err(refusal) = machine.can_save().await {
            debug!(
                "no template is made: {}",
                aegis_core::fault::chain(&refusal)
            );
            return Ok(());
        }
        let header = Header {
            shape: self.shape.clone(),
            machine: machine.facts().stamp.clone(),
            epoch: link.epoch(),
            hello: hello.clone(),
        };
        let templates = self.templates.clone();
        let unfinished = match blocking(move || templates.begin(&header)).await {
            Ok(Some(unfinished)) => unfinished,
            Ok(None) => {
                debug!("no template is made: there is one, or no room for it");
                return Ok(());
            }
            Err(error) => {
                warn!("no template is made: {}", aegis_core::fault::chain(&error));
                return Ok(());
            }
        };
        let began = Instant::now();
        let kept = save(machine, link, unfinished).await;
        let ran_on = machine.resume().await;
        link.unquiesce();
        ran_on.map_err(StartError::RunOn)?;
        // Else this guest's random numbers would be those that the template holds.
        let lack = wake::begin_again(link).await.map_err(StartError::Boot)?;
        if let Some(lack) = lack {
            self.discard(&Unusable::Twin(lack)).await;
        }
        match kept {
            Ok(size) => info!(
                "a template of the guest is made: {size} bytes in {} ms",
                began.elapsed().as_millis()
            ),
            Err(error) => warn!("{}, ignoring", aegis_core::fault::chain(&error)),
        }
        Ok(())
    }
}

/// Has a guest that has just said hello written down; its size in bytes.
async fn save<M: Machine>(
    machine: &M,
    link: &Handle,
    unfinished: Unfinished,
) -> Result<u64, NotKept> {
    match timeout(QUIET, link.quiesce()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(NotKept::Loud),
    }
    let paused = machine.pause().await;
    paused.map_err(|error| NotKept::Save(SaveError::Machine(error)))?;
    let unfinished = save_into(machine, unfinished)
        .await
        .map_err(NotKept::Save)?;
    let published = blocking(move || unfinished.publish()).await;
    published.map_err(NotKept::Snapshot)
}

/// Why no template is kept.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error("no template is made: the guest did not fall silent within {} s", QUIET.as_secs())]
    Loud,
    #[error("no template is made")]
    Save(#[source] SaveError),
    #[error("no template is made")]
    Snapshot(#[source] SnapshotError),
}

impl Held {
    /// Starts the guest from a template.
    pub(super) async fn begin_from<H: Hypervisor>(
        self,
        hypervisor: &H,
        stored: Stored,
        header: Header,
    ) -> Result<Up<H::Machine>, NotWoken> {
        let loaded = self.load(hypervisor, &header.machine, stored).await?;
        info!("the guest is loaded from its template");
        loaded.become_this(header).await
    }
}

impl<M: Machine> Loaded<M> {
    /// Lets the guest run and tells it what to become.
    async fn become_this(self, header: Header) -> Result<Up<M>, NotWoken> {
        let Self {
            machine,
            spec,
            channel,
            rest,
        } = self;
        let (link, mut incoming) = aegis_link::start_restored(channel, header.epoch);
        machine.resume().await.map_err(Unusable::Machine)?;
        let order = guest::boot_order(&spec, &header.hello, machine.facts());
        // All that it is told waits for it already when it looks.
        let told = async {
            let begun = async {
                let lack = wake::begin_again(&link).await.map_err(Unusable::Guest)?;
                lack.map_or(Ok(()), |lack| Err(Unusable::Twin(lack)))
            };
            let booted = async {
                match link.boot(order).await {
                    Err(CallError::Fault(refusal)) => Ok(Err(refusal)),
                    other => other.map(Ok).map_err(Unusable::Guest),
                }
            };
            let greeted = wake::greeting(&mut incoming);
            let ((), booted, _) = tokio::try_join!(begun, booted, greeted)?;
            Ok(booted)
        };
        let told = tokio::select! {
            told = timeout(wake::WAKE_DEADLINE, told) => told.unwrap_or(Err(Unusable::Silent)),
            end = machine.wait() => Err(Unusable::Ended(end)),
        };
        match told {
            Ok(Ok(booted)) => info!(
                "the guest is ready, from a template, after {} ms of its own time",
                booted.uptime_ms
            ),
            Ok(Err(refused)) => {
                machine.quit().await;
                return Err(StartError::Boot(CallError::Fault(refused)).into());
            }
            Err(reason) => {
                machine.quit().await;
                return Err(reason.into());
            }
        }
        let parts = Parts {
            machine,
            link,
            incoming,
            spec,
            rest,
        };
        Ok(Up::new(parts, Beginning::Booted { refused: None }))
    }
}
