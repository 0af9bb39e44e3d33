//! A line on stderr that shows what is under way, and below it a bar for each part
//! that goes on by itself.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(100);
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
/// Bars that are shown at most: a short terminal has little more.
const MOST_BARS: usize = 10;
/// Characters of a bar.
const WIDTH: u64 = 24;

/// A part of what is under way.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// What is done with it, in one word.
    pub(crate) stage: String,
    pub(crate) done: u64,
    /// 0 if unknown.
    pub(crate) total: u64,
}

/// A line that appears after half a second and vanishes at the end. Without a
/// terminal nothing is printed, so that stderr stays the guest's alone.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    /// Whether the line is on the screen.
    drawn: Cell<bool>,
    text: RefCell<String>,
    bars: RefCell<Vec<Bar>>,
    since: Instant,
}

impl Progress {
    pub(super) fn new(shown: bool, text: &str) -> Self {
        Self {
            shown,
            drawn: Cell::new(false),
            text: RefCell::new(text.to_owned()),
            bars: RefCell::default(),
            since: Instant::now(),
        }
    }

    /// Changes what the line says.
    pub(crate) fn say(&self, text: &str) {
        *self.text.borrow_mut() = super::clean(text);
    }

    /// Changes the bars below the line.
    pub(crate) fn show(&self, bars: Vec<Bar>) {
        *self.bars.borrow_mut() = bars;
    }

    /// Awaits a future with the line in view.
    pub(crate) async fn during<F: Future>(&self, future: F) -> F::Output {
        if !self.shown {
            return future.await;
        }
        let _clear = Clear(self);
        let mut future = pin!(future);
        let mut ticks = tokio::time::interval(FRAME);
        let mut frame = 0;
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                _ = ticks.tick() => if self.since.elapsed() >= PATIENCE {
                    self.draw(FRAMES[frame % FRAMES.len()]);
                    frame += 1;
                },
            }
        }
    }

    fn draw(&self, spinner: char) {
        let seconds = self.since.elapsed().as_secs();
        // \r returns to the left edge, ESC [ J clears all after it (ECMA-48).
        let mut line = format!("\r{spinner} {} ({seconds} s)\x1b[J", self.text.borrow());
        let bars = self.bars.borrow();
        let shown = bars.len().min(MOST_BARS);
        for bar in &bars[..shown] {
            line.push_str(&format!("\n{bar}"));
        }
        if shown > 0 {
            // ESC [ n A goes up: the next frame begins where this one did.
            line.push_str(&format!("\x1b[{shown}A"));
        }
        // A progress line that cannot be drawn is no reason to fail.
        io::stderr().lock().write_all(line.as_bytes()).ok();
        self.drawn.set(true);
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.done.min(self.total) / (self.total / WIDTH).max(1);
        let full = usize::try_from(full.min(WIDTH)).unwrap_or_default();
        let (name, stage) = (super::clean(&self.name), super::clean(&self.stage));
        let bar = "#".repeat(full);
        write!(f, "  {name} [{bar:<24}] {stage}")?;
        match self.total {
            0 => Ok(()),
            total => write!(f, " {} / {}", super::bytes(self.done), super::bytes(total)),
        }
    }
}

/// Clears the lines when it goes out of scope.
struct Clear<'a>(&'a Progress);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        if self.0.drawn.take() {
            io::stderr().lock().write_all(b"\r\x1b[J").ok();
        }
    }
}
