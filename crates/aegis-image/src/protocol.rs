//! What aegisd and the program that pulls say to each other: lines of JSON over a
//! socket pair, which is the program's standard input.
//!
//! ```text
//!  aegisd ──Order──► aegis-image        with the open file or folder of a local image
//!         ◄─Report── …                  progress, then the end
//!         ──Cancel─►                    or the connection's end, which cancels nothing
//! ```
//!
//! An aegisd that dies takes no pull with it: the image is in the store when the
//! next one asks.

use std::path::PathBuf;

use aegis_core::fault::Fault;
use serde::{Deserialize, Serialize};

use crate::record::Image;

/// The longest line, in bytes: an image's configuration is the most that is in one.
pub const LONGEST_LINE: usize = 8 << 20;

/// What aegisd asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    Pull(Box<Pull>),
    /// Give the pull up.
    Cancel,
}

/// One pull.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pull {
    /// The store's folder.
    pub store: PathBuf,
    /// What to pull, in full.
    pub name: String,
    /// How to get at it, as the client's surroundings have it
    /// (`access::Access`); `null` means as those of this program have it.
    #[serde(default)]
    pub access: serde_json::Value,
}

/// What the program reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    Progress(Progress),
    /// The image is in the store.
    Done(Box<Image>),
    Failed(Fault),
}

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The lowest first.
    pub layers: Vec<LayerProgress>,
}

/// How far one layer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerProgress {
    /// The first digits of the digest of its blob.
    pub id: String,
    pub stage: Stage,
    /// Bytes done in this stage.
    pub done: u64,
    /// Bytes of this stage; 0 if unknown.
    pub total: u64,
}

/// What is done with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Waiting,
    /// Its blob comes over the network.
    Pulling,
    /// It becomes a file system.
    Converting,
    /// It is in the store.
    Here,
}
