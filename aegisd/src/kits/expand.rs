//! An instance spec from a request: the user's values, else the kit's, else
//! built-in ones. The result is stored and does not change with the kit.

use std::path::{Path, PathBuf};

use aegis_bus::manager::SpecRequest;
use aegis_core::daemon::{DaemonConfig, DaemonSandbox, InstanceDaemon};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::kit::{DaemonEntry, SandboxPath, relative_inside, sandbox_path};
use aegis_core::network;
use aegis_core::platform::Platform;
use aegis_core::port::{PortMapping, PortRequest};
use aegis_core::restart::RestartPolicy;
use aegis_core::spec::{
    DEFAULT_MEMORY_MIB, InstanceSpec, KitRef, SpecError, Workspace, WorkspaceFile,
};
use serde_json::Value;

use super::{Kit, KitError};
use crate::host::Host;

/// Why a request cannot become an instance.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("the instance cannot be made as asked")]
    Spec(#[from] SpecError),
    #[error(
        "the kit '{kit}' wants a daemon of '{handle}' to reach {path}, which it may not: {why}"
    )]
    Sandbox {
        kit: String,
        handle: Handle,
        path: String,
        why: &'static str,
    },
    #[error("the kit '{kit}' brings {program}, which is not there for {platform}: no {path}")]
    Program {
        kit: String,
        program: String,
        platform: Platform,
        path: String,
    },
}

impl ExpandError {
    /// The error as clients see it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Kit(error) => error.fault(),
            Self::Spec(_) => Fault::from_error(Symbol::InvalidArgument, self),
            Self::Sandbox { .. } => Fault::from_error(Symbol::KitBroken, self),
            Self::Program { .. } => Fault::from_error(Symbol::GuestFilesMissing, self)
                .with_hint("make the instance without --platform, or put a program for it there"),
        }
    }
}

