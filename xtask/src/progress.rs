//! Telling what takes long, on standard error.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What is done within this time is not worth a line.
const QUIET: Duration = Duration::from_secs(2);

/// How often a step that goes on says so.
const REPEAT: Duration = Duration::from_secs(20);

/// Does `work`; if it takes longer than 2 s, says what is being done, how long
/// it takes on two idle cores, and now and then that it goes on.
///
/// # Errors
/// Those of `work`.
pub(crate) fn step<T>(
    what: &str,
    estimate: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let (done, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let waited = |time| wait.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
            if !waited(QUIET) {
                return;
            }
            eprintln!("{what} (about {} s) ...", estimate.as_secs());
            while waited(REPEAT) {
                eprintln!("{what}: {} s so far", start.elapsed().as_secs());
            }
            eprintln!("{what}: done after {} s", start.elapsed().as_secs());
        });
        let result = work();
        drop(done);
        result
    })
}
