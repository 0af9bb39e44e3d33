//! The real program against a guest API in the test and the stand-in for models.
//!
//! | module | what it is about |
//! |---|---|
//! | [`rig`], [`guest`], [`http`] | what the tests run in |
//! | [`conversation`] | order, queueing, duplicates, cancel, starting afresh |
//! | [`crash`] | one answer, whenever the agent ends |
//! | [`models`] | each provider, what fails there, the context |
//! | [`tools`] | tools and settings |
//! | [`servers`] | MCP |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stderr,
    reason = "the log of the agent is shown where a test fails"
)]

mod conversation;
mod crash;
mod guest;
mod http;
mod models;
mod rig;
mod servers;
mod tls;
mod tools;
