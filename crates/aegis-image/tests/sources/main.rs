//! Images from where they come from: Debian's registry with skopeo and umoci, layouts
//! and archives that these write, and a stand-in for registries that misbehave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod bad_content;
mod bad_weather;
mod layouts;
mod made;
mod mirrors;
mod real;
mod real_registry;
mod stand_in;
