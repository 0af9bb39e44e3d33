//! The Manager interface: creating instances, checks, the whole.

use std::collections::BTreeMap;

use aegis_core::idle::Delay;
use aegis_core::limits::ResourceLimits;
use aegis_core::network::{AllowedHost, Network};
use aegis_core::platform::Platform;
use aegis_core::port::PortRequest;
use aegis_core::restart::RestartPolicy;
use aegis_core::secret::{Delivery, SecretSource};
use aegis_core::spec::{Accel, Workspace};
use aegis_core::volume::Volume;
use serde::{Deserialize, Serialize};
use zbus::{OwnedObjectPath, Type};

use crate::dict::{Dict, DictError, DictReader, put, put_some};
use crate::secrets::{put_sources, take_sources};

mod capabilities;

/// The manager, at the root path.
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Manager",
    default_service = "org.aegisvm.Aegis1",
    default_path = "/org/aegisvm/Aegis1"
)]
pub trait Manager {
    /// Makes an instance. An empty handle lets aegisd choose one. `spec` is a
    /// [`SpecRequest`], `options` a [`CreateOptions`].
    #[zbus(allow_interactive_auth)]
    fn create_instance(
        &self,
        handle: &str,
        spec: &Dict,
        options: &Dict,
    ) -> zbus::Result<(OwnedObjectPath, OwnedObjectPath)>;

    /// The instance of a handle, without regard to case.
    #[zbus(allow_interactive_auth)]
    fn get_instance(&self, handle: &str) -> zbus::Result<OwnedObjectPath>;

    /// Whether the host can do what is needed.
    #[zbus(allow_interactive_auth)]
    fn check(&self) -> zbus::Result<Vec<CheckRow>>;

    /// Reads the kit folders again, so that what follows sees a manifest that was
    /// written a moment ago.
    #[zbus(allow_interactive_auth)]
    fn rescan_kits(&self) -> zbus::Result<()>;

    /// Which instances [`Manager::prune`] would delete, by handle. `options` is a
    /// [`crate::prune::PruneOptions`].
    #[zbus(allow_interactive_auth)]
    fn find_prunable(&self, options: &Dict) -> zbus::Result<Vec<String>>;

    /// Deletes the instances that are left over, except those that are used again
    /// before their turn. Answers with the handles that the job is about; what is
    /// left of them when it ended was not deleted.
    #[zbus(allow_interactive_auth)]
    fn prune(&self, options: &Dict) -> zbus::Result<(Vec<String>, OwnedObjectPath)>;

