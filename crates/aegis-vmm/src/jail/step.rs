//! The steps of a start, for errors to name.

use std::fmt;

/// A step of the way to the program, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Parent,
    MapUser,
    DetachMounts,
    MountRoot,
    FillRoot,
    SealRoot,
    EnterRoot,
    PlaceDescriptors,
    DropPrivileges,
    Execute,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parent => "bind the process to its parent",
            Self::MapUser => "map the user",
            Self::DetachMounts => "detach the mounts",
            Self::MountRoot => "mount the root",
            Self::FillRoot => "fill the root",
            Self::SealRoot => "seal the root",
            Self::EnterRoot => "enter the root",
            Self::PlaceDescriptors => "place the descriptors",
            Self::DropPrivileges => "drop the privileges",
            Self::Execute => "execute the program",
        })
    }
}
