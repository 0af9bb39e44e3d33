//! Programs that stand in for services which cannot be had here (`tests/stand_ins`), in a
//! machine: Telegram, and the providers of models.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cache;
use crate::instance::DEADLINE;
use crate::machine::{Machine, User};
use crate::outside::{self, Outside};
use crate::seat::{Seat, quote};
use crate::wait::wait_until;

/// Where they lie in a machine.
const PLACE: &str = "/var/tmp/stand-ins";

/// Puts all of them into a folder of a machine.
///
/// # Errors
/// A file cannot be read or written.
pub fn bring(machine: &Machine, folder: &str) -> Result<()> {
    let source = cache::repository().join("tests/stand_ins");
    machine
        .run(User::Root, &format!("mkdir -p {folder}"))?
        .success()?;
    for file in std::fs::read_dir(&source).context("reading tests/stand_ins")? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "py") {
            continue;
        }
        let program = std::fs::read(&path);
        let program = program.with_context(|| format!("reading {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        machine.write_file(User::Root, &format!("{folder}/{name}"), &program)?;
    }
    Ok(())
}

/// One of them, as a unit of alice's, or of the machine's where it is outside.
#[derive(Clone, Debug)]
pub struct StandIn<'a> {
    seat: Seat<'a>,
    /// What comes before a command there.
    place: &'static str,
    name: &'static str,
    port: u16,
}

impl<'a> StandIn<'a> {
    /// Starts `tests/stand_ins/NAME.py` on a port of the machine's loopback.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(seat: Seat<'a>, name: &'static str, port: u16, flags: &str) -> Result<Self> {
        Self::begin(Seat::alice(seat.machine()), "", name, port, flags)
    }

    /// Starts it on a port of the loopback of what is outside of the machine.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_outside(
        outside: Outside<'a>,
        name: &'static str,
        port: u16,
        flags: &str,
    ) -> Result<Self> {
        Self::begin(
            Seat::root(outside.machine()),
            outside::PLACE,
            name,
            port,
            flags,
        )
    }

    fn begin(
        seat: Seat<'a>,
        place: &'static str,
        name: &'static str,
        port: u16,
        flags: &str,
    ) -> Result<Self> {
        bring(seat.machine(), PLACE)?;
        let line = format!(
            "systemd-run {} --quiet --collect --unit stand-in-{name}-{port} {place} \
             python3 {PLACE}/{name}.py --port {port} --state /var/tmp/{name}-{port}.state {flags}",
            seat.scope()
        );
        seat.run(&line)?.success()?;
        let this = Self {
            seat,
            place,
            name,
            port,
        };
        wait_until(DEADLINE, &format!("{name} to listen"), || {
            let address = this.address();
            let line = format!("{place} curl --silent --output /dev/null http://{address}/");
            Ok(this.seat.run(&line)?.code() == 0)
        })?;
        Ok(this)
    }

    /// Lets it be reached by TLS too, at an address of what is outside.
    ///
    /// # Errors
    /// It cannot be reached there.
    pub fn secure(&self, address: &str, certificate: &str, key: &str) -> Result<()> {
        let Self { place, name, .. } = self;
        let to = self.address();
        let line = format!(
            "systemd-run --quiet --collect --unit tls-{name} {place} python3 {PLACE}/tls.py \
             --certificate {certificate} --key {key} --to {to} --at {address}:443"
        );
        self.seat.run(&line)?.success()?;
        wait_until(DEADLINE, &format!("TLS of {name} to listen"), || {
            let line = format!("curl --silent --insecure --output /dev/null https://{address}/");
            Ok(self.seat.run(&line)?.code() == 0)
        })
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
            "{} curl --silent --fail 'http://{}/admin/{path}'",
            self.place,
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
            "{} curl --silent --fail -d {body} http://{address}/admin/{path}",
            self.place
        ))
    }

    fn asked(&self, line: &str) -> Result<Value> {
        let answer = self.seat.run(line)?.success()?;
        serde_json::from_str(&answer)
            .with_context(|| format!("the answer of {}: {answer}", self.name))
    }
}
