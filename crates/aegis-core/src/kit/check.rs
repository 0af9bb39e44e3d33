//! What a manifest must hold beyond types. Pure.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::{DaemonEntry, Manifest, ManifestError};
use crate::capabilities;
use crate::spec::{self, Workspace};

/// The longest time a manifest may name, in seconds: a day.
const LONGEST: f64 = 86_400.0;
/// The longest name of a daemon, in bytes; it is a part of unit names.
const LONGEST_NAME: usize = 63;
/// Trees that no daemon is given on a manifest's word: the kernel's, and where the
/// sockets of the service manager, the bus and other programs lie.
const PROTECTED: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/var/run"];

impl Manifest {
    /// Checks what types do not hold.
    ///
    /// # Errors
    /// The first thing that makes the kit unusable, with its key.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        for (index, file) in self.config.iter().enumerate() {
            check_path(&format!("config[{index}].path"), &file.path)?;
        }
        for (index, name) in self.required_secrets.iter().enumerate() {
            let key = format!("required_secrets[{index}]");
            spec::validate_env_name(name).map_err(|source| ManifestError::Spec { key, source })?;
        }
        let (mut names, mut configs) = (Vec::new(), Vec::new());
        for (index, daemon) in self.instance_daemons.iter().enumerate() {
            daemon.check(index)?;
            let name = daemon.daemon_name();
            if names.contains(&name) {
                return Err(ManifestError::DuplicateDaemon(name.to_owned()));
            }
            names.push(name);
            if let Some(config) = &daemon.config {
                if configs.contains(&&config.path) && config.default.is_some() {
                    return Err(ManifestError::DuplicateConfig(config.path.clone()));
                }
                configs.push(&config.path);
            }
        }
        for (index, binary) in self.image.inject.iter().enumerate() {
            check_file_name(&format!("image.inject[{index}]"), binary)?;
        }
        self.check_defaults()
    }

    fn check_defaults(&self) -> Result<(), ManifestError> {
        let defaults = &self.defaults;
        match &defaults.capabilities {
            Value::Null => {}
            Value::Object(fields) => {
                capabilities::check(fields).map_err(ManifestError::Capability)?;
            }
            _ => {
                let key = "defaults.capabilities".to_owned();
                return Err(ManifestError::Object { key });
            }
        }
        let spec = |key: &str| {
            let key = format!("defaults.{key}");
            move |source| ManifestError::Spec { key, source }
        };
        let (workdir, user) = (defaults.workdir.as_deref(), defaults.user.as_deref());
        spec::validate_program(&defaults.command, &defaults.env, workdir, user).map_err(
            |source| ManifestError::Spec {
                key: "defaults".to_owned(),
                source,
            },
        )?;
        if let Some(workspace) = &defaults.workspace {
            workspace.parse::<Workspace>().map_err(spec("workspace"))?;
        }
        if let Some(memory) = defaults.memory_mb {
            spec::validate_memory(memory).map_err(spec("memory_mb"))?;
        }
        if let Some(cpus) = defaults.vcpus {
            spec::validate_cpus(cpus).map_err(spec("vcpus"))?;
        }
        Ok(())
    }
}

impl DaemonEntry {
    fn check(&self, index: usize) -> Result<(), ManifestError> {
        let key = |field: &str| format!("instance_daemons[{index}].{field}");
        check_file_name(&key("binary"), &self.binary)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = self.daemon_name();
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
            return Err(ManifestError::DaemonName {
                key: key(match self.name {
                    Some(_) => "name",
                    None => "binary",
                }),
                value: name.to_owned(),
            });
        }
        if let Some(config) = &self.config {
            check_path(&key("config.path"), &config.path)?;
        }
        let spec = |field: &str| {
            let key = key(field);
            move |source| ManifestError::Spec { key, source }
        };
        spec::validate_env(&self.env).map_err(spec("env"))?;
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(spec("args")(spec::SpecError::Argument));
        }
        for (field, value, least, most) in [
            ("restart_max_delay", self.restart_max_delay, 0.1, LONGEST),
            (
                "restart_reset_after",
                self.restart_reset_after,
                0.1,
                LONGEST,
            ),
            ("stop_timeout", self.stop_timeout, 0.1, LONGEST),
            ("limits.cpus", self.limits.cpus, 0.01, 1024.0),
        ] {
            check_number(&key(field), value, least, most)?;
        }
        let number = |value: Option<u64>| value.map(|value| value as f64);
        check_number(
            &key("limits.memory_mb"),
            number(self.limits.memory_mb),
            1.0,
            f64::from(spec::MAX_MEMORY_MIB),
        )?;
        check_number(
            &key("limits.tasks"),
            self.limits.tasks.map(f64::from),
            1.0,
            1_000_000.0,
        )?;
        for (field, paths) in [("read", &self.sandbox.read), ("write", &self.sandbox.write)] {
            for (number, path) in paths.iter().enumerate() {
                sandbox_path(path).map_err(|refused| {
                    let key = key(&format!("sandbox.{field}[{number}]"));
                    let value = path.clone();
                    match refused {
                        Refused::Form => ManifestError::HostPath { key, value },
                        Refused::Protected => ManifestError::Protected { key, value },
                    }
                })?;
            }
        }
        Ok(())
    }
}

