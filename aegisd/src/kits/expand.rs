//! An instance spec from a request: the user's values, else the kit's, else
//! built-in ones. The result is stored and does not change with the kit.

use aegis_bus::manager::SpecRequest;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::restart::RestartPolicy;
use aegis_core::spec::{DEFAULT_MEMORY_MIB, InstanceDaemon, InstanceSpec, KitRef, SpecError};
use serde_json::Value;

use super::{Kit, KitError};

/// Why a request cannot become an instance.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("the instance cannot be made as asked")]
    Spec(#[from] SpecError),
    #[error("the image '{0}' is not available: this version runs the built-in base image alone")]
    Image(String),
    #[error(
        "the kit '{kit}' adds programs to its image ({}), which this version cannot do",
        .programs.join(", ")
    )]
    Inject { kit: String, programs: Vec<String> },
    #[error("an ephemeral instance has no command of its own; it is given one by exec")]
    EphemeralCommand,
}

impl ExpandError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Kit(error) => error.fault(),
            Self::Spec(_) | Self::EphemeralCommand => {
                Fault::from_error(Symbol::InvalidArgument, self)
            }
            Self::Image(_) => Fault::from_error(Symbol::ImageUnavailable, self)
                .with_hint("leave the image out, or give an empty one: --image ''"),
            Self::Inject { .. } => Fault::from_error(Symbol::Unsupported, self),
        }
    }
}

/// Makes the spec and checks it.
///
/// # Errors
/// The kit is broken, or a value is not acceptable.
pub fn expand(request: SpecRequest, kit: Option<&Kit>) -> Result<InstanceSpec, ExpandError> {
    let mut spec = InstanceSpec {
        restart: request.restart.unwrap_or_default(),
        env: request.env,
        secrets: request.secrets,
        workdir: request.workdir,
        user: request.user,
        memory_mib: request.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
        cpus: request.cpus.unwrap_or(1),
        accel: request.accel.unwrap_or_default(),
        workspace: request.workspace,
        ports: request.ports,
        labels: request.labels,
        limits: request.limits,
        ephemeral: request.ephemeral,
        insecure: request.insecure,
        capabilities: Value::Null,
        ..InstanceSpec::default()
    };
    if spec.ephemeral && request.command.as_ref().is_some_and(|c| !c.is_empty()) {
        return Err(ExpandError::EphemeralCommand);
    }
    if let Some(kit) = kit {
        apply(kit, &mut spec)?;
    }
    if let Some(image) = request.image {
        spec.image = image;
    }
    if let Some(command) = request.command {
        spec.command = command;
    }
    spec.terminal = request.terminal.unwrap_or_default() && !spec.command.is_empty();
    if spec.ephemeral {
        // It lives for one command that comes by exec, beside which nothing runs.
        spec.command.clear();
        spec.terminal = false;
        spec.restart = RestartPolicy::No;
        spec.daemons.clear();
    }
    if !spec.image.is_empty() {
        return Err(ExpandError::Image(spec.image));
    }
    spec.validate()?;
    Ok(spec)
}

fn apply(kit: &Kit, spec: &mut InstanceSpec) -> Result<(), ExpandError> {
    let (manifest, programs) = kit.usable()?;
    if !manifest.image.inject.is_empty() {
        return Err(ExpandError::Inject {
            kit: kit.name.clone(),
            programs: manifest.image.inject.clone(),
        });
    }
    spec.kit = Some(KitRef {
        name: kit.name.clone(),
        version: manifest.version.clone(),
    });
    spec.image.clone_from(&manifest.image.base);
    spec.command.clone_from(&manifest.defaults.command);
    spec.capabilities = manifest.defaults.capabilities.clone();
    let daemons = manifest.instance_daemons.iter();
    let found = daemons.filter_map(|entry| Some((entry, programs.get(&entry.binary)?)));
    spec.daemons = found
        .map(|(entry, program)| InstanceDaemon {
            name: entry.daemon_name().to_owned(),
            label: entry.label().to_owned(),
            program: program.clone(),
            args: entry.args.clone(),
            env: entry.env.clone(),
            restart_max_delay_ms: entry.restart_max_delay_ms(),
        })
        .collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::board::Board;
    use crate::kits::Catalog;

    fn kit(manifest: &str) -> Kit {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("k.json"), manifest).unwrap();
        let program = folder.path().join("aegis-gateway");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let board = Arc::new(Board::default());
        let catalog = Catalog::new(vec![folder.path().to_owned()], Vec::new(), board);
        catalog.refresh();
        catalog.find("k").unwrap()
    }

    const KIT: &str = r#"{"version":"3","defaults":{"command":["serve"],"capabilities":{"spawn":true}},
        "instance_daemons":[{"binary":"aegis-gateway","args":["-v"],"restart_max_delay":2,
        "config":{"path":"gateway.json","label":"Gateway"}}]}"#;

    #[test]
    fn a_kit_supplies_what_the_user_did_not() {
        let spec = expand(SpecRequest::default(), Some(&kit(KIT))).unwrap();
        assert_eq!(spec.command, ["serve"]);
        assert_eq!(spec.capabilities["spawn"], true);
        assert_eq!(spec.kit.unwrap().version, "3");
        let daemon = &spec.daemons[0];
        assert_eq!(
            (daemon.name.as_str(), daemon.label.as_str()),
            ("gateway", "Gateway")
        );
        assert_eq!(daemon.restart_max_delay_ms, 2000);
        assert!(daemon.program.ends_with("aegis-gateway"));
    }

    #[test]
    fn the_users_own_values_win_even_empty_ones() {
        let request = SpecRequest {
            command: Some(Vec::new()),
            ..Default::default()
        };
        assert!(expand(request, Some(&kit(KIT))).unwrap().command.is_empty());
    }

    #[test]
    fn what_this_version_cannot_run_is_refused_by_name() {
        let request = SpecRequest {
            image: Some("alpine".into()),
            ..Default::default()
        };
        let fault = expand(request, None).unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::ImageUnavailable);
        assert!(fault.message.contains("built-in base image"));
        let kit = kit(r#"{"image":{"inject":["aegis-gateway"]}}"#);
        let fault = expand(SpecRequest::default(), Some(&kit))
            .unwrap_err()
            .fault();
        assert_eq!(fault.symbol, Symbol::Unsupported);
    }

    #[test]
    fn bad_values_are_refused_with_the_reason() {
        let request = SpecRequest {
            memory_mib: Some(1),
            ..Default::default()
        };
        let fault = expand(request, None).unwrap_err().fault();
        assert_eq!(fault.symbol, Symbol::InvalidArgument);
        assert!(fault.message.contains("1 MiB"), "{}", fault.message);
    }
}
