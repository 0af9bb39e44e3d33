//! `exit.json`: how the instance's command last ended by itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aegis_core::control::{CommandExit, FollowUp};
use aegis_core::fault::Fault;
use aegis_fault_points::around;
use aegis_link::message::{CommandEnd, ProcessEnd};

use crate::guest;
use crate::status::now_us;

/// The record of an end that the guest reported just now.
pub fn of(end: CommandEnd, oom: bool) -> CommandExit {
    let (code, signal, fault) = match end {
        CommandEnd::Ended(ProcessEnd::Exited { code }) => (Some(code), None, None),
        CommandEnd::Ended(ProcessEnd::Signaled { signal }) => (None, Some(signal), None),
        CommandEnd::Failed(fault) => (None, None, Some(guest::fault(&fault))),
    };
    CommandExit {
        code,
        signal,
        fault,
        at: now_us(),
        oom,
        follow_up: FollowUp::default(),
    }
}

/// The record of a command whose VM was lost just now.
pub fn lost(fault: Fault) -> CommandExit {
    CommandExit {
        code: None,
        signal: None,
        fault: Some(fault),
        at: now_us(),
        oom: false,
        follow_up: FollowUp::default(),
    }
}

/// Writes the record so that readers see the old one or the new one, whole.
///
/// # Errors
/// What the file system says.
pub async fn write(path: PathBuf, exit: CommandExit) -> io::Result<()> {
    tokio::task::spawn_blocking(move || replace(&path, &exit))
        .await
        .map_err(io::Error::other)?
}

fn replace(path: &Path, exit: &CommandExit) -> io::Result<()> {
    let unfinished = path.with_extension("json.new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    file.sync_all()?;
    around(
        "vm.exit-record",
        |error| error,
        || fs::rename(&unfinished, path),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_written_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit.json");
        for end in [
            ProcessEnd::Exited { code: 3 },
            ProcessEnd::Signaled { signal: 9 },
        ] {
            let exit = of(CommandEnd::Ended(end), false);
            write(path.clone(), exit.clone()).await.unwrap();
            let read: CommandExit = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read, exit);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
