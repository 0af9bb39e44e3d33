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
//! | [`layer`] | one blob as one read-only file system |

pub mod layer;
