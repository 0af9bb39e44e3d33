//! Long runs that look for what is left behind and what grows. `make soak` runs them
//! whole, `make test` a short form of each.
//!
//! | run | what it does |
//! |---|---|
//! | [`lives`] | instances made, used and deleted, again and again |
//! | [`crowd`] | many exec sessions at once |
//! | [`rounds`] | a few instances used in every way, round after round |
//!
//! After each: the machine holds what it held ([`crate::inventory`]), and the
//! processes that went through it hold what they held ([`footprint`]).

mod crowd;
pub mod footprint;
mod lives;
mod rounds;

use std::time::{Duration, Instant};

use footprint::Footprint;

use crate::instance::Instance;
use crate::seat::Seat;

pub use crowd::crowd;
pub use lives::lives;
pub use rounds::rounds;

/// What came of a long run.
#[derive(Debug, Default)]
pub struct Figures {
    /// Markdown.
    pub text: String,
    /// What is not as it should be, in words.
    pub failures: Vec<String>,
}

impl Figures {
    /// Notes what failed and that it did not stop the run.
    fn note(&mut self, what: &str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.failures.push(format!("{what}: {error:#}"));
        }
    }

    /// Notes what processes still hold more of than before; gives what they hold.
    fn note_growth(
        &mut self,
        seat: Seat<'_>,
        before: &Footprint,
        instances: &[&Instance<'_>],
    ) -> anyhow::Result<Footprint> {
        match before.wait_until_restored(seat, instances) {
            Ok(after) => Ok(after),
            Err(error) => {
                self.failures.push(format!("what grew: {error:#}"));
                Footprint::take(seat, instances)
            }
        }
    }
}

/// How long a run goes on.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// So many times, at least once.
    pub times: usize,
    /// Or until this has passed.
    pub within: Option<Duration>,
}

impl Extent {
    /// Whether one more may begin after `done` of them.
    fn allows(&self, done: usize, begin: Instant) -> bool {
        let in_time = self.within.is_none_or(|limit| begin.elapsed() < limit);
        done == 0 || (done < self.times && in_time)
    }
}
