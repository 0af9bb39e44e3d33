//! Instances made, used and deleted, again and again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::footprint::Footprint;
use super::{Extent, Figures};
use crate::instance::Instance;
use crate::inventory::Inventory;
use crate::kit;
use crate::seat::Seat;

/// Lives that go on at once.
const ABREAST: usize = 2;

/// Lives before the first look: what is kept from then on is there by then.
const WARM_UP: usize = 4;

/// Makes an instance with a daemon and a port, runs commands in it and a fresh VM
/// beside it, deletes it, and begins anew. Nothing else may use the machine meanwhile.
///
/// # Errors
/// The machine cannot be looked at.
pub fn lives(seat: Seat<'_>, extent: Extent) -> Result<Figures> {
    kit::install(seat, "shell", &["shell-gateway"])?;
    for number in 0..WARM_UP {
        life(seat, number % ABREAST, number).context("warming up")?;
    }
    let inventory = Inventory::take(seat)?;
    let before = Footprint::take(seat, &[])?;
    let begin = Instant::now();
    let (begun, mut figures) = (AtomicUsize::new(0), Figures::default());
    let failures = thread::scope(|scope| {
        let worker = |lane: usize| {
            let begun = &begun;
            move || {
                let mut failures = Vec::new();
                loop {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    if !extent.allows(number, begin) {
                        return failures;
                    }
                    if let Err(error) = life(seat, lane, number) {
                        failures.push(format!("life {number}: {error:#}"));
                    }
                }
            }
        };
        let lanes: Vec<_> = (0..ABREAST).map(|lane| scope.spawn(worker(lane))).collect();
        let ended = lanes.into_iter().map(|lane| {
            let panicked = |_| vec!["a lane of lives panicked".to_owned()];
            lane.join().unwrap_or_else(panicked)
        });
        ended.flatten().collect::<Vec<_>>()
    });
    // Each lane began one that it did not live.
    let lived = begun.into_inner() - ABREAST;
    let seconds = begin.elapsed().as_secs_f64();
    figures.failures = failures;
    figures.note(
        "what is left",
        inventory.wait_until_restored(seat, |_| false),
    );
    let after = figures.note_growth(seat, &before, &[])?;
    figures.text = format!(
        "{lived} lives, {ABREAST} at a time, {:.2} s each; {} failures.\n\n{}",
        seconds / lived as f64,
        figures.failures.len(),
        before.beside(&after)
    );
    Ok(figures)
}

/// One life in a lane, which no other has the name and the port of.
fn life(seat: Seat<'_>, lane: usize, number: usize) -> Result<()> {
    let port = 18_400 + lane;
    let flags = format!("--kit shell --expose {port}:7 --label lane={lane}");
    let instance = Instance::start(seat, &format!("life-{lane}"), &flags)?;
    let word = format!("life {number}");
    let said = instance.exec_ok(&format!("echo {word}"))?;
    ensure!(said == word, "an exec said {said:?}");
    if number.is_multiple_of(4) {
        let run = seat.aegis("run -- sh -c 'echo out; exit 7'")?;
        let (out, code) = (
            String::from_utf8_lossy(&run.stdout).into_owned(),
            run.code(),
        );
        ensure!(out == "out\n" && code == 7, "a run said {out:?}, {code}");
    }
    instance.delete()
}
