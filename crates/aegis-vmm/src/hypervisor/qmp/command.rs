//! The commands we give, as QEMU spells them (qapi/*.json of QEMU).

use std::os::fd::{OwnedFd, RawFd};

use serde_json::{Value, json};

/// The name under which QEMU keeps the descriptor that a state goes to.
const STATE: &str = "state";

/// Bytes in a second, as good as no limit: what reads is slower. QEMU takes no
/// number beyond what a signed 64-bit one holds.
const BANDWIDTH: u64 = 1 << 50;

/// A command.
#[derive(Debug)]
pub enum Command {
    Stop,
    Cont,
    Quit,
    QueryStatus,
    /// What was read from the disks and written to them.
    QueryBlockstats,
    /// Hands over where a state is to go.
    GetFd(OwnedFd),
    /// Takes back what no state went to.
    CloseFd,
    /// Has QEMU tell how a state fares.
    FollowMigration,
    /// Lets a state go as fast as it is taken.
    UnboundMigration,
    /// Writes the state to the descriptor handed over.
    Migrate,
    /// Reads a state from a descriptor that QEMU was started with.
    MigrateIncoming(RawFd),
    MigrateCancel,
    QueryMigrate,
    /// Makes a block node.
    AddNode(Value),
    /// Gives a block node other options.
    ReopenNode(Value),
    DeleteNode(String),
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Cont => "cont",
            Self::Quit => "quit",
            Self::QueryStatus => "query-status",
            Self::QueryBlockstats => "query-blockstats",
            Self::GetFd(_) => "getfd",
            Self::CloseFd => "closefd",
            Self::FollowMigration => "migrate-set-capabilities",
            Self::UnboundMigration => "migrate-set-parameters",
            Self::Migrate => "migrate",
            Self::MigrateIncoming(_) => "migrate-incoming",
            Self::MigrateCancel => "migrate_cancel",
            Self::QueryMigrate => "query-migrate",
            Self::AddNode(_) => "blockdev-add",
            Self::ReopenNode(_) => "blockdev-reopen",
            Self::DeleteNode(_) => "blockdev-del",
        }
    }

    pub(super) fn arguments(&self) -> Option<Value> {
        match self {
            Self::Stop
            | Self::Cont
            | Self::Quit
            | Self::QueryStatus
            | Self::QueryBlockstats
            | Self::MigrateCancel
            | Self::QueryMigrate => None,
            Self::GetFd(_) | Self::CloseFd => Some(json!({ "fdname": STATE })),
            Self::FollowMigration => Some(json!({
                "capabilities": [{ "capability": "events", "state": true }]
            })),
            Self::UnboundMigration => Some(json!({ "max-bandwidth": BANDWIDTH })),
            Self::Migrate => Some(json!({ "uri": format!("fd:{STATE}") })),
            Self::MigrateIncoming(fd) => Some(json!({ "uri": format!("fd:{fd}") })),
            Self::AddNode(options) => Some(options.clone()),
            Self::ReopenNode(options) => Some(json!({ "options": [options] })),
            Self::DeleteNode(name) => Some(json!({ "node-name": name })),
        }
    }

    /// The descriptor that travels with it.
    pub(super) fn descriptor(&self) -> Option<&OwnedFd> {
        match self {
            Self::GetFd(fd) => Some(fd),
            _ => None,
        }
    }

    /// Whether a state begins to move.
    pub(super) fn moves_state(&self) -> bool {
        matches!(self, Self::Migrate | Self::MigrateIncoming(_))
    }
}
