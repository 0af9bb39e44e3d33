//! `instance expose`: ports of this host that lead into the guest.

use aegis_bus::instance::{InstanceView, UpdateRequest};
use aegis_bus::job::JobState;
use aegis_core::port::{PortMapping, PortRequest};

use super::update;
use crate::cli::Context;
use crate::failure::Failure;

/// Let ports of this host lead to TCP ports of the guest, at once
///
/// They listen for as long as the instance is enabled, whether its VM runs, is paused or
/// asleep; a connection wakes it. Without an address a port is open to this host alone,
/// and without PORT one is chosen, once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// The port of this host and that of the guest, or the latter alone
    #[arg(required = true, value_name = "[[ADDRESS:]PORT:]GUEST-PORT")]
    ports: Vec<PortRequest>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let request = UpdateRequest {
        ports: args.ports.clone(),
        ..UpdateRequest::default()
    };
    let render = |_: JobState, view: &InstanceView| render(&args.ports, view);
    update::change(context, &args.name, &request, render).await
}

/// The ports that were asked for, with the numbers they have.
fn render(asked: &[PortRequest], view: &InstanceView) -> String {
    let is_asked = |text: &&String| {
        let port: Option<PortMapping> = text.parse().ok();
        port.is_some_and(|port| asked.iter().any(|request| request.is_met_by(&port)))
    };
    let ports = view.ports.iter().filter(is_asked);
    ports.map(|port| format!("Port:        {port}\n")).collect()
}
