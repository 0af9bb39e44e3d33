//! Sleep and waking: the first byte through a port in each state of the VM, what a
//! save takes, and what ports carry beside plain proxies.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use listenfd::ListenFd;

use super::cold::{Floor, is_prepared};
use super::tools::{Instance, aegis, output, property, resident, wait_for};
use crate::row::Row;
use crate::samples::Samples;

const RUNS: usize = 9;
const COLD_RUNS: usize = 5;
/// Bytes of a throughput measurement.
const BULK: usize = 100 << 20;
const ECHOES: usize = 300;

/// At most so much above a VM that runs, in milliseconds.
const PAUSED_GOAL: f64 = 5.0;
/// At most this multiple of starting a unit and restoring a bare QEMU.
const HIBERNATED_GOAL: f64 = 1.5;

const NAME: &str = "bench-sleep";
const ECHO: u16 = 18_701;
const POUR: u16 = 18_702;

/// A server that gives back what it gets, once it was brought, and one that writes
/// without end. The first starts no program for a client, which would be measured too.
const SERVERS: &str = "nc -ll -p 82 -e cat /dev/zero & \
     until [ -e /tmp/echo ]; do sleep 0.1; done; exec /tmp/echo 81";
/// Memory that the guest uses once and frees, in MiB.
const USED: &str = "dd if=/dev/zero of=/dev/shm/used bs=1M count=100 && rm /dev/shm/used";
/// How long a guest may take to give memory back.
const GIVEN_BACK: Duration = Duration::from_secs(8);

pub(super) fn measure() -> Result<Vec<Row>> {
    ensure!(
        is_prepared(),
        "the floor's initramfs is missing: run make bench"
    );
    let floor = Floor::like_an_instance()?;
    let (echo, pour) = (format!("{ECHO}:81"), format!("{POUR}:82"));
    let flags = ["--idle-pause", "never", "--idle-hibernate", "never"];
    let ports = ["--expose", &echo, "--expose", &pour];
    let command = ["-d", "--", "sh", "-c", SERVERS];
    let started = Instance::start(NAME, &[&flags[..], &ports, &command].concat())?;
    started.bring("/tmp/echo")?;
    let instance = |verb: &str| aegis(&["instance", verb, NAME]).map(drop);
    first_byte(ECHO)?;

    let running = Samples::time(RUNS, || first_byte(ECHO))?;
    let paused = after(RUNS, || instance("pause"))?;
    let unit = format!("aegis-vm-{NAME}.service");
    let paused_memory = || {
        instance("pause")?;
        let of_paused = memory(&unit)?;
        first_byte(ECHO)?;
        anyhow::Ok(of_paused)
    };
    aegis(&["exec", NAME, "--", "sh", "-c", USED])?;
    let before_reclaim = paused_memory()?;
    std::thread::sleep(GIVEN_BACK);
    let after_reclaim = paused_memory()?;

    let unit_start = unit_start(&unit)?;
    let restore = BareSave::make(&floor)?.restores()?;
    let mut hibernated = Samples::default();
    let (mut saves, mut size) = (Samples::default(), 0.0);
    for _ in 0..RUNS {
        saves.extend(hibernate()?);
        let snapshot = format!(
            "{}/.aegis/instances/{NAME}/snapshot",
            std::env::var("HOME")?
        );
        size = mb(fs::metadata(&snapshot)
            .context("looking at the snapshot")?
            .len());
        wait_for("the VM's end", || {
            Ok((property(&unit, "ActiveState")? == "inactive").then_some(()))
        })?;
        hibernated.extend(Samples::time(1, || first_byte(ECHO))?);
    }
    let processes = {
        hibernate()?;
        wait_for("the VM's end", || {
            Ok((property(&unit, "ActiveState")? == "inactive").then_some(()))
        })?;
        let tasks = property(&unit, "MainPID")?;
        first_byte(ECHO)?;
        tasks.parse::<f64>().unwrap_or_default()
    };
    let cold = after(COLD_RUNS, || instance("stop"))?;

    let what = |state: &str| format!("first byte through a port of a VM that {state}");
    let sum = unit_start.median() + restore.median();
    let mut rows = vec![
        Row::new(what("runs"), "ms", running.median()),
        Row::new(
            format!("{}: above one that runs", what("is paused")),
            "ms",
            (paused.median() - running.median()).max(0.0),
        )
        .goal(PAUSED_GOAL),
        Row::new(what("is hibernated"), "ms", hibernated.median())
            .against(
                format!(
                    "a unit of the same sandbox that does nothing ({:.1} ms) and a bare QEMU's restore \
                     ({:.1} ms)",
                    unit_start.median(),
                    restore.median()
                ),
                sum,
            )
            .goal(HIBERNATED_GOAL),
        Row::new("– the same", "ms", hibernated.median()).against("a cold one", cold.median()),
        Row::new("`instance hibernate`", "ms", saves.median()),
        Row::new("a snapshot of a guest of 256 MB", "MB", size),
        Row::new(
            "memory of a paused VM's unit, 100 MB of it just freed in the guest",
            "MB",
            before_reclaim,
        ),
        Row::new("– the same, reclaimed", "MB", after_reclaim),
        Row::new("processes of a hibernated VM", "", processes),
    ];
    rows.extend(proxies()?);
    Ok(rows)
}

