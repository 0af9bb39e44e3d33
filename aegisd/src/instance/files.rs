//! The files and folders of instances. Everything is private (0700, 0600) and,
//! in system mode, belongs to the user of the units. Blocks: callers are on a
//! blocking thread.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use aegis_core::control::StartMark;
use aegis_core::credential::Credential;
use aegis_core::daemon_spec::DaemonSpec;
use aegis_core::handle::Handle;
use aegis_core::kit::Manifest;
use aegis_core::layout::MAX_SOCKET_PATH;
use aegis_core::spec::{InstanceDaemon, Workspace};
use aegis_core::vm_spec::{Disk, VmSpec};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, openat};
use serde::Serialize;

use super::InstanceError;
use super::names::Names;
use crate::effects;
use crate::host::Host;
use crate::registry::Record;

/// Size of an instance's writable layer in bytes. The file is sparse: this is
/// what the guest may write at most, not what is taken at once.
const DISK_SIZE: u64 = 8 << 30;
/// Largest config file and exit record that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 1 << 20;
/// Seconds between SIGTERM and SIGKILL at an orderly stop in the guest.
pub(crate) const GRACE_SECS: u64 = 10;

/// The writable folder of one daemon's back-off record.
pub(crate) fn daemon_state_dir(host: &Host, handle: &Handle, daemon: &str) -> PathBuf {
    host.layout
        .instance(handle)
        .dir()
        .join(format!("daemon-{daemon}"))
}

/// The folder on the host that an instance's workspace is.
pub(crate) fn workspace_path(host: &Host, workspace: &Workspace) -> PathBuf {
    match workspace {
        Workspace::Path(path) => path.clone(),
        Workspace::Named(name) => host.layout.workspace(name),
    }
}

/// Checks what creation needs of the disk before anything is written.
pub(crate) fn check(host: &Host, record: &Record) -> Result<(), InstanceError> {
    let socket = host.layout.control_socket(&record.handle);
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(InstanceError::SocketPath(socket));
    }
    let Some(Workspace::Path(path)) = &record.spec.workspace else {
        return Ok(());
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(InstanceError::WorkspaceKind(path.clone())),
        Err(source) => Err(InstanceError::Workspace {
            path: path.clone(),
            source,
        }),
    }
}

/// Writes everything that the units of an instance need. May be repeated: it
/// makes what is missing and rewrites the specs.
pub(super) fn write(host: &Host, record: &Record) -> Result<(), InstanceError> {
    let handle = &record.handle;
    let files = host.layout.instance(handle);
    make_dir(host, files.dir())?;
    make_dir(host, &files.log_dir())?;
    make_dir(host, &host.layout.vm_runtime(handle))?;
    if let Some(Workspace::Named(name)) = &record.spec.workspace {
        make_dir(host, &host.layout.workspace(name))?;
    }
    if !record.spec.daemons.is_empty() {
        make_dir(host, &host.layout.api_runtime(handle))?;
        make_dir(host, &host.layout.daemon_config(handle))?;
    }
    let names = Names::of(host, record);
    names
        .write()
        .map_err(failed("make links in", names.folder()))?;
    for daemon in &record.spec.daemons {
        make_dir(host, &daemon_state_dir(host, handle, &daemon.name))?;
        let spec = daemon_spec(host, &names, record, daemon);
        write_json(host, &files.daemon_spec(&daemon.name), &spec)?;
    }
    // A unit is given this one file to write, so it must be there.
    make_file(host, &host.layout.accel_cache())?;
    write_json(host, &files.vm_spec(), &vm_spec(host, &names, record))
}

/// Notes that somebody starts the instance by name.
pub(super) fn mark_start(host: &Host, handle: &Handle) -> Result<(), InstanceError> {
    let mark = StartMark {
        at: super::now_us(),
    };
    write_json(host, &host.layout.instance(handle).start_mark(), &mark)
}

