//! `instance update`: other settings for an instance that exists.

use aegis_bus::instance::{InstanceView, UpdateRequest};
use aegis_bus::job::JobState;
use aegis_core::network::AllowedHost;
use aegis_core::port::{PortRequest, PortSelector};
use aegis_core::restart::RestartPolicy;
use aegis_core::volume::parse_target;
use serde_json::json;

use super::{outcome_of, to_json};
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::{
    IdleChanges, LabelFlags, LimitChanges, NetworkFlags, RootFs, entrypoint, parse_memory,
    parse_volumes,
};
use crate::job;

/// Change the settings of an instance, all that are given or none
///
/// The limits, the ports and the idle times apply at once, to a VM that runs too. Memory, CPUs,
/// disk, network, variables and the command are those of a guest: they apply when its VM starts next,
/// and `instance info` shows them as waiting until then. So do the restart policy and
/// the volumes, which apply at once where no VM runs. Another image needs `instance start
/// --replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
    /// Memory of the guest: a number of MiB, or with suffix, e.g. 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u32>,
    /// Virtual CPUs
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Most that the guest may write to its disk: more than before
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    disk: Option<u32>,
    /// Whether programs may write to the root: rw or ro
    #[arg(long, value_name = "ro|rw")]
    rootfs: Option<RootFs>,
    /// Run this in place of the image's entry point; '' for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Run the image's own entry point again
    #[arg(long, conflicts_with = "entrypoint")]
    entrypoint_remove: bool,
    /// Start in this directory of the guest; '' for the image's choice
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user of the guest; '' for the image's choice
    #[arg(short, long, value_name = "NAME|UID[:GROUP|GID]")]
    user: Option<String>,
    /// What follows the end of its command: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    #[command(flatten)]
    idle: IdleChanges,
    /// As `instance expose`
    #[arg(long, value_name = "[[ADDRESS:]PORT:]GUEST-PORT")]
    expose: Vec<PortRequest>,
    /// As `instance unexpose`
    #[arg(long, value_name = "[ADDRESS:]PORT[:GUEST-PORT]")]
    expose_remove: Vec<PortSelector>,
    /// Show a folder or file of the host, or a named volume, in the place of what was at that path
    #[arg(short, long, value_name = "PATH|NAME:TARGET[:ro]")]
    volume: Vec<String>,
    /// Show nothing of the host at a path of the guest any more
    #[arg(long, value_name = "TARGET", value_parser = parse_target)]
    volume_remove: Vec<String>,
    #[command(flatten)]
    network: NetworkFlags,
    /// Keep the guest from this address again
    #[arg(long, value_name = "ADDRESS[/PREFIX][:PORT]")]
    allow_host_remove: Vec<AllowedHost>,
    #[command(flatten)]
    limits: LimitChanges,
    #[command(flatten)]
    labels: LabelFlags,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_remove: Vec<String>,
    /// Set a variable of the instance's command and of later execs
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Remove a variable
    #[arg(long, value_name = "KEY")]
    env_remove: Vec<String>,
    /// Run the image's own command again
    #[arg(long, conflicts_with = "command")]
    command_remove: bool,
    /// Run the new command without a terminal
    #[arg(long, requires = "command")]
    no_terminal: bool,
    /// The command it runs after boot, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    fn request(&self) -> Result<UpdateRequest, Failure> {
        let given = self.command_remove || !self.command.is_empty();
        let command = given.then(|| self.command.clone());
        let request = UpdateRequest {
            memory_mib: self.memory,
            cpus: self.cpus,
            disk_mib: self.disk,
            read_only: self.rootfs.map(RootFs::is_read_only),
            entrypoint: self.entrypoint.as_deref().map(entrypoint),
            remove_entrypoint: self.entrypoint_remove,
            terminal: command.is_some().then_some(!self.no_terminal),
            command,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            restart: self.restart,
            idle_pause: self.idle.idle_pause,
            idle_hibernate: self.idle.idle_hibernate,
            ports: self.expose.clone(),
            remove_ports: self.expose_remove.clone(),
            volumes: parse_volumes(&self.volume)?,
            remove_volumes: self.volume_remove.clone(),
            network: self.network.network,
            allowed_hosts: self.network.allow_host.clone(),
            remove_allowed_hosts: self.allow_host_remove.clone(),
            memory_max_mib: self.limits.memory_max,
            cpu_quota: self.limits.cpu_quota,
            tasks_max: self.limits.tasks_max,
            labels: self.labels.labels(),
            remove_labels: self.label_remove.clone(),
            env: crate::environment::plain(&self.env)?,
            remove_env: self.env_remove.clone(),
        };
        if request.is_empty() {
            return Err(Failure::NothingToChange);
        }
        Ok(request)
    }
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    change(context, &args.name, &args.request()?, render).await
}

/// Changes settings and tells what came of it.
pub(super) async fn change(
    context: &Context,
    name: &str,
    request: &UpdateRequest,
    render: impl FnOnce(JobState, &InstanceView) -> String,
) -> Result<u8, Failure> {
    let changes = request.to_dict();
    let progress = context.ui.progress(&format!("Updating '{name}'"));
    let update = async {
        let what = format!("update '{name}'");
        let client = context.aegisd().await?;
        let instance = client.instance(name, &what).await?;
        let call = async || instance.update(&changes).await;
        let state = job::perform(&client, &what, &progress, call).await?;
        Ok::<_, Failure>((state, client.view(&instance).await?))
    };
    let (state, view) = progress.during(update).await?;
    context.ui.data(
        || json!({"outcome": outcome_of(state), "instance": to_json(&view)}),
        || render(state, &view),
    )?;
    Ok(exit_code::OK)
}

fn render(state: JobState, view: &InstanceView) -> String {
    let handle = &view.handle;
    let mut text = match state {
        JobState::Unchanged => format!("Instance {handle} is so already\n"),
        _ => format!("Instance {handle} updated\n"),
    };
    if !view.pending.is_empty() {
        text.push_str(&format!(
            "When its VM starts next: {}\nTo have that now: aegisctl instance restart {handle}\n",
            view.pending.join(", ")
        ));
    }
    text
}
