//! `image pull`.

use aegis_core::platform::Platform;
use serde_json::json;

use super::short_id;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::RegistryFlags;
use crate::images;

/// Bring an image here, or look up again what its tag means
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name as docker pull takes it, oci:DIR, oci-archive:FILE or docker-archive:FILE
    #[arg(value_name = "IMAGE")]
    name: String,
    #[command(flatten)]
    registry: RegistryFlags,
    /// Which of the images of that name; by default that for this host
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Pull without the sandbox where the host forbids it
    #[arg(long)]
    insecure: bool,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = images::full_name(&args.name)?;
    let progress = context.ui.progress("Asking aegisd");
    let pull = async {
        let client = context.aegisd().await?;
        images::pull(
            &client,
            &args.name,
            &args.registry,
            args.platform,
            args.insecure,
            &progress,
        )
        .await?;
        client.images().await
    };
    let images = progress.during(pull).await?;
    let pulled = images.iter().find(|image| image.names.contains(&name));
    let id = pulled.map(|image| image.id.clone()).unwrap_or_default();
    context.ui.data(
        || json!({"name": name, "id": id}),
        || format!("{}  {name}\n", short_id(&id)),
    )?;
    Ok(exit_code::OK)
}
