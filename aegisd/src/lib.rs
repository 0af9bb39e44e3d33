//! The AegisVM control plane.

pub mod supervisor;
