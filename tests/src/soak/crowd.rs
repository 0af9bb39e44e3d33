//! Many exec sessions at once.

use anyhow::{Context, Result, ensure};

use super::Figures;
use super::footprint::{Footprint, SETTLE};
use crate::instance::Instance;
use crate::seat::Seat;
use crate::session::Session;
use crate::wait::wait_until;

const CLIENTS: &[u8] = include_bytes!("../../clients/crowd.py");

/// Counts what the guest has: processes and, among them, zombies. Children of
/// process 2 are the kernel's own threads, which come and go.
const COUNT: &str = "set -- $(cat /proc/[0-9]*/stat 2>/dev/null \
     | sed -n '/) . 2 /d; s/.*) \\(.\\) .*/\\1/p'); \
     all=$#; dead=0; for state; do case $state in Z) dead=$((dead+1));; esac; done; \
     echo $all $dead";

/// Opens `count` sessions in one guest, each by a client of its own, has all answer
/// while all are open, and closes them.
///
/// # Errors
/// The machine cannot be looked at.
pub fn crowd(seat: Seat<'_>, count: usize) -> Result<Figures> {
    let script = "/tmp/crowd.py";
    seat.machine().write_file(seat.user(), script, CLIENTS)?;
    let instance = Instance::start(seat, "crowd", "--memory 512")?;
    let instances = [&instance];
    // Once before the first look: what is kept from then on is there by then.
    open_and_close(&instance, seat, script, count, || Ok(()))?;
    let before = Footprint::take(seat, &instances)?;
    let guest = in_guest(&instance)?;
    let mut figures = Figures::default();
    let mut among = before.clone();
    let opened = open_and_close(&instance, seat, script, count, || {
        among = Footprint::take(seat, &instances)?;
        let said = instance.exec_ok("echo one more")?;
        ensure!(said == "one more", "one more session said {said:?}");
        Ok(())
    });
    let times = match opened {
        Ok(times) => times,
        Err(error) => {
            figures.failures.push(format!("{error:#}"));
            "not all opened and closed".to_owned()
        }
    };
    let after = figures.note_growth(seat, &before, &instances)?;
    let mut guest_after = guest;
    // The processes that count are counted too, and not always all of them.
    let settled = wait_until(SETTLE, "the guest's processes to end", || {
        guest_after = in_guest(&instance)?;
        Ok(guest_after.0 <= guest.0 && guest_after.1 <= guest.1)
    });
    if settled.is_err() {
        let text = format!("the guest had {guest:?} processes and zombies, then {guest_after:?}");
        figures.failures.push(text);
    }
    figures.text = format!(
        "{count} sessions of `cat` at once: {times}. {} failures.\n\n\
         With all of them open:\n\n{}\nAfterwards:\n\n{}",
        figures.failures.len(),
        before.beside(&among),
        before.beside(&after)
    );
    seat.run(&format!("rm {script}"))?.success()?;
    instance.delete()?;
    Ok(figures)
}

/// Opens sessions, does something meanwhile and closes them; gives the times in words.
fn open_and_close(
    instance: &Instance<'_>,
    seat: Seat<'_>,
    script: &str,
    count: usize,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let line = format!("python3 {script} {} {count}", instance.handle());
    let mut clients = Session::start(seat, &line)?;
    let opened = clients.line()?;
    let done = meanwhile();
    clients.write(b"\n")?;
    let ended = clients.wait()?;
    ensure!(
        ended.code == 0,
        "{opened}, ended with {}: {}",
        ended.code,
        ended.errors
    );
    done?;
    let closed = ended.lines.last().context("no time of closing")?;
    let seconds = |line: &str| line.split(' ').nth(1).unwrap_or("?").to_owned();
    Ok(format!(
        "open after {} s, closed after {} s",
        seconds(&opened),
        seconds(closed)
    ))
}

/// How many processes the guest has, and how many of them are zombies.
fn in_guest(instance: &Instance<'_>) -> Result<(u64, u64)> {
    let text = instance.exec_ok(COUNT)?;
    let counts = text
        .split_once(' ')
        .and_then(|(all, dead)| Some((all.parse().ok()?, dead.parse().ok()?)));
    counts.with_context(|| format!("counting processes gave {text:?}"))
}
