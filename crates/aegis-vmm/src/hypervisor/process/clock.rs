//! The processor time of a process, as each system counts it.

#[cfg(not(target_os = "linux"))]
mod darwin;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
pub(super) use darwin::time_of;
#[cfg(target_os = "linux")]
pub(super) use linux::time_of;
