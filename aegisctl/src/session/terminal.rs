//! The terminal on our stdin.

use std::io::{self, IsTerminal, Stdin};

use aegis_core::control::TerminalSize;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
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

/// The mode of the terminal on stdin as it was. Dropped, it has that again, whatever
/// another part of the program made of it.
#[derive(Debug)]
pub(crate) struct Before(Termios);

impl Before {
    /// Remembers the mode.
    pub(crate) fn stdin() -> Result<Self, Failure> {
        let before = tcgetattr(io::stdin()).map_err(|source| Failure::Terminal {
            what: "read the mode of",
            source,
        })?;
        Ok(Self(before))
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0).ok();
    }
}

/// The terminal on stdin without echo, for what nobody should see. Dropped, it gets
/// back the mode it had.
#[derive(Debug)]
pub(crate) struct Quiet(Termios);

impl Quiet {
    /// Stops the echo of what is typed.
    pub(crate) fn stdin() -> Result<Self, Failure> {
        let failed = |what| move |source| Failure::Terminal { what, source };
        let before = tcgetattr(io::stdin()).map_err(failed("read the mode of"))?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        // The newline at the end of the value is echoed: what follows starts a line.
        quiet.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet).map_err(failed("set the mode of"))?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Whether stdin is a terminal that another job has: reading it would stop us
/// (SIGTTIN).
pub(super) fn in_background() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|foreground| foreground != getpgrp())
}
