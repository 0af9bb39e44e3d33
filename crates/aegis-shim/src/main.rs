//! aegis-shim: what the units of instance daemons and doors start.
//!
//! A unit's own text is readable by everyone and read again at every reload of
//! the service manager, so it names only this program and a spec file. The shim
//! reads the spec and becomes the daemon; it is never a parent that stays.
//!
//! ```text
//! aegis-shim daemon --spec FILE [--back-off FILE | JOB]    becomes the daemon
//! aegis-shim activate JOB -- PROGRAM ARGUMENT...     becomes a program with sockets of launchd's
//! aegis-shim ended --back-off FILE                   records how its run ended
//! aegis-shim door --to SOCKET                        brings an API socket to aegisd
//! aegis-shim port --to SOCKET --guest PORT           brings a port to its VM's owner
//! ```
//!
//! `ended` and `--back-off` exist for managers whose delay between restarts cannot
//! grow but that tell how a run ended: systemd before 254. launchd can do neither; JOB,
//! which is `--job TARGET --launchctl PROGRAM --record FILE [--once]`, has the shim ask.
//!
//! | module | what it owns |
//! |---|---|
//! | [`call`] | the command line |
//! | [`back_off`] | how long to wait after failures, pure |
//! | [`record`] | the back-off between two runs, on disk |
//! | [`daemon`] | becoming the daemon |
//! | [`launchd`] | whether and when to run as a job of launchd's |
//! | [`activate`] | becoming a program behind sockets of launchd's |
//! | [`sockets`] | the sockets that the service manager passes |
//! | [`door`] | standing for an API socket |
//! | [`port`] | standing for a port |
//! | [`privileges`] | what the daemon must not have |
//! | [`signals`] | a clean slate of signals |

mod activate;
mod back_off;
mod call;
mod daemon;
mod door;
mod launchd;
mod port;
mod privileges;
mod record;
mod signals;
mod sockets;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use aegis_core::fault::chain;
use call::Call;

fn main() -> ExitCode {
    let call = match Call::parse(std::env::args_os().skip(1)) {
        Ok(call) => call,
        Err(error) => return end(&error, USAGE),
    };
    match call {
        Call::Daemon {
            spec,
            back_off,
            job,
        } => match daemon::become_daemon(&spec, back_off.as_deref(), job.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => end(&error, error.exit_code()),
        },
        Call::Activate { job, program } => match activate::activate(&job, &program) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => end(&error, error.exit_code()),
        },
        Call::Ended { back_off } => match record::note_end(&back_off, &record::Run::reported()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => end(&error, OURS),
        },
        Call::Door { to } => over(door::stand(&to)),
        Call::Port { to, guest } => over(port::stand(&to, guest)),
    }
}

/// The exit code for a wrong command line, as most programs have it.
const USAGE: u8 = 2;
/// The exit code for failures of the shim itself.
const OURS: u8 = 125;

/// The exit code of a door whose standing is over.
fn over(stood: Result<(), door::DoorError>) -> ExitCode {
    match stood {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&error, OURS),
    }
}

/// Says why on stderr, which is the journal's, and gives the exit code.
fn end(error: &dyn Error, code: u8) -> ExitCode {
    say(&chain(error));
    ExitCode::from(code)
}

/// Says something on stderr.
fn say(words: &str) {
    let line = format!("aegis-shim: {words}\n");
    // There is nobody left to tell where this fails.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