/// Writes the default config of an instance's daemons where there is none yet.
pub(super) fn write_default_config(
    host: &Host,
    handle: &Handle,
    manifest: &Manifest,
) -> Result<(), InstanceError> {
    let folder = host.layout.daemon_config(handle);
    if !manifest.instance_daemons.is_empty() {
        make_dir(host, &folder)?;
    }
    let configs = manifest
        .instance_daemons
        .iter()
        .filter_map(|daemon| daemon.config.as_ref());
    for config in configs {
        let (Some(default), Some(relative)) = (
            &config.default,
            aegis_core::kit::relative_inside(&config.path),
        ) else {
            continue;
        };
        let path = folder.join(relative);
        let between: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|p| **p != folder)
            .collect();
        for parent in between.into_iter().rev() {
            make_dir(host, parent)?;
        }
        let mut text = encode(&path, default)?;
        text.push(b'\n');
        match effects::write_new(&path, &text) {
            Ok(()) => give(host, &path)?,
            // The user's own file wins, whatever it holds.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("write", &path)(error)),
        }
    }
    Ok(())
}

/// Removes specs that an earlier aegisd died over writing. The owner of a VM keeps
/// its own unfinished files, which it may be writing at this moment.
pub(super) fn remove_unfinished(host: &Host, record: &Record) -> Result<(), InstanceError> {
    let files = host.layout.instance(&record.handle);
    let daemons = record.spec.daemons.iter();
    let specs = daemons.map(|daemon| files.daemon_spec(&daemon.name));
    for spec in specs.chain([files.vm_spec()]) {
        let fresh = unfinished(&spec);
        if fresh.symlink_metadata().is_ok() {
            effects::remove_file(&fresh).map_err(failed("remove", &fresh))?;
        }
    }
    Ok(())
}

/// Where a file is written before it takes its place.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Removes everything of an instance; goes on through failures and tells all.
pub(super) fn remove(host: &Host, handle: &Handle, purge: bool) -> Vec<InstanceError> {
    let mut folders = vec![
        host.layout.vm_runtime(handle),
        host.layout.names(handle),
        host.layout.api_runtime(handle),
        host.layout.instance(handle).dir().to_owned(),
    ];
    if purge {
        folders.push(host.layout.daemon_config(handle));
    }
    let removed = folders
        .into_iter()
        .map(|folder| match effects::remove_tree(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &folder)(error))
            }
            _ => Ok(()),
        });
    removed.filter_map(Result::err).collect()
}

/// Makes the folders that all instances share, at aegisd's start. The units' user
/// may pass through them and not look around.
pub(crate) fn prepare(host: &Host) -> Result<(), InstanceError> {
    let layout = &host.layout;
    let instances = layout.instances();
    let workspaces = layout.workspace("");
    let sockets = ["vm", "api", "names"].map(|name| layout.runtime.join(name));
    let doors = layout.doors();
    let kits = layout.kits();
    let mode = if host.unit_owner.is_some() {
        0o711
    } else {
        0o700
    };
    for folder in [
        &layout.home,
        &instances,
        &workspaces,
        &layout.runtime,
        &sockets[0],
        &sockets[1],
        &sockets[2],
        &doors,
        &kits,
    ] {
        if folder.is_dir() {
            // As the package, the service manager or the user made it.
            continue;
        }
        effects::make_folders(folder).map_err(failed("make", folder))?;
        effects::protect(folder, mode).map_err(failed("protect", folder))?;
    }
    Ok(())
}

/// Opens a file below a folder for reading. What is below is in the hands of the
/// units, so no link is followed and no pipe waited for. (openat2(2) would do it
/// in one step, but the seccomp filter of `RestrictSUIDSGID=` forbids it.)
pub(crate) fn open_inside(folder: &Path, name: &Path) -> io::Result<File> {
    let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut at: OwnedFd = File::open(folder)?.into();
    let mut parts = name.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let kind = match parts.peek() {
            Some(_) => OFlags::RDONLY | OFlags::DIRECTORY,
            None => OFlags::RDONLY,
        };
        at = openat(&at, part, safe | kind, Mode::empty())?;
    }
    Ok(at.into())
}

