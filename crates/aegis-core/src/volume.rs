//! Volumes: files and folders of the host that an instance sees at paths of its own.
//!
//! As text one is `SOURCE:TARGET` or `SOURCE:TARGET:ro`. It is read from its end, so
//! the path of a source may hold colons, and a target may not.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::MAX_PATH;

/// Largest file name, in bytes (limits.h NAME_MAX).
const NAME_MAX: usize = 255;
/// Most volumes of an instance: a guard against slips, and what keeps the boot order of
/// a guest far below the largest message of the link.
pub const MAX_VOLUMES: usize = 64;
/// Where the workspace is in a guest.
pub const WORKSPACE: &str = "/workspace";
/// The kernel's own file systems.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// One volume of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub source: VolumeSource,
    /// Absolute path in the guest, as short as it can be written.
    pub target: String,
    /// The guest may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// What of the host a volume shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeSource {
    /// A folder or file of the user's, absolute.
    Path(PathBuf),
    /// A folder of ours, made at first use.
    Named(String),
}

/// Why a volume is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    #[error("the volume '{0}' is not SOURCE:TARGET, perhaps with :ro or :rw")]
    Parts(String),
    #[error("the volume '{volume}' ends with '{option}'; known are ro and rw")]
    Option { volume: String, option: String },
    #[error("the source '{0}' is no absolute path, and as the name of a volume {NAME_RULE}")]
    Source(String),
    #[error("'{0}' is no name of a volume: it {NAME_RULE}")]
    Name(String),
    #[error("the whole root of the host cannot be a volume; name folders in it")]
    WholeHost,
    #[error("the target '{0}' is not an absolute path without '..' and ':'")]
    Target(String),
    #[error("the target '{0}' belongs to the guest's system")]
    Reserved(String),
    #[error("the target {WORKSPACE} is where the workspace is")]
    Workspace,
    #[error("two volumes have the target '{0}'")]
    Duplicate(String),
    #[error("there are {0} volumes; at most {MAX_VOLUMES} can be")]
    TooMany(usize),
}

const NAME_RULE: &str = "may hold letters, digits, '.', '_' and '-', and not begin with '.'";

/// Checks the name of a volume, which is a file name too.
///
/// # Errors
/// It is empty, too long or holds something else.
pub fn check_name(name: &str) -> Result<(), VolumeError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.starts_with('.')
        && name.chars().all(allowed);
    if fits {
        return Ok(());
    }
    Err(VolumeError::Name(name.to_owned()))
}

/// A target as short as it can be written.
///
/// # Errors
/// It is not a path in a guest, or the guest's system is there.
pub fn parse_target(text: &str) -> Result<String, VolumeError> {
    let refused = || VolumeError::Target(text.to_owned());
    if !text.starts_with('/') || text.len() > MAX_PATH || text.contains([':', '\0']) {
        return Err(refused());
    }
    let mut target = String::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refused()),
            name if name.len() > NAME_MAX => return Err(refused()),
            name => target.extend(["/", name]),
        }
    }
    let of_kernel = |tree: &&str| Path::new(&target).starts_with(tree);
    if target.is_empty() || KERNELS.iter().any(of_kernel) {
        return Err(VolumeError::Reserved(text.to_owned()));
    }
    Ok(target)
}

/// Checks the volumes of an instance against each other.
///
/// # Errors
/// There are too many, or two things are to be at the same place.
pub fn validate(volumes: &[Volume], has_workspace: bool) -> Result<(), VolumeError> {
    if volumes.len() > MAX_VOLUMES {
        return Err(VolumeError::TooMany(volumes.len()));
    }
    for (index, volume) in volumes.iter().enumerate() {
        if has_workspace && volume.target == WORKSPACE {
            return Err(VolumeError::Workspace);
        }
        let earlier = &volumes[..index];
        if earlier.iter().any(|other| other.target == volume.target) {
            return Err(VolumeError::Duplicate(volume.target.clone()));
        }
    }
    Ok(())
}

impl Volume {
    /// The name of a named volume.
    pub fn name(&self) -> Option<&str> {
        match &self.source {
            VolumeSource::Named(name) => Some(name),
            VolumeSource::Path(_) => None,
        }
    }
}

