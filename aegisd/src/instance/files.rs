//! The files and folders of instances. Everything is private (0700, 0600) and,
//! in system mode, belongs to the user of the units. Blocks: callers are on a
//! blocking thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aegis_core::control::StartMark;
use aegis_core::credential::Credential;
use aegis_core::daemon::InstanceDaemon;
use aegis_core::daemon_spec::DaemonSpec;
use aegis_core::handle::Handle;
use aegis_core::layout::MAX_SOCKET_PATH;
use aegis_core::secret::GIVEN_MARK;
use aegis_core::spec::{DEFAULT_DISK_MIB, Workspace};
use aegis_core::vm_spec::{Disk, VmSpec, VmVolume};
use aegis_core::volume::Volume;
use aegis_image::store::Store;
use serde::Serialize;

use super::InstanceError;
use super::names::Names;
use super::shares::{self, volume_path, workspace_path};
use crate::effects;
use crate::host::Host;
use crate::registry::Record;
use crate::volumes;

mod inside;

pub(crate) use inside::{MAX_FILE, open as open_inside};
pub(super) use inside::{bring_config, read as read_inside, read_config};

/// Seconds between SIGTERM and SIGKILL at an orderly stop in the guest.
pub(crate) const GRACE_SECS: u64 = 10;

/// The writable folder of one daemon's back-off record.
pub(crate) fn daemon_state_dir(host: &Host, handle: &Handle, daemon: &str) -> PathBuf {
    host.layout
        .instance(handle)
        .dir()
        .join(format!("daemon-{daemon}"))
}

/// Checks what creation needs of the disk before anything is written.
pub(crate) fn check(host: &Host, record: &Record) -> Result<(), InstanceError> {
    let socket = host.layout.control_socket(&record.handle);
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(InstanceError::SocketPath(socket));
    }
    let config = host.layout.daemon_config(&record.handle);
    if !record.spec.daemons.is_empty() && fs::metadata(&config).is_ok_and(|found| !found.is_dir()) {
        return Err(InstanceError::ConfigFolder(config));
    }
    shares::check(host, record)
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
        let folder = host.layout.workspaces(record.creator);
        make_user_folder(host, record.creator, &folder).map_err(failed("make", &folder))?;
        make_dir(host, &folder.join(name))?;
    }
    for name in record.unit_volumes().iter().filter_map(Volume::name) {
        volumes::make(host, record.creator, name)?;
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
    make_dir(host, &host.layout.templates())?;
    write_json(host, &files.vm_spec(), &vm_spec(host, &names, record))
}

/// Notes that somebody starts the instance by name.
pub(super) fn mark_start(host: &Host, handle: &Handle) -> Result<(), InstanceError> {
    let mark = StartMark {
        at: super::now_us(),
    };
    write_json(host, &host.layout.instance(handle).start_mark(), &mark)
}

