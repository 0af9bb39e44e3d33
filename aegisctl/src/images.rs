//! Pulling images: what of the user's surroundings goes to aegisd, and when.

use std::fs::File;
use std::path::Path;

use aegis_bus::image::{ImageView, PullOptions};
use aegis_bus::manager::SpecRequest;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::platform::Platform;
use aegis_image::access::Access;
use aegis_image::digest::{self, Digest};
use aegis_image::environment::Environment;
use aegis_image::name::ImageName;
use aegis_image::registries::Registries;
use zeroize::Zeroizing;

use crate::cli::Context;
use crate::client::Client;
use crate::environment::passed;
use crate::failure::Failure;
use crate::flags::{ImageFlags, PullPolicy, RegistryFlags};
use crate::job;
use crate::ui::Progress;

/// An image by its whole name, since aegisd is in another folder than the user. An
/// empty one is the built-in one.
pub(crate) fn full_name(text: &str) -> Result<String, Failure> {
    match text {
        "" => Ok(String::new()),
        text => Ok(parse(text)?.to_string()),
    }
}

/// The image here that a text means: one with that name, else the one whose digest
/// begins so.
pub(crate) fn find<'a>(
    images: &'a [ImageView],
    text: &str,
) -> Result<Option<&'a ImageView>, Failure> {
    let digits = digest::beginning(text);
    let name = match (full_name(text), digits) {
        (Ok(name), _) => Some(name),
        (Err(_), Some(_)) => None,
        (Err(failure), None) => return Err(failure),
    };
    let is_called = |image: &&ImageView| name.iter().any(|name| image.names.contains(name));
    if let Some(image) = images.iter().find(is_called) {
        return Ok(Some(image));
    }
    let begins = |image: &&ImageView| {
        let id = image.id.split_once(':').map_or("", |(_, id)| id);
        digits.is_some_and(|digits| id.starts_with(digits))
    };
    let mut found = images.iter().filter(begins);
    match (found.next(), found.next()) {
        (_, Some(_)) => {
            let words = format!("'{text}' is the beginning of several images' digests");
            let fault = Fault::new(Symbol::InvalidArgument, words);
            Err(Failure::Said(fault.with_hint("give more digits")))
        }
        (found, None) => Ok(found),
    }
}

/// How aegisd is told of an image that was typed: by its identity where the text is
/// the beginning of that, else by its whole name.
pub(crate) async fn told(client: &Client, text: &str) -> Result<String, Failure> {
    if digest::beginning(text).is_none() {
        return full_name(text);
    }
    let images = client.images().await?;
    match (find(&images, text)?, full_name(text)) {
        (Some(image), Ok(name)) if image.names.contains(&name) => Ok(name),
        (Some(image), _) => Ok(image.id.clone()),
        (None, name) => name,
    }
}

fn parse(text: &str) -> Result<ImageName, Failure> {
    let registries = Registries::of_environment(&Environment::of_process());
    let name = registries.and_then(|registries| registries.name(text));
    let name = name.map_err(|error| Failure::Said(error.into()))?;
    let folder = std::env::current_dir().map_err(|source| Failure::Open {
        path: ".".into(),
        source,
    })?;
    Ok(name.absolute(&folder))
}

/// Brings an image here by its whole name.
pub(crate) async fn pull(
    client: &Client,
    text: &str,
    registry: &RegistryFlags,
    platform: Option<Platform>,
    insecure: bool,
    progress: &Progress,
) -> Result<(), Failure> {
    let name = parse(text)?;
    progress.say(&format!("Pulling {}", name.short()));
    let manager = client.manager().await?;
    let what = format!("pull {}", name.short());
    let access = access(&name, registry)?;
    let opened = name.path().map(open).transpose()?;
    let pulled = job::perform(client, &what, progress, async || {
        let source = opened.as_ref().map(File::try_clone).transpose()?;
        let options = PullOptions {
            access: Some(passed(access.clone()).map_err(broken)?.into()),
            source: source.map(Into::into),
            platform,
            insecure,
        };
        let options = options.to_dict()?;
        manager.pull_image(&name.to_string(), &options).await
    });
    let pulled = pulled.await.map(drop);
    progress.show(Vec::new());
    pulled
}

/// What the surroundings of who asks, who may be another user than aegisd, say about
/// an image: credentials, proxies, certificates.
fn access(name: &ImageName, registry: &RegistryFlags) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let environment = Environment::of_process();
    let access = Access::of_environment(name, &environment, &registry.insecure_registry);
    let access = access.map_err(|error| Failure::Said(error.into()))?;
    let document = serde_json::to_vec(&access).map(Zeroizing::new);
    document.map_err(|error| {
        let words = format!("the access to the image has no words: {error}");
        Failure::Said(Fault::new(Symbol::Internal, words))
    })
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn broken(failure: Failure) -> zbus::Error {
    zbus::Error::Failure(failure.to_string())
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|source| Failure::Open {
        path: path.to_owned(),
        source,
    })
}

/// The image of an instance that is to be made.
pub(crate) struct Wanted<'a> {
    pub(crate) context: &'a Context,
    pub(crate) client: &'a Client,
    pub(crate) flags: &'a ImageFlags,
    pub(crate) spec: &'a SpecRequest,
    pub(crate) insecure: bool,
}

impl Wanted<'_> {
    /// Pulls the image where it shall be pulled each time.
    pub(crate) async fn pull_first(&self, progress: &Progress) -> Result<(), Failure> {
        match self.flags.pull {
            PullPolicy::Always => self.pull(progress).await,
            PullPolicy::Missing | PullPolicy::Never => Ok(()),
        }
    }

    /// Whether an instance could not be made for want of an image that may be pulled:
    /// there is none, or one for another platform.
    pub(crate) fn can_pull(&self, failure: &Failure) -> bool {
        let lacks = failure.is(Symbol::ImageUnavailable) || failure.is(Symbol::ImagePlatform);
        self.flags.pull == PullPolicy::Missing && lacks
    }

    /// Pulls the image, which may be the kit's.
    pub(crate) async fn pull(&self, progress: &Progress) -> Result<(), Failure> {
        let name = match (&self.spec.image, &self.spec.kit) {
            (Some(image), _) => image.clone(),
            (None, Some(kit)) => {
                let kits = self.client.kits().await?;
                let kit = kits.into_iter().find(|found| found.name == *kit);
                kit.map(|kit| kit.image).unwrap_or_default()
            }
            (None, None) => String::new(),
        };
        // What has an identity is here, and no registry knows it by that.
        if name.is_empty() || name.parse::<Digest>().is_ok() {
            return Ok(());
        }
        let pulled = pull(
            self.client,
            &name,
            &self.flags.registry,
            self.spec.platform,
            self.insecure,
            progress,
        );
        pulled.await?;
        let short = parse(&name).map_or(name.clone(), |name| name.short());
        self.context.ui.note(&format!("pulled {short}"));
        Ok(())
    }
}
