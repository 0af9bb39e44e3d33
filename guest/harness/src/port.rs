//! Finding the virtio port of the link.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Name of the port, as the hypervisor gives it.
pub(crate) const NAME: &str = "org.aegisvm.link";

const PORTS: &str = "/sys/class/virtio-ports";

/// The kernel makes a port when the device announces it, some time after the
/// driver has started; there is nothing to wait on but the directory.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("No virtio port named {NAME} appeared within {} seconds", DEADLINE.as_secs())]
    Missing,
    #[error("Cannot open {path}")]
    Open {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Waits for the port and opens it, non-blocking, for reading and writing.
pub(crate) fn find() -> Result<File, PortError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(device) = named(Path::new(PORTS), NAME) {
            let path = format!("/dev/{device}");
            return OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(&path)
                .map_err(|source| PortError::Open { path, source });
        }
        if Instant::now() > deadline {
            return Err(PortError::Missing);
        }
        thread::sleep(POLL);
    }
}

/// The entry of a class directory whose `name` file holds `name`.
fn named(class: &Path, name: &str) -> Option<String> {
    fs::read_dir(class)
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let found = fs::read_to_string(entry.path().join("name")).ok()?;
            (found.trim_end() == name).then(|| entry.file_name().to_string_lossy().into_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        for (device, name) in [("vport0p1", "other\n"), ("vport1p1", "org.aegisvm.link\n")] {
            fs::create_dir(class.path().join(device)).unwrap();
            fs::write(class.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(named(class.path(), NAME).as_deref(), Some("vport1p1"));
        assert_eq!(named(class.path(), "none"), None);
    }
}