    /// Installs a kit from the folder behind a descriptor; an installed kit of that
    /// name is replaced. `options` is a [`crate::kit::InstallOptions`]. Answers with
    /// the kit once all of it is there; a failure leaves everything as it was.
    #[zbus(allow_interactive_auth)]
    fn install_kit(&self, folder: &zbus::Fd<'_>, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Removes a kit that `InstallKit` put there. `options` is a
    /// [`crate::kit::RemoveOptions`]. Programs that instances still run stay until
    /// these are deleted.
    #[zbus(allow_interactive_auth)]
    fn remove_kit(&self, name: &str, options: &Dict) -> zbus::Result<()>;

    /// Brings an image here, by its name in full. `options` is a
    /// [`crate::image::PullOptions`]. The job goes on where the caller leaves, and ends
    /// once the image is here, known by the name.
    #[zbus(allow_interactive_auth)]
    fn pull_image(&self, name: &str, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Makes an image of a tar archive of files, under a name in full or, if that is
    /// empty, under none. `options` is a [`crate::image::ImportOptions`]. The job ends
    /// once the image is here, and says which it is.
    #[zbus(allow_interactive_auth)]
    fn import_image(&self, name: &str, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// Removes a name; or by an identity an image with all its names, and the layers
    /// that no other image has. One that an instance uses is not removed. Answers with
    /// the images that are gone and the bytes that are free.
    #[zbus(allow_interactive_auth)]
    fn remove_image(&self, name: &str, options: &Dict) -> zbus::Result<(Vec<String>, u64)>;

    /// Removes images that no instance uses and that have no name, and layers that
    /// nothing needs. `options` is a [`crate::image::PruneImagesOptions`]. Answers as
    /// [`Manager::remove_image`].
    #[zbus(allow_interactive_auth)]
    fn prune_images(&self, options: &Dict) -> zbus::Result<(Vec<String>, u64)>;

    /// Stops every instance and closes its ports and sockets until aegisd starts again.
    #[zbus(allow_interactive_auth)]
    fn stop_all(&self, options: &Dict) -> zbus::Result<OwnedObjectPath>;

    /// The version of aegisd.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// `user` or `system`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> zbus::Result<String>;

    /// The folder of the registry and the instances.
    #[zbus(property(emits_changed_signal = "const"))]
    fn home(&self) -> zbus::Result<String>;

    /// The folder of the sockets.
    #[zbus(property(emits_changed_signal = "const"))]
    fn runtime_directory(&self) -> zbus::Result<String>;

    /// The service manager and its version, e.g. `systemd 257`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn supervisor(&self) -> zbus::Result<String>;

    /// Whether instances outlive the user's last session (loginctl(1), lingering).
    #[zbus(property)]
    fn lingering(&self) -> zbus::Result<bool>;

    /// Records of the registry that could not be read, in words.
    #[zbus(property)]
    fn quarantined(&self) -> zbus::Result<Vec<String>>;
}

/// How a check of `Check()` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// Something will not work.
    Fail,
}

impl CheckStatus {
    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of `Check()`: `(ssss)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct CheckRow {
    /// Stable name of the check, e.g. `qemu`.
    pub id: String,
    /// `ok`, `warn` or `fail`.
    pub status: String,
    /// What was found.
    pub summary: String,
    /// What to do, or empty.
    pub hint: String,
}

impl CheckRow {
    /// A row.
    pub fn new(
        id: impl Into<String>,
        status: CheckStatus,
        summary: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            status: status.as_str().to_owned(),
            summary: summary.into(),
            hint: hint.into(),
        }
    }
}

/// What a client asks an instance to be: the `spec` of `CreateInstance`. What is
/// absent is the kit's or the built-in default's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecRequest {
    pub kit: Option<String>,
    pub image: Option<String>,
    /// In place of the image's; `Some` of nothing means none.
    pub entrypoint: Option<Vec<String>>,
    /// `Some` of nothing means no command, even where the kit has one.
    pub command: Option<Vec<String>>,
    /// Run the command on a terminal that clients attach to.
    pub terminal: Option<bool>,
    pub restart: Option<RestartPolicy>,
    /// After how long without a need it is paused.
    pub idle_pause: Option<Delay>,
    /// After how long without a need it is hibernated.
    pub idle_hibernate: Option<Delay>,
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets; those of the instance's own travel by the
    /// descriptor [`crate::secrets::VALUES`].
    pub secrets: BTreeMap<String, SecretSource>,
    /// How the guest gets secret values.
    pub delivery: Option<Delivery>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// Guest memory in MiB.
    pub memory_mib: Option<u32>,
    pub cpus: Option<u32>,
    pub accel: Option<Accel>,
    /// What the guest's programs are built for; without it that of this host.
    pub platform: Option<Platform>,
    pub workspace: Option<Workspace>,
    pub volumes: Vec<Volume>,
    /// Most that the guest may write, in MiB.
    pub disk_mib: Option<u32>,
    /// The root is read-only.
    pub read_only: bool,
    pub ports: Vec<PortRequest>,
    pub network: Option<Network>,
    /// What the guest reaches beside public addresses.
    pub allowed_hosts: Vec<AllowedHost>,
    pub labels: BTreeMap<String, String>,
    pub limits: ResourceLimits,
    /// Fields of the capability token (`aegis_core::capabilities`), on top of the
    /// kit's.
    pub capabilities: BTreeMap<String, serde_json::Value>,
    pub ephemeral: bool,
    pub insecure: bool,
}

impl SpecRequest {
    /// The request as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "kit", self.kit.as_deref());
        put_some(&mut dict, "image", self.image.as_deref());
        put_some(&mut dict, "entrypoint", self.entrypoint.clone());
        put_some(&mut dict, "command", self.command.clone());
        put_some(&mut dict, "terminal", self.terminal);
        let restart = self.restart.map(|policy| policy.to_string());
        put_some(&mut dict, "restart", restart);
        let delay = |delay: Option<Delay>| delay.map(|delay| delay.to_string());
        put_some(&mut dict, "idle-pause", delay(self.idle_pause));
        put_some(&mut dict, "idle-hibernate", delay(self.idle_hibernate));
        if !self.env.is_empty() {
            put(&mut dict, "env", self.env.clone());
        }
        put_sources(&mut dict, &self.secrets);
        let delivery = self.delivery.map(|delivery| delivery.to_string());
        put_some(&mut dict, "delivery", delivery);
        put_some(&mut dict, "workdir", self.workdir.as_deref());
        put_some(&mut dict, "user", self.user.as_deref());
        put_some(&mut dict, "memory", self.memory_mib);
        put_some(&mut dict, "cpus", self.cpus);
        put_some(
            &mut dict,
            "accel",
            self.accel.map(|accel| accel.to_string()),
        );
        let platform = self.platform.map(|platform| platform.to_string());
        put_some(&mut dict, "platform", platform);
        let workspace = self.workspace.as_ref().map(ToString::to_string);
        put_some(&mut dict, "workspace", workspace);
        if !self.volumes.is_empty() {
            let volumes: Vec<_> = self.volumes.iter().map(ToString::to_string).collect();
            put(&mut dict, "volumes", volumes);
        }
        put_some(&mut dict, "disk", self.disk_mib);
        if self.read_only {
            put(&mut dict, "read-only", true);
        }
        if !self.ports.is_empty() {
            let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
            put(&mut dict, "ports", ports);
        }
        let network = self.network.map(|network| network.to_string());
        put_some(&mut dict, "network", network);
        if !self.allowed_hosts.is_empty() {
            let hosts: Vec<_> = self.allowed_hosts.iter().map(ToString::to_string).collect();
            put(&mut dict, "allowed-hosts", hosts);
        }
        if !self.labels.is_empty() {
            put(&mut dict, "labels", self.labels.clone());
        }
        put_some(&mut dict, "memory-max", self.limits.memory_max_mib);
        put_some(&mut dict, "cpu-quota", self.limits.cpu_quota);
        put_some(&mut dict, "tasks-max", self.limits.tasks_max);
        if !self.capabilities.is_empty() {
            put(
                &mut dict,
                "capabilities",
                capabilities::to_dict(&self.capabilities),
            );
        }
        if self.ephemeral {
            put(&mut dict, "ephemeral", true);
        }
        if self.insecure {
            put(&mut dict, "insecure", true);
        }
        dict
    }

    /// Reads a request. Types and single values are checked here, the whole by
    /// `InstanceSpec::validate` once the kit's defaults are in.
    ///
    /// # Errors
    /// The first entry that is unknown, of the wrong type or not parsable.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("spec key", dict);
        let request = Self {
            kit: reader.take("kit")?,
            image: reader.take("image")?,
            entrypoint: reader.take("entrypoint")?,
            command: reader.take("command")?,
            terminal: reader.take("terminal")?,
            restart: reader.parse("restart")?,
            idle_pause: reader.parse("idle-pause")?,
            idle_hibernate: reader.parse("idle-hibernate")?,
            env: reader.take("env")?.unwrap_or_default(),
            secrets: take_sources(&mut reader)?,
            delivery: reader.parse("delivery")?,
            workdir: reader.take("workdir")?,
            user: reader.take("user")?,
            memory_mib: reader.take("memory")?,
            cpus: reader.take("cpus")?,
            accel: reader.parse("accel")?,
            platform: reader.parse("platform")?,
            workspace: reader.parse("workspace")?,
            volumes: reader.parse_all("volumes")?,
            disk_mib: reader.take("disk")?,
            read_only: reader.take("read-only")?.unwrap_or_default(),
            ports: reader.parse_all("ports")?,
            network: reader.parse("network")?,
            allowed_hosts: reader.parse_all("allowed-hosts")?,
            labels: reader.take("labels")?.unwrap_or_default(),
            limits: ResourceLimits {
                memory_max_mib: reader.take("memory-max")?,
                cpu_quota: reader.take("cpu-quota")?,
                tasks_max: reader.take("tasks-max")?,
            },
            capabilities: capabilities::from_dict(
                reader.take("capabilities")?.unwrap_or_default(),
            )?,
            ephemeral: reader.take("ephemeral")?.unwrap_or_default(),
            insecure: reader.take("insecure")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(request)
    }
}

/// The `options` of `CreateInstance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Start the VM at once. The job ends when the guest is ready.
    pub start: bool,
    /// Leave it disabled: nothing of it is started, nothing listens.
    pub disabled: bool,
    /// For an ephemeral instance: it is deleted when the caller leaves the bus
    /// before its exec began.
    pub foreground_owner: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            start: true,
            disabled: false,
            foreground_owner: false,
        }
    }
}

