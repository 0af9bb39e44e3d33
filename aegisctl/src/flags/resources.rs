//! Flags about the resources of the host, and labels.

use std::collections::BTreeMap;

use aegis_core::label;
use aegis_core::limits::ResourceLimits;

use super::parse_memory;

/// Limits of an instance that is made.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct LimitFlags {
    /// Most memory of this host for the VM, QEMU included; by default the guest's and room for QEMU
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory_max: Option<u32>,
    /// Most CPU time of this host, in per cent of one CPU; by default one CPU more than the guest has
    #[arg(long, value_name = "PERCENT")]
    cpu_quota: Option<u32>,
    /// Most processes and threads on this host
    #[arg(long, value_name = "N")]
    tasks_max: Option<u32>,
}

impl LimitFlags {
    pub(super) fn limits(self) -> ResourceLimits {
        ResourceLimits {
            memory_max_mib: self.memory_max,
            cpu_quota: self.cpu_quota,
            tasks_max: self.tasks_max,
        }
    }
}

/// Limits of an instance that exists; 0 takes one back.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct LimitChanges {
    /// Most memory of this host for the VM; 0: what follows from the guest's
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(crate) memory_max: Option<u32>,
    /// Most CPU time of this host, in per cent of one CPU; 0: what follows from the guest's CPUs
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu_quota: Option<u32>,
    /// Most processes and threads on this host; 0: the default
    #[arg(long, value_name = "N")]
    pub(crate) tasks_max: Option<u32>,
}

/// Labels.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct LabelFlags {
    /// Note a label on it, to find it by --filter; may be repeated
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = label::parse)]
    label: Vec<(String, String)>,
}

impl LabelFlags {
    /// By key; of one that is given twice the last counts.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.label.iter().cloned().collect()
    }
}
