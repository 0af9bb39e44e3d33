//! The link to the guest beside the raw port it runs on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cold::{Floor, is_prepared};
use super::tools::{Instance, wait_for};
use crate::row::Row;
use crate::samples::Samples;

/// Bytes of a throughput measurement.
const BULK: usize = 200 << 20;
const ECHOES: usize = 500;

pub(super) fn measure() -> Result<Vec<Row>> {
    ensure!(
        is_prepared(),
        "the floor's initramfs is missing: run make bench"
    );
    let floor = Floor::like_an_instance()?;
    let raw = |mode| RawPort::open(&floor, mode);
    let port = raw("echo")?;
    let echo_floor = echoes(&mut &port.stream, &mut &port.stream)?;
    drop(port);
    let port = raw("pour")?;
    let pour_floor = pour(&mut &port.stream)?;
    drop(port);
    let port = raw("drain")?;
    let drain_floor = fill(&mut &port.stream)?;
    drop(port);

    let _instance = Instance::start("bench-link", &["--", "sleep", "infinity"])?;
    let mut cat = exec(&["cat"])?;
    let (mut input, mut out) = ends(&mut cat)?;
    let echo = echoes(&mut out, &mut input)?;
    drop(input);
    cat.wait().context("waiting for cat")?;
    let mut zeros = exec(&["cat", "/dev/zero"])?;
    let (_input, mut out) = ends(&mut zeros)?;
    let poured = pour(&mut out)?;
    zeros.kill().context("ending the exec")?;
    zeros.wait().context("waiting for the exec")?;
    let mut sink = exec(&["sh", "-c", "cat >/dev/null"])?;
    let (mut input, _out) = ends(&mut sink)?;
    let filled = fill(&mut input)?;
    drop(input);
    sink.wait().context("waiting for the exec")?;

    let name = "raw virtio-serial port";
    let bulk = |what: &str, ours: Duration, floor: Duration| {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Row::new(what, "ms", millis(ours)).against(name, millis(floor))
    };
    Ok(vec![
        Row::new("a byte to `exec -- cat` and back", "ms", echo.median())
            .against(name, echo_floor.median()),
        bulk(
            "time for 200 MB from `exec -- cat /dev/zero`",
            poured,
            pour_floor,
        ),
        bulk(
            "time for 200 MB to `exec -- cat` into /dev/null",
            filled,
            drain_floor,
        ),
    ])
}

fn exec(command: &[&str]) -> Result<Child> {
    Command::new("aegisctl")
        .args(["exec", "bench-link", "--"])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running aegisctl exec")
}

fn ends(child: &mut Child) -> Result<(std::process::ChildStdin, std::process::ChildStdout)> {
    let input = child.stdin.take().context("no standard input")?;
    Ok((input, child.stdout.take().context("no standard output")?))
}

fn echoes(from: &mut impl Read, to: &mut impl Write) -> Result<Samples> {
    let mut byte = [0];
    let mut once = || {
        to.write_all(b"x")?;
        to.flush()?;
        from.read_exact(&mut byte)?;
        Ok(())
    };
    // The first ones find nothing warm.
    Samples::time(20, &mut once)?;
    Samples::time(ECHOES, once)
}

fn pour(from: &mut impl Read) -> Result<Duration> {
    let mut buffer = vec![0; 64 * 1024];
    from.read_exact(&mut buffer)
        .context("reading the first bytes")?;
    let start = Instant::now();
    let mut left = BULK;
    while left > 0 {
        let count = from
            .read(&mut buffer)
            .context("reading a stream of zeros")?;
        ensure!(count > 0, "the stream of zeros ended");
        left = left.saturating_sub(count);
    }
    Ok(start.elapsed())
}

fn fill(to: &mut impl Write) -> Result<Duration> {
    let buffer = vec![0; 64 * 1024];
    // The guest reads once this is through: what fits on the way is far less.
    to.write_all(&vec![0; 1 << 20])
        .context("writing the first bytes")?;
    let start = Instant::now();
    for _ in 0..BULK / buffer.len() {
        to.write_all(&buffer).context("writing a stream of zeros")?;
    }
    Ok(start.elapsed())
}

/// A plain guest that carries bytes over the port without a protocol.
struct RawPort {
    qemu: Child,
    stream: UnixStream,
}

impl RawPort {
    fn open(floor: &Floor, mode: &str) -> Result<Self> {
        let path = format!("{}/aegis-bench-{mode}", std::env::var("XDG_RUNTIME_DIR")?);
        let chardev = format!("socket,id=link,path={path},server=on,wait=on");
        let devices = [
            "-chardev",
            &chardev,
            "-device",
            "virtio-serial-device",
            "-device",
            "virtserialport,chardev=link,name=floor",
        ];
        let qemu = floor
            .command(&format!("floor={mode}"), &devices)
            .spawn()
            .context("running QEMU")?;
        let stream = wait_for("QEMU's socket", || Ok(UnixStream::connect(&path).ok()))?;
        Ok(Self { qemu, stream })
    }
}

impl Drop for RawPort {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody to tell.
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }
}
