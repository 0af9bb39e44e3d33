//! Messages and the Agent Kit: what a message costs on its way, how soon somebody who
//! writes to a bot sees the first words of an answer, and what waits for that in memory.
//! The model and Telegram are stand-ins that answer at once, so what remains is ours.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::tools::{Instance, aegis, property, resident, wait_for};
use crate::row::Row;
use crate::samples::Samples;

/// Where the stand-ins lie in the machine.
pub(crate) const STAND_INS: &str = "/usr/local/lib/aegis-bench/stand-ins";

const NAME: &str = "bench-agent";
/// Chats have this number and higher ones: a chat gets a message a second at most, which
/// would be measured.
const CHAT: usize = 1000;
const TELEGRAM: u16 = 18_711;
/// Where ollama listens.
const MODEL: u16 = 11_434;
const RUNS: usize = 9;
const COLD_RUNS: usize = 5;
/// Messages of the measurements by number.
const MANY: usize = 300;
/// Gateway and agent together, at rest, in MB.
const MEMORY_GOAL: f64 = 40.0;
const AGENT: &str = "/usr/libexec/aegisvm/aegis-agent";

pub(super) fn measure() -> Result<Vec<Row>> {
    let home = PathBuf::from(std::env::var("HOME")?);
    let kits = home.join(".aegis/kits");
    let token = "123456:bench";
    let _model = stand_in("llm", MODEL, &["--no-auth"])?;
    let _telegram = stand_in("telegram", TELEGRAM, &["--fast", "--token", token])?;
    fs::create_dir_all(kits.join(NAME)).context("making the config folder")?;
    fs::write(kits.join("bench-agent.json"), manifest()).context("writing the kit")?;
    let config = json!({"telegram": {
        "bot_token": token,
        "allowed_chats": ["*"],
        "api_base_url": format!("http://127.0.0.1:{TELEGRAM}"),
    }});
    fs::write(kits.join(NAME).join("gateway.json"), config.to_string())
        .context("writing the gateway's config")?;
    let flags = [
        "--kit",
        NAME,
        "--idle-pause",
        "never",
        "--idle-hibernate",
        "never",
    ];
    let _instance = Instance::start(NAME, &flags)?;
    let mut seen = 0;
    first_words(&mut seen)?;

    let act = |verb: &str| aegis(&["instance", verb, NAME]).map(drop);
    let running = sample(RUNS, &mut seen, || Ok(()))?;
    let paused = sample(RUNS, &mut seen, || act("pause"))?;
    let hibernated = sample(COLD_RUNS, &mut seen, || {
        // The agent gives its lease back after the answer.
        wait_for("nobody to need it", || Ok(act("hibernate").ok()))
    })?;
    let cold = sample(COLD_RUNS, &mut seen, || act("stop"))?;
    let exec = Samples::time(RUNS, || aegis(&["exec", NAME, "--", "true"]).map(drop))?;

    let gateway = property(&format!("aegis-kit-{NAME}:gateway.service"), "MainPID")?;
    let script = "grep VmRSS /proc/$(pidof aegis-agent)/status";
    let of_agent = aegis(&["exec", NAME, "--", "sh", "-c", script])?;
    let of_agent = of_agent
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok());
    let of_agent = of_agent.context("the agent has no VmRSS")? / 1024.0;
    let size = fs::metadata(AGENT).context("looking at the agent")?.len();

    let (kept, delivered) = many()?;
    let synced = synced_writes(&home)?;
    let first = "from a message to a bot to the first words of the answer";
    let peer = "aegisctl exec of true in it";
    let row = |state: &str, samples: &Samples| {
        Row::new(format!("{first}, {state}"), "ms", samples.median())
    };
    Ok(vec![
        row("VM running", &running).against(peer, exec.median()),
        row("VM paused", &paused).against("the same, running", running.median()),
        row("VM hibernated", &hibernated).against("the same, running", running.median()),
        row("VM stopped", &cold).against("the same, running", running.median()),
        Row::new(
            "memory of gateway and agent at rest",
            "MB",
            resident(&gateway)? + of_agent,
        )
        .goal(MEMORY_GOAL),
        Row::new("– the agent's part", "MB", of_agent),
        Row::new("size of the agent", "MB", size as f64 / 1e6),
        Row::new("a message until it is kept, one after another", "ms", kept)
            .against("a write and fsync of a file", synced),
        Row::new(
            "a message until the guest has it, many waiting",
            "ms",
            delivered,
        ),
    ])
}