/// A path of the host that a daemon asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxPath {
    Absolute(PathBuf),
    /// Below the user's home.
    Home(PathBuf),
}

/// Why a path is not one that a daemon may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Neither absolute nor below the home, or with `..` in it.
    Form,
    /// It holds or lies in what no daemon may be given.
    Protected,
}

/// Reads a path of `sandbox.read` or `sandbox.write`.
///
/// # Errors
/// Why it is refused.
pub fn sandbox_path(text: &str) -> Result<SandboxPath, Refused> {
    if let Some(rest) = text.strip_prefix("~/") {
        let path = relative_inside(rest).ok_or(Refused::Form)?;
        return Ok(SandboxPath::Home(path));
    }
    let path = Path::new(text);
    let plain = |c| matches!(c, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || text.contains('\0') || !path.components().all(plain) {
        return Err(Refused::Form);
    }
    let touches = |tree: &&str| path.starts_with(tree) || Path::new(tree).starts_with(path);
    if PROTECTED.iter().any(touches) {
        return Err(Refused::Protected);
    }
    Ok(SandboxPath::Absolute(path.to_owned()))
}

/// Whether a text can be a kit's name: that of a file which is not hidden.
pub fn is_kit_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\0'])
}

fn check_number(key: &str, value: Option<f64>, least: f64, most: f64) -> Result<(), ManifestError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => Err(ManifestError::Number {
            key: key.to_owned(),
            value,
            least,
            most,
        }),
        _ => Ok(()),
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
    let names_a_file = !text.ends_with('/') && path.file_name().is_some();
    (!text.contains('\0') && names_a_file && path.components().all(normal))
        // Without the dots, so that one path has one form.
        .then(|| {
            path.components()
                .filter(|c| *c != Component::CurDir)
                .collect()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::chain;

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        for (text, words) in [
            (
                r#"{"instance_daemons":[{}]}"#,
                "instance_daemons[0].binary is empty",
            ),
            (
                r#"{"instance_daemons":[{"binary":"../sh"}]}"#,
                "instance_daemons[0].binary is '../sh', which must be a file name without '/'",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a b"}]}"#,
                "instance_daemons[0].binary is 'a b', which must be 1 to 63 letters",
            ),
            (
                r#"{"image":{"inject":["a","b/c"]}}"#,
                "image.inject[1] is 'b/c'",
            ),
            (
                r#"{"config":[{"path":"../../x"}]}"#,
                "config[0].path is '../../x', which must be a relative path that stays in its folder",
            ),
            (
                r#"{"config":[{"path":"/etc/passwd"}]}"#,
                "config[0].path is '/etc/passwd'",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","config":{"path":"b/"}}]}"#,
                "instance_daemons[0].config.path is 'b/'",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a"},{"binary":"aegis-a"}]}"#,
                "two instance daemons are named 'a'",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","restart_max_delay":0}]}"#,
                "instance_daemons[0].restart_max_delay is 0, which must be a number from 0.1 to 86400",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","limits":{"tasks":0}}]}"#,
                "instance_daemons[0].limits.tasks is 0",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","sandbox":{"read":["docs"]}}]}"#,
                "instance_daemons[0].sandbox.read[0] is 'docs', which must be an absolute path",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","sandbox":{"write":["/run/user/1000"]}}]}"#,
                "instance_daemons[0].sandbox.write[0] is '/run/user/1000', which no daemon may be given",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","env":{"A=B":""}}]}"#,
                "instance_daemons[0].env is not acceptable: the environment variable name 'A=B'",
            ),
            (
                r#"{"defaults":{"capabilities":[]}}"#,
                "defaults.capabilities must be an object",
            ),
            (
                r#"{"defaults":{"capabilities":{"spawn":1}}}"#,
                "defaults.capabilities is not acceptable: the capability 'spawn' must be true or false",
            ),
            (
                r#"{"defaults":{"memory_mb":1}}"#,
                "defaults.memory_mb is not acceptable: the memory of 1 MiB",
            ),
            (
                r#"{"defaults":{"workspace":"a b"}}"#,
                "defaults.workspace is not acceptable: the workspace 'a b'",
            ),
        ] {
            let error = chain(&Manifest::parse(text).unwrap_err());
            assert!(error.starts_with(words), "{text}: {error}");
        }
    }

    #[test]
    fn paths_that_hold_what_is_protected_are_protected() {
        for path in ["/", "/run", "/run/user/1000/bus", "/proc/1", "/dev", "/var"] {
            assert_eq!(sandbox_path(path), Err(Refused::Protected), "{path}");
        }
        for path in ["", "x", "~", "~/", "~/../x", "/a/../run", "/srv/./x/.."] {
            assert_eq!(sandbox_path(path), Err(Refused::Form), "{path}");
        }
        let home = SandboxPath::Home("Documents".into());
        assert_eq!(sandbox_path("~/Documents"), Ok(home));
        let absolute = SandboxPath::Absolute("/srv/data".into());
        assert_eq!(sandbox_path("/srv/data"), Ok(absolute));
    }
}
