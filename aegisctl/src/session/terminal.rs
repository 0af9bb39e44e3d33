//! The terminal on our stdin.

use std::io::{self, IsTerminal, Stdin};

use aegis_core::control::TerminalSize;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::failure::Failure;

/// A terminal.
#[derive(Debug)]
pub(crate) struct Terminal(Stdin);

impl Terminal {
    /// The terminal on stdin, if there is one.
    pub(crate) fn of_stdin() -> Option<Self> {
        let stdin = io::stdin();
        stdin.is_terminal().then_some(Self(stdin))
    }

    /// The terminal on stdin, if stdout is one too.
    pub(crate) fn of_both() -> Option<Self> {
        Self::of_stdin().filter(|_| io::stdout().is_terminal())
    }

    /// Its size in characters; `None` if it has none.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        let (width, height) = terminal_size::terminal_size_of(&self.0)?;
        Some(TerminalSize {
            rows: height.0,
            cols: width.0,
        })
    }

    /// Hands every key to the guest, Ctrl-C included, until the value is dropped.
    pub(super) fn raw(&self) -> Result<Raw, Failure> {
        let before = tcgetattr(&self.0).map_err(|source| Failure::Terminal {
            what: "read the mode of",
            source,
        })?;
        let raw = Raw(before);
        raw.apply_again()?;
        Ok(raw)
    }
}

/// A terminal in raw mode (termios(3)). Dropped, also by a panic, it gets back
/// the mode it had.
#[derive(Debug)]
pub(super) struct Raw(Termios);

impl Raw {
    /// Sets raw mode, again if somebody has changed it.
    pub(super) fn apply_again(&self) -> Result<(), Failure> {
        let mut raw = self.0.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).map_err(|source| Failure::Terminal {
            what: "set the mode of",
            source,
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0).ok();
    }
}

/// Whether stdin is a terminal that another job has: reading it would stop us
/// (SIGTTIN).
pub(super) fn in_background() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|foreground| foreground != getpgrp())
}
