//! The Kit interface, and a kit as a client sees it.

use std::collections::HashMap;

use crate::dict::{Dict, DictError, DictReader, put, put_some};

/// An installed kit, at [`crate::names::kit_path`].
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Kit",
    default_service = "org.aegisvm.Aegis1"
)]
pub trait Kit {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn description(&self) -> zbus::Result<String>;
    /// Free text for people and programs that drive the kit.
    #[zbus(property)]
    fn usage(&self) -> zbus::Result<String>;
    /// `ok`, `broken`, or `shadowed` by a manifest of the same name.
    #[zbus(property)]
    fn status(&self) -> zbus::Result<String>;
    /// Why it is not `ok`.
    #[zbus(property)]
    fn status_reason(&self) -> zbus::Result<String>;
    /// What is odd in its manifest but harmless, one sentence each.
    #[zbus(property)]
    fn warnings(&self) -> zbus::Result<Vec<String>>;
    /// The manifest's file.
    #[zbus(property)]
    fn path(&self) -> zbus::Result<String>;
    /// Whether `InstallKit` put it there, so that `RemoveKit` can take it away.
    #[zbus(property)]
    fn installed(&self) -> zbus::Result<bool>;
    #[zbus(property)]
    fn image(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn command(&self) -> zbus::Result<Vec<String>>;
    /// The names of its instance daemons.
    #[zbus(property)]
    fn daemons(&self) -> zbus::Result<Vec<String>>;
    /// Its instance daemons, each a [`KitDaemon`].
    #[zbus(property)]
    fn daemon_entries(&self) -> zbus::Result<Vec<Dict>>;
    /// The programs it adds to the image.
    #[zbus(property)]
    fn inject(&self) -> zbus::Result<Vec<String>>;
    /// The files it puts into the workspace.
    #[zbus(property)]
    fn files(&self) -> zbus::Result<Vec<String>>;
    /// The environment variables that its config files name.
    #[zbus(property)]
    fn variables(&self) -> zbus::Result<Vec<String>>;
    /// Where each of its programs was found; the path of a missing one is empty.
    #[zbus(property)]
    fn programs(&self) -> zbus::Result<HashMap<String, String>>;
}

/// Every property of a kit, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KitView {
    pub name: String,
    pub version: String,
    pub description: String,
    pub usage: String,
    pub status: String,
    pub status_reason: String,
    pub warnings: Vec<String>,
    pub path: String,
    pub installed: bool,
    pub image: String,
    pub command: Vec<String>,
    pub daemons: Vec<KitDaemon>,
    pub inject: Vec<String>,
    pub files: Vec<String>,
    pub variables: Vec<String>,
    pub programs: HashMap<String, String>,
}

impl KitView {
    /// Reads the answer of `Properties.GetAll` or a part of `GetManagedObjects`.
    ///
    /// # Errors
    /// A missing name, or a value of a wrong type.
    pub fn from_properties(properties: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("kit property", properties);
        let daemons: Vec<Dict> = reader.take("DaemonEntries")?.unwrap_or_default();
        Ok(Self {
            name: reader.require("Name")?,
            version: reader.take("Version")?.unwrap_or_default(),
            description: reader.take("Description")?.unwrap_or_default(),
            usage: reader.take("Usage")?.unwrap_or_default(),
            status: reader.take("Status")?.unwrap_or_default(),
            status_reason: reader.take("StatusReason")?.unwrap_or_default(),
            warnings: reader.take("Warnings")?.unwrap_or_default(),
            path: reader.take("Path")?.unwrap_or_default(),
            installed: reader.take("Installed")?.unwrap_or_default(),
            image: reader.take("Image")?.unwrap_or_default(),
            command: reader.take("Command")?.unwrap_or_default(),
            daemons: daemons
                .into_iter()
                .map(KitDaemon::from_dict)
                .collect::<Result<_, _>>()?,
            inject: reader.take("Inject")?.unwrap_or_default(),
            files: reader.take("Files")?.unwrap_or_default(),
            variables: reader.take("Variables")?.unwrap_or_default(),
            programs: reader.take("Programs")?.unwrap_or_default(),
        })
    }
}

