//! What documents take for granted: Docker Hub, OpenAI, Telegram and a model on the host.
//! Stand-ins have their names and addresses, so that a document is followed as it stands.
//!
//! ```text
//!  gateway ── https://api.telegram.org ──► 93.184.215.15 ─► tls.py ─► telegram.py ┐ outside
//!  guest   ── https://api.openai.com ────► 93.184.215.16 ─► tls.py ─► llm.py      ┘
//!  aegisd  ── 127.0.0.1:11434, where ollama listens ──────────────────► llm.py
//!  aegis-image ── docker.io, whose mirror is 127.0.0.1:5099 ──────────► docker-registry
//! ```

use std::cell::RefCell;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::instance::DEADLINE;
use crate::layout::Layout;
use crate::machine::User;
use crate::outside::Outside;
use crate::packages::run;
use crate::registry::Registry;
use crate::seat::{Seat, quote};
use crate::stand_in::StandIn;
use crate::wait::wait_until;

const TELEGRAM: &str = "93.184.215.15";
const OPENAI: &str = "93.184.215.16";
/// Who answers the names of guests: any name is OpenAI's.
const NAMES: &str = "93.184.215.17";

/// The chat of whoever follows a document.
const CHAT: i64 = 987_654_321;

/// How long somebody waits for an answer before writing again. Without KVM the VM takes
/// seconds to wake.
const WHILE: Duration = Duration::from_secs(15);

/// Where the certificate and key of the servers lie in the machine.
const CERTIFICATE: &str = "/srv/server.pem";
const KEY: &str = "/srv/server.key";

/// The services around a machine.
#[derive(Debug)]
pub struct Services<'a> {
    telegram: StandIn<'a>,
    models: [StandIn<'a>; 2],
    /// What was written to the bot last.
    written: RefCell<String>,
    _registry: Registry<'a>,
}

impl<'a> Services<'a> {
    /// Starts them, and lets the machine and the image know whom to trust.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(seat: Seat<'a>) -> Result<Self> {
        let machine = seat.machine();
        let authority = trust(seat)?;
        let outside = Outside::lay(machine)?;
        for address in [TELEGRAM, OPENAI, NAMES] {
            outside.add_address(address)?;
        }
        outside.name_server(NAMES, OPENAI)?;
        let names = format!(
            "echo nameserver {NAMES} >/etc/resolv.conf; \
             echo {TELEGRAM} api.telegram.org >>/etc/hosts"
        );
        machine.run(User::Root, &names)?.success()?;
        let telegram = StandIn::start_outside(outside, "telegram", 8099, "")?;
        telegram.secure(TELEGRAM, CERTIFICATE, KEY)?;
        let openai = StandIn::start_outside(outside, "llm", 8098, "--key sk-of-nobody")?;
        openai.secure(OPENAI, CERTIFICATE, KEY)?;
        let ollama = StandIn::start(seat, "llm", 11434, "--no-auth")?;

        let layout = Layout::make(
            &[&format!(
                "mkdir -p root tmp && printf %s {} >etc/authority.pem",
                quote(&authority)
            )],
            "--config.cmd sh --config.env SSL_CERT_FILE=/etc/authority.pem",
        )?;
        let registry = Registry::start(seat, 5099, &layout, &["library/python:3.12-alpine"])?;
        let mirror = format!(
            "[[registry]]\nlocation = 'docker.io'\n\
             [[registry.mirror]]\nlocation = '{}'\ninsecure = true\n",
            registry.host()
        );
        let conf = ".config/containers/registries.conf";
        machine.write_file(seat.user(), conf, mirror.as_bytes())?;
        Ok(Self {
            telegram,
            models: [openai, ollama],
            written: RefCell::default(),
            _registry: registry,
        })
    }

    /// What a person does in Telegram: `write to the bot: TEXT`, `hear the bot: TEXT`. Who
    /// hears something else writes the same again after a while.
    ///
    /// # Errors
    /// It is not one of these, or is not heard in time.
    pub fn act(&self, words: &str) -> Result<()> {
        if let Some(text) = words.strip_prefix("write to the bot: ") {
            self.write(text)?;
            self.written.replace(text.to_owned());
            Ok(())
        } else if let Some(text) = words.strip_prefix("hear the bot: ") {
            let (mut last, mut since) = (String::new(), Instant::now());
            wait_until(DEADLINE, "the bot's answer", || {
                let messages = self.telegram.tells(&format!("chat?id={CHAT}"))?;
                let messages = messages.as_array().context("messages")?;
                let text_of = messages.last().and_then(|message| message["text"].as_str());
                text_of.unwrap_or_default().clone_into(&mut last);
                if last != text && since.elapsed() > WHILE {
                    self.write(&self.written.borrow())?;
                    since = Instant::now();
                }
                Ok(last == text)
            })
            .with_context(|| format!("it said {last:?}"))
        } else {
            bail!("nobody knows how to {words}")
        }
    }

    fn write(&self, text: &str) -> Result<()> {
        let chat = json!({"id": CHAT, "type": "private", "first_name": "Ann"});
        let update = json!({"chat": chat, "text": text});
        self.telegram.order("update", &update).map(drop)
    }

    /// No rule of a service was broken.
    ///
    /// # Errors
    /// One was: the text says which.
    pub fn are_content(&self) -> Result<()> {
        let state = self.telegram.tells("state")?;
        ensure!(state["violations"] == json!([]), "Telegram: {state}");
        for model in &self.models {
            let violations = model.tells("violations")?;
            ensure!(violations == json!([]), "a model: {violations}");
        }
        Ok(())
    }
}

/// Makes an authority that the machine trusts, with a certificate for the servers, and gives
/// that of the authority.
fn trust(seat: Seat<'_>) -> Result<String> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let make = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj '/CN=Authority of a test' -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -subj '/CN=api.openai.com' -keyout server.key -out server.csr
        echo 'subjectAltName=DNS:api.openai.com,DNS:api.telegram.org' >names
        openssl x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
            -extfile names -out server.pem";
    run(Command::new("sh")
        .args(["-ec", make])
        .current_dir(folder.path()))?;
    let machine = seat.machine();
    let read = |name: &str| {
        std::fs::read(folder.path().join(name)).with_context(|| format!("reading {name}"))
    };
    let authority = read("ca.pem")?;
    let all = "/etc/ssl/certs/ca-certificates.crt";
    machine.write_file(User::Root, all, &authority)?;
    machine.write_file(User::Root, CERTIFICATE, &read("server.pem")?)?;
    machine.write_file(User::Root, KEY, &read("server.key")?)?;
    String::from_utf8(authority).context("a certificate is text")
}
