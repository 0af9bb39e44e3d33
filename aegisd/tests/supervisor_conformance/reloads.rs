//! Jobs that end while the manager reads its units again, or is another one.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aegis_core::layout::Mode;
use aegisd::supervisor::{Outcome, UnitId};

use crate::world::{PATIENCE, World};

/// How often a daemon is started and stopped.
const ROUNDS: usize = 25;

/// Has the manager reload as fast as it can, until told to stop.
struct Reloads {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Reloads {
    fn begin(mode: Mode) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                let reload = Command::new("systemctl")
                    .args([&format!("--{mode}"), "daemon-reload"])
                    .stderr(Stdio::null())
                    .status();
                count += usize::from(reload.is_ok_and(|status| status.success()));
            }
            count
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only end takes it");
        thread.join().expect("the reloading thread")
    }
}

impl Drop for Reloads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn every_job_is_seen_to_end_while_the_manager_reloads() {
    let world = World::new("c-reloads").await;
    let unit = UnitId::daemon(&world.handle, "d");
    let plan = world.daemon("d", "exec sleep 1000");
    let reloads = Reloads::begin(world.layout.mode);
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        let begin = Instant::now();
        let both = async {
            let launched = world.supervisor.launch(&plan).await.unwrap();
            let stopped = world.supervisor.stop(&unit).await.unwrap();
            (launched, stopped)
        };
        let outcomes = tokio::time::timeout(PATIENCE, both)
            .await
            .unwrap_or_else(|_| panic!("a job of round {round} is not seen to end"));
        assert_eq!(outcomes, (Outcome::Changed, Outcome::Changed));
        longest = longest.max(begin.elapsed());
    }
    println!(
        "{} reloads, the longest round took {longest:?}",
        reloads.end()
    );
    world.clean().await;
}
