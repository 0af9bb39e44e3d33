//! What `aegisctl cp` runs in the guest, as an exec session of `/proc/1/exe`: files
//! as an archive on standard output, or an archive on standard input as files.
//!
//! ```text
//!   pack [--follow] [--owners] PATH
//!   unpack [--whole] [--owners] PATH
//! ```
//!
//! It is a process of its own, so whatever a tree does to it does not touch PID 1.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use aegis_archive::ArchiveError;
use aegis_archive::pack::{PackOptions, pack};
use aegis_archive::unpack::{UnpackOptions, unpack};

/// Runs a copy and returns its exit code; `None` if something else was asked for.
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> Option<i32> {
    let verb = words.next()?;
    let words: Vec<OsString> = words.collect();
    let (path, flags) = words.split_last()?;
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    // Nobody interrupts it: a client that goes hangs its session up.
    let never = AtomicBool::new(false);
    let outcome = match verb.to_str()? {
        "pack" => {
            let options = PackOptions {
                follow: has("--follow"),
                owners: has("--owners"),
            };
            pack(Path::new(path), io::stdout().lock(), options, &never)
        }
        "unpack" => {
            let options = UnpackOptions {
                whole: has("--whole"),
                trusted: true,
                owners: has("--owners"),
            };
            unpack(io::stdin().lock(), Path::new(path), options, &never)
        }
        _ => return None,
    };
    Some(match outcome {
        Ok(_) => 0,
        Err(error) => {
            report(&error);
            1
        }
    })
}

/// Says why a copy failed, with all causes on one line.
fn report(error: &ArchiveError) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    // There is nobody to tell that it cannot be told.
    writeln!(io::stderr(), "{line}").ok();
}
