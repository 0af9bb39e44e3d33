//! Kit manifests: what a bundle adds to the core.
//!
//! A manifest is one JSON file, `kits/NAME.json`; the file's name is the kit's
//! name. Every key is optional. Unknown keys are warnings, since manifests of
//! other versions must go on working; a key of a wrong type or a path that
//! leaves its folder makes the kit broken.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest delay between two restarts of a daemon that says nothing else.
pub const DEFAULT_RESTART_MAX_DELAY_MS: u64 = 60_000;
/// Largest manifest that is read, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// A manifest as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Shown in lists; the file's name is what `--kit` takes.
    pub name: String,
    pub version: String,
    pub description: String,
    /// Free text for people and programs that drive the kit.
    pub usage: String,
    /// Files below the workspace.
    pub config: Vec<ConfigFile>,
    pub instance_daemons: Vec<DaemonEntry>,
    pub image: ImageEntry,
    pub defaults: Defaults,
    /// Keys this version does not know, with their values.
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// A file with a default content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// Relative to the workspace or to the instance's config folder.
    pub path: String,
    /// How people call it.
    pub label: String,
    /// Written once, where the file does not exist; absent means not written.
    pub default: Option<Value>,
}

/// One instance daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonEntry {
    /// File name of its program, searched in the usual directories.
    pub binary: String,
    /// Its name in unit names; by default the binary's without `aegis-`.
    pub name: Option<String>,
    pub config: Option<ConfigFile>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Longest delay between two restarts, in seconds.
    pub restart_max_delay: Option<f64>,
}

/// The image an instance of the kit boots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageEntry {
    /// Image reference; empty means the built-in base image.
    pub base: String,
    /// File names of programs that are added to the image.
    pub inject: Vec<String>,
}

/// What explicit flags override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Defaults {
    pub command: Vec<String>,
    pub capabilities: Value,
}

/// Why a manifest makes its kit broken.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is not a valid manifest")]
    Json(#[source] serde_json::Error),
    #[error("{key} is empty")]
    Empty { key: String },
    #[error("{key} is '{value}', which must be a file name without '/'")]
    FileName { key: String, value: String },
    #[error("{key} is '{value}', which must be a relative path that stays in its folder")]
    Path { key: String, value: String },
    #[error("{key} is '{value}', which must be letters, digits, '.', '_' and '-'")]
    DaemonName { key: String, value: String },
    #[error("two instance daemons are named '{0}'; give one of them a \"name\"")]
    DuplicateDaemon(String),
    #[error("{key} is {value}, which must be a number of seconds from 0.1 to 86400")]
    Delay { key: String, value: f64 },
}

/// A manifest that was read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedManifest {
    pub manifest: Manifest,
    /// What is odd but harmless, one sentence each.
    pub warnings: Vec<String>,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The first thing that makes it unusable, with the key it stands at.
    pub fn parse(text: &str) -> Result<CheckedManifest, ManifestError> {
        let manifest: Self = serde_json::from_str(text).map_err(ManifestError::Json)?;
        for (index, file) in manifest.config.iter().enumerate() {
            check_path(&format!("config[{index}].path"), &file.path)?;
        }
        let mut names = Vec::new();
        for (index, daemon) in manifest.instance_daemons.iter().enumerate() {
            daemon.check(index)?;
            let name = daemon.daemon_name().to_owned();
            if names.contains(&name) {
                return Err(ManifestError::DuplicateDaemon(name));
            }
            names.push(name);
        }
        for (index, binary) in manifest.image.inject.iter().enumerate() {
            check_file_name(&format!("image.inject[{index}]"), binary)?;
        }
        let warnings = manifest
            .unknown
            .keys()
            .map(|key| format!("the key \"{key}\" is not known"))
            .collect();
        Ok(CheckedManifest { manifest, warnings })
    }
}

impl DaemonEntry {
    /// The name in unit names.
    pub fn daemon_name(&self) -> &str {
        let short = self
            .binary
            .strip_prefix("aegis-")
            .filter(|name| !name.is_empty());
        self.name
            .as_deref()
            .unwrap_or(short.unwrap_or(&self.binary))
    }

    /// What `instance info` calls it: its config's label, else the binary's name.
    pub fn label(&self) -> &str {
        match &self.config {
            Some(config) if !config.label.is_empty() => &config.label,
            _ => &self.binary,
        }
    }

    /// Longest delay between two restarts, in milliseconds.
    pub fn restart_max_delay_ms(&self) -> u64 {
        match self.restart_max_delay {
            // The range was checked when the manifest was read: 100 to 86,400,000.
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in range"
            )]
            Some(seconds) => (seconds * 1000.0).round() as u64,
            None => DEFAULT_RESTART_MAX_DELAY_MS,
        }
    }

    fn check(&self, index: usize) -> Result<(), ManifestError> {
        let key = |field: &str| format!("instance_daemons[{index}].{field}");
        check_file_name(&key("binary"), &self.binary)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = self.daemon_name();
        if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
            return Err(ManifestError::DaemonName {
                key: key("name"),
                value: name.to_owned(),
            });
        }
        if let Some(config) = &self.config {
            check_path(&key("config.path"), &config.path)?;
        }
        match self.restart_max_delay {
            Some(value) if !(0.1..=86_400.0).contains(&value) => Err(ManifestError::Delay {
                key: key("restart_max_delay"),
                value,
            }),
            _ => Ok(()),
        }
    }
}

