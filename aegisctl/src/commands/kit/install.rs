//! `kit install`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use aegis_bus::kit::{InstallOptions, KitView};
use aegis_bus::names;
use serde_json::json;

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Install a kit from a folder, or replace the one of its name
///
/// The folder is copied as a whole. Everything is checked before anything changes;
/// instances that exist keep the programs they were made with.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with NAME.json and the programs it names
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The kit's name, where the folder has several manifests
    #[arg(long)]
    name: Option<String>,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let what = format!("install the kit of {}", args.folder.display());
    // Its reader is aegisd, which may see less of the files than the caller does: the
    // open folder, not its name, is what it is given.
    let folder = File::open(&args.folder).map_err(|source| Failure::Open {
        path: args.folder.clone(),
        source,
    })?;
    let options = InstallOptions { name: args.name }.to_dict();
    let progress = context.ui.progress("Installing the kit");
    let install = async {
        let client = context.aegisd().await?;
        let manager = client.manager().await?;
        let installed = manager.install_kit(&folder.as_fd().into(), &options).await;
        let path = installed.map_err(Failure::call(what))?;
        let properties = client.properties(path, names::KIT).await;
        let properties = properties.map_err(Failure::call("read the kit"))?;
        Ok::<_, Failure>(KitView::from_properties(properties)?)
    };
    let kit = progress.during(install).await?;
    context.ui.data(
        || json!({"kit": to_json(&kit)}),
        || {
            let name = format!("{} {}", kit.name, kit.version);
            format!("Kit {} installed\n", name.trim())
        },
    )?;
    Ok(exit_code::OK)
}
