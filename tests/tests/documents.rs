//! The documents that users follow, followed from top to bottom in systems where nothing of
//! AegisVM ever was.

use aegis_tests::document::Document;
use std::process::{Command, Stdio};

use aegis_tests::cache;
use aegis_tests::document::reader::Reader;
use aegis_tests::document::services::Services;
use aegis_tests::machine::{Machine, Systemd, Temporary, User};
use aegis_tests::packages::{left_since, nothing_is_left, run, system_files};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result, bail, ensure};

/// Where alice begins to read.
const HOME: &str = "/home/alice";

/// A document that needs nobody but its reader.
fn alone(words: &str) -> Result<()> {
    bail!("nobody does: {words}")
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

/// Installs as docs/INSTALL.md says, uses all of AegisVM that docs/KITS.md and
/// docs/AGENT_KIT.md show, and removes it: the system is as it was.
fn from_installation_to_removal(name: &str, systemd: Systemd) -> Result<()> {
    let machine = with_clone(name, systemd)?;
    let seat = Seat::alice(&machine);
    let services = Services::start(seat)?;
    let before = system_files(&machine)?;
    let packages = format!("{CLONE}/target/dist");
    let (install, remove) = Document::read("docs/INSTALL.md")?.apart_at("Removing")?;

    follow(seat, &packages, &install, &mut alone)?;
    follow(seat, HOME, &Document::read("docs/KITS.md")?, &mut alone)?;
    let left = seat.units()?;
    assert_eq!(left, Vec::<String>::new(), "it takes away what it made");
    let agent = Document::read("docs/AGENT_KIT.md")?;
    follow(seat, HOME, &agent, &mut |words| services.act(words)).with_context(|| {
        let log = seat.run("journalctl --user --no-pager -n 40 -o cat");
        format!(
            "the journal: {}",
            log.map_or_else(|e| e.to_string(), |log| log.text())
        )
    })?;
    services.are_content()?;
    follow(seat, &packages, &remove, &mut alone)?;

    nothing_is_left(&machine)?;
    assert_eq!(left_since(&machine, &before)?, "", "as it was before");
    Ok(())
}

#[test]
fn documents_can_be_followed_from_installation_to_removal() -> Result<()> {
    from_installation_to_removal("docs-all", Systemd::V257)
}

#[test]
fn documents_can_be_followed_from_installation_to_removal_on_systemd_252() -> Result<()> {
    from_installation_to_removal("docs-all-252", Systemd::V252)
}
