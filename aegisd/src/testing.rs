//! What the unit tests of several modules need.

use std::path::Path;

use aegis_core::control::VmStatus;
use aegis_core::layout::{Layout, Mode, Surroundings};
use aegis_core::lifecycle::VmState;

use crate::host::Host;
use crate::supervisor::UnitId;
use crate::supervisor::state::{Active, UnitState};

/// A host whose folders are all below `root`; those of creation are made.
pub(crate) fn host(root: &Path) -> Host {
    let surroundings = Surroundings {
        aegis_home: Some(root.join("home")),
        home: None,
        runtime: Some(root.join("run")),
    };
    let layout = Layout::new(Mode::User, &surroundings).unwrap();
    let host = Host {
        kit_dirs: vec![layout.kits()],
        layout,
        libexec: root.join("libexec"),
        guest_dir: root.join("guest"),
        home: None,
        program_dirs: Vec::new(),
        unit_owner: None,
        creds: None,
        keychain: None,
    };
    crate::instance::files::prepare(&host).unwrap();
    host
}

/// A unit in a state.
pub(crate) fn unit_state(unit: UnitId, active: Active) -> UnitState {
    UnitState::without_process(unit, active)
}

/// The status of a VM in a state.
pub(crate) fn vm_status(state: VmState) -> VmStatus {
    VmStatus {
        generation: 1,
        state,
        since: 1,
        words: String::new(),
        fault: None,
        machine: None,
        command: Default::default(),
        execs: 0,
        attached: 0,
        connections: 0,
        revision: 0,
        network_fault: None,
        awake_because: Vec::new(),
        sleeps: None,
        cannot_hibernate: None,
        not_restored: None,
        rests_until: None,
    }
}