/// An instance daemon as its kit declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KitDaemon {
    pub name: String,
    pub label: String,
    /// File name of its program.
    pub binary: String,
    /// Its config file, relative to the config folder; empty without one.
    pub config: String,
    /// `restart`, `signal` or `self`.
    pub reload: String,
    /// `on-failure`, `always` or `no`.
    pub restart: String,
    /// In milliseconds.
    pub restart_max_delay_ms: u64,
    /// `started` or `notify`.
    pub ready: String,
    pub memory_mib: Option<u64>,
    /// Per cent of one CPU.
    pub cpu_percent: Option<u32>,
    pub tasks: u32,
    pub network: bool,
    /// What it asks to read and write beyond its own, as the manifest has it.
    pub read: Vec<String>,
    pub write: Vec<String>,
}

impl KitDaemon {
    /// The daemon as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "name", self.name.as_str());
        put(&mut dict, "label", self.label.as_str());
        put(&mut dict, "binary", self.binary.as_str());
        put(&mut dict, "config", self.config.as_str());
        put(&mut dict, "reload", self.reload.as_str());
        put(&mut dict, "restart", self.restart.as_str());
        put(&mut dict, "restart-max-delay", self.restart_max_delay_ms);
        put(&mut dict, "ready", self.ready.as_str());
        put_some(&mut dict, "memory", self.memory_mib);
        put_some(&mut dict, "cpu-percent", self.cpu_percent);
        put(&mut dict, "tasks", self.tasks);
        put(&mut dict, "network", self.network);
        put(&mut dict, "read", self.read.clone());
        put(&mut dict, "write", self.write.clone());
        dict
    }

    /// Reads a daemon; what a newer version added is left alone.
    ///
    /// # Errors
    /// A missing name, or a value of a wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("kit daemon", dict);
        Ok(Self {
            name: reader.require("name")?,
            label: reader.take("label")?.unwrap_or_default(),
            binary: reader.take("binary")?.unwrap_or_default(),
            config: reader.take("config")?.unwrap_or_default(),
            reload: reader.take("reload")?.unwrap_or_default(),
            restart: reader.take("restart")?.unwrap_or_default(),
            restart_max_delay_ms: reader.take("restart-max-delay")?.unwrap_or_default(),
            ready: reader.take("ready")?.unwrap_or_default(),
            memory_mib: reader.take("memory")?,
            cpu_percent: reader.take("cpu-percent")?,
            tasks: reader.take("tasks")?.unwrap_or_default(),
            network: reader.take("network")?.unwrap_or_default(),
            read: reader.take("read")?.unwrap_or_default(),
            write: reader.take("write")?.unwrap_or_default(),
        })
    }
}

/// The `options` of `InstallKit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// The kit's name, where the folder has several manifests.
    pub name: Option<String>,
}

impl InstallOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "name", self.name.as_deref());
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            name: reader.take("name")?,
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `RemoveKit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Also while instances use it.
    pub force: bool,
}

impl RemoveOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "force", self.force);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            force: reader.take("force")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_travels_whole() {
        let daemon = KitDaemon {
            name: "gateway".into(),
            label: "Gateway".into(),
            binary: "aegis-gateway".into(),
            config: "gateway.json".into(),
            reload: "signal".into(),
            restart: "always".into(),
            restart_max_delay_ms: 5000,
            ready: "notify".into(),
            memory_mib: Some(64),
            cpu_percent: None,
            tasks: 512,
            network: true,
            read: vec!["~/Documents".into()],
            write: Vec::new(),
        };
        assert_eq!(KitDaemon::from_dict(daemon.to_dict()).unwrap(), daemon);
    }

    #[test]
    fn options_travel_whole() {
        let install = InstallOptions {
            name: Some("echo".into()),
        };
        assert_eq!(
            InstallOptions::from_dict(install.to_dict()).unwrap(),
            install
        );
        let remove = RemoveOptions { force: true };
        assert_eq!(RemoveOptions::from_dict(remove.to_dict()).unwrap(), remove);
    }
}