/// A small file below a folder and when it was written; `None` if it is missing
/// or odd.
pub(super) fn read_inside(folder: &Path, name: &Path) -> Option<(Vec<u8>, SystemTime)> {
    let mut bytes = Vec::new();
    let file = open_inside(folder, name).ok()?;
    let written = file.metadata().ok()?.modified().ok()?;
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some((bytes, written))
}

/// Makes a private folder if it is missing. Only a new one is given away: what a
/// path leads to in a folder of the units is theirs to change.
fn make_dir(host: &Host, path: &Path) -> Result<(), InstanceError> {
    match effects::make_folder(path, 0o700) {
        Ok(()) => give(host, path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make", path)(error)),
    }
}

fn make_file(host: &Host, path: &Path) -> Result<(), InstanceError> {
    match effects::write_new(path, b"") {
        Ok(()) => give(host, path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make", path)(error)),
    }
}

/// Replaces a file in one step, so that a crash leaves the old or the new one.
fn write_json(host: &Host, path: &Path, value: &impl Serialize) -> Result<(), InstanceError> {
    let bytes = encode(path, value)?;
    let fresh = unfinished(path);
    match effects::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &fresh)(error));
        }
        _ => {}
    }
    effects::write_new(&fresh, &bytes).map_err(failed("write", &fresh))?;
    give(host, &fresh)?;
    effects::rename(&fresh, path).map_err(failed("replace", path))
}

