//! What is known of an image once it is here.

use std::collections::BTreeMap;
use std::str::FromStr;

use aegis_core::image::PinnedImage;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// An image: its layers, all of which are in the store, and what it says about
/// the programs that run on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration, by which Docker and podman name it too.
    pub id: Digest,
    /// The digest of its manifest, by which registries name it; an archive of
    /// `docker save` has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// `linux/amd64`, with the variant where there is one.
    pub platform: String,
    /// When it was built, RFC 3339, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The lowest first.
    pub layers: Vec<Layer>,
    pub config: Config,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The digest of its tar stream (OCI image-spec config.md, `rootfs.diff_ids`), or
    /// [`Links::digest`](crate::layer::Links::digest) of it.
    pub diff_id: Digest,
    /// Bytes that it takes here.
    pub size: u64,
    /// It hides all layers below it.
    #[serde(default)]
    pub opaque: bool,
}

/// What an image says about its programs (OCI image-spec config.md, `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// A name or number of a signal.
    pub stop_signal: Option<String>,
    /// `80/tcp` each.
    pub exposed: Vec<String>,
    /// What it says about itself, for people and other programs.
    pub labels: BTreeMap<String, String>,
}

/// A name under which an image was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The whole name, e.g. `docker.io/library/alpine:3.20`.
    pub name: String,
    /// The image it meant when it was last looked up.
    pub image: Digest,
    /// When that was, microseconds since 1970.
    pub pulled_us: u64,
}

impl Image {
    /// What an instance keeps of it.
    pub fn pin(&self) -> PinnedImage {
        let config = &self.config;
        let lowest = self.layers.iter().rposition(|layer| layer.opaque);
        let seen = &self.layers[lowest.unwrap_or(0)..];
        let variables = config.variables();
        PinnedImage {
            id: self.id.to_string(),
            layers: seen.iter().map(|layer| layer.diff_id.to_string()).collect(),
            env: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            workdir: config.workdir.clone(),
            user: config.user.clone(),
            stop_signal: config.stop_signal(),
        }
    }

    /// Bytes that its layers take here; other images may share them.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

impl Config {
    /// What an image's configuration says.
    pub fn of(configuration: &ImageConfiguration) -> Self {
        let Some(config) = configuration.config() else {
            return Self::default();
        };
        let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        Self {
            env: config.env().clone().unwrap_or_default(),
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            workdir: text(config.working_dir()),
            user: text(config.user()),
            stop_signal: text(config.stop_signal()),
            exposed: config.exposed_ports().clone().unwrap_or_default(),
            labels: config.labels().clone().into_iter().flatten().collect(),
        }
    }

    /// The number of the signal that asks the command to end; `None` where the image
    /// names none, or none that there is.
    pub fn stop_signal(&self) -> Option<i32> {
        signal(self.stop_signal.as_deref()?)
    }

    /// The variables, the last of a name winning.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .filter(|(name, _)| !name.is_empty())
    }
}

/// The number of a signal by its number or name, with or without `SIG`.
pub(crate) fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Signals without a name (signal(7), "Real-time signals").
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset = offset
            .strip_prefix('+')
            .unwrap_or("0")
            .parse::<i32>()
            .ok()?;
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    let signal = nix::sys::signal::Signal::from_str(&format!("SIG{name}")).ok()?;
    Some(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGQUIT", Some(3)),
            ("term", Some(15)),
            ("28", Some(28)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("SIGNOTHING", None),
            ("0", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }
}
