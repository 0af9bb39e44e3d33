//! The resources of the host that an instance's VM may use.
//!
//! What is not set follows from the guest's memory and CPUs, with room for QEMU.

use serde::{Deserialize, Serialize};

/// Least memory of a VM's unit in MiB: below it QEMU itself does not start.
pub const MIN_MEMORY_MAX_MIB: u32 = 64;
/// Most per cent of one CPU: 1,000 CPUs, a guard against slips of a unit.
pub const MAX_CPU_QUOTA: u32 = 100_000;
/// Fewest tasks of a VM's unit: aegis-vmm's and QEMU's threads.
pub const MIN_TASKS_MAX: u32 = 32;

/// Limits that a user set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// All memory of the VM on the host, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_mib: Option<u32>,
    /// In per cent of one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<u32>,
    /// Processes and threads on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u32>,
}

/// Why a limit is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("the memory limit of {0} MiB is below {MIN_MEMORY_MAX_MIB} MiB")]
    MemoryMax(u32),
    #[error("the CPU quota of {0} % is outside 1 to {MAX_CPU_QUOTA} %")]
    CpuQuota(u32),
    #[error("the limit of {0} tasks is below {MIN_TASKS_MAX}")]
    TasksMax(u32),
}

impl ResourceLimits {
    /// Checks every value.
    ///
    /// # Errors
    /// The first value with which no VM could run.
    pub fn validate(&self) -> Result<(), LimitError> {
        match *self {
            Self {
                memory_max_mib: Some(mib),
                ..
            } if mib < MIN_MEMORY_MAX_MIB => Err(LimitError::MemoryMax(mib)),
            Self {
                cpu_quota: Some(percent),
                ..
            } if !(1..=MAX_CPU_QUOTA).contains(&percent) => Err(LimitError::CpuQuota(percent)),
            Self {
                tasks_max: Some(tasks),
                ..
            } if tasks < MIN_TASKS_MAX => Err(LimitError::TasksMax(tasks)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_with_which_nothing_could_run_are_refused() {
        ResourceLimits::default().validate().unwrap();
        let limits = ResourceLimits {
            memory_max_mib: Some(MIN_MEMORY_MAX_MIB),
            cpu_quota: Some(1),
            tasks_max: Some(MIN_TASKS_MAX),
        };
        limits.validate().unwrap();
        let bad = ResourceLimits {
            cpu_quota: Some(0),
            ..limits
        };
        assert_eq!(bad.validate(), Err(LimitError::CpuQuota(0)));
        let bad = ResourceLimits {
            memory_max_mib: Some(1),
            ..limits
        };
        assert_eq!(bad.validate(), Err(LimitError::MemoryMax(1)));
        let bad = ResourceLimits {
            tasks_max: Some(1),
            ..limits
        };
        assert_eq!(bad.validate(), Err(LimitError::TasksMax(1)));
    }
}
