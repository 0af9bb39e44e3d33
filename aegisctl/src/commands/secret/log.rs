//! `secret log`: the record of uses that aegisd keeps in the journal.
//!
//! Only what aegisd's own unit wrote is shown: journald itself notes the unit, so no
//! other program can put words into the record. It is read with the rights of who asks.

use std::io::{BufRead, BufReader};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::audit;
use aegis_core::layout::Mode;
use aegis_core::secret::SecretName;
use aegis_core::units::AEGISD;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::journalctl;
use crate::moment::Moment;
use crate::ui::{Table, Tone, moment};

/// Show who was given a secret and when, as the journal has it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The secret; it may be gone by now
    name: SecretName,
    /// Only uses since: 10m or -1h for so long ago, a date, RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Moment>,
}

/// One use.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    time_us: u64,
    instance: String,
    unit: String,
    purpose: String,
    variable: String,
    caller: Option<u32>,
}

pub(super) fn execute(context: &Context, args: &Args) -> Result<u8, Failure> {
    let since_us = args.since.map(|since| since.at_us(now_us()));
    let uses = read(context.mode, &args.name, since_us)?;
    context.ui.data(
        || {
            let uses: Vec<Value> = uses.iter().map(Use::to_json).collect();
            json!({"name": args.name, "uses": uses})
        },
        || {
            let mut table = Table::new(&["TIME", "INSTANCE", "UNIT", "FOR", "VARIABLE", "BY"]);
            for one in &uses {
                let by = one.caller.map(|uid| format!("uid {uid}"));
                let cells = [
                    &moment(one.time_us),
                    &one.instance,
                    &one.unit,
                    &one.purpose,
                    &one.variable,
                    &by.unwrap_or_default(),
                ];
                table.row(cells.map(|cell| (Tone::Plain, cell.clone())).into());
            }
            table.render(context.ui)
        },
    )?;
    Ok(exit_code::OK)
}

fn read(mode: Mode, name: &SecretName, since_us: Option<u64>) -> Result<Vec<Use>, Failure> {
    let mut command = journalctl::command();
    if let Some(since) = since_us {
        command.arg(format!("--since=@{}", since / 1_000_000));
    }
    command.args(matches(mode, name));
    let mut child = journalctl::spawn(&mut command)?;
    let mut uses = Vec::new();
    let lines = child.stdout.take().map(BufReader::new);
    for line in lines.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(Failure::Journal)?;
        // Whole seconds were asked for.
        uses.extend(parse(&line).filter(|one| since_us.is_none_or(|since| one.time_us >= since)));
    }
    match journalctl::failure_of(&mut child) {
        Some(failure) => Err(failure),
        None => Ok(uses),
    }
}

/// All of them must match.
fn matches(mode: Mode, name: &SecretName) -> Vec<String> {
    let mut words = vec![
        format!("MESSAGE_ID={}", audit::USED),
        format!("{}={name}", audit::SECRET),
    ];
    match mode {
        Mode::System => words.push(format!("_SYSTEMD_UNIT={AEGISD}")),
        Mode::User => words.extend([
            format!("_SYSTEMD_USER_UNIT={AEGISD}"),
            format!("_UID={}", nix::unistd::geteuid()),
        ]),
    }
    words
}

/// `None` for what is no use of a named secret: an instance's own value of that name is
/// another one.
fn parse(line: &str) -> Option<Use> {
    let fields: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| journalctl::text(&fields[name]);
    if text(audit::OWNER).is_some() {
        return None;
    }
    Some(Use {
        time_us: text("__REALTIME_TIMESTAMP")?.parse().ok()?,
        instance: text(audit::INSTANCE)?,
        unit: text(audit::UNIT)?,
        purpose: text(audit::PURPOSE)?,
        variable: text(audit::VARIABLE)?,
        caller: text(audit::CALLER).and_then(|uid| uid.parse().ok()),
    })
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

impl Use {
    fn to_json(&self) -> Value {
        json!({
            "time_us": self.time_us,
            "instance": self.instance,
            "unit": self.unit,
            "for": self.purpose,
            "variable": self.variable,
            "caller_uid": self.caller,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aegisd_wrote_of_a_named_secret_is_a_use() {
        let mut record = json!({
            "__REALTIME_TIMESTAMP": "5",
            "AEGIS_SECRET": "KEY",
            "AEGIS_INSTANCE": "web",
            "AEGIS_UNIT": "aegis-vm-web.service",
            "AEGIS_PURPOSE": "exec",
            "AEGIS_VARIABLE": "V",
            "AEGIS_CALLER_UID": "1000",
        });
        let one = parse(&record.to_string()).unwrap();
        assert_eq!((one.time_us, one.caller), (5, Some(1000)));
        record["AEGIS_SECRET_OWNER"] = "web".into();
        assert_eq!(parse(&record.to_string()), None);
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn records_of_others_are_left_out() {
        let words = matches(Mode::System, &"KEY".parse().unwrap()).join(" ");
        assert!(
            words.ends_with("AEGIS_SECRET=KEY _SYSTEMD_UNIT=aegisd.service"),
            "{words}"
        );
    }
}
