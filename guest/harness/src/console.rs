//! The guest's console: what is said where no link can carry it.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;

/// How a console line starts that says why the guest never reached its host.
/// aegis-vmm looks for it where a guest ended without a hello.
pub(crate) const BOOT_FAILED: &str = "aegis-harness: boot failed: ";

/// Says why the guest cannot go on, with all causes on one line.
pub(crate) fn boot_failed(error: &dyn Error) {
    let mut line = format!("{BOOT_FAILED}{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    say(&line);
}

/// Writes a line to the console. There is nobody to tell if that fails.
pub(crate) fn say(line: &str) {
    let console = OpenOptions::new().write(true).open("/dev/console");
    if let Ok(mut console) = console {
        console.write_all(format!("{line}\r\n").as_bytes()).ok();
    }
}
