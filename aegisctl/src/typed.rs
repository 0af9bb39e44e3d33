//! What a user types, or passes on stdin: values that nobody else may see, and consent.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use aegis_core::secret::{MAX_VALUE, SecretText};

use crate::failure::Failure;
use crate::session::Quiet;
use crate::ui::Ui;

/// Asks on the terminal. Without one nobody can answer, and nothing is deleted
/// that nobody confirmed.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::CannotAsk);
    }
    let mut stderr = io::stderr().lock();
    let asked = stderr.write_all(question.as_bytes());
    let mut answer = String::new();
    let answered = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    answered.map_err(|source| Failure::Io {
        what: "ask on the terminal",
        source,
    })?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// A value: asked for on a terminal without showing it, else from stdin, or from a
/// file; `-` is stdin.
pub(crate) async fn value(prompt: &str, file: Option<&Path>) -> Result<SecretText, Failure> {
    // The guard is here, not with the thread, so that Ctrl-C gives the echo back.
    let stdin = io::stdin();
    let from_terminal = file.is_none() && stdin.is_terminal();
    let _quiet = match from_terminal {
        true => {
            let quiet = Quiet::stdin()?;
            Ui::prompt(prompt);
            Some(quiet)
        }
        false => None,
    };
    let file = file.map(Path::to_owned);
    let read = tokio::task::spawn_blocking(move || match file {
        Some(path) if path != Path::new("-") => {
            let opened = File::open(&path).and_then(bytes);
            opened.map_err(|source| Failure::File { path, source })
        }
        _ if from_terminal => line().map_err(unreadable),
        _ => bytes(io::stdin()).map_err(unreadable),
    });
    let bytes = match read.await {
        Ok(bytes) => bytes?,
        Err(_) => return Err(unreadable(io::ErrorKind::Other.into())),
    };
    SecretText::read(bytes).map_err(Failure::SecretValue)
}

fn unreadable(source: io::Error) -> Failure {
    Failure::Io {
        what: "read the value",
        source,
    }
}

fn line() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAX_VALUE + 2);
    io::stdin().lock().read_until(b'\n', &mut bytes)?;
    Ok(bytes)
}

/// One byte more than there may be, so that too much is seen.
fn bytes(from: impl Read) -> io::Result<Vec<u8>> {
    let most = MAX_VALUE + 3;
    let mut bytes = Vec::with_capacity(most);
    from.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