/// Hibernates the instance once nobody uses it: the end of a connection is seen a moment
/// after its client's.
fn hibernate() -> Result<Samples> {
    let once = || Samples::time(1, || aegis(&["instance", "hibernate", NAME]).map(drop));
    wait_for("the VM to be unused", || Ok(once().ok()))
}

/// The first byte after the VM was put to sleep, so many times.
fn after(count: usize, sleep: impl Fn() -> Result<()>) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..count {
        sleep()?;
        samples.extend(Samples::time(1, || first_byte(ECHO))?);
    }
    Ok(samples)
}

fn connect(port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect(address).context("connecting to a port")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(100)))?;
    Ok(stream)
}

fn first_byte(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(b"x").context("sending a byte")?;
    stream.read_exact(&mut [0]).context("waiting for a byte")
}

/// The resident memory of a unit's processes in MB.
fn memory(unit: &str) -> Result<f64> {
    let group = format!("/sys/fs/cgroup{}", property(unit, "ControlGroup")?);
    let found = output(
        "find",
        &[&group, "-name", "cgroup.procs", "-exec", "cat", "{}", "+"],
    )?;
    found.lines().map(resident).sum()
}

#[allow(clippy::cast_precision_loss, reason = "sizes of files are below 2^52")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// From a connection to the first byte of a service that only answers, with the sandbox
/// of a VM's unit.
fn unit_start(like: &str) -> Result<Samples> {
    const SOCKET: &str = "bench-answer";
    let path = format!("{}/bench-answer.sock", std::env::var("XDG_RUNTIME_DIR")?);
    let fragment = property(like, "FragmentPath")?;
    let fragment = fs::read_to_string(&fragment).with_context(|| format!("reading {fragment}"))?;
    let own = std::env::current_exe().context("finding this program")?;
    let mut run = Command::new("systemd-run");
    run.args(["--user", "--quiet", "--collect", "--unit", SOCKET])
        .arg(format!("--socket-property=ListenStream={path}"))
        .args(["--property=Type=exec", "--property=StartLimitIntervalSec=0"]);
    for setting in fragment.lines().filter(|line| is_sandbox(line)) {
        run.arg(format!("--property={setting}"));
    }
    let made = run
        .arg(own)
        .arg("answer")
        .output()
        .context("running systemd-run")?;
    ensure!(
        made.status.success(),
        "systemd-run: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let service = format!("{SOCKET}.service");
    let mut samples = Samples::default();
    let taken = wait_for("answers of the service", || {
        let answered = Samples::time(1, || {
            let mut stream = UnixStream::connect(&path).context("connecting to the service")?;
            stream
                .read_exact(&mut [0])
                .context("waiting for the service")
        });
        wait_for("the service's end", || {
            Ok((property(&service, "ActiveState")? == "inactive").then_some(()))
        })?;
        // One that comes while the manager takes its socket back is broken off.
        let Ok(answered) = answered else {
            return Ok(None);
        };
        samples.extend(answered);
        Ok((samples.count() >= RUNS).then_some(()))
    });
    drop(output(
        "systemctl",
        &["--user", "stop", &format!("{SOCKET}.socket")],
    ));
    taken.map(|()| samples)
}

/// Settings of a unit file that confine its processes.
fn is_sandbox(line: &str) -> bool {
    const PREFIXES: [&str; 12] = [
        "Private",
        "Protect",
        "Restrict",
        "SystemCall",
        "NoNewPrivileges",
        "LockPersonality",
        "MemoryDeny",
        "CapabilityBounding",
        "UMask",
        "KeyringMode",
        "Bind",
        "TemporaryFileSystem",
    ];
    PREFIXES.iter().any(|prefix| line.starts_with(prefix))
}

/// What the unit of [`unit_start`] runs: answers one client and ends.
///
/// # Errors
/// It was not started by its socket.
pub(crate) fn answer() -> Result<()> {
    let listener = ListenFd::from_env().take_unix_listener(0)?;
    let listener = listener.context("no socket was passed")?;
    let (mut client, _) = listener.accept().context("accepting a client")?;
    client.write_all(b"x").context("answering a client")
}

/// A bare QEMU with a guest that gives back what arrives on its port, saved in a file.
struct BareSave<'a> {
    floor: &'a Floor,
    file: String,
    socket: String,
}

