//! The documents that users follow, followed from top to bottom in systems where nothing of
//! AegisVM ever was.

use aegis_tests::document::Document;
use aegis_tests::document::reader::{Reader, Tally};
use aegis_tests::document::services::Services;
use aegis_tests::install::Package;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::packages::{bring, deb};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result, bail};

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
fn follow(
    seat: Seat<'_>,
    folder: &str,
    path: &str,
    act: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Tally> {
    let document = Document::read(path)?;
    let tally = Reader::sit(seat, folder)?.follow(&document, act)?;
    println!("{tally}");
    Ok(tally)
}

fn kits(name: &str, systemd: Systemd) -> Result<()> {
    let machine = Machine::temporary_bare(name, systemd)?;
    installed(&machine)?;
    let seat = Seat::alice(&machine);
    follow(seat, HOME, "docs/KITS.md", &mut alone)?;
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
    follow(seat, HOME, "docs/AGENT_KIT.md", &mut act).with_context(|| {
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