/// The Agent Kit without an image of a registry and without a workspace, which could not
/// be hibernated here.
fn manifest() -> String {
    json!({
        "image": {"inject": ["aegis-agent"]},
        "instance_daemons": [{
            "binary": "aegis-gateway",
            "config": {"path": "gateway.json", "reload": "self"},
            "ready": "notify",
        }],
        "defaults": {
            "command": ["aegis-agent"],
            "env": {"AEGIS_MODEL": "host:ollama/bench"},
            "capabilities": {"llm": true},
        },
    })
    .to_string()
}

/// A stand-in that ends with the value.
struct StandIn(Child);

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn stand_in(name: &str, port: u16, flags: &[&str]) -> Result<StandIn> {
    let program = format!("{STAND_INS}/{name}.py");
    let state = format!("/tmp/bench-{name}.state");
    let child = Command::new("python3")
        .args([&program, "--port", &port.to_string(), "--state", &state])
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let stand_in = StandIn(child);
    wait_for(name, || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
    Ok(stand_in)
}

fn sample(runs: usize, seen: &mut usize, before: impl Fn() -> Result<()>) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..runs {
        before()?;
        samples.add(first_words(seen)?);
    }
    Ok(samples)
}

/// Somebody else writes to the bot and waits for a message of it, which is how long it took. Returns
/// when the answer is whole.
fn first_words(seen: &mut usize) -> Result<Duration> {
    let number = CHAT + *seen;
    let chat = json!({"id": number, "type": "private", "first_name": "Ann"});
    let update = json!({"chat": chat, "text": "say:hello"});
    let start = Instant::now();
    telegram("POST", "update", &update.to_string())?;
    wait_for("the first words", || {
        Ok((!messages(number)?.is_empty()).then_some(()))
    })?;
    let took = start.elapsed();
    *seen += 1;
    wait_for("the whole answer", || {
        let all = messages(number)?;
        Ok((all.last().is_some_and(|last| last["text"] == "hello")).then_some(()))
    })?;
    Ok(took)
}

fn messages(chat: usize) -> Result<Vec<Value>> {
    let told = telegram("GET", &format!("chat?id={chat}"), "")?;
    serde_json::from_str(&told).context("reading a chat")
}

fn telegram(method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", TELEGRAM)).context("asking Telegram")?;
    write!(
        stream,
        "{method} /admin/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer of Telegram")?;
    Ok(body.to_owned())
}

/// Many messages to a guest: milliseconds for each until it is kept, and until the guest
/// has it.
fn many() -> Result<(f64, f64)> {
    let runtime = std::env::var("XDG_RUNTIME_DIR")?;
    let socket = format!("{runtime}/aegis/api/{NAME}/api.sock");
    let stream = UnixStream::connect(&socket).with_context(|| format!("connecting to {socket}"))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut requests = stream;
    let start = Instant::now();
    for number in 0..MANY {
        // Each of a session of its own, and none that a model has to answer.
        let frame = json!({
            "v": 1, "type": "control.cancel", "msg_id": format!("bench-{number}"),
            "session": {"channel": "bench", "id": "1"},
        });
        let frame = frame.to_string();
        write!(
            requests,
            "POST /v1/instances/{NAME}/tether HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{frame}",
            frame.len()
        )?;
        answer(&mut answers)?;
    }
    let kept = start.elapsed();
    let last = format!("bench-{}", MANY - 1);
    wait_for("the last message to be taken", || {
        let read = aegis(&[
            "--json",
            "tether",
            "read",
            NAME,
            "--type",
            "event.ack",
            "--tail",
            "1",
        ])?;
        let read: Value = serde_json::from_str(&read)?;
        Ok((read["frames"][0]["msg_id"] == last.as_str()).then_some(()))
    })?;
    let each = |took: Duration| took.as_secs_f64() * 1e3 / MANY as f64;
    Ok((each(kept), each(start.elapsed())))
}

/// Reads one answer, which must be 202.
fn answer(answers: &mut BufReader<UnixStream>) -> Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(line.contains(" 202 "), "a message was answered with {line}");
    let mut length = 0;
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    Ok(answers.read_exact(&mut body)?)
}

/// What the disk takes for a small write that must be on it, in milliseconds.
fn synced_writes(home: &std::path::Path) -> Result<f64> {
    let path = home.join("bench-sync");
    let mut file = File::create(&path)?;
    let start = Instant::now();
    for _ in 0..MANY {
        file.write_all(&[0; 512])?;
        file.sync_data()?;
    }
    let took = start.elapsed().as_secs_f64() * 1e3 / MANY as f64;
    fs::remove_file(path)?;
    Ok(took)
}
