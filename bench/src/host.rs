//! The machine of the measurements, and what is made of their rows.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aegis_tests::cache;
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Root, Systemd, User};
use aegis_tests::outside::Outside;
use aegis_tests::stand_in;
use anyhow::{Context, Result, bail, ensure};

use crate::inside::{AGENT, BYTES, EGRESS, IMAGES, REGISTRY, REPOSITORY, SOURCE, STAND_INS};
use crate::report;
use crate::row::Row;
use crate::sample_image::{self, TAGS};

/// Packages of the peers, beside those of a test machine.
const PEERS: [&str; 8] = [
    "podman",
    "skopeo",
    "supervisor",
    "runit",
    "s6",
    // virtme-ng, and what it takes for granted.
    "virtme-ng",
    "binutils",
    "udev",
];
const PROGRAM: &str = "/usr/local/bin/aegis-bench";
/// Lets alice start her manager anew, as a boot does.
const RULE: &str = "/etc/polkit-1/rules.d/50-aegis-bench.rules";
const RULE_TEXT: &str = include_str!("../boot.rules");
/// Programs of the host that tests of images use too. They need nothing but the C
/// library.
const IMAGE_TOOLS: [&str; 2] = ["docker-registry", "umoci"];
const REGISTRY_CONFIG: &str = "/usr/local/lib/aegis-bench/registry.yml";
const LAYOUT: &str = "/usr/local/lib/aegis-bench/layout";
const INITRAMFS: &str = "/usr/local/lib/aegis-bench/initramfs";
const INIT: &str = "/usr/local/lib/aegis-bench/init";

/// Measures in a machine of its own and writes the report.
///
/// # Errors
/// Nothing is built yet, the machine does not boot, or a measurement fails.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let root = Root::with_packages(Systemd::V257, &PEERS)?;
    root.build()?;
    let busy = load()?;
    let machine = Machine::temporary_over("bench", &root)?;
    ensure!(
        machine
            .run(User::Root, "test -e /usr/lib/aegisvm/guest/vmlinux")?
            .status
            .success(),
        "the guest kernel is not built, and another one would measure something else: run make kernel"
    );
    let this = std::env::current_exe().context("finding this program")?;
    machine.write_file(
        User::Root,
        PROGRAM,
        &fs::read(this).context("reading this program")?,
    )?;
    machine.write_file(User::Root, INITRAMFS, &initramfs()?)?;
    let init = fs::read(floor().join("init")).context("reading the floor's init")?;
    machine.write_file(User::Root, INIT, &init)?;
    machine.write_file(User::Root, RULE, RULE_TEXT.as_bytes())?;
    machine
        .run(User::Root, &format!("chmod 755 {PROGRAM} {INIT}"))?
        .success()?;

    if only.is_none_or(|only| IMAGES.contains(only)) {
        serve_image(&machine)?;
    }

    if only.is_none_or(|only| EGRESS.contains(only)) {
        lay_network(&machine)?;
    }

    if only.is_none_or(|only| AGENT.contains(only)) {
        kit::install_agent(&machine)?;
        stand_in::bring(&machine, STAND_INS)?;
    }

    let only_flag = only.map_or(String::new(), |only| format!(" --only '{only}'"));
    let mut inside = machine
        .command(User::Alice, &format!("{PROGRAM} inside{only_flag}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the measurements")?;
    let lines = BufReader::new(inside.stdout.take().context("no standard output")?).lines();
    let mut rows: Vec<Row> = Vec::new();
    for line in lines {
        let line = line.context("reading a row")?;
        rows.push(serde_json::from_str(&line).with_context(|| format!("a row: {line}"))?);
    }
    print!("{}", report::table(&rows));
    let status = inside.wait().context("waiting for the measurements")?;
    ensure!(status.success(), "the measurements ended with {status}");
    if only.is_none() {
        let document = cache::repository().join("docs/BENCHMARKS.md");
        report::write(&document, &heading(&machine, &busy)?, &rows)?;
        println!("\nwritten to {}", document.display());
    }
    Ok(())
}

