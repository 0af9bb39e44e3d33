//! A few instances used in every way, round after round.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::footprint::Footprint;
use super::{Extent, Figures};
use crate::agreement::wait_for_agreement;
use crate::instance::{DEADLINE, Instance};
use crate::kit;
use crate::seat::Seat;
use crate::wait::wait_until;

/// Every so many rounds aegisd is killed.
const KILL_EVERY: usize = 5;

/// Between two rounds of a long run: people pause.
const REST: Duration = Duration::from_secs(5);

/// Uses two instances in every way, round after round, with aegisd killed now and
/// then; each round ends as it began.
///
/// # Errors
/// The machine cannot be looked at.
pub fn rounds(seat: Seat<'_>, extent: Extent) -> Result<Figures> {
    kit::install(seat, "shell", &["shell-gateway"])?;
    let used = Instance::start(
        seat,
        "rounds-used",
        "--kit shell --expose 18410:7 --workspace rounds",
    )?;
    let beside = Instance::start(seat, "rounds-beside", "--kit shell")?;
    let mut figures = Figures::default();
    // Once before the first look: what is kept from then on is there by then.
    round(seat, &used, &beside).context("the first round")?;
    let before = Footprint::take(seat, &[&beside])?;
    let begin = Instant::now();
    let mut done = 0;
    while extent.allows(done, begin) {
        if done % KILL_EVERY == KILL_EVERY - 1 {
            seat.kill_aegisd()?;
        }
        figures.note(&format!("round {done}"), round(seat, &used, &beside));
        done += 1;
        if extent.within.is_some_and(|limit| limit > REST * 60) {
            std::thread::sleep(REST);
        }
    }
    let after = figures.note_growth(seat, &before, &[&beside])?;
    figures.text = format!(
        "{done} rounds in {} s; {} failures.\n\n{}",
        begin.elapsed().as_secs(),
        figures.failures.len(),
        before.beside(&after)
    );
    used.delete()?;
    beside.delete()?;
    Ok(figures)
}

fn round(seat: Seat<'_>, used: &Instance<'_>, beside: &Instance<'_>) -> Result<()> {
    let owner = seat.main_pid(&beside.vm_unit())?;
    seat.wait_for_aegisd()?;
    said(used, "echo here")?;
    used.act("pause")?;
    ensure!(used.state()? == "paused", "it is not paused");
    // A command resumes a paused VM and starts one that was stopped.
    said(used, "echo resumed")?;
    used.act("stop")?;
    said(used, "echo awake")?;

    let copied = format!(
        "cd /tmp && rm -rf rounds && mkdir rounds && seq 10000 >rounds/numbers && \
         aegisctl cp rounds {handle}:/tmp && rm -r rounds && \
         aegisctl cp {handle}:/tmp/rounds /tmp && test $(wc -l <rounds/numbers) = 10000; \
         code=$?; rm -rf rounds; exit $code",
        handle = used.handle()
    );
    seat.run(&copied)?.success().context("copying")?;
    used.act("update --cpu-quota 150")?;
    used.act("update --cpu-quota 0")?;
    seat.aegis_ok(&format!("logs --tail 5 {}", used.handle()))?;
    seat.aegis_ok("instance list")?;
    seat.aegis_ok(&format!("stats --no-stream {}", used.handle()))?;

    let daemon = used.daemon_pid("gateway")?;
    seat.run(&format!("kill -KILL {daemon}"))?.success()?;
    let unit = used.daemon_unit("gateway");
    wait_until(DEADLINE, "the daemon to be restarted", || {
        Ok(seat.main_pid(&unit)?.is_some_and(|pid| pid != daemon))
    })?;

    used.act("disable")?;
    used.act("enable")?;
    used.daemon_pid("gateway")?;
    used.start_again()?;
    wait_for_agreement(seat)?;
    said(beside, "echo beside")?;
    ensure!(
        seat.main_pid(&beside.vm_unit())? == owner,
        "the VM beside it has another owner"
    );
    Ok(())
}

fn said(instance: &Instance<'_>, line: &str) -> Result<()> {
    let said = instance.exec_ok(line)?;
    let wanted = line.trim_start_matches("echo ");
    ensure!(said == wanted, "{line} said {said:?}");
    Ok(())
}
