//! Layers through the real tools: sqfstar makes them, unsquashfs reads them, and
//! umoci says what other runtimes make of the same archive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says why")]

mod archive;
mod facts;
mod folders;
#[path = "../../../../fuzz/images.rs"]
mod images;
mod links;
mod lower;
mod meaning;
mod packing;
mod properties;
