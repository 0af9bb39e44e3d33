//! Kit manifests: what a bundle adds to the core.
//!
//! A manifest is one JSON file, `kits/NAME.json`; the file's name is the kit's
//! name. Every key is optional. Unknown keys are warnings, since manifests of
//! other versions must go on working; a key of a wrong type or a path that
//! leaves its folder makes the kit broken. `docs/kit-manifest.schema.json` says
//! the same for editors.
//!
//! | module | what it owns |
//! |---|---|
//! | this one | the keys |
//! | `read` | from text, with the key of what is wrong |
//! | `check` | what types do not hold |
//! | [`bundle`] | a kit's folder: its manifest and programs |

pub mod bundle;
mod check;
mod read;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::daemon::{
    DEFAULT_RESTART_MAX_DELAY_MS, DEFAULT_RESTART_RESET_AFTER_MS, DEFAULT_STOP_TIMEOUT_MS,
    DEFAULT_TASKS, DaemonLimits, Ready, Reload, Restart,
};
use crate::port::PortRequest;
use crate::restart::RestartPolicy;
use crate::secret::Delivery;

pub use check::{Refused, SandboxPath, is_kit_name, relative_inside, sandbox_path};
pub use read::ManifestError;

/// Largest manifest that is read, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// A manifest as it was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Manifest {
    /// The schema by which editors check the file.
    #[serde(rename = "$schema", skip_serializing)]
    schema: String,
    /// Shown in lists; the file's name is what `--kit` takes.
    pub name: String,
    pub version: String,
    pub description: String,
    /// Free text for people and programs that drive the kit.
    pub usage: String,
    /// Variables that every instance must have a value for, as a rule a secret.
    pub required_secrets: Vec<String>,
    /// Files below the workspace.
    pub config: Vec<ConfigFile>,
    pub instance_daemons: Vec<DaemonEntry>,
    pub image: ImageEntry,
    pub defaults: Defaults,
}

/// A file with a default content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ConfigFile {
    /// Relative to the workspace.
    pub path: String,
    /// How people call it.
    pub label: String,
    /// Written once, where the file does not exist; absent means not written.
    pub default: Option<Value>,
}

/// The config file of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct DaemonConfigFile {
    /// Relative to the instance's config folder.
    pub path: String,
    /// How people call the daemon.
    pub label: String,
    /// Written once, where the file does not exist; absent means not written.
    pub default: Option<Value>,
    pub reload: Reload,
}

/// One instance daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct DaemonEntry {
    /// File name of its program, searched in the usual directories.
    pub binary: String,
    /// Its name in unit names; by default the binary's without `aegis-`.
    pub name: Option<String>,
    pub config: Option<DaemonConfigFile>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub restart: Restart,
    /// Longest delay between two restarts, in seconds.
    pub restart_max_delay: Option<f64>,
    /// Seconds of running after which the delays begin anew.
    pub restart_reset_after: Option<f64>,
    pub ready: Ready,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_timeout: Option<f64>,
    pub limits: LimitsEntry,
    pub sandbox: SandboxEntry,
}

/// What a daemon may use of the host's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct LimitsEntry {
    pub memory_mb: Option<u64>,
    /// CPUs, e.g. 0.5.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub tasks: Option<u32>,
}

/// What a daemon may reach beyond its program, config folder and socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct SandboxEntry {
    pub network: bool,
    /// Absolute paths, or `~/...`, that it may read.
    pub read: Vec<String>,
    /// The same for what it may write.
    pub write: Vec<String>,
}

impl Default for SandboxEntry {
    fn default() -> Self {
        Self {
            network: true,
            read: Vec::new(),
            write: Vec::new(),
        }
    }
}

/// The image an instance of the kit boots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ImageEntry {
    /// Image reference; empty means the built-in base image.
    pub base: String,
    /// File names of programs that are added to the image.
    pub inject: Vec<String>,
}

/// What explicit flags override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Defaults {
    pub command: Vec<String>,
    /// The fields of the instance's capability token: an object.
    pub capabilities: Value,
    pub env: BTreeMap<String, String>,
    /// How the guest gets secret values.
    pub delivery: Delivery,
    pub memory_mb: Option<u32>,
    pub vcpus: Option<u32>,
    /// A name, or an absolute path.
    pub workspace: Option<String>,
    /// Each `[[ADDRESS:]HOST:]GUEST`.
    pub expose: Vec<PortRequest>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// What follows the end of the command.
    pub restart: RestartPolicy,
}

/// A manifest that was read and checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckedManifest {
    pub manifest: Manifest,
    /// What is odd but harmless, one sentence each.
    pub warnings: Vec<String>,
}

