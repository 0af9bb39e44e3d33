//! `kill`: a signal for the instance's command.

use std::str::FromStr;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// The first and the last signal that programs may give a meaning (signal(7)).
const FIRST_REAL_TIME: i32 = 34;
const LAST: i32 = 64;

/// Send a signal to the command of instances
///
/// It goes to the process group of the command in the guest; execs are not
/// touched. An instance that sleeps is not woken. The VM goes on running unless
/// the end of its command ends it; `instance stop` stops it in order.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The signal: a name, with or without SIG, or a number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let signal = number(&args.signal)?;
    let progress = context.ui.progress("Sending the signal");
    let mut sent = Vec::new();
    let send = async {
        let client = context.aegisd().await?;
        let mut failed = None;
        for name in &args.names {
            let what = format!("signal '{name}'");
            let result = async {
                let instance = client.instance(name, &what).await?;
                instance.kill(signal).await.map_err(Failure::call(&what))
            };
            match result.await {
                Ok(()) => sent.push(name.clone()),
                // The others get theirs all the same; the first failure is the command's.
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        Ok::<_, Failure>(failed)
    };
    let failed = progress.during(send).await?;
    if !sent.is_empty() {
        context.ui.data(
            || json!({"signal": signal, "handles": sent}),
            || sent.iter().map(|name| format!("{name}\n")).collect(),
        )?;
    }
    failed.map_or(Ok(exit_code::OK), Err)
}

/// The number of a signal. Linux guests have the same numbers on every machine
/// we run them on.
fn number(text: &str) -> Result<i32, Failure> {
    let unknown = || Failure::Signal(text.to_owned());
    if let Ok(number) = text.parse() {
        return Some(number)
            .filter(|number| (1..=LAST).contains(number))
            .ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str, sign| text.strip_prefix(sign).and_then(|n| n.parse::<i32>().ok());
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(FIRST_REAL_TIME),
        (_, Some("")) => Some(LAST),
        (Some(rest), _) => offset(rest, '+').map(|n| FIRST_REAL_TIME.saturating_add(n)),
        (_, Some(rest)) => offset(rest, '-').map(|n| LAST.saturating_sub(n)),
        _ => {
            let signal = Signal::from_str(&format!("SIG{name}"));
            return signal.map(|signal| signal as i32).map_err(|_| unknown());
        }
    };
    real_time
        .filter(|number| (FIRST_REAL_TIME..=LAST).contains(number))
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("1", 1),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
        ] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
        for text in [
            "", "0", "65", "-1", "SIG", "NOPE", "RTMIN-1", "RTMAX+1", "RTMIN+99",
        ] {
            assert!(matches!(number(text), Err(Failure::Signal(_))), "{text}");
        }
    }
}
