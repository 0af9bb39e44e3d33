//! The agent of polkit that asks for a password on this terminal: pkttyagent(1), as
//! systemctl(1) starts it.

use std::io::{self, IsTerminal, Read};
use std::process::{Child, Command, Stdio};

use aegis_core::layout::Mode;

/// An agent that asks for this process, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Agent(Child);

impl Agent {
    /// Whether somebody may have to be asked and is there to answer.
    pub(crate) fn may_ask(mode: Mode) -> bool {
        mode == Mode::System
            && !nix::unistd::geteuid().is_root()
            && io::stdin().is_terminal()
            && io::stderr().is_terminal()
    }

    /// Starts one where somebody may have to be asked and is there to answer. Without one
    /// polkit refuses, and says why.
    pub(crate) fn start(mode: Mode) -> Option<Self> {
        if !Self::may_ask(mode) {
            return None;
        }
        let own = std::process::id().to_string();
        let agent = Command::new("pkttyagent")
            // It asks on the terminal itself, and closes descriptor 1 once it is known.
            // As a fallback polkit would leave it out where the process has no session.
            .args(["--notify-fd=1", "--process", &own])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut agent = Self(agent.ok()?);
        if let Some(mut ready) = agent.0.stdout.take() {
            // However it ends: a call that needs one is refused then.
            ready.read_to_end(&mut Vec::new()).ok();
        }
        Some(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that ended already is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
