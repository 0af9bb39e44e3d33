//! Programs that stand in for services which cannot be had here (`tests/stand_ins`), in a
//! machine: Telegram, and the providers of models.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cache;
use crate::instance::DEADLINE;
use crate::machine::User;
use crate::seat::{Seat, quote};
use crate::wait::wait_until;

/// One of them, as a unit of the seat's user.
#[derive(Debug)]
pub struct StandIn<'a> {
    seat: Seat<'a>,
    name: &'static str,
    port: u16,
}

impl<'a> StandIn<'a> {
    /// Starts `tests/stand_ins/NAME.py` on a port of the machine's loopback.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(seat: Seat<'a>, name: &'static str, port: u16, flags: &str) -> Result<Self> {
        let folder = cache::repository().join("tests/stand_ins");
        for file in std::fs::read_dir(&folder).context("reading tests/stand_ins")? {
            let path = file?.path();
            let program = std::fs::read(&path);
            let program = program.with_context(|| format!("reading {}", path.display()))?;
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let place = format!("/var/tmp/{file}");
            seat.machine().write_file(User::Root, &place, &program)?;
        }
        let line = format!(
            "systemd-run --user --quiet --collect --unit stand-in-{name} \
             python3 /var/tmp/{name}.py --port {port} --state /var/tmp/{name}.state {flags}"
        );
        let alice = Seat::alice(seat.machine());
        alice.run(&line)?.success()?;
        let this = Self {
            seat: alice,
            name,
            port,
        };
        wait_until(DEADLINE, &format!("{name} to listen"), || {
            let line = format!(
                "curl --silent --output /dev/null http://{}/",
                this.address()
            );
            Ok(this.seat.run(&line)?.code() == 0)
        })?;
        Ok(this)
    }

    /// Its address and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it tells of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn tells(&self, path: &str) -> Result<Value> {
        self.asked(&format!(
            "curl --silent --fail 'http://{}/admin/{path}'",
            self.address()
        ))
    }

    /// Gives it an order.
    ///
    /// # Errors
    /// It does not follow it.
    pub fn order(&self, path: &str, order: &Value) -> Result<Value> {
        let body = quote(&order.to_string());
        let address = self.address();
        self.asked(&format!(
            "curl --silent --fail -d {body} http://{address}/admin/{path}"
        ))
    }

    fn asked(&self, line: &str) -> Result<Value> {
        let answer = self.seat.run(line)?.success()?;
        serde_json::from_str(&answer)
            .with_context(|| format!("the answer of {}: {answer}", self.name))
    }
}
