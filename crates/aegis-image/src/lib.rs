//! OCI images: where they come from, and what a guest boots of them.
//!
//! ```text
//!  registry, layout, archive ──source──► blobs, verified ──layer──► SquashFS, one per layer
//!                                                                     │
//!                              store: names → images → layers ◄───────┘
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`name`] | what users type for an image |
//! | [`registries`] | `registries.conf`: mirrors, aliases, what is blocked |
//! | [`auth`] | credentials, logging in and out |
//! | [`access`] | all that a user's environment says about one image |
//! | [`environment`] | that environment |
//! | [`document`] | manifests, indexes, platforms |
//! | [`source`] | registries, layouts and archives |
//! | [`error`] | what goes wrong in the modules above |

pub mod access;
pub mod auth;
mod digest;
pub mod document;
pub mod environment;
pub mod error;
pub mod name;
pub mod registries;
pub mod source;
