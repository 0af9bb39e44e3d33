//! One instance as it is wanted.

use std::collections::{BTreeMap, BTreeSet};

use aegis_core::handle::Handle;
use aegis_core::idle::Lease;
use aegis_core::spec::InstanceSpec;
use aegis_core::volume::Volume;
use serde::{Deserialize, Serialize};

/// What is to become of an instance.
///
/// ```text
///             created            disable
///  Creating ──────────► Enabled ─────────► Disabled
///     │                  │   ▲  ◄───────── │
///     │ failed           │      enable     │
///     ▼                  ▼                 ▼
///  Deleting / Purging ───────────────────────► (no record)
/// ```
///
/// `Creating`, `Deleting` and `Purging` are written before the first step they
/// name, so whoever finds one after a crash knows what was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// Being made. Found at a start: finished, or undone if it is ephemeral.
    Creating,
    /// Its sockets listen and its daemons run.
    Enabled,
    /// Nothing of it runs or listens.
    Disabled,
    /// Being deleted; the daemons' config files stay.
    Deleting,
    /// Being deleted with the daemons' config files.
    Purging,
}

/// An instance in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub handle: Handle,
    /// When it was made, in microseconds since 1970.
    pub created_at: u64,
    pub intent: Intent,
    /// Since when that is the intent, in microseconds since 1970.
    pub intent_since: u64,
    /// Who made it, in system mode: for other users it is not there, its named
    /// workspace and volumes are this user's, and its daemons' config may lie in this
    /// user's home.
    pub creator: Option<u32>,
    pub spec: InstanceSpec,
    /// Units that somebody stopped with the service manager's own tools, by name,
    /// and when, in microseconds since 1970: not made again until the instance is
    /// started or enabled anew, or the service manager itself starts anew. 0 where
    /// it happened while aegisd did not run.
    pub stopped_by_hand: BTreeMap<String, u64>,
    /// The run of the service manager (its start, in microseconds since 1970) in
    /// which all units were made. A unit missing in the same run was stopped
    /// while aegisd was not there to see it; in another run it never was made.
    pub made_in: Option<u64>,
    /// The settings that were changed since it was made, each with the number of
    /// its last change. Those with a higher one than the VM that runs was started
    /// with wait for its next start.
    pub revisions: BTreeMap<String, u64>,
    /// What was changed is not yet in the files of the units, or the limits of the
    /// VM's unit are not yet what the spec says.
    pub limits_due: bool,
    /// The settings that were changed and are of the units themselves, which have to
    /// be made anew for them: not while a VM runs.
    pub units_due: BTreeSet<String>,
    /// The volumes that the VM's unit was made with, where these are among the settings
    /// that were changed: a VM that starts before the unit is made anew has them.
    pub volumes_before: Option<Vec<Volume>>,
    /// When the user stopped the VM and has not started it since, in microseconds
    /// since 1970.
    pub stopped_at: Option<u64>,
    /// What it is kept awake for; some may have ended.
    pub leases: Vec<Lease>,
}

impl Record {
    /// A record for an instance about to be made.
    pub fn new(handle: Handle, spec: InstanceSpec, created_at: u64) -> Self {
        Self {
            handle,
            created_at,
            intent: Intent::Creating,
            intent_since: created_at,
            creator: None,
            spec,
            stopped_by_hand: BTreeMap::new(),
            made_in: None,
            revisions: BTreeMap::new(),
            limits_due: false,
            units_due: BTreeSet::new(),
            volumes_before: None,
            stopped_at: None,
            leases: Vec::new(),
        }
    }

    /// Whose it is: who made it, and in user mode the one user.
    pub fn owner(&self) -> u32 {
        let own = || rustix::process::geteuid().as_raw();
        self.creator.unwrap_or_else(own)
    }

    /// The number of the last change of its settings; 0 if none was changed.
    pub fn revision(&self) -> u64 {
        self.revisions.values().copied().max().unwrap_or(0)
    }

    /// The volumes that the VM's unit has.
    pub fn unit_volumes(&self) -> &[Volume] {
        self.volumes_before.as_deref().unwrap_or(&self.spec.volumes)
    }

    /// Whether it is meant to be there and usable.
    pub fn is_enabled(&self) -> bool {
        matches!(self.intent, Intent::Enabled | Intent::Creating)
    }
}