/// `SOURCE:TARGET[:ro|rw]` as its parts: what stands for the source, the target, and
/// whether it is read-only.
///
/// # Errors
/// A part is missing, or is not acceptable.
pub fn split(text: &str) -> Result<(&str, String, bool), VolumeError> {
    let parts = || VolumeError::Parts(text.to_owned());
    let (rest, last) = text.rsplit_once(':').ok_or_else(parts)?;
    let (volume, read_only) = match last {
        "ro" => (rest, true),
        "rw" => (rest, false),
        last if last.starts_with('/') => (text, false),
        last if rest.contains(":/") => {
            return Err(VolumeError::Option {
                volume: text.to_owned(),
                option: last.to_owned(),
            });
        }
        last => return Err(VolumeError::Target(last.to_owned())),
    };
    let (source, target) = volume.rsplit_once(':').ok_or_else(parts)?;
    if source.is_empty() {
        return Err(parts());
    }
    Ok((source, parse_target(target)?, read_only))
}

impl FromStr for Volume {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let (source, target, read_only) = split(text)?;
        Ok(Self {
            source: source.parse()?,
            target,
            read_only,
        })
    }
}

impl FromStr for VolumeSource {
    type Err = VolumeError;

    /// An absolute path is the user's, anything else a name.
    fn from_str(text: &str) -> Result<Self, VolumeError> {
        if !text.starts_with('/') {
            check_name(text).map_err(|_| VolumeError::Source(text.to_owned()))?;
            return Ok(Self::Named(text.to_owned()));
        }
        if text.len() > MAX_PATH || text.contains('\0') {
            return Err(VolumeError::Source(text.to_owned()));
        }
        let path = Path::new(text);
        if path.components().all(|part| part == Component::RootDir) {
            return Err(VolumeError::WholeHost);
        }
        Ok(Self::Path(path.to_owned()))
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{mode}", self.source, self.target)
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Volume, VolumeError> {
        text.parse()
    }

    #[test]
    fn a_volume_is_read_from_its_end() {
        for (text, source, target, read_only) in [
            ("/srv:/data", "/srv", "/data", false),
            ("/srv:/data:rw", "/srv", "/data", false),
            ("/srv:/data:ro", "/srv", "/data", true),
            ("cache:/data", "cache", "/data", false),
            ("/a:b c:/data", "/a:b c", "/data", false),
            ("/a:/b:/data:ro", "/a:/b", "/data", true),
            ("/srv://data/./x/", "/srv", "/data/x", false),
        ] {
            let volume = parse(text).unwrap();
            assert_eq!(volume.source.to_string(), source, "{text}");
            assert_eq!(volume.target, target, "{text}");
            assert_eq!(volume.read_only, read_only, "{text}");
            assert_eq!(parse(&volume.to_string()), Ok(volume), "{text}");
        }
    }

    #[test]
    fn what_is_no_volume_is_refused_with_a_reason() {
        for (text, words) in [
            ("", "not SOURCE:TARGET"),
            ("/data", "not SOURCE:TARGET"),
            (":/data", "not SOURCE:TARGET"),
            ("/data:ro", "not SOURCE:TARGET"),
            ("/srv:data", "target 'data'"),
            ("/srv:/data:z", "ends with 'z'"),
            ("/srv:/data:ro,z", "ends with 'ro,z'"),
            ("./srv:/data", "source './srv'"),
            (".hidden:/data", "source '.hidden'"),
            ("a b:/data", "source 'a b'"),
            ("//:/data", "whole root"),
            ("/srv:/", "belongs to"),
            ("/srv:/proc", "belongs to"),
            ("/srv:/dev/shm", "belongs to"),
            ("/srv:/sys/x", "belongs to"),
            ("/srv:/data/../etc", "target '/data/../etc'"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(parse("/srv:/processes").is_ok());
    }

    #[test]
    fn two_things_at_one_place_are_refused() {
        let volumes =
            |texts: &[&str]| -> Vec<Volume> { texts.iter().map(|t| parse(t).unwrap()).collect() };
        let twice = volumes(&["/a:/data", "/b:/data/"]);
        assert_eq!(
            validate(&twice, false),
            Err(VolumeError::Duplicate("/data".into()))
        );
        let nested = volumes(&["/a:/data", "/a:/data/sub", "a:/workspace"]);
        assert_eq!(validate(&nested, false), Ok(()));
        assert_eq!(validate(&nested, true), Err(VolumeError::Workspace));
        let many = vec![nested[0].clone(); MAX_VOLUMES + 1];
        assert!(matches!(
            validate(&many, false),
            Err(VolumeError::TooMany(_))
        ));
    }
}
