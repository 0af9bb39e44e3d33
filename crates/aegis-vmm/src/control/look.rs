//! Calls about what runs in the guest. They wake it, as every use does.

use std::time::Duration;

use aegis_core::control::{CommandState, Outcome, Process};
use aegis_core::fault::{Fault, Symbol};
use aegis_link::CallError;

use super::connection::Services;
use crate::guest;

/// How long a guest may take to answer. One that is translated and busy takes
/// seconds; a caller must not wait for one that never does.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a signal to the process group of the instance's command.
///
/// # Errors
/// No guest or command runs, or the guest refuses.
pub(super) async fn kill(signal: i32, services: &Services) -> Result<Outcome, Fault> {
    let link = services.owner.use_guest().await?;
    let not_running = || {
        let message = "the command of the instance does not run";
        Fault::new(Symbol::WrongState, message)
    };
    let command = services.status.borrow().command.clone();
    let CommandState::Running { pid } = command else {
        return Err(not_running());
    };
    match answer(link.signal_process(pid, signal)).await {
        Ok(_) => Ok(Outcome::Changed),
        // aegisd sends signals that exist, so that the group is what is missing: its
        // end has yet to be told.
        Err(fault) if fault.symbol == Symbol::InvalidArgument => Err(not_running()),
        Err(fault) => Err(fault),
    }
}

/// The processes in the guest.
///
/// # Errors
/// No guest runs, or it does not answer.
pub(super) async fn processes(services: &Services) -> Result<Vec<Process>, Fault> {
    let link = services.owner.use_guest().await?;
    let found = answer(link.processes()).await?;
    Ok(found
        .into_iter()
        .map(|process| Process {
            pid: process.pid,
            parent: process.parent,
            user: process.user,
            state: process.state,
            cpu_ms: process.cpu_ms,
            memory_kib: process.memory_kib,
            age_ms: process.age_ms,
            command: process.command,
        })
        .collect())
}

async fn answer<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, Fault> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| guest::call_fault(&error)),
        Err(_) => Err(Fault::new(
            Symbol::GuestTimeout,
            format!("the guest did not answer in {} s", PATIENCE.as_secs()),
        )),
    }
}
