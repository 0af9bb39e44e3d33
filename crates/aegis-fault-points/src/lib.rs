//! Fault points: the moments before and after a program of ours changes the
//! world outside itself. Each has a name, and a test can have the program die,
//! stop or fail at any of them.
//!
//! ```text
//!  around("registry.write", …):   before ──► the side effect ──► after
//!                                   │                              │
//!                     fault-record ◄┴── passed, if it is there ────┤
//!                     fault-order ──► kill, hold or an errno ──────┘
//! ```
//!
//! A point does nothing unless the environment has [`SWITCH`] and the program
//! called [`arm`]: one load of a pointer. It is not a cargo feature, so that the
//! programs that are tested are the ones that are shipped. Whoever can set the
//! environment of a program of ours can also kill it, so nothing is given away.
//!
//! The folder of a program that is armed holds two files of the test's:
//!
//! * `fault-order`: one [`Order`]. The program removes it before it carries it
//!   out, so that an order is met once.
//! * `fault-record`: every point passed, one `NAME before|after` a line, for as
//!   long as the file is there.

mod order;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};

pub use order::{Action, Errno, NotAnOrder, Order, When};

/// The environment variable that lets points act.
pub const SWITCH: &str = "AEGIS_FAULT_POINTS";
/// The order in an armed program's folder.
pub const ORDER: &str = "fault-order";
/// The record in an armed program's folder.
pub const RECORD: &str = "fault-record";

static ARMED: OnceLock<Armed> = OnceLock::new();

/// What an armed program remembers.
#[derive(Debug)]
struct Armed {
    folder: PathBuf,
    /// The order last seen and how often its point was passed since.
    seen: Mutex<(Option<Order>, u32)>,
}

/// Lets the points of this process act if the environment asks for it. A second
/// call changes nothing.
pub fn arm(folder: &Path) {
    if std::env::var_os(SWITCH).is_some() {
        ARMED.get_or_init(|| Armed {
            folder: folder.to_owned(),
            seen: Mutex::default(),
        });
    }
}

/// Does one thing to the world outside, with a point before and one after it.
/// `refuse` makes the failure that a test orders into one of the caller's.
///
/// # Errors
/// Those of `act`, and the ordered one.
pub fn around<T, E>(
    name: &str,
    refuse: impl FnOnce(io::Error) -> E,
    act: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    pass(name, When::Before).map_err(refuse)?;
    let done = act();
    // A thing that is done is not undone by a failure after it.
    drop(pass(name, When::After));
    done
}

/// As [`around`] for what is waited for.
///
/// # Errors
/// Those of `act`, and the ordered one.
pub async fn around_async<T, E>(
    name: &str,
    refuse: impl FnOnce(io::Error) -> E,
    act: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    pass(name, When::Before).map_err(refuse)?;
    let done = act.await;
    drop(pass(name, When::After));
    done
}

/// One point by itself.
///
/// # Errors
/// The ordered one.
pub fn pass(name: &str, when: When) -> io::Result<()> {
    match ARMED.get() {
        None => Ok(()),
        Some(armed) => armed.pass(name, when),
    }
}

impl Armed {
    fn pass(&self, name: &str, when: When) -> io::Result<()> {
        let record = OpenOptions::new()
            .append(true)
            .open(self.folder.join(RECORD));
        if let Ok(mut record) = record {
            // A test that does not find its points says so.
            drop(record.write_all(format!("{name} {when}\n").as_bytes()));
        }
        match self.ordered(name, when) {
            None => Ok(()),
            Some(Action::Fail(errno)) => Err(io::Error::from_raw_os_error(errno.number())),
            Some(Action::Kill) => signal_self(Signal::KILL),
            Some(Action::Hold) => signal_self(Signal::STOP),
        }
    }

    /// What to do at this point; takes the order away.
    fn ordered(&self, name: &str, when: When) -> Option<Action> {
        let path = self.folder.join(ORDER);
        let order: Order = fs::read_to_string(&path).ok()?.parse().ok()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.as_ref() != Some(&order) {
            *seen = (Some(order.clone()), 0);
        }
        if order.name != name || order.when != when {
            return None;
        }
        seen.1 += 1;
        if seen.1 != order.nth {
            return None;
        }
        *seen = (None, 0);
        fs::remove_file(&path).ok()?;
        Some(order.action)
    }
}

fn signal_self(signal: Signal) -> io::Result<()> {
    kill_process(getpid(), signal)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(folder: &Path) -> Armed {
        Armed {
            folder: folder.to_owned(),
            seen: Mutex::default(),
        }
    }

    #[test]
    fn an_order_is_met_at_its_point_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let armed = armed(folder.path());
        fs::write(folder.path().join(ORDER), "ENOSPC file.rename before 2").unwrap();
        armed.pass("file.rename", When::Before).unwrap();
        armed.pass("file.rename", When::After).unwrap();
        armed.pass("file.write", When::Before).unwrap();
        let error = armed.pass("file.rename", When::Before).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(!folder.path().join(ORDER).exists());
        armed.pass("file.rename", When::Before).unwrap();
    }

    #[test]
    fn passed_points_are_recorded_while_there_is_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let armed = armed(folder.path());
        let record = folder.path().join(RECORD);
        armed.pass("a", When::Before).unwrap();
        assert!(!record.exists());
        fs::write(&record, "").unwrap();
        armed.pass("a", When::Before).unwrap();
        armed.pass("a", When::After).unwrap();
        assert_eq!(fs::read_to_string(record).unwrap(), "a before\na after\n");
    }

    #[test]
    fn a_program_that_is_not_armed_passes_all_points() {
        assert_eq!(around("x", |error| error, || Ok(1)).unwrap(), 1);
    }
}
