//! HTTP for the daemons of an instance, on a socket of its own (`AEGIS_SOCKET`).
//!
//! ```text
//!  daemon ──► aegis-api-NAME.socket ◄── service manager listens
//!                    │ first connection
//!                    ▼
//!             aegis-shim door ──listening descriptor──► doors ──► http ──► engine
//! ```
//!
//! A door stands for one instance, and nothing that is said on its socket reaches
//! another: every other name is answered as one that nobody has. An adapter, as
//! the bus is: convert, ask the engine, convert back (docs/API.md).
//!
//! | module | what it owns |
//! |---|---|
//! | [`doors`] | whose door knocks, and its socket while it stands |
//! | [`http`] | connections, requests, limits |
//! | [`route`] | which request is meant, pure |
//! | [`answer`] | answers, errors and streams of lines |
//! | [`shape`] | an instance as JSON |
//! | [`exec`] | a command in the guest |
//! | [`logs`] | the log of the instance's command |
//! | [`files`] | the workspace and the daemons' config |
//! | [`tether`] | messages |
//! | [`guest`] | the API as programs in the guest have it |
//! | [`llm`] | models that run on the host, for the guest |

pub mod answer;
pub mod doors;
pub mod exec;
pub mod files;
pub mod guest;
pub mod http;
pub mod llm;
pub mod logs;
pub mod route;
pub mod shape;
pub mod tether;