/// Lays another host beside the machine, which writes to whoever connects.
fn lay_network(machine: &Machine) -> Result<()> {
    Outside::lay(machine)?;
    let (address, port) = SOURCE;
    let serve = format!(
        "systemd-run --quiet --unit=bench-source ip netns exec outside \
         socat TCP-LISTEN:{port},bind={address},reuseaddr,fork EXEC:'head -c {BYTES} /dev/zero'"
    );
    machine.run(User::Root, &serve)?.success()?;
    Ok(())
}

/// Lets a registry of the machine have the images that are pulled. It is no unit of
/// alice's, so that its processor time is nobody's.
fn serve_image(machine: &Machine) -> Result<()> {
    let layout = sample_image::layout()?;
    let archive = Command::new("tar")
        .args(["--create", "--directory"])
        .arg(layout)
        .arg(".")
        .output()
        .context("running tar")?;
    let unpack = format!("mkdir -p {LAYOUT} && tar --extract --directory={LAYOUT}");
    machine
        .run_with_input(User::Root, &unpack, &archive.stdout)?
        .success()?;
    for tool in IMAGE_TOOLS {
        let program = fs::read(format!("/usr/bin/{tool}"));
        let program =
            program.with_context(|| format!("reading {tool}, which must be installed"))?;
        let copy = format!("/usr/local/bin/{tool}");
        machine.write_file(User::Root, &copy, &program)?;
        machine
            .run(User::Root, &format!("chmod 755 {copy}"))?
            .success()?;
    }
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: /var/tmp/bench-registry}}}}\n\
         http: {{addr: '{REGISTRY}'}}\n"
    );
    machine.write_file(User::Root, REGISTRY_CONFIG, config.as_bytes())?;
    let serve = format!(
        "systemd-run --quiet --unit bench-registry docker-registry serve {REGISTRY_CONFIG}"
    );
    machine.run(User::Root, &serve)?.success()?;
    for tag in TAGS {
        let copy = format!(
            "skopeo --insecure-policy copy --quiet --retry-times 5 --dest-tls-verify=false \
             oci:{LAYOUT}:{tag} docker://{REGISTRY}/{REPOSITORY}:{tag}"
        );
        machine.run(User::Root, &copy)?.success()?;
    }
    Ok(())
}

/// What was measured with, on a machine that was as busy at its start.
fn heading(machine: &Machine, busy: &str) -> Result<String> {
    let line = "aegisctl instance start --name bench-model >/dev/null
                accelerator=$(aegisctl instance inspect bench-model | jq --raw-output '.instances[0].accel')
                aegisctl instance delete --purge bench-model >/dev/null
                model=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
                echo \"$(nproc) cores of $model, $(qemu-system-x86_64 --version | head -n 1)\" \
                     \"with $accelerator, $(systemctl --version | head -n 1)\"";
    let facts = machine.run(User::Alice, line)?.success()?;
    let date = machine.run(User::Alice, "date +%F")?.success()?;
    let now = load()?;
    Ok(format!(
        "Figures of one run on {date}: {facts}. Load {busy} at its start, {now} at its end."
    ))
}

/// How many processes wanted to run in the last minute.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("reading the load")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// Where the floor's files are made.
fn floor() -> PathBuf {
    cache::repository().join("target/bench")
}

/// The archive with the init that does nothing.
fn initramfs() -> Result<Vec<u8>> {
    let folder = floor();
    fs::create_dir_all(folder.join("dev")).context("making the floor's files")?;
    let source = cache::repository().join("bench/init.c");
    succeed(
        Command::new("cc")
            .args(["-static", "-O2", "-s", "-o"])
            .arg(folder.join("init"))
            .arg(source),
    )?;
    pack(&folder)
}

fn pack(folder: &Path) -> Result<Vec<u8>> {
    let packed = Command::new("sh")
        .args([
            "-c",
            "printf 'dev\\ninit\\n' | cpio --quiet --create --format=newc --owner=0:0",
        ])
        .current_dir(folder)
        .output()
        .context("running cpio")?;
    ensure!(
        packed.status.success(),
        "cpio: {}",
        String::from_utf8_lossy(&packed.stderr)
    );
    Ok(packed.stdout)
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("running {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}
