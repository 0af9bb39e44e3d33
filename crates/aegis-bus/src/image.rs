//! The Image interface, and an image as a client sees it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use aegis_core::platform::Platform;

use crate::dict::{Dict, DictError, DictReader, put, put_descriptor, put_some};

/// The key of `PullImage`'s options whose descriptor leads to how to get at the
/// image: credentials, proxies and certificates, as JSON. It is a descriptor since
/// whoever may watch the bus can read a message.
const ACCESS: &str = "access";
/// The key with the open file or folder of an image that is not in a registry, and of
/// `ImportImage` with the open file or pipe of the archive.
const SOURCE: &str = "source";

/// An image that is here, at [`crate::names::image_path`].
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Image",
    default_service = "org.aegisvm.Aegis1"
)]
pub trait Image {
    /// The digest of its configuration.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<String>;
    /// The names it was pulled under, each as `NAME`, in full.
    #[zbus(property)]
    fn names(&self) -> zbus::Result<Vec<String>>;
    /// The digest of its manifest, by which registries name it; empty without one.
    #[zbus(property)]
    fn manifest(&self) -> zbus::Result<String>;
    /// `linux/amd64`.
    #[zbus(property)]
    fn platform(&self) -> zbus::Result<String>;
    /// When it was built, RFC 3339, as it says itself; empty if it does not.
    #[zbus(property)]
    fn created(&self) -> zbus::Result<String>;
    /// When it was last looked up by name, in microseconds since 1970; 0 if never.
    #[zbus(property)]
    fn pulled_at(&self) -> zbus::Result<u64>;
    /// Bytes that its layers take here; other images may share them.
    #[zbus(property)]
    fn size(&self) -> zbus::Result<u64>;
    /// The digests of its layers, the lowest first, and the bytes that each takes.
    #[zbus(property)]
    fn layers(&self) -> zbus::Result<Vec<(String, u64)>>;
    /// What it says about its programs, each an [`ImageConfig`].
    #[zbus(property)]
    fn config(&self) -> zbus::Result<Dict>;
}

/// Every property of an image, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageView {
    pub id: String,
    pub names: Vec<String>,
    pub manifest: String,
    pub platform: String,
    pub created: String,
    pub pulled_at_us: u64,
    pub size: u64,
    pub layers: Vec<(String, u64)>,
    pub config: ImageConfig,
}

impl ImageView {
    /// Reads the answer of `Properties.GetAll` or a part of `GetManagedObjects`.
    ///
    /// # Errors
    /// A missing identity, or a value of a wrong type.
    pub fn from_properties(properties: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("image property", properties);
        Ok(Self {
            id: reader.require("Id")?,
            names: reader.take("Names")?.unwrap_or_default(),
            manifest: reader.take("Manifest")?.unwrap_or_default(),
            platform: reader.take("Platform")?.unwrap_or_default(),
            created: reader.take("Created")?.unwrap_or_default(),
            pulled_at_us: reader.take("PulledAt")?.unwrap_or_default(),
            size: reader.take("Size")?.unwrap_or_default(),
            layers: reader.take("Layers")?.unwrap_or_default(),
            config: ImageConfig::from_dict(reader.take("Config")?.unwrap_or_default())?,
        })
    }
}

/// What an image says about its programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// Empty where it says nothing, as the next two.
    pub workdir: String,
    pub user: String,
    pub stop_signal: String,
    /// `80/tcp` each.
    pub exposed: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

impl ImageConfig {
    /// The configuration as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "env", self.env.clone());
        put(&mut dict, "entrypoint", self.entrypoint.clone());
        put(&mut dict, "command", self.command.clone());
        put(&mut dict, "workdir", self.workdir.as_str());
        put(&mut dict, "user", self.user.as_str());
        put(&mut dict, "stop-signal", self.stop_signal.as_str());
        put(&mut dict, "exposed", self.exposed.clone());
        put(&mut dict, "labels", self.labels.clone());
        dict
    }

    /// Reads a configuration; what a newer version added is left alone.
    ///
    /// # Errors
    /// A value of a wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("image config key", dict);
        Ok(Self {
            env: reader.take("env")?.unwrap_or_default(),
            entrypoint: reader.take("entrypoint")?.unwrap_or_default(),
            command: reader.take("command")?.unwrap_or_default(),
            workdir: reader.take("workdir")?.unwrap_or_default(),
            user: reader.take("user")?.unwrap_or_default(),
            stop_signal: reader.take("stop-signal")?.unwrap_or_default(),
            exposed: reader.take("exposed")?.unwrap_or_default(),
            labels: reader.take("labels")?.unwrap_or_default(),
        })
    }
}