impl<'a> BareSave<'a> {
    fn make(floor: &'a Floor) -> Result<Self> {
        let folder = std::env::var("XDG_RUNTIME_DIR")?;
        let save = Self {
            floor,
            file: format!("{}/.cache/bench-bare-save", std::env::var("HOME")?),
            socket: format!("{folder}/bench-bare.sock"),
        };
        fs::create_dir_all(Path::new(&save.file).parent().context("no folder")?)?;
        let control = format!("{folder}/bench-bare.qmp");
        let qmp = format!("unix:{control},server=on,wait=off");
        let (qemu, mut port) = save.start(&["-qmp", &qmp])?;
        let mut qemu = Bare(qemu);
        echo(&mut port)?;
        let mut monitor = UnixStream::connect(&control).context("connecting to QEMU")?;
        // Not stopped before: a state that was stopped stays so when it is loaded.
        let uri = format!(
            "{{\"execute\":\"migrate\",\"arguments\":{{\"uri\":\"file:{}\"}}}}",
            save.file
        );
        for command in ["{\"execute\":\"qmp_capabilities\"}", &uri] {
            monitor.write_all(format!("{command}\n").as_bytes())?;
        }
        let mut said = Vec::new();
        wait_for("the save of a bare QEMU", || {
            monitor.write_all(b"{\"execute\":\"query-migrate\"}\n")?;
            let mut buffer = [0; 65536];
            let count = monitor.read(&mut buffer)?;
            said.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&said);
            ensure!(
                !text.contains("\"failed\""),
                "a bare QEMU cannot be saved: {text}"
            );
            Ok(text.contains("\"status\": \"completed\"").then_some(()))
        })?;
        qemu.end();
        Ok(save)
    }

    fn start(&self, more: &[&str]) -> Result<(Child, UnixStream)> {
        drop(fs::remove_file(&self.socket));
        let chardev = format!("socket,id=link,path={},server=on,wait=on", self.socket);
        let devices = [
            "-chardev",
            &chardev,
            "-device",
            "virtio-serial-device",
            "-device",
            "virtserialport,chardev=link,name=floor",
        ];
        let qemu = self
            .floor
            .command("floor=echo", &[&devices[..], more].concat())
            .stderr(Stdio::null())
            .spawn()
            .context("running QEMU")?;
        let port = wait_for("QEMU's socket", || {
            Ok(UnixStream::connect(&self.socket).ok())
        })?;
        Ok((qemu, port))
    }

    /// From exec to the guest's answer.
    fn restores(&self) -> Result<Samples> {
        let incoming = format!("file:{}", self.file);
        let mut samples = Samples::default();
        for _ in 0..RUNS {
            let begin = Instant::now();
            let (qemu, mut port) = self.start(&["-incoming", &incoming])?;
            let mut qemu = Bare(qemu);
            echo(&mut port)?;
            samples.add(begin.elapsed());
            qemu.end();
        }
        Ok(samples)
    }
}

