//! `console`: what the guest's kernel and harness wrote to the serial console.
//!
//! aegis-vmm keeps it in a bounded, rotated file. aegisd opens the files and is
//! not needed while they are followed, but for the next one after a rotation.

use std::io::{self, IsTerminal, Write};

use aegis_bus::dict::Dict;
use aegis_core::fault::Symbol;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::session::Signals;

mod reader;

use reader::Reader;

/// Show the serial console of an instance's guest: its kernel's messages
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Go on with what comes from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut signals = Signals::catch()?;
    let progress = context.ui.progress("Asking aegisd");
    let client = progress.during(context.aegisd()).await?;
    let mut reader = Reader::default();
    reader.take(progress.during(open(&client, &args.name)).await?)?;
    drop(progress);
    let all = reader.read()?;
    print(args.tail.map_or(&all[..], |lines| last_lines(&all, lines)))?;
    if !args.follow {
        return Ok(exit_code::OK);
    }
    let follow = async {
        loop {
            reader.changed().await?;
            if reader.wants_next_file() {
                match open(&client, &args.name).await {
                    Ok(opened) => reader.take(opened)?,
                    // The instance is gone, and with it its console.
                    Err(failure) if failure.is(Symbol::NotFound) => return Ok(()),
                    Err(failure) => return Err(failure),
                }
            }
            print(&reader.read()?)?;
        }
    };
    tokio::select! {
        biased;
        _ = signals.next_end() => Ok(exit_code::OK),
        end = follow => end.map(|()| exit_code::OK),
    }
}

async fn open(client: &Client, name: &str) -> Result<Vec<zbus::OwnedFd>, Failure> {
    let what = format!("read the console of '{name}'");
    let instance = client.instance(name, &what).await?;
    let opened = instance.open_console(&Dict::new()).await;
    opened.map_err(Failure::call(what))
}

/// The end of a text: so many lines, the last of which may be unfinished.
fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let Some(skipped) = lines.checked_sub(1) else {
        return &[];
    };
    let newlines = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    let start = newlines.map(|(at, _)| at + 1).nth(skipped);
    &text[start.unwrap_or(0)..]
}

/// Prints it as it is, or without what a terminal would act on where it goes to one:
/// the guest may have written anything.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let harmless = |byte: &u8| matches!(byte, b'\n' | b'\t') || !byte.is_ascii_control();
    let written = if stdout.is_terminal() {
        let clean: Vec<u8> = bytes.iter().copied().filter(harmless).collect();
        // What is not ASCII may be a control character of Unicode.
        let text = String::from_utf8_lossy(&clean);
        let text = text.replace(|c: char| c.is_control() && !c.is_ascii(), "\u{fffd}");
        stdout.write_all(text.as_bytes())
    } else {
        stdout.write_all(bytes)
    };
    written
        .and_then(|()| stdout.flush())
        .map_err(Failure::output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\nb\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
    }
}