/// Writes the default config of an instance's daemons, and the files that its kit
/// puts into the workspace, where there are none yet.
pub(super) fn write_defaults(host: &Host, record: &Record) -> Result<(), InstanceError> {
    let folder = host.layout.daemon_config(&record.handle);
    for daemon in &record.spec.daemons {
        if let Some(config) = &daemon.config
            && let Some(default) = &config.default
        {
            inside::create(host, &folder, &config.path, default)?;
        }
    }
    let Some(folder) = workspace_path(host, record) else {
        return Ok(());
    };
    for file in &record.spec.files {
        if let Some(default) = &file.default {
            inside::create(host, &folder, &file.path, default)?;
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
    for spec in specs.chain([files.vm_spec(), files.start_mark()]) {
        let fresh = unfinished(&spec);
        if fresh.symlink_metadata().is_ok() {
            effects::remove_file(&fresh).map_err(failed("remove", &fresh))?;
        }
    }
    Ok(())
}

/// Removes the machine of a VM that was hibernated; whether there was one.
pub(super) fn remove_snapshot(host: &Host, handle: &Handle) -> Result<bool, InstanceError> {
    let snapshot = host.layout.instance(handle).snapshot();
    if snapshot.symlink_metadata().is_err() {
        return Ok(false);
    }
    effects::remove_file(&snapshot).map_err(failed("remove", &snapshot))?;
    Ok(true)
}

/// Where a file is written before it takes its place.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// The files that lie in the config folder of an instance that is about to be made,
/// as names below it: what it would inherit.
pub(crate) fn found_config(host: &Host, handle: &Handle) -> Vec<String> {
    let folder = host.layout.daemon_config(handle);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
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
    let (workspaces, volumes) = (layout.workspaces(None), layout.volumes(None));
    let sockets = ["vm", "api", "names"].map(|name| layout.runtime.join(name));
    let doors = layout.doors();
    let kits = layout.kits();
    let mode = shared_mode(host);
    for folder in [
        &layout.home,
        &instances,
        &workspaces,
        &volumes,
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

/// The mode of a folder with what is the units' in it: their user may pass through.
fn shared_mode(host: &Host) -> u32 {
    match host.unit_owner {
        Some(_) => 0o711,
        None => 0o700,
    }
}

/// Makes a folder of named things of a user of the system mode, with those above it, if
/// they are missing. The folders of everybody else are there since aegisd's start.
pub(crate) fn make_user_folder(host: &Host, keeper: Option<u32>, folder: &Path) -> io::Result<()> {
    let layout = &host.layout;
    for folder in [&layout.users(), &layout.kept_by(keeper), folder] {
        if keeper.is_none_or(|uid| uid == 0) || folder.is_dir() {
            continue;
        }
        effects::make_folders(folder)?;
        effects::protect(folder, shared_mode(host))?;
    }
    Ok(())
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

/// Replaces a file of the units' user.
fn write_json(host: &Host, path: &Path, value: &impl Serialize) -> Result<(), InstanceError> {
    replace(path, value, |fresh| give(host, fresh))
}

/// Replaces a file of aegisd's own.
pub(super) fn write_private(path: &Path, value: &impl Serialize) -> Result<(), InstanceError> {
    replace(path, value, |_| Ok(()))
}

/// Replaces a file in one step, so that a crash leaves the old or the new one.
fn replace(
    path: &Path,
    value: &impl Serialize,
    give: impl FnOnce(&Path) -> Result<(), InstanceError>,
) -> Result<(), InstanceError> {
    let bytes = encode(path, value)?;
    let fresh = unfinished(path);
    match effects::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &fresh)(error));
        }
        _ => {}
    }
    effects::write_new(&fresh, &bytes).map_err(failed("write", &fresh))?;
    let replaced =
        give(&fresh).and_then(|()| effects::rename(&fresh, path).map_err(failed("replace", path)));
    if replaced.is_err() {
        // What went wrong first is the news.
        drop(effects::remove_file(&fresh));
    }
    replaced
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
        size: u64::from(spec.disk_mib.unwrap_or(DEFAULT_DISK_MIB)) << 20,
    };
    let image = spec.pinned.clone().unwrap_or_default();
    let store = Store::at(host.layout.images());
    let layers = image.layers.iter().filter_map(|layer| layer.parse().ok());
    let layers = layers
        .map(|layer| names.plain(&store.layer(&layer)))
        .collect();
    let mut env = image.env;
    env.extend(spec.env.clone());
    VmSpec {
        handle: record.handle.clone(),
        memory_mib: spec.memory_mib,
        cpus: spec.cpus,
        accel: spec.accel,
        platform: spec.platform,
        guest_dir: names.plain(&spec.platform.guest_dir(&host.guest_dir)),
        layers,
        read_only_root: spec.read_only,
        disk: (!spec.ephemeral).then_some(disk),
        inject: spec.inject.clone(),
        workspace: workspace_path(host, record).map(|path| names.plain(&path)),
        volumes: record
            .unit_volumes()
            .iter()
            .map(|volume| vm_volume(host, names, record, volume))
            .collect(),
        command: spec.full_command(),
        stop_signal: image.stop_signal,
        terminal: spec.terminal,
        restart: spec.restart,
        env,
        needs_secrets: vm_needs_secrets(host, record),
        credential: Credential::default(),
        workdir: spec.workdir.clone().or(image.workdir),
        user: spec.user.clone().or(image.user),
        ports: spec.ports.clone(),
        idle: spec.idle,
        leases: record.leases.clone(),
        network: spec.network,
        allowed_hosts: spec.allowed_hosts.clone(),
        ephemeral: spec.ephemeral,
        aegisd: Some(names.plain(&host.layout.door_socket())),
        insecure: spec.insecure,
        dir: names.plain(files.dir()),
        templates: Some(names.plain(&host.layout.templates())),
        accel_cache: Some(names.plain(&host.layout.accel_cache())),
        revision: record.revision(),
        grace_secs: GRACE_SECS,
    }
}

