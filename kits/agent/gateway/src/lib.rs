//! The Agent Kit's instance daemon: brings what people write elsewhere to an instance, and
//! the instance's answers back. One process for each instance, on the host, so that it
//! hears of a message while the VM sleeps.
//!
//! ```text
//!  gateway.json ──watch──► gateway ── starts, reconfigures, stops ──► channels (telegram)
//!                             │                                          │   ▲
//!                             └─ a subscription for each channel ──frame─┘   │
//!                                        ▲                                   ▼
//!                  AEGIS_SOCKET: tether/stream                 tether, blob, workspace, exec
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | [`gateway`] | the core: config and channels, until it is told to end |
//! | [`config`] | what `gateway.json` says |
//! | [`watch`] | when it changes |
//! | [`channel`] | what a channel is, and those that run |
//! | [`subscription`] | the frames for one channel, from where it stopped |
//! | [`frame`] | messages between host and guest |
//! | [`aegis`] | the instance's API at `AEGIS_SOCKET` |
//! | [`record`] | what outlives the process, in `.gateway-state.json` |
//! | [`trust`] | which servers are trusted |
//! | [`status`] | what the service manager shows |
//! | [`telegram`] | the Telegram channel |

pub mod aegis;
pub mod backoff;
pub mod channel;
pub mod config;
pub mod environment;
pub mod frame;
pub mod gateway;
pub mod lines;
pub mod record;
pub mod status;
pub mod subscription;
pub mod telegram;
pub mod trust;
pub mod watch;