impl CreateOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "start", self.start);
        if self.disabled {
            put(&mut dict, "disabled", true);
        }
        put(&mut dict, "foreground-owner", self.foreground_owner);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            start: reader.take("start")?.unwrap_or(true),
            disabled: reader.take("disabled")?.unwrap_or_default(),
            foreground_owner: reader.take("foreground-owner")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_travels_whole() {
        let request = SpecRequest {
            kit: Some("agent".into()),
            image: Some(String::new()),
            entrypoint: Some(vec!["/init".into()]),
            command: Some(vec!["sh".into(), "-c".into(), "true".into()]),
            terminal: Some(true),
            restart: Some(RestartPolicy::OnFailure { most: Some(3) }),
            idle_pause: Some(Delay::Never),
            idle_hibernate: Some("1h".parse().unwrap()),
            env: [("A".into(), "b".into())].into(),
            secrets: [
                ("B".into(), SecretSource::Own),
                ("C".into(), SecretSource::Named("c".parse().unwrap())),
            ]
            .into(),
            workdir: Some("/tmp".into()),
            user: Some("1000:1000".into()),
            memory_mib: Some(512),
            cpus: Some(2),
            delivery: Some(Delivery::Guest),
            accel: Some(Accel::Tcg),
            platform: Some(Platform::Arm64),
            workspace: Some(Workspace::Path("/data".into())),
            volumes: vec![
                "/a:b:/data:ro".parse().unwrap(),
                "cache:/c".parse().unwrap(),
            ],
            disk_mib: Some(1024),
            read_only: true,
            ports: vec!["8080:80".parse().unwrap(), "81".parse().unwrap()],
            network: Some(Network::None),
            allowed_hosts: vec!["10.0.0.0/8:80".parse().unwrap()],
            labels: [("team".into(), "web".into())].into(),
            limits: ResourceLimits {
                memory_max_mib: Some(1024),
                cpu_quota: Some(150),
                tasks_max: Some(100),
            },
            capabilities: [
                ("spawn".into(), true.into()),
                ("max_children".into(), 3.into()),
                ("allowed_images".into(), vec!["*"].into()),
            ]
            .into(),
            ephemeral: true,
            insecure: true,
        };
        assert_eq!(SpecRequest::from_dict(request.to_dict()).unwrap(), request);
        let empty = SpecRequest::default();
        assert!(empty.to_dict().is_empty());
        assert_eq!(SpecRequest::from_dict(Dict::new()).unwrap(), empty);
    }

    #[test]
    fn a_bad_spec_says_which_key() {
        let bad = |key: &str, value: zbus::Variant<'static>| {
            let mut dict = Dict::new();
            put(&mut dict, key, value);
            SpecRequest::from_dict(dict).unwrap_err().to_string()
        };
        assert_eq!(
            bad("memory", 5i64.into()),
            "the spec key 'memory' must be of the D-Bus type 'u', not 'x'"
        );
        assert!(bad("ram", 5u32.into()).starts_with("there is no spec key 'ram'; known are kit,"));
        assert_eq!(
            bad("ports", vec!["80:"].into()),
            "the spec key 'ports' is not acceptable"
        );
    }

    #[test]
    fn options_travel_whole() {
        for options in [
            CreateOptions::default(),
            CreateOptions {
                start: false,
                disabled: true,
                foreground_owner: true,
            },
        ] {
            assert_eq!(
                CreateOptions::from_dict(options.to_dict()).unwrap(),
                options
            );
        }
    }
}
