//! The processor time of a process on Linux: its clock (`clock_getcpuclockid(3)`).

use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// What it has used, all its threads together.
pub(in crate::hypervisor::process) fn time_of(pid: Pid) -> Option<Duration> {
    Some(clock_getcpuclockid(pid).ok()?.now().ok()?.into())
}
