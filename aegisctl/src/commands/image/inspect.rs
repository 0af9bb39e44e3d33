//! `image inspect`: everything about one image, as JSON.

use aegis_core::fault::{Fault, Symbol};
use serde_json::json;

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::images;

/// Show everything about an image, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its name, or the beginning of its digest
    #[arg(value_name = "IMAGE")]
    name: String,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let list = async {
        let client = context.aegisd().await?;
        Ok::<_, Failure>((client.images().await?, client.image_users().await?))
    };
    let (images, users) = progress.during(list).await?;
    let Some(image) = images::find(&images, &args.name)? else {
        let words = format!("there is no image '{}' here", args.name);
        let fault = Fault::new(Symbol::ImageUnavailable, words);
        let hint = "'aegisctl image list' shows all of them";
        return Err(Failure::Said(fault.with_hint(hint)));
    };
    let used_by = users.get(&image.id).cloned().unwrap_or_default();
    context
        .ui
        .document(json!({"image": to_json(image, &used_by)}))?;
    Ok(exit_code::OK)
}
