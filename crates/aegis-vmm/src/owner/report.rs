//! What the status tells about a VM, in the terms of the control protocol.

use aegis_core::control::MachineFacts;

use crate::doorway::Visits;
use crate::hypervisor::{self, Machine};

/// Who keeps a VM awake, in words.
pub(super) fn reasons(visits: Visits) -> Vec<String> {
    let count = |number: u32, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{number} {many}")),
    };
    [
        count(visits.attached, "attached client", "attached clients"),
        count(visits.execs, "exec session", "exec sessions"),
        count(visits.connections, "connection", "connections"),
        count(
            visits.looks,
            "look at its processes",
            "looks at its processes",
        ),
        count(
            visits.messages,
            "undelivered message",
            "undelivered messages",
        ),
        count(
            visits.requests,
            "request of the guest",
            "requests of the guest",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a machine turned out to be.
pub(super) fn facts<M: Machine>(machine: &M) -> MachineFacts {
    let facts = machine.facts();
    MachineFacts {
        accel: facts.accel,
        machine: facts.machine.to_string(),
        kernel: match facts.kernel {
            hypervisor::kernel::KernelKind::Own => aegis_core::control::KernelKind::Own,
            hypervisor::kernel::KernelKind::Fallback => aegis_core::control::KernelKind::Fallback,
        },
        qemu_version: facts.version.clone(),
        qemu_pid: machine.pid(),
        share: facts.share.map(|share| match share {
            hypervisor::ShareKind::Virtiofs => aegis_core::control::ShareKind::Virtiofs,
            hypervisor::ShareKind::NineP => aegis_core::control::ShareKind::Plan9,
        }),
    }
}
