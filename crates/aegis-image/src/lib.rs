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
//! | [`name`] | names as users type them |
//! | [`record`] | what is known of an image that is here |
//! | [`store`] | images, names and layers as files |
//! | [`protocol`] | what aegisd and the program `aegis-image` say to each other |

pub mod name;
pub mod protocol;
pub mod record;
pub mod store;
