//! One line on stderr that shows what is under way.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(100);
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

/// A line that appears after half a second and vanishes at the end. Without a
/// terminal nothing is printed, so that stderr stays the guest's alone.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    /// Whether the line is on the screen.
    drawn: Cell<bool>,
    text: RefCell<String>,
    since: Instant,
}

impl Progress {
    pub(super) fn new(shown: bool, text: &str) -> Self {
        Self {
            shown,
            drawn: Cell::new(false),
            text: RefCell::new(text.to_owned()),
            since: Instant::now(),
        }
    }

    /// Changes what the line says.
    pub(crate) fn say(&self, text: &str) {
        *self.text.borrow_mut() = super::clean(text);
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
        // \r returns to the left edge, ESC [ K clears to the right one (ECMA-48).
        let line = format!("\r{spinner} {} ({seconds} s)\x1b[K", self.text.borrow());
        // A progress line that cannot be drawn is no reason to fail.
        io::stderr().lock().write_all(line.as_bytes()).ok();
        self.drawn.set(true);
    }
}

/// Clears the line when it goes out of scope.
struct Clear<'a>(&'a Progress);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        if self.0.drawn.take() {
            io::stderr().lock().write_all(b"\r\x1b[K").ok();
        }
    }
}