fn encode(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, InstanceError> {
    serde_json::to_vec_pretty(value).map_err(|source| InstanceError::Encode {
        path: path.to_owned(),
        source,
    })
}

/// Gives a file to the user that the units run as; never what a link leads to.
fn give(host: &Host, path: &Path) -> Result<(), InstanceError> {
    let Some(owner) = host.unit_owner else {
        return Ok(());
    };
    effects::give(path, owner.uid, owner.gid).map_err(failed("give away", path))
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> InstanceError {
    move |source| InstanceError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn vm_spec(host: &Host, names: &Names, record: &Record) -> VmSpec {
    let spec = &record.spec;
    let files = host.layout.instance(&record.handle);
    let disk = Disk {
        path: names.plain(&files.disk()),
        size: DISK_SIZE,
    };
    VmSpec {
        handle: record.handle.clone(),
        memory_mib: spec.memory_mib,
        cpus: spec.cpus,
        accel: spec.accel,
        guest_dir: names.plain(&host.guest_dir),
        disk: (!spec.ephemeral).then_some(disk),
        workspace: spec
            .workspace
            .as_ref()
            .map(|workspace| names.plain(&workspace_path(host, workspace))),
        command: spec.command.clone(),
        terminal: spec.terminal,
        restart: spec.restart,
        env: spec.env.clone(),
        needs_secrets: !spec.secrets.is_empty(),
        credential: Credential::default(),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        ports: spec.ports.clone(),
        ephemeral: spec.ephemeral,
        insecure: spec.insecure,
        dir: names.plain(files.dir()),
        accel_cache: Some(names.plain(&host.layout.accel_cache())),
        revision: record.revision(),
        grace_secs: GRACE_SECS,
    }
}

fn daemon_spec(host: &Host, names: &Names, record: &Record, daemon: &InstanceDaemon) -> DaemonSpec {
    let config = names.plain(&host.layout.daemon_config(&record.handle));
    let mut env = record.spec.env.clone();
    env.extend(daemon.env.clone());
    let given = [
        ("HOME", config.display().to_string()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    for (name, value) in given {
        env.entry(name.to_owned()).or_insert(value);
    }
    let socket = host.layout.api_socket(&record.handle);
    env.insert("AEGIS_INSTANCE".to_owned(), record.handle.to_string());
    env.insert("AEGIS_SOCKET".to_owned(), socket.display().to_string());
    DaemonSpec {
        instance: record.handle.clone(),
        name: daemon.name.clone(),
        program: names.plain(&daemon.program),
        args: daemon.args.clone(),
        env,
        needs_secrets: !record.spec.secrets.is_empty(),
        workdir: config,
        state_dir: names.plain(&daemon_state_dir(host, &record.handle, &daemon.name)),
        restart_max_delay_ms: daemon.restart_max_delay_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use aegis_core::spec::InstanceSpec;

    use super::*;
    use crate::testing::host;

    fn record() -> Record {
        let spec = InstanceSpec {
            env: [("KEY".into(), "value".into())].into(),
            daemons: vec![InstanceDaemon {
                name: "gateway".into(),
                label: "Gateway".into(),
                program: "/usr/bin/gateway".into(),
                args: vec!["a b".into()],
                env: [("LANG".into(), "de".into())].into(),
                restart_max_delay_ms: 1,
            }],
            ..Default::default()
        };
        Record::new("web".parse().unwrap(), spec, 0)
    }

    #[test]
    fn what_is_written_is_private_and_may_be_written_again() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        for _ in 0..2 {
            write(&host, &record()).unwrap();
        }
        let files = host.layout.instance(&record().handle);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(files.dir()), 0o700);
        assert_eq!(mode(&files.vm_spec()), 0o600);
        let text = fs::read_to_string(files.daemon_spec("gateway")).unwrap();
        let spec: DaemonSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(spec.env["LANG"], "de");
        assert_eq!(spec.env["AEGIS_INSTANCE"], "web");
        assert_eq!(spec.env["KEY"], "value");
    }

    #[test]
    fn a_default_config_never_replaces_the_users() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let handle = record().handle;
        let text = r#"{"instance_daemons":[{"binary":"a","config":{"path":"sub/a.json","default":{"x":1}}}]}"#;
        let manifest = Manifest::parse(text).unwrap().manifest;
        let path = host.layout.daemon_config(&handle).join("sub/a.json");
        write_default_config(&host, &handle, &manifest).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"x\": 1\n}\n");
        fs::write(&path, "mine").unwrap();
        write_default_config(&host, &handle, &manifest).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn what_a_death_left_half_written_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        write(&host, &record()).unwrap();
        let files = host.layout.instance(&record().handle);
        let left = files.dir().join("daemon-gateway.new");
        let owners = files.dir().join("disk.img.new");
        fs::write(&left, "{").unwrap();
        fs::write(&owners, "x").unwrap();
        remove_unfinished(&host, &record()).unwrap();
        assert!(!left.exists());
        assert!(owners.exists());
        remove_unfinished(&host, &record()).unwrap();
    }

    #[test]
    fn removal_is_whole_and_may_be_repeated() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let record = record();
        write(&host, &record).unwrap();
        let config = host.layout.daemon_config(&record.handle);
        assert!(remove(&host, &record.handle, false).is_empty());
        assert!(!host.layout.instance(&record.handle).dir().exists());
        assert!(!host.layout.vm_runtime(&record.handle).exists());
        assert!(config.exists());
        assert!(remove(&host, &record.handle, true).is_empty());
        assert!(!config.exists());
    }

    #[test]
    fn links_in_an_instances_folder_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        fs::write(&secret, "s").unwrap();
        let folder = root.path().join("folder");
        fs::create_dir_all(folder.join("log")).unwrap();
        fs::write(folder.join("log/command.log"), "x").unwrap();
        std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
        std::os::unix::fs::symlink(root.path(), folder.join("up")).unwrap();
        assert!(open_inside(&folder, Path::new("log/command.log")).is_ok());
        for name in ["link", "up/secret", "../secret", "missing"] {
            assert!(open_inside(&folder, Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_missing_workspace_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut record = record();
        record.spec.workspace = Some(Workspace::Path("/nonexistent".into()));
        let fault = check(&host(root.path()), &record).unwrap_err().fault();
        assert_eq!(
            fault.symbol,
            aegis_core::fault::Symbol::WorkspaceUnavailable
        );
    }
}
