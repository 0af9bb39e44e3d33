//! The processor time of a process on macOS: its accounts (`proc_pid_rusage(3)`), in ticks
//! of the host's counter.
#![allow(
    unsafe_code,
    reason = "neither call has a safe wrapper in a crate that is kept up"
)]

use std::mem::MaybeUninit;
use std::time::Duration;

use nix::unistd::Pid;

/// What it has used, all its threads together.
pub(in crate::hypervisor::process) fn time_of(pid: Pid) -> Option<Duration> {
    let mut usage = MaybeUninit::<libc::rusage_info_v0>::uninit();
    let to = usage.as_mut_ptr().cast();
    // SAFETY: the structure is the one of the version that is asked for.
    let result = unsafe { libc::proc_pid_rusage(pid.as_raw(), libc::RUSAGE_INFO_V0, to) };
    if result != 0 {
        return None;
    }
    // SAFETY: the call has filled it.
    let usage = unsafe { usage.assume_init() };
    let ticks = u128::from(usage.ri_user_time) + u128::from(usage.ri_system_time);
    let (numerator, denominator) = timebase()?;
    let nanoseconds = (ticks * numerator).checked_div(denominator)?;
    Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
}

/// Nanoseconds of a tick, as a fraction.
#[expect(
    deprecated,
    reason = "libc would have us take a crate for this one call"
)]
fn timebase() -> Option<(u128, u128)> {
    let mut base = libc::mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: the structure is ours.
    let result = unsafe { libc::mach_timebase_info(&raw mut base) };
    (result == 0).then(|| (base.numer.into(), base.denom.into()))
}
