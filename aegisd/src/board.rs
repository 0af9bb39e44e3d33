//! The board: what clients can see, in one place.
//!
//! Everything that is shown goes on the board and leaves by one door: the task
//! of [`crate::bus::objects`] compares the board with what it last told a connection
//! and sends the difference. Nobody else emits a signal.
//!
//! ```text
//!   instance actors ─┐
//!   jobs ────────────┼─► Board (watch, generation) ─► bus::objects ─► InterfacesAdded/Removed,
//!   kit catalog ─────┘                                                PropertiesChanged, Completed
//! ```
//!
//! Whoever answers a client waits with [`Told::settled`] first, so that the
//! object in the answer is on the client's connection before the answer is.

use std::collections::BTreeMap;
use std::sync::Arc;

use aegis_bus::image::ImageView;
use aegis_bus::instance::InstanceView;
use aegis_bus::job::{JobOutcome, JobPart};
use aegis_bus::kit::KitView;
use aegis_core::handle::Handle;
use tokio::sync::watch;

/// The number of a job, unique in this run of aegisd.
pub type JobId = u64;

/// What is shown at one moment.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Grows with every change.
    generation: u64,
    pub instances: BTreeMap<Handle, Arc<InstanceView>>,
    /// By the name of the object: the kit's, or for a shadowed one a longer.
    pub kits: BTreeMap<String, Arc<KitView>>,
    /// By the digits of their identity.
    pub images: BTreeMap<String, Arc<ImageView>>,
    pub jobs: BTreeMap<JobId, Arc<JobShown>>,
    /// Whether units outlive the user's last session.
    pub lingering: bool,
    /// Records that cannot be read, in words.
    pub quarantined: Vec<String>,
}

impl Shown {
    /// How often anything had changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct JobShown {
    /// `create`, `start`, ...
    pub kind: &'static str,
    /// `None` where it is about all of them.
    pub instance: Option<Handle>,
    /// The user whose instance it is about, or who asked for it.
    pub owner: u32,
    /// 0 to 1; -1 while unknown.
    pub progress: f64,
    /// What it does at the moment, in words.
    pub status: String,
    /// What it is made of, where it has parts that go on side by side.
    pub parts: Vec<JobPart>,
    /// The identity of the image that it brought here; empty without one.
    pub image: String,
    pub outcome: JobOutcome,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    shown: watch::Sender<Shown>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            shown: watch::Sender::new(Shown::default()),
        }
    }
}

impl Board {
    /// Changes what is shown.
    pub fn change(&self, change: impl FnOnce(&mut Shown)) {
        self.shown.send_modify(|shown| {
            change(shown);
            shown.generation += 1;
        });
    }

    /// Shows an instance, if it looks other than before.
    pub fn show_instance(&self, handle: &Handle, view: InstanceView) {
        self.shown.send_if_modified(|shown| {
            let before = shown.instances.get(handle);
            if before.is_some_and(|before| **before == view) {
                return false;
            }
            shown.instances.insert(handle.clone(), Arc::new(view));
            shown.generation += 1;
            true
        });
    }

    /// Shows the images. Those that look as before keep their value.
    pub fn show_images(&self, mut images: BTreeMap<String, Arc<ImageView>>) {
        self.shown.send_if_modified(|shown| {
            for (digits, view) in &mut images {
                if let Some(before) = shown.images.get(digits).filter(|before| *before == view) {
                    *view = before.clone();
                }
            }
            let changed = shown.images != images;
            if changed {
                shown.images = images;
                shown.generation += 1;
            }
            changed
        });
    }

    /// Looks at an instance.
    pub fn instance(&self, handle: &Handle) -> Option<Arc<InstanceView>> {
        self.shown.borrow().instances.get(handle).cloned()
    }

    /// Looks at a kit.
    #[cfg(test)]
    pub fn kit(&self, object: &str) -> Option<Arc<KitView>> {
        self.shown.borrow().kits.get(object).cloned()
    }

    /// Looks at a job.
    #[cfg(test)]
    pub fn job(&self, id: JobId) -> Option<Arc<JobShown>> {
        self.shown.borrow().jobs.get(&id).cloned()
    }

    /// Follows every change.
    pub fn follow(&self) -> watch::Receiver<Shown> {
        self.shown.subscribe()
    }
}

/// What one connection to clients was told of the board. Each has its own: a client
/// that does not read holds up nobody but itself.
#[derive(Clone, Debug)]
pub struct Told {
    shown: watch::Receiver<Shown>,
    generation: Arc<watch::Sender<u64>>,
}

impl Told {
    /// A connection that was told nothing yet.
    pub fn nothing(board: &Board) -> Self {
        Self {
            shown: board.follow(),
            generation: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Notes that everything up to a generation was told. For the one task that tells it.
    pub fn note(&self, generation: u64) {
        self.generation.send_replace(generation);
    }

    /// Notes that nothing will be told any more: nobody is to wait for it.
    pub fn give_up(&self) {
        self.note(u64::MAX);
    }

    /// Waits until everything shown so far was told.
    pub async fn settled(&self) {
        let shown = self.shown.borrow().generation;
        let mut told = self.generation.subscribe();
        // The sender is in self, so the wait cannot end with an error.
        drop(told.wait_for(|&told| told >= shown).await);
    }
}