impl Manifest {
    /// The file names of all programs it needs of the host, each once.
    pub fn programs(&self) -> Vec<&str> {
        let daemons = self.instance_daemons.iter();
        let mut names: Vec<&str> = daemons
            .map(|daemon| daemon.binary.as_str())
            .chain(self.image.inject.iter().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The environment variables that its config files name, each once: what stands
    /// under a key that ends in `_env` in their defaults.
    pub fn variables(&self) -> Vec<&str> {
        let of_daemons = self.instance_daemons.iter();
        let of_daemons = of_daemons.filter_map(|daemon| daemon.config.as_ref()?.default.as_ref());
        let of_workspace = self.config.iter().filter_map(|file| file.default.as_ref());
        let mut names = Vec::new();
        let mut values: Vec<&Value> = of_daemons.chain(of_workspace).collect();
        while let Some(value) = values.pop() {
            match value {
                Value::Array(items) => values.extend(items),
                Value::Object(fields) => {
                    let named = fields.iter().filter(|(key, _)| key.ends_with("_env"));
                    names.extend(named.filter_map(|(_, value)| value.as_str()));
                    values.extend(fields.values());
                }
                _ => {}
            }
        }
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        names
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
        self.restart_max_delay
            .map_or(DEFAULT_RESTART_MAX_DELAY_MS, millis)
    }

    /// Milliseconds of running after which the delays begin anew.
    pub fn restart_reset_after_ms(&self) -> u64 {
        self.restart_reset_after
            .map_or(DEFAULT_RESTART_RESET_AFTER_MS, millis)
    }

    /// Milliseconds between SIGTERM and SIGKILL.
    pub fn stop_timeout_ms(&self) -> u64 {
        self.stop_timeout.map_or(DEFAULT_STOP_TIMEOUT_MS, millis)
    }

    /// Its limits in the units of specs.
    pub fn limits(&self) -> DaemonLimits {
        DaemonLimits {
            memory_mib: self.limits.memory_mb,
            cpu_percent: self.limits.cpus.map(percent),
            tasks: self.limits.tasks.unwrap_or(DEFAULT_TASKS),
        }
    }
}

// The ranges were checked when the manifest was read: at most 86,400 s and 1024 CPUs.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in range"
)]
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in range"
)]
fn percent(cpus: f64) -> u32 {
    (cpus * 100.0).round().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_names_have_defaults() {
        let parse =
            |text: &str| Manifest::parse(text).unwrap().manifest.instance_daemons[0].clone();
        let daemon = parse(r#"{"instance_daemons":[{"binary":"bot"}]}"#);
        assert_eq!((daemon.daemon_name(), daemon.label()), ("bot", "bot"));
        assert_eq!(daemon.restart_max_delay_ms(), 60_000);
        assert_eq!(daemon.restart_reset_after_ms(), 600_000);
        assert_eq!(daemon.stop_timeout_ms(), 10_000);
        assert_eq!(daemon.limits(), DaemonLimits::default());
        assert!(daemon.sandbox.network);
        let daemon = parse(
            r#"{"instance_daemons":[{"binary":"x.py","name":"bot","restart_max_delay":1.5,
                "limits":{"cpus":0.5,"memory_mb":64}}]}"#,
        );
        assert_eq!((daemon.daemon_name(), daemon.label()), ("bot", "x.py"));
        assert_eq!(daemon.restart_max_delay_ms(), 1500);
        let limits = daemon.limits();
        assert_eq!(
            (limits.memory_mib, limits.cpu_percent),
            (Some(64), Some(50))
        );
    }

    #[test]
    fn programs_are_named_once() {
        let text = r#"{"instance_daemons":[{"binary":"a"},{"binary":"a","name":"b"}],"image":{"inject":["c","a"]}}"#;
        let manifest = Manifest::parse(text).unwrap().manifest;
        assert_eq!(manifest.programs(), ["a", "c"]);
    }

    #[test]
    fn variables_are_what_configs_name() {
        let text = r#"{"instance_daemons":[{"binary":"a","config":{"path":"a.json","default":
                {"telegram":{"bot_token_env":"BOT_TOKEN","allowed":["*"]}}}}],
            "config":[{"path":"b.json","default":{"api_key_env":"KEY","tools":[
                {"key_env":"KEY"},{"other_env":"OTHER","none_env":"","number_env":1}]}}]}"#;
        let manifest = Manifest::parse(text).unwrap().manifest;
        assert_eq!(manifest.variables(), ["BOT_TOKEN", "KEY", "OTHER"]);
    }
}
