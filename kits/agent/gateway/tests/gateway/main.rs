//! The real program between two stand-ins: Telegram (`tests/stand_ins/telegram.py`) and the
//! socket of an instance's API.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as expected"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "values of json! are made where they are used"
)]
#![expect(clippy::print_stderr, reason = "a test that fails shows the log")]

mod aegisd;
mod world;

mod commands;
mod config;
mod crashes;
mod faults;
mod incoming;
mod load;
mod outgoing;