/// Whether the guest of an instance is given secrets, or ever was by an exec.
pub(super) fn vm_needs_secrets(host: &Host, record: &Record) -> bool {
    let mark = || host.layout.instance(&record.handle).dir().join(GIVEN_MARK);
    !record.spec.secrets.is_empty() || mark().exists()
}

fn vm_volume(host: &Host, names: &Names, record: &Record, volume: &Volume) -> VmVolume {
    VmVolume {
        source: names.plain(&volume_path(host, record, &volume.source)),
        target: volume.target.clone(),
        read_only: volume.read_only,
        // A folder of the user's is not ours to put something into.
        filled: volume.name().is_some() && !volume.read_only,
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
        program: names.program(daemon),
        args: daemon.args.clone(),
        env,
        needs_secrets: !record.spec.secrets.is_empty(),
        workdir: config,
        state_dir: names.plain(&daemon_state_dir(host, &record.handle, &daemon.name)),
        restart_max_delay_ms: daemon.restart_max_delay_ms,
        restart_reset_after_ms: daemon.restart_reset_after_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use aegis_core::daemon::DaemonConfig;
    use aegis_core::spec::{InstanceSpec, WorkspaceFile};

    use super::*;
    use crate::testing::host;

    fn record() -> Record {
        let spec = InstanceSpec {
            env: [("KEY".into(), "value".into())].into(),
            daemons: vec![InstanceDaemon {
                args: vec!["a b".into()],
                env: [("LANG".into(), "de".into())].into(),
                ..InstanceDaemon::new("gateway", "/usr/bin/gateway")
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
    fn a_default_never_replaces_the_users_file() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let mut record = record();
        record.spec.daemons[0].config = Some(DaemonConfig {
            path: "sub/a.json".into(),
            reload: Default::default(),
            default: Some(serde_json::json!({"x": 1})),
        });
        record.spec.workspace = Some(Workspace::Named("web".into()));
        record.spec.files = vec![WorkspaceFile {
            path: ".agent/agent.json".into(),
            default: Some(serde_json::json!([])),
        }];
        let config = host.layout.daemon_config(&record.handle).join("sub/a.json");
        let file = host.layout.workspace(None, "web").join(".agent/agent.json");
        write(&host, &record).unwrap();
        write_defaults(&host, &record).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "{\n  \"x\": 1\n}\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), "[]\n");
        for path in [&config, &file] {
            fs::write(path, "mine").unwrap();
        }
        write_defaults(&host, &record).unwrap();
        for path in [&config, &file] {
            assert_eq!(fs::read_to_string(path).unwrap(), "mine");
        }
        assert_eq!(found_config(&host, &record.handle), ["sub"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_config_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        fs::write(host.layout.kits().join("web"), "a program").unwrap();
        let fault = check(&host, &record()).unwrap_err().fault();
        assert_eq!(fault.symbol, aegis_core::fault::Symbol::InvalidHandle);
        assert!(fault.message.contains("kits/web"), "{}", fault.message);
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
    fn a_volume_shows_what_is_there_and_a_named_one_is_made() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let mut record = record();
        let volumes = ["cache:/c", "cache:/again:ro", "/etc/passwd:/p:ro"];
        record.spec.volumes = volumes.map(|text| text.parse().unwrap()).into();
        check(&host, &record).unwrap();
        write(&host, &record).unwrap();
        assert!(host.layout.volume(None, "cache").is_dir());
        let text = fs::read_to_string(host.layout.instance(&record.handle).vm_spec()).unwrap();
        let spec: VmSpec = serde_json::from_str(&text).unwrap();
        let filled: Vec<bool> = spec.volumes.iter().map(|volume| volume.filled).collect();
        assert_eq!(filled, [true, false, false]);
        assert_eq!(spec.shares()[0].target, "/again");
    }
}