/// The `options` of `PullImage`.
#[derive(Debug, Default)]
pub struct PullOptions {
    /// See [`ACCESS`]; without it the surroundings of aegisd's own units count.
    pub access: Option<OwnedFd>,
    /// See [`SOURCE`].
    pub source: Option<OwnedFd>,
    /// Which of the images of that name; without it that of this host.
    pub platform: Option<Platform>,
    /// Pull without a sandbox where the host forbids it.
    pub insecure: bool,
}

impl PullOptions {
    /// The options as they travel.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated.
    pub fn to_dict(&self) -> zbus::Result<Dict> {
        let mut dict = Dict::new();
        for (key, descriptor) in [(ACCESS, &self.access), (SOURCE, &self.source)] {
            if let Some(descriptor) = descriptor {
                put_descriptor(&mut dict, key, descriptor)?;
            }
        }
        let platform = self.platform.map(|platform| platform.to_string());
        put_some(&mut dict, "platform", platform);
        if self.insecure {
            put(&mut dict, "insecure", true);
        }
        Ok(dict)
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            access: reader.take_descriptor(ACCESS)?,
            source: reader.take_descriptor(SOURCE)?,
            platform: reader.parse("platform")?,
            insecure: reader.take("insecure")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `ImportImage`.
#[derive(Debug)]
pub struct ImportOptions {
    /// See [`SOURCE`]; must be given. It is read from where it stands.
    pub source: OwnedFd,
    /// Where it comes from, for people: a path, or `-`.
    pub origin: String,
    /// What the image shall say about its programs.
    pub config: ImageConfig,
    /// What its history shall say of the import.
    pub message: Option<String>,
    /// `linux/amd64`; without it that of this host.
    pub platform: Option<String>,
    /// Import without a sandbox where the host forbids it.
    pub insecure: bool,
}

impl ImportOptions {
    /// The options as they travel.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    pub fn to_dict(&self) -> zbus::Result<Dict> {
        let mut dict = Dict::new();
        put_descriptor(&mut dict, SOURCE, &self.source)?;
        put(&mut dict, "origin", self.origin.as_str());
        put(&mut dict, "config", self.config.to_dict());
        put_some(&mut dict, "message", self.message.as_deref());
        put_some(&mut dict, "platform", self.platform.as_deref());
        if self.insecure {
            put(&mut dict, "insecure", true);
        }
        Ok(dict)
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown, missing or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            source: reader.take_descriptor(SOURCE)?.ok_or(DictError::Missing {
                what: "option",
                key: SOURCE,
            })?,
            origin: reader.take("origin")?.unwrap_or_else(|| "-".to_owned()),
            config: ImageConfig::from_dict(reader.take("config")?.unwrap_or_default())?,
            message: reader.take("message")?,
            platform: reader.take("platform")?,
            insecure: reader.take("insecure")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `RemoveImage` and `PruneImages`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneImagesOptions {
    /// Images that have a name too.
    pub all: bool,
    /// Only say what would go.
    pub dry_run: bool,
}

impl PruneImagesOptions {
    /// The options as they travel.
    pub fn to_dict(self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "all", self.all);
        put(&mut dict, "dry-run", self.dry_run);
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            all: reader.take("all")?.unwrap_or_default(),
            dry_run: reader.take("dry-run")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_configuration_travels_whole() {
        let config = ImageConfig {
            env: vec!["A=b".into()],
            entrypoint: vec!["/entry".into()],
            command: vec!["serve".into()],
            workdir: "/srv".into(),
            user: "www".into(),
            stop_signal: "SIGQUIT".into(),
            exposed: vec!["80/tcp".into()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
        };
        assert_eq!(ImageConfig::from_dict(config.to_dict()).unwrap(), config);
    }

    #[test]
    fn options_travel_with_their_descriptors() {
        let options = PullOptions {
            access: Some(File::open("/dev/null").unwrap().into()),
            source: None,
            platform: Some(Platform::Arm64),
            insecure: true,
        };
        let read = PullOptions::from_dict(options.to_dict().unwrap()).unwrap();
        assert!(read.access.is_some() && read.source.is_none() && read.insecure);
        assert_eq!(read.platform, options.platform);
        let import = ImportOptions {
            source: File::open("/dev/null").unwrap().into(),
            origin: "root.tar".into(),
            config: ImageConfig {
                user: "www".into(),
                ..ImageConfig::default()
            },
            message: Some("made by hand".into()),
            platform: None,
            insecure: false,
        };
        let read = ImportOptions::from_dict(import.to_dict().unwrap()).unwrap();
        assert_eq!((read.config, read.message), (import.config, import.message));
        assert!(ImportOptions::from_dict(Dict::new()).is_err());
        let prune = PruneImagesOptions {
            all: true,
            dry_run: true,
        };
        assert_eq!(
            PruneImagesOptions::from_dict(prune.to_dict()).unwrap(),
            prune
        );
    }
}
