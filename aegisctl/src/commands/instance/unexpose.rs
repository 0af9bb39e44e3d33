//! `instance unexpose`: ports of this host are closed.

use aegis_bus::instance::{InstanceView, UpdateRequest};
use aegis_bus::job::JobState;
use aegis_core::port::PortSelector;

use super::update;
use crate::cli::Context;
use crate::failure::Failure;

/// Close ports of this host, at once; their connections go on
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// A port by its number on this host, else in the guest, or as `instance info` shows it
    #[arg(required = true, value_name = "[ADDRESS:]PORT[:GUEST-PORT]")]
    ports: Vec<PortSelector>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let request = UpdateRequest {
        remove_ports: args.ports,
        ..UpdateRequest::default()
    };
    update::change(context, &args.name, &request, render).await
}

fn render(_: JobState, view: &InstanceView) -> String {
    let left = match view.ports.as_slice() {
        [] => "no port".to_owned(),
        ports => ports.join(", "),
    };
    format!("Instance {} exposes {left}\n", view.handle)
}
