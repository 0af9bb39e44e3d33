//! Kits for the tests: what other people's kits may look like.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache;
use crate::compile::compile;
use crate::install::Package;
use crate::instance::{DEADLINE, Instance};
use crate::machine::{Machine, User};
use crate::seat::Seat;
use crate::wait::wait_until;

/// Puts a kit of `tests/kits` into the user's kit folder: its manifest
/// `KIT.json` and, beside it, the programs of its daemons.
///
/// # Errors
/// A file cannot be read or written.
pub fn install(seat: Seat<'_>, kit: &str, programs: &[&str]) -> Result<()> {
    let source = cache::repository().join("tests/kits");
    let manifest = format!("{kit}.json");
    place(seat, &source.join(&manifest), seat.kits(), "644")?;
    for program in programs {
        place(seat, &source.join(program), seat.kits(), "755")?;
    }
    Ok(())
}

/// Puts the kit `echo` of the documentation where the documentation puts it.
///
/// # Errors
/// A file cannot be read or written.
pub fn install_example(seat: Seat<'_>) -> Result<()> {
    let source = cache::repository().join("docs/examples/echo");
    let programs = format!("{}/bin", seat.home());
    place(seat, &source.join("echo.json"), seat.kits(), "644")?;
    place(seat, &source.join("echo-gateway"), &programs, "755")
}

/// Installs the Agent Kit as its package does, for everybody.
///
/// # Errors
/// It is not built, or a file cannot be written.
pub fn install_agent(machine: &Machine) -> Result<()> {
    machine.install(Package::AgentKit)
}

/// Puts a kit whose one daemon is a program in C into the user's kit folder.
///
/// # Errors
/// It does not compile, or a file cannot be written.
pub fn install_compiled(seat: Seat<'_>, kit: &str, program: &str) -> Result<()> {
    install(seat, kit, &[])?;
    let content = compile(&format!("kits/{program}.c"))?;
    write(seat, &format!("{}/{program}", seat.kits()), &content, "755")
}

fn place(seat: Seat<'_>, source: &Path, folder: &str, mode: &str) -> Result<()> {
    let content = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
    let name = source.file_name().context("a file has a name")?;
    let target = format!("{folder}/{}", name.to_string_lossy());
    write(seat, &target, &content, mode)
}

fn write(seat: Seat<'_>, target: &str, content: &[u8], mode: &str) -> Result<()> {
    // A file that a daemon runs at this moment is replaced, not written to.
    let fresh = format!("{target}.new");
    seat.machine().write_file(seat.user(), &fresh, content)?;
    seat.machine()
        .run(
            User::Root,
            &format!("chmod {mode} '{fresh}' && mv '{fresh}' '{target}'"),
        )?
        .success()?;
    Ok(())
}

/// Makes an instance of a kit without a guest: its sockets and daemons alone.
///
/// # Errors
/// It is refused, or not made in time.
pub fn make_at_rest<'a>(seat: Seat<'a>, handle: &str, kit: &str) -> Result<Instance<'a>> {
    make_at_rest_of(seat, handle, &format!("1 kit s {kit}"))
}

/// The same of any spec, an `a{sv}` as busctl(1) reads it.
///
/// # Errors
/// As [`make_at_rest`].
pub fn make_at_rest_of<'a>(seat: Seat<'a>, handle: &str, spec: &str) -> Result<Instance<'a>> {
    let instance = Instance::expected(seat, handle)?;
    let call = format!("CreateInstance 'sa{{sv}}a{{sv}}' {handle} {spec} 1 start b false");
    seat.call_manager(&call)?.success()?;
    let socket = instance.socket_unit();
    wait_until(DEADLINE, "the instance to be made", || {
        let made = seat.active_state(&socket)? == "active";
        Ok(made
            && !seat
                .aegis(&format!("instance info {handle}"))?
                .text()
                .is_empty())
    })?;
    Ok(instance)
}

/// A variable of the daemon of the kit `secret`, as it wrote it down.
///
/// # Errors
/// The machine does not answer.
pub fn given(seat: Seat<'_>, instance: &Instance<'_>, variable: &str) -> Result<Option<String>> {
    let folder = format!("{}/{}", seat.kits(), instance.handle());
    let line = format!("cat {folder}/environment 2>/dev/null");
    let text = seat.machine().run(User::Root, &line)?.text();
    let value = |line: &str| {
        line.strip_prefix(variable)?
            .strip_prefix('=')
            .map(str::to_owned)
    };
    Ok(text.lines().find_map(value))
}

/// Waits until that has a value.
///
/// # Errors
/// It has not in time.
pub fn wait_until_given(
    seat: Seat<'_>,
    instance: &Instance<'_>,
    variable: &str,
    value: &str,
) -> Result<()> {
    let what = format!("{variable} of the daemon");
    wait_until(DEADLINE, &what, || {
        Ok(given(seat, instance, variable)?.as_deref() == Some(value))
    })
}
