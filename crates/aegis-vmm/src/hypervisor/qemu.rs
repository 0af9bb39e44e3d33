//! QEMU: the order of a launch and the running machine.

use std::path::PathBuf;

use super::{
    Hypervisor, LaunchError, Machine, MachineEnd, MachineError, MachineFacts, MachinePlan,
};

/// Starts guests with QEMU.
#[derive(Debug)]
pub struct Qemu {
    _accel_cache: Option<PathBuf>,
}

impl Qemu {
    /// `accel_cache` is the file that keeps the accelerator probe's answer.
    pub fn new(accel_cache: Option<PathBuf>) -> Self {
        Self {
            _accel_cache: accel_cache,
        }
    }
}

/// A running QEMU.
#[derive(Debug)]
pub struct QemuMachine {
    facts: MachineFacts,
    end: MachineEnd,
}

impl Hypervisor for Qemu {
    type Machine = QemuMachine;

    async fn launch(&self, plan: MachinePlan) -> Result<QemuMachine, LaunchError> {
        Err(LaunchError::TooManyDisks(plan.disks.len()))
    }
}

impl Machine for QemuMachine {
    fn facts(&self) -> &MachineFacts {
        &self.facts
    }

    fn pid(&self) -> u32 {
        0
    }

    async fn pause(&self) -> Result<(), MachineError> {
        Err(MachineError::Ended(self.end.clone()))
    }

    async fn resume(&self) -> Result<(), MachineError> {
        Err(MachineError::Ended(self.end.clone()))
    }

    async fn wait(&self) -> MachineEnd {
        self.end.clone()
    }

    async fn quit(&self) -> MachineEnd {
        self.end.clone()
    }
}