/// Makes the spec of an instance and checks it. The ports are what it asks for: those
/// whose number on the host is yet to be chosen are missing in the spec.
///
/// # Errors
/// The kit is broken, or a value is not acceptable.
pub fn expand(
    request: SpecRequest,
    kit: Option<&Kit>,
    handle: &Handle,
    host: &Host,
) -> Result<(InstanceSpec, Vec<PortRequest>), ExpandError> {
    if request.ephemeral && request.command.as_ref().is_some_and(|c| !c.is_empty()) {
        return Err(SpecError::EphemeralCommand.into());
    }
    let mut spec = match kit {
        Some(kit) => of_kit(kit, handle, host)?,
        None => InstanceSpec::default(),
    };
    spec.env.extend(request.env);
    spec.secrets = request.secrets;
    spec.delivery = request.delivery.unwrap_or(spec.delivery);
    spec.restart = request.restart.unwrap_or(spec.restart);
    spec.idle.pause = request.idle_pause.unwrap_or(spec.idle.pause);
    spec.idle.hibernate = request.idle_hibernate.unwrap_or(spec.idle.hibernate);
    spec.workdir = request.workdir.or(spec.workdir);
    spec.user = request.user.or(spec.user);
    spec.memory_mib = request.memory_mib.unwrap_or(spec.memory_mib);
    spec.cpus = request.cpus.unwrap_or(spec.cpus);
    spec.accel = request.accel.unwrap_or_default();
    spec.platform = request.platform.unwrap_or_default();
    spec.inject = injected(spec.inject, spec.platform, kit, host)?;
    spec.workspace = request.workspace.or(spec.workspace);
    spec.volumes = request.volumes;
    spec.disk_mib = request.disk_mib;
    spec.read_only = request.read_only;
    network::check_request(request.network, &request.allowed_hosts).map_err(SpecError::from)?;
    spec.network = request.network.unwrap_or_default();
    spec.allowed_hosts = request.allowed_hosts;
    let of_kit = kit.map_or(Ok(Vec::new()), ports_of)?;
    let ports = merged(of_kit, request.ports);
    spec.ports = numbered(&ports);
    spec.image = request.image.unwrap_or(spec.image);
    spec.entrypoint = request.entrypoint;
    spec.command = request.command.unwrap_or(spec.command);
    spec.labels = request.labels;
    spec.limits = request.limits;
    spec.ephemeral = request.ephemeral;
    spec.insecure = request.insecure;
    if !request.capabilities.is_empty() {
        let mut fields = match std::mem::take(&mut spec.capabilities) {
            Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        fields.extend(request.capabilities);
        spec.capabilities = Value::Object(fields);
    }
    // A command from a kit or an image is no dialogue.
    spec.terminal = request.terminal.unwrap_or_default() && !spec.command.is_empty();
    if spec.ephemeral {
        // It lives for one command that comes by exec, beside which nothing runs.
        spec.command.clear();
        spec.terminal = false;
        spec.restart = RestartPolicy::No;
        spec.daemons.clear();
    }
    if spec.workspace.is_none() && !spec.files.is_empty() {
        // The kit's files need a place that is this instance's own.
        spec.workspace = Some(Workspace::Named(handle.to_string()));
    }
    spec.validate()?;
    Ok((spec, ports))
}

/// The programs that a kit adds to the image. They are the host's own; for guests of
/// another platform those of the same names among that platform's files.
fn injected(
    programs: Vec<PathBuf>,
    platform: Platform,
    kit: Option<&Kit>,
    host: &Host,
) -> Result<Vec<PathBuf>, ExpandError> {
    if platform.is_host() {
        return Ok(programs);
    }
    let folder = platform.guest_dir(&host.guest_dir);
    let foreign = |program: PathBuf| {
        let name = program.file_name().unwrap_or_default();
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(ExpandError::Program {
            kit: kit.map(|kit| kit.name.clone()).unwrap_or_default(),
            program: name.display().to_string(),
            platform,
            path: path.display().to_string(),
        })
    };
    programs.into_iter().map(foreign).collect()
}

/// What a kit says of an instance, before the user's own values.
fn of_kit(kit: &Kit, handle: &Handle, host: &Host) -> Result<InstanceSpec, ExpandError> {
    let (manifest, programs) = kit.usable()?;
    let defaults = &manifest.defaults;
    let workspace = defaults.workspace.as_deref().map(str::parse).transpose()?;
    let daemons = manifest.instance_daemons.iter();
    let daemons = daemons
        .filter_map(|entry| Some(daemon(entry, programs.get(&entry.binary)?, host)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|(path, why)| ExpandError::Sandbox {
            kit: kit.name.clone(),
            handle: handle.clone(),
            path,
            why,
        })?;
    let inject = manifest.image.inject.iter();
    let files = manifest.config.iter().map(|file| WorkspaceFile {
        path: relative_inside(&file.path).unwrap_or_default(),
        default: file.default.clone(),
    });
    Ok(InstanceSpec {
        kit: Some(KitRef {
            name: kit.name.clone(),
            version: manifest.version.clone(),
        }),
        image: manifest.image.base.clone(),
        command: defaults.command.clone(),
        env: defaults.env.clone(),
        delivery: defaults.delivery,
        restart: defaults.restart,
        workdir: defaults.workdir.clone(),
        user: defaults.user.clone(),
        memory_mib: defaults.memory_mb.unwrap_or(DEFAULT_MEMORY_MIB),
        cpus: defaults.vcpus.unwrap_or(1),
        workspace,
        capabilities: defaults.capabilities.clone(),
        daemons,
        inject: inject
            .filter_map(|name| programs.get(name).cloned())
            .collect(),
        files: files.collect(),
        ..InstanceSpec::default()
    })
}

fn ports_of(kit: &Kit) -> Result<Vec<PortRequest>, ExpandError> {
    let (manifest, _) = kit.usable()?;
    Ok(manifest.defaults.expose.clone())
}

/// The user's ports beside those of the kit; for one port of the guest the user's
/// alone.
fn merged(mut ports: Vec<PortRequest>, user: Vec<PortRequest>) -> Vec<PortRequest> {
    ports.retain(|port| user.iter().all(|own| own.guest() != port.guest()));
    ports.extend(user);
    ports
}

fn numbered(ports: &[PortRequest]) -> Vec<PortMapping> {
    let mapping = |port: &PortRequest| match port {
        PortRequest::Mapping(mapping) => Some(*mapping),
        PortRequest::Guest(_) => None,
    };
    ports.iter().filter_map(mapping).collect()
}

/// The refused path and why it is refused.
type Refusal = (String, &'static str);

fn daemon(entry: &DaemonEntry, program: &Path, host: &Host) -> Result<InstanceDaemon, Refusal> {
    let resolve = |paths: &[String]| {
        let resolved = paths.iter().map(|path| host_path(path, host));
        resolved.collect::<Result<Vec<_>, _>>()
    };
    let config = entry.config.as_ref().map(|config| DaemonConfig {
        path: relative_inside(&config.path).unwrap_or_default(),
        reload: config.reload,
        default: config.default.clone(),
    });
    Ok(InstanceDaemon {
        label: entry.label().to_owned(),
        args: entry.args.clone(),
        env: entry.env.clone(),
        restart: entry.restart,
        restart_max_delay_ms: entry.restart_max_delay_ms(),
        restart_reset_after_ms: entry.restart_reset_after_ms(),
        ready: entry.ready,
        stop_timeout_ms: entry.stop_timeout_ms(),
        limits: entry.limits(),
        sandbox: DaemonSandbox {
            network: entry.sandbox.network,
            read: resolve(&entry.sandbox.read)?,
            write: resolve(&entry.sandbox.write)?,
        },
        config,
        ..InstanceDaemon::new(entry.daemon_name(), program)
    })
}

/// A path that a daemon asks for, on this host.
fn host_path(text: &str, host: &Host) -> Result<PathBuf, Refusal> {
    let refused = |why| (text.to_owned(), why);
    let path = match sandbox_path(text) {
        Ok(SandboxPath::Absolute(path)) => path,
        Ok(SandboxPath::Home(path)) => host
            .home
            .as_ref()
            .ok_or_else(|| refused("in system mode daemons have no home"))?
            .join(path),
        // It was checked when the manifest was read.
        Err(_) => return Err(refused("it is not a path a daemon may ask for")),
    };
    let layout = &host.layout;
    let ours = [&layout.home, &layout.config, &layout.runtime];
    if ours
        .iter()
        .any(|tree| path.starts_with(tree) || tree.starts_with(&path))
    {
        return Err(refused("AegisVM's own files lie there"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use aegis_core::daemon::{Reload, Restart};
    use serde_json::json;

    use super::*;
    use crate::board::Board;
    use crate::kits::Catalog;

    fn expand(request: SpecRequest, manifest: Option<&str>) -> Result<InstanceSpec, ExpandError> {
        let folder = tempfile::tempdir().unwrap();
        let host = Host {
            home: Some("/home/alice".into()),
            ..crate::testing::host(folder.path())
        };
        let kits = host.layout.kits();
        fs::write(kits.join("k.json"), manifest.unwrap_or("{}")).unwrap();
        let program = kits.join("aegis-gateway");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let catalog = Catalog::new(&host, Arc::new(Board::default()));
        catalog.refresh();
        let kit = catalog.find("k").unwrap();
        let handle = "web".parse().unwrap();
        super::expand(request, manifest.map(|_| &kit), &handle, &host).map(|(spec, _)| spec)
    }

    const KIT: &str = r#"{"version":"3","defaults":{"command":["serve"],"memory_mb":128,"vcpus":2,
        "env":{"A":"kit","B":"kit"},"expose":["8080:80","8081:81"],"workspace":"shared",
        "capabilities":{"spawn":true,"max_children":5}},
        "image":{"inject":["aegis-gateway"]},
        "instance_daemons":[{"binary":"aegis-gateway","args":["-v"],"restart_max_delay":2,
        "restart":"always","sandbox":{"network":false,"read":["~/Documents","/srv"]},
        "config":{"path":"./gateway.json","label":"Gateway","reload":"signal","default":{"x":1}}}]}"#;

    #[test]
    fn a_kit_supplies_what_the_user_did_not() {
        let spec = expand(SpecRequest::default(), Some(KIT)).unwrap();
        assert_eq!(spec.command, ["serve"]);
        assert_eq!((spec.memory_mib, spec.cpus), (128, 2));
        assert_eq!(spec.capabilities["spawn"], true);
        assert_eq!(spec.workspace, Some(Workspace::Named("shared".into())));
        assert_eq!(spec.kit.unwrap().version, "3");
        assert!(spec.inject[0].ends_with("aegis-gateway"));
        let daemon = &spec.daemons[0];
        assert_eq!(
            (daemon.name.as_str(), daemon.label.as_str()),
            ("gateway", "Gateway")
        );
        assert_eq!(daemon.restart_max_delay_ms, 2000);
        assert_eq!(daemon.restart, Restart::Always);
        assert!(daemon.program.ends_with("aegis-gateway"));
        assert!(!daemon.sandbox.network);
        let read = ["/home/alice/Documents", "/srv"].map(PathBuf::from);
        assert_eq!(daemon.sandbox.read, read);
        let config = daemon.config.as_ref().unwrap();
        assert_eq!(config.path, Path::new("gateway.json"));
        assert_eq!(config.reload, Reload::Signal);
        assert_eq!(config.default, Some(json!({"x": 1})));
    }

    #[test]
    fn the_users_own_values_win_one_by_one() {
        let request = SpecRequest {
            command: Some(Vec::new()),
            memory_mib: Some(200),
            env: [("A".into(), "user".into())].into(),
            ports: vec!["9090:80".parse().unwrap()],
            workspace: Some(Workspace::Path("/data".into())),
            capabilities: [("spawn".into(), false.into())].into(),
            ..Default::default()
        };
        let spec = expand(request, Some(KIT)).unwrap();
        assert!(spec.command.is_empty(), "even an empty one");
        assert_eq!((spec.memory_mib, spec.cpus), (200, 2));
        assert_eq!(
            (spec.env["A"].as_str(), spec.env["B"].as_str()),
            ("user", "kit")
        );
        let ports: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["127.0.0.1:8081:81", "127.0.0.1:9090:80"]);
        assert_eq!(spec.workspace, Some(Workspace::Path("/data".into())));
        assert_eq!(
            spec.capabilities,
            json!({"spawn": false, "max_children": 5})
        );
    }

    #[test]
    fn files_of_a_kit_get_a_workspace_of_their_own() {
        let kit = r#"{"config":[{"path":".agent/agent.json","default":{}}]}"#;
        let spec = expand(SpecRequest::default(), Some(kit)).unwrap();
        assert_eq!(spec.workspace, Some(Workspace::Named("web".into())));
        assert_eq!(spec.files[0].path, Path::new(".agent/agent.json"));
    }

    #[test]
    fn the_image_is_the_users_else_the_kits() {
        let kit = r#"{"image":{"base":"python:3.12-alpine"}}"#;
        let of_kit = expand(SpecRequest::default(), Some(kit)).unwrap();
        assert_eq!(of_kit.image, "python:3.12-alpine");
        let request = SpecRequest {
            image: Some("alpine".into()),
            ..Default::default()
        };
        assert_eq!(expand(request, Some(kit)).unwrap().image, "alpine");
    }

    #[test]
    fn no_daemon_is_given_what_is_ours() {
        let kit = r#"{"instance_daemons":[{"binary":"aegis-gateway","sandbox":{"read":["/"]}}]}"#;
        assert!(expand(SpecRequest::default(), Some(kit)).is_err());
        let folder = tempfile::tempdir().unwrap();
        let host = crate::testing::host(folder.path());
        for path in [
            host.layout.kits(),
            host.layout.home.join("x"),
            folder.path().to_owned(),
        ] {
            let refused = host_path(&path.display().to_string(), &host);
            assert!(refused.is_err(), "{}", path.display());
        }
        assert!(host_path("~/x", &host).is_err(), "there is no home");
        assert!(host_path("/srv", &host).is_ok());
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
