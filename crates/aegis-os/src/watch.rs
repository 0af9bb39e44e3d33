//! Being told that files change, as inotify(7) tells it.
//!
//! On Linux this is the crate inotify. Elsewhere the same calls are answered by looking
//! (the module `looking`): what changed is told within a second, not how; of two
//! changes between two looks the later one is told.

#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(
    all(test, target_os = "linux"),
    expect(
        unreachable_pub,
        reason = "it is what the others see where there is no inotify"
    )
)]
mod looking;

#[cfg(target_os = "linux")]
pub use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
#[cfg(not(target_os = "linux"))]
pub use looking::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
