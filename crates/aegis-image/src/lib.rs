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
//! | [`pull`] | from a name to an image in the store |
//! | [`import`] | from a tar archive of files to an image in the store |
//! | [`change`] | what a Dockerfile's instructions say about an image's programs |
//! | [`layer`] | one blob as one read-only file system |
//! | [`record`] | what is known of an image that is here |
//! | [`store`] | images, names and layers as files |
//! | [`protocol`] | what aegisd and the program `aegis-image` say to each other |

pub mod access;
pub mod auth;
pub mod change;
pub mod digest;
pub mod document;
pub mod environment;
pub mod error;
pub mod import;
pub mod layer;
pub mod name;
pub mod protocol;
pub mod pull;
pub mod record;
pub mod registries;
pub mod source;
pub mod store;
