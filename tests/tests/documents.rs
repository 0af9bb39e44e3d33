//! The documents that users follow, followed from top to bottom in systems where nothing of
//! AegisVM ever was.

use aegis_tests::document::Document;
use std::process::{Command, Stdio};

use aegis_tests::cache;
use aegis_tests::document::reader::Reader;
use aegis_tests::document::services::Services;
use aegis_tests::install::Package;
use aegis_tests::machine::{Machine, Systemd, Temporary, User};
use aegis_tests::packages::{bring, deb, run};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result, bail, ensure};

/// Where alice begins to read.
const HOME: &str = "/home/alice";

/// A document that needs nobody but its reader.
fn alone(words: &str) -> Result<()> {
    bail!("nobody does: {words}")
}

/// A Debian where the packages are installed.
fn installed(machine: &Machine) -> Result<()> {
    let debs = Package::ALL.iter().map(|&package| deb(package));
    let debs = bring(machine, &debs.collect::<Result<Vec<_>>>()?)?;
    machine
        .run(User::Root, &format!("dpkg --install {debs}"))?
        .success()?;
    Ok(())
}

/// Follows a document, and prints how.
#[expect(clippy::print_stdout, reason = "the counts are the test's report")]
fn follow(
    seat: Seat<'_>,
    folder: &str,
    document: &Document,
    act: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let tally = Reader::sit(seat, folder)?.follow(document, act)?;
    println!("{tally}");
    Ok(())
}

fn kits(name: &str, systemd: Systemd) -> Result<()> {
    let machine = Machine::temporary_bare(name, systemd)?;
    installed(&machine)?;
    let seat = Seat::alice(&machine);
    follow(seat, HOME, &Document::read("docs/KITS.md")?, &mut alone)?;
    let left = seat.units()?;
    assert_eq!(left, Vec::<String>::new(), "it takes away what it made");
    Ok(())
}

#[test]
fn the_document_of_kits_can_be_followed() -> Result<()> {
    kits("docs-kits", Systemd::V257)
}

#[test]
fn the_document_of_kits_can_be_followed_on_systemd_252() -> Result<()> {
    kits("docs-kits-252", Systemd::V252)
}

fn agent_kit(name: &str, systemd: Systemd) -> Result<()> {
    let machine = Machine::temporary_bare(name, systemd)?;
    installed(&machine)?;
    let seat = Seat::alice(&machine);
    let services = Services::start(seat)?;
    let mut act = |words: &str| services.act(words);
    let document = Document::read("docs/AGENT_KIT.md")?;
    follow(seat, HOME, &document, &mut act).with_context(|| {
        let log = seat.run("journalctl --user --no-pager -n 40 -o cat");
        format!(
            "the journal: {}",
            log.map(|log| log.text()).unwrap_or_default()
        )
    })?;
    services.are_content()
}

#[test]
fn the_document_of_the_agent_kit_can_be_followed() -> Result<()> {
    agent_kit("docs-agent", Systemd::V257)
}

#[test]
fn the_document_of_the_agent_kit_can_be_followed_on_systemd_252() -> Result<()> {
    agent_kit("docs-agent-252", Systemd::V252)
}

/// Where a clone of the repository stands in a machine.
const CLONE: &str = "/home/alice/aegisvm";

/// What the README has for those who install in their home: each heading is for another one.
const AT_HOME: [&str; 2] = ["Your home, without root", "From the sources"];

/// A Debian where alice has a clone with what `make dist` made.
fn with_clone(name: &str, systemd: Systemd) -> Result<Temporary> {
    let machine = Machine::temporary_bare(name, systemd)?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(cache::repository());
    tar.args([
        "--exclude=target/dist/work",
        "-c",
        "docs/examples",
        "target/dist",
    ]);
    put(&machine, User::Alice, CLONE, tar)?;
    // Any Debian but the least has xz-utils.
    let mut tar = Command::new("tar");
    tar.args(["-C", "/usr", "-c", "bin/xz"]);
    put(&machine, User::Root, "/usr/local", tar)?;
    Ok(machine)
}

/// Unpacks what tar packs into a folder of a user's.
fn put(machine: &Machine, user: User, folder: &str, mut tar: Command) -> Result<()> {
    let mut packing = tar.stdout(Stdio::piped()).spawn().context("running tar")?;
    let archive = packing.stdout.take().context("the output of tar")?;
    let unpack = format!("mkdir -p {folder} && tar -C {folder} --no-same-owner -x");
    run(machine.command(user, &unpack).stdin(archive))?;
    let packed = packing.wait().context("waiting for tar")?;
    ensure!(packed.success(), "tar ended with {packed}");
    Ok(())
}

/// Does on this host, which has the compiler and what it made, what a clone's owner does.
fn make_install(machine: &Machine) -> Result<()> {
    let own = |variable: &str, folder: &str| {
        std::env::var(variable)
            .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/{folder}")))
            .with_context(|| format!("neither {variable} nor HOME is set"))
    };
    let destdir = tempfile::tempdir().context("making a folder")?;
    let mut make = Command::new("make");
    make.arg("--directory").arg(cache::repository());
    make.args(["install", "PREFIX=/home/alice/.local"]);
    make.arg(format!("DESTDIR={}", destdir.path().display()));
    make.env("CARGO_HOME", own("CARGO_HOME", ".cargo")?);
    make.env("RUSTUP_HOME", own("RUSTUP_HOME", ".rustup")?);
    run(make.env("HOME", HOME))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(destdir.path().join("home/alice"));
    tar.args(["-c", ".local"]);
    put(machine, User::Alice, HOME, tar)
}

#[test]
fn the_readme_can_be_followed_on_debian() -> Result<()> {
    let machine = with_clone("docs-readme", Systemd::V257)?;
    let mut readme = Document::read("README.md")?;
    readme
        .steps
        .retain(|step| !AT_HOME.contains(&step.heading.as_str()));
    follow(Seat::alice(&machine), CLONE, &readme, &mut alone)
}

#[test]
fn the_readme_can_be_followed_in_a_home() -> Result<()> {
    for heading in AT_HOME {
        let machine = with_clone("docs-readme-home", Systemd::V257)?;
        let mut readme = Document::read("README.md")?;
        readme.steps.retain(|step| step.heading == heading);
        ensure!(!readme.steps.is_empty(), "the README has no {heading:?}");
        let mut act = |words: &str| match words {
            "make install PREFIX=~/.local" => make_install(&machine),
            other => alone(other),
        };
        follow(Seat::alice(&machine), CLONE, &readme, &mut act)?;
    }
    Ok(())
}

#[test]
fn the_document_of_installation_can_be_followed() -> Result<()> {
    let machine = with_clone("docs-install", Systemd::V257)?;
    let folder = format!("{CLONE}/target/dist");
    let document = Document::read("docs/INSTALL.md")?;
    follow(Seat::alice(&machine), &folder, &document, &mut alone)
}
