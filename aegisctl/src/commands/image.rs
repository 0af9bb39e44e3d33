//! `image`: what is here, and bringing, making and removing it.

use aegis_bus::image::ImageView;
use aegis_image::name::ImageName;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::failure::Failure;
use crate::ui::moment;

mod import;
mod inspect;
mod list;
mod prune;
mod pull;
mod remove;

/// Pull, import, show and remove images
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Command {
    Pull(pull::Args),
    Import(import::Args),
    List(list::Args),
    Inspect(inspect::Args),
    Remove(remove::Args),
    Prune(prune::Args),
}

impl Command {
    pub(super) async fn execute(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Pull(args) => pull::execute(context, args).await,
            Self::Import(args) => import::execute(context, args).await,
            Self::List(args) => list::execute(context, args).await,
            Self::Inspect(args) => inspect::execute(context, args).await,
            Self::Remove(args) => remove::execute(context, args).await,
            Self::Prune(args) => prune::execute(context, args).await,
        }
    }
}

/// An image for programs. `used_by` are the instances that were made of it.
fn to_json(image: &ImageView, used_by: &[String]) -> Value {
    let layers = image.layers.iter();
    let layers = layers.map(|(digest, size)| json!({"digest": digest, "size": size}));
    let config = &image.config;
    json!({
        "id": image.id,
        "names": image.names,
        "manifest": image.manifest,
        "platform": image.platform,
        "created": image.created,
        "pulled_at": (image.pulled_at_us > 0).then(|| moment(image.pulled_at_us)),
        "size": image.size,
        "layers": layers.collect::<Vec<_>>(),
        "used_by": used_by,
        "config": {
            "env": config.env,
            "entrypoint": config.entrypoint,
            "command": config.command,
            "workdir": config.workdir,
            "user": config.user,
            "stop_signal": config.stop_signal,
            "exposed": config.exposed,
            "labels": config.labels,
        },
    })
}

/// A name without what the defaults add.
fn short_name(name: &str) -> String {
    name.parse::<ImageName>()
        .map_or_else(|_| name.to_owned(), |name| name.short())
}

/// The first digits of an image's identity.
fn short_id(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.chars().take(12).collect()
}
