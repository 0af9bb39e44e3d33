//! What the agent is told by `.aegis/agent.json` and its environment.
//!
//! The file is upstream's, with keys of ours; an unknown key says nothing. It is read
//! again for the next answer when it changed. A file that is not valid changes nothing:
//! the last good one stays.

mod file;
mod store;

pub(crate) use file::{Config, McpServer, Memory, MemoryMode};
pub(crate) use store::ConfigStore;