impl Drop for BareSave<'_> {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.file));
    }
}

struct Bare(Child);

impl Bare {
    fn end(&mut self) {
        // It may have ended by itself, and there is nobody to tell.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.end();
    }
}

/// A byte there and back. What is written before the guest looks waits for it.
fn echo(port: &mut UnixStream) -> Result<()> {
    port.set_read_timeout(Some(Duration::from_secs(30)))?;
    port.write_all(b"x")
        .context("sending a byte to a bare QEMU")?;
    port.read_exact(&mut [0])
        .context("waiting for a byte of a bare QEMU")
}

/// A port into the guest beside proxies to servers of the host.
fn proxies() -> Result<Vec<Row>> {
    let ours = (echoes(ECHO)?, pour(POUR)?);
    let mut rows = Vec::new();
    for (name, port, command) in [
        (
            "socat, to a server of the host",
            18_711,
            socat as fn(u16, u16) -> Command,
        ),
        (
            "systemd-socket-proxyd, to a server of the host",
            18_713,
            proxyd,
        ),
    ] {
        let _echo = Bare(server(port + 100, "cat").spawn().context("running socat")?);
        let _zeros = Bare(
            server(port + 101, "cat /dev/zero")
                .spawn()
                .context("running socat")?,
        );
        let _first = Bare(
            command(port, port + 100)
                .spawn()
                .context("running a proxy")?,
        );
        let _second = Bare(
            command(port + 1, port + 101)
                .spawn()
                .context("running a proxy")?,
        );
        for port in [port + 100, port + 101, port, port + 1] {
            wait_for("a proxy", || Ok(connect(port).ok()))?;
        }
        let theirs = (echoes(port)?, pour(port + 1)?);
        rows.push(
            Row::new("a byte through a port and back", "ms", ours.0.median())
                .against(name, theirs.0.median()),
        );
        rows.push(
            Row::new(
                "time for 100 MB through a port",
                "ms",
                ours.1.as_secs_f64() * 1e3,
            )
            .against(name, theirs.1.as_secs_f64() * 1e3),
        );
    }
    Ok(rows)
}

fn server(port: u16, program: &str) -> Command {
    let mut command = Command::new("socat");
    command
        .arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"))
        .arg(format!("EXEC:{program}"))
        .stderr(Stdio::null());
    command
}

fn socat(port: u16, to: u16) -> Command {
    let mut command = Command::new("socat");
    command
        .arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"))
        .arg(format!("TCP:127.0.0.1:{to}"))
        .stderr(Stdio::null());
    command
}

fn proxyd(port: u16, to: u16) -> Command {
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("/usr/lib/systemd/systemd-socket-proxyd")
        .arg(format!("127.0.0.1:{to}"))
        .stderr(Stdio::null());
    command
}

fn echoes(port: u16) -> Result<Samples> {
    let mut stream = connect(port)?;
    let mut once = || {
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        anyhow::Ok(())
    };
    Samples::time(20, &mut once)?;
    Samples::time(ECHOES, once)
}

fn pour(port: u16) -> Result<Duration> {
    let mut stream = connect(port)?;
    let mut buffer = vec![0; 64 * 1024];
    stream
        .read_exact(&mut buffer)
        .context("reading the first bytes")?;
    let start = Instant::now();
    let mut left = BULK;
    while left > 0 {
        let count = stream
            .read(&mut buffer)
            .context("reading a stream of zeros")?;
        ensure!(count > 0, "the stream of zeros ended");
        left = left.saturating_sub(count);
    }
    Ok(start.elapsed())
}
