//! Pulling images: what of the user's surroundings goes to aegisd, and when.

use std::fs::File;
use std::path::Path;

use aegis_bus::image::PullOptions;
use aegis_bus::manager::SpecRequest;
use aegis_core::fault::{Fault, Symbol};
use aegis_image::access::Access;
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
/// empty one is the built-in one; the beginning of a digest stays as it is.
pub(crate) fn full_name(text: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Ok(String::new());
    }
    match parse(text) {
        Ok(name) => Ok(name.to_string()),
        Err(_) if text.len() >= 6 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(text.to_owned())
        }
        Err(failure) => Err(failure),
    }
}

fn parse(text: &str) -> Result<ImageName, Failure> {
    let registries = Registries::of_environment(&Environment::of_process());
    let name = registries.and_then(|registries| registries.name(text));
    let name = name.map_err(|error| Failure::Kit(error.into()))?;
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
    let access = access.map_err(|error| Failure::Kit(error.into()))?;
    let document = serde_json::to_vec(&access).map(Zeroizing::new);
    document.map_err(|error| {
        let words = format!("the access to the image has no words: {error}");
        Failure::Kit(Fault::new(Symbol::Internal, words))
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

    /// Whether an instance could not be made for want of an image that may be pulled.
    pub(crate) fn can_pull(&self, failure: &Failure) -> bool {
        self.flags.pull == PullPolicy::Missing && failure.is(Symbol::ImageUnavailable)
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
        if name.is_empty() {
            return Ok(());
        }
        let pulled = pull(
            self.client,
            &name,
            &self.flags.registry,
            self.insecure,
            progress,
        );
        pulled.await?;
        let short = parse(&name).map_or(name.clone(), |name| name.short());
        self.context.ui.note(&format!("pulled {short}"));
        Ok(())
    }
}
