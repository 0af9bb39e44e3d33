//! The guest of the fake: a local process.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use aegis_core::control::{ExecEvent, ExecInput};
use aegis_core::fault::{Fault, Symbol};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Handles;

/// Plays the guest: runs the command and tells the control stream about it.
pub(super) fn guest(mut command: Command, control: UnixStream, handles: &Handles) {
    let mut events = control.try_clone().unwrap();
    let mut tell = move |event: &ExecEvent| {
        let mut line = serde_json::to_vec(event).unwrap();
        line.push(b'\n');
        events.write_all(&line).ok();
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let symbol = match error.kind() {
                std::io::ErrorKind::NotFound => Symbol::CommandNotFound,
                _ => Symbol::CommandNotExecutable,
            };
            drop(command);
            return tell(&ExecEvent::Failed(Fault::new(symbol, error.to_string())));
        }
    };
    // Its copies of the streams would keep them open.
    drop(command);
    tell(&ExecEvent::Started {});
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let handles = handles.clone();
    thread::spawn(move || {
        for line in BufReader::new(control).lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line).unwrap() {
                ExecInput::Signal(signal) => {
                    killpg(group, Signal::try_from(signal).unwrap()).ok();
                }
                ExecInput::Resize(size) => {
                    let call = format!("resize {}x{}", size.rows, size.cols);
                    handles.with(|state| state.calls.push(call));
                    // So that a test can wait for it.
                    killpg(group, Signal::SIGUSR2).ok();
                }
            }
        }
        killpg(group, Signal::SIGHUP).ok();
    });
    let status = child.wait().unwrap();
    tell(&match status.signal() {
        Some(signal) => ExecEvent::Signaled { signal },
        None => ExecEvent::Exited {
            code: status.code().unwrap(),
        },
    });
}