fn check_file_name(key: &str, value: &str) -> Result<(), ManifestError> {
    if value.is_empty() {
        return Err(ManifestError::Empty {
            key: key.to_owned(),
        });
    }
    if value.contains(['/', '\0']) || value == "." || value == ".." {
        return Err(ManifestError::FileName {
            key: key.to_owned(),
            value: value.to_owned(),
        });
    }
    Ok(())
}

fn check_path(key: &str, value: &str) -> Result<(), ManifestError> {
    if value.is_empty() {
        return Err(ManifestError::Empty {
            key: key.to_owned(),
        });
    }
    relative_inside(value)
        .map(|_| ())
        .ok_or_else(|| ManifestError::Path {
            key: key.to_owned(),
            value: value.to_owned(),
        })
}

/// The path if it is relative and stays below its folder.
pub fn relative_inside(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let normal = |c| matches!(c, Component::Normal(_) | Component::CurDir);
    (!text.contains('\0') && path.file_name().is_some() && path.components().all(normal))
        .then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = r#"{"name":"agent","version":"0.1.0","description":"…","usage":"…",
 "config":[{"path":".aegis/agent.json","label":"Agent","default":{}}],
 "instance_daemons":[{"binary":"aegis-gateway","config":{"path":"gateway.json","label":"Gateway","default":{}}}],
 "image":{"base":"python:3.12-alpine","inject":["aegis-agent"]},
 "defaults":{"command":["aegis-agent"],"capabilities":{"spawn":true,"spawn_depth":2,"max_children":5,"allowed_images":["*"],
   "max_memory_mb":1024,"max_vcpus":2,"max_expose_ports":5,"allowed_secrets":["*"]}}}"#;

    #[test]
    fn the_agent_kit_is_accepted_unchanged() {
        let checked = Manifest::parse(AGENT).unwrap();
        assert!(checked.warnings.is_empty());
        let daemon = &checked.manifest.instance_daemons[0];
        assert_eq!(
            (daemon.daemon_name(), daemon.label()),
            ("gateway", "Gateway")
        );
        assert_eq!(checked.manifest.defaults.command, ["aegis-agent"]);
    }

    #[test]
    fn an_empty_manifest_is_a_kit() {
        Manifest::parse("{}").unwrap();
    }

    #[test]
    fn unknown_keys_are_warnings() {
        let checked = Manifest::parse(r#"{"required_secrets":["X"]}"#).unwrap();
        assert_eq!(
            checked.warnings,
            [r#"the key "required_secrets" is not known"#]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        for (text, words) in [
            (
                r#"{"instance_daemons":[{}]}"#,
                "instance_daemons[0].binary is empty",
            ),
            (
                r#"{"instance_daemons":[{"binary":"../sh"}]}"#,
                "instance_daemons[0].binary is '../sh'",
            ),
            (
                r#"{"image":{"inject":["a","b/c"]}}"#,
                "image.inject[1] is 'b/c'",
            ),
            (
                r#"{"config":[{"path":"../../x"}]}"#,
                "config[0].path is '../../x'",
            ),
            (
                r#"{"config":[{"path":"/etc/passwd"}]}"#,
                "config[0].path is '/etc/passwd'",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a"},{"binary":"aegis-a"}]}"#,
                "two instance daemons are named 'a'",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","restart_max_delay":0}]}"#,
                "instance_daemons[0].restart_max_delay is 0",
            ),
            (
                r#"{"defaults":{"command":"sh"}}"#,
                "it is not a valid manifest",
            ),
        ] {
            let error = Manifest::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(words), "{text}: {error}");
        }
    }

    #[test]
    fn labels_and_names_have_defaults() {
        let parse =
            |text: &str| Manifest::parse(text).unwrap().manifest.instance_daemons[0].clone();
        let daemon = parse(r#"{"instance_daemons":[{"binary":"bot"}]}"#);
        assert_eq!((daemon.daemon_name(), daemon.label()), ("bot", "bot"));
        assert_eq!(daemon.restart_max_delay_ms(), 60_000);
        let daemon = parse(
            r#"{"instance_daemons":[{"binary":"x.py","name":"bot","restart_max_delay":1.5}]}"#,
        );
        assert_eq!((daemon.daemon_name(), daemon.label()), ("bot", "x.py"));
        assert_eq!(daemon.restart_max_delay_ms(), 1500);
    }
}
