//! The end of the guest: everyone is asked to stop, then made to, and what was
//! written is on the disk before the machine is reset.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};
use tokio::time::timeout;

use crate::process;
use crate::reaper::Reaper;

/// How long processes may take to die of SIGKILL; one that hangs in a system
/// call is left behind.
const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// Everyone but ourselves (kill(2), pid -1).
const EVERYONE: Pid = Pid::from_raw(-1);

/// How often processes are looked for that others have started meanwhile. Those
/// that still are not found have the grace without having been asked.
const ROUNDS: usize = 8;

/// Ends all processes but ours: by SIGTERM or the signal that a program wants
/// instead, and after the grace by SIGKILL.
pub(crate) async fn end_processes(reaper: &Reaper, grace: Duration) {
    ask_to_end(&reaper.stop_signals());
    // Nobody left to signal is as good.
    kill(EVERYONE, Signal::SIGCONT).ok();
    if timeout(grace, reaper.no_child_left()).await.is_err() {
        kill(EVERYONE, Signal::SIGKILL).ok();
        timeout(KILL_DEADLINE, reaper.no_child_left()).await.ok();
    }
}

/// Sends a few processes their own signal and everyone else SIGTERM.
fn ask_to_end(own: &[(Pid, i32)]) {
    // Whoever has ended meanwhile is as good as asked.
    if own.is_empty() {
        kill(EVERYONE, Signal::SIGTERM).ok();
        return;
    }
    let mut asked: HashSet<i32> = own.iter().map(|(pid, _)| pid.as_raw()).collect();
    asked.insert(std::process::id().cast_signed());
    for (pid, signal) in own {
        process::send_signal(pid.as_raw(), *signal).ok();
    }
    for _ in 0..ROUNDS {
        let before = asked.len();
        for pid in running() {
            if asked.insert(pid) {
                kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            }
        }
        if asked.len() == before {
            return;
        }
    }
}

/// The numbers of all processes.
fn running() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Writes everything to the disks and lets go of them.
pub(crate) fn leave_disks_clean(writable: Option<&File>) {
    sync();
    release_file_systems(writable);
}

/// Unmounts what can be unmounted and makes the rest read-only. A file system
/// that refuses was synced, and its journal makes it whole.
fn release_file_systems(writable: Option<&File>) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for target in targets.collect::<Vec<_>>().into_iter().rev() {
        let is_kernel = ["/", "/proc", "/sys", "/dev"].contains(&target);
        if !is_kernel {
            umount2(target, MntFlags::empty()).ok();
        }
    }
    read_only("/");
    if let Some(writable) = writable {
        read_only(&format!("/proc/self/fd/{}", writable.as_raw_fd()));
    }
}

fn read_only(path: &str) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).ok();
}

/// Resets the machine, which the hypervisor takes as its end. A power-off would
/// need ACPI, which the machine does not have.
pub(crate) fn reset_machine() -> ! {
    // It returns only if we are not PID 1, as in a test; the end of the process
    // has to do then.
    reboot(RebootMode::RB_AUTOBOOT).ok();
    std::process::abort();
}
