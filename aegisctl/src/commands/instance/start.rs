//! `instance start`: a new instance, or one that exists.
//!
//! A command that was given by name runs on a terminal. Where we have one too, the
//! client attaches while the VM starts, so that not a byte of it is missed.

use aegis_bus::dict::Dict;
use aegis_bus::instance::{DeleteOptions, InstanceProxy};
use aegis_bus::job::JobState;
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_bus::names;
use aegis_core::capabilities;
use aegis_core::fault::Symbol;
use aegis_core::layout::Mode;
use aegis_core::restart::RestartPolicy;
use serde_json::json;

use super::{outcome_of, to_json};
use crate::cli::Context;
use crate::client::Client;
use crate::commands::attach;
use crate::environment::Environment;
use crate::exit_code;
use crate::failure::{Difference, Failure};
use crate::flags::{DetachFlags, IdleFlags, ImageFlags, MachineFlags, ProcessFlags, parse_memory};
use crate::images::Wanted;
use crate::job::{self, JobWatch};
use crate::session::{Session, Signals, Terminal, Wiring};
use crate::ui::{Progress, clean};

/// Start an instance; one that does not exist yet is made
///
/// An instance keeps the settings it was made with: asking for others is refused
/// with the differences. One that is disabled is enabled. A command given after
/// -- runs on a terminal; Ctrl-P Ctrl-Q detaches from it, `attach` returns to it.
#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Args {
    /// Make it from this kit; explicit flags win over the kit's defaults
    #[arg(long)]
    kit: Option<String>,
    #[command(flatten)]
    image: ImageFlags,
    /// Most that the guest may write to its disk: a number of MiB, or with suffix
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    disk: Option<u32>,
    /// Let the guest do more than use its own VM, or less than its kit says; a list
    /// has commas
    #[arg(long = "capability", value_name = "NAME=VALUE", value_parser = capabilities::parse)]
    capabilities: Vec<(String, serde_json::Value)>,
    /// Its name; without one AegisVM chooses
    #[arg(long)]
    name: Option<String>,
    /// What follows the end of its command: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    #[command(flatten)]
    idle: IdleFlags,
    /// Delete the instance of that name first, with its disk and log; the daemons' config stays
    #[arg(long, requires = "name")]
    replace: bool,
    #[command(flatten)]
    machine: MachineFlags,
    #[command(flatten)]
    process: ProcessFlags,
    /// Return at once; the command runs on
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    keys: DetachFlags,
    /// Run the command without a terminal: nobody can attach, and its stderr stays apart
    #[arg(long)]
    no_terminal: bool,
    /// The command it runs after boot, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let environment = args.process.environment(context).await?;
    environment.note_values(context, "is kept encrypted with the instance");
    if args.attaches() && !context.ui.wants_json() {
        return start_attached(context, args, &environment).await;
    }
    let progress = context.ui.progress("Starting the instance");
    let started = progress.during(Box::pin(start(
        context,
        &args,
        &environment,
        &progress,
        None,
    )));
    let Launch {
        client,
        instance,
        started,
        ..
    } = started.await?;
    let view = progress.during(client.view(&instance)).await?;
    let outcome = match started {
        Started::Created => "created",
        Started::Existing(state) => outcome_of(state),
    };
    context.ui.data(
        || json!({"outcome": outcome, "instance": to_json(&view)}),
        || {
            let verb = match started {
                Started::Existing(JobState::Unchanged) => "runs already",
                _ => "started",
            };
            let mut text = format!("Instance {verb}: {}\n", view.handle);
            for port in &view.ports {
                text.push_str(&format!("Port:        {port}\n"));
            }
            text
        },
    )?;
    if matches!(started, Started::Created) {
        for note in &view.notes {
            context.ui.note(&format!("note: {}", clean(note)));
        }
    }
    warn_of_logout(context, &client).await;
    Ok(exit_code::OK)
}

/// Starts the instance and carries its terminal.
async fn start_attached(
    context: &Context,
    args: Args,
    environment: &Environment,
) -> Result<u8, Failure> {
    let wiring = args.keys.wiring();
    let mut signals = Signals::catch()?;
    let progress = context.ui.progress("Starting the instance");
    let starting = start(context, &args, environment, &progress, Some(&wiring));
    let starting = Box::pin(starting);
    let launch = tokio::select! {
        biased;
        // The intent is written: it starts without us.
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        launch = progress.during(starting) => launch?,
    };
    warn_of_logout(context, &launch.client).await;
    let handle = launch.handle();
    drop(progress);
    let Some(session) = launch.session else {
        return Ok(exit_code::OK);
    };
    let keys = "Ctrl-P Ctrl-Q detaches";
    context.ui.note(&format!("attached to '{handle}'; {keys}"));
    attach::carry(context, &handle, session, wiring, &mut signals).await
}

/// A start that succeeded.
struct Launch {
    client: Client,
    instance: InstanceProxy<'static>,
    started: Started,
    /// For a start that attaches.
    session: Option<Session>,
}

impl Launch {
    /// Its name as it was made: handles are found without regard to case.
    fn handle(&self) -> String {
        let handle = names::instance_of(self.instance.inner().path());
        handle.map(String::from).unwrap_or_default()
    }
}

/// What had to be done.
#[derive(Clone, Copy)]
enum Started {
    Created,
    Existing(JobState),
}

impl Args {
    /// Whether the command's terminal becomes ours.
    pub(crate) fn attaches(&self) -> bool {
        let has_terminal = !self.command.is_empty() && !self.no_terminal;
        has_terminal && !self.detach && Terminal::of_both().is_some()
    }

    fn spec(&self, environment: &Environment) -> Result<SpecRequest, Failure> {
        let command = (!self.command.is_empty()).then(|| self.command.clone());
        Ok(SpecRequest {
            kit: self.kit.clone(),
            disk_mib: self.disk,
            capabilities: self.capabilities.iter().cloned().collect(),
            terminal: command.is_some().then_some(!self.no_terminal),
            command,
            restart: self.restart,
            idle_pause: self.idle.idle_pause,
            idle_hibernate: self.idle.idle_hibernate,
            env: environment.plain.clone(),
            secrets: environment.secrets.clone(),
            workdir: self.process.workdir.clone(),
            user: self.process.user.clone(),
            ..self.machine.to_spec()?
        })
    }
}

/// Makes or starts the instance; attaches on the way where a wiring is given.
async fn start(
    context: &Context,
    args: &Args,
    environment: &Environment,
    progress: &Progress,
    wiring: Option<&Wiring>,
) -> Result<Launch, Failure> {
    let mut spec = args.spec(environment)?;
    let name = args.name.as_deref().unwrap_or_default();
    let client = context.aegisd().await?;
    args.image.apply(&client, &mut spec).await?;
    let found = match find(&client, name).await? {
        Some(instance) if args.replace => {
            replace(&client, &instance, name, progress).await?;
            None
        }
        Some(instance) => {
            refuse_differences(&instance, name, &spec).await?;
            Some(instance)
        }
        None => None,
    };
    let (instance, started, session) = match found {
        Some(instance) => {
            let starting = start_existing(&client, &instance, name, progress);
            let (started, session) = with_terminal(&instance, wiring, name, starting).await?;
            (instance, started, session)
        }
        None => {
            let wanted = Wanted {
                context,
                client: &client,
                flags: &args.image,
                spec: &spec,
                insecure: args.machine.insecure,
            };
            wanted.pull_first(progress).await?;
            let created = create(&client, name, &spec, environment, progress, wiring).await;
            match created {
                Err(failure) if wanted.can_pull(&failure) => {
                    wanted.pull(progress).await?;
                    create(&client, name, &spec, environment, progress, wiring).await?
                }
                created => created?,
            }
        }
    };
    Ok(Launch {
        client,
        instance,
        started,
        session,
    })
}

/// Attaches while something starts. Why a start failed is more than that there is
/// nothing to attach to.
async fn with_terminal(
    instance: &InstanceProxy<'static>,
    wiring: Option<&Wiring>,
    name: &str,
    starting: impl Future<Output = Result<Started, Failure>>,
) -> Result<(Started, Option<Session>), Failure> {
    let Some(wiring) = wiring else {
        return Ok((starting.await?, None));
    };
    let what = format!("attach to '{name}'");
    tokio::pin!(starting);
    let attaching = attach::open(instance, wiring, &what);
    tokio::pin!(attaching);
    tokio::select! {
        // Asked first, so that aegisd knows of the start when it is asked to attach.
        biased;
        started = &mut starting => {
            let started = started?;
            Ok((started, Some(attaching.await?)))
        }
        session = &mut attaching => match session {
            Ok(session) => Ok((starting.await?, Some(session))),
            // The start may not have been known yet.
            Err(_) => {
                let started = starting.await?;
                Ok((started, Some(attach::open(instance, wiring, &what).await?)))
            }
        },
    }
}

async fn find(client: &Client, name: &str) -> Result<Option<InstanceProxy<'static>>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    match client.instance(name, &format!("start '{name}'")).await {
        Ok(instance) => Ok(Some(instance)),
        Err(failure) if failure.is(Symbol::NotFound) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// An instance that exists keeps its settings; asking for others must not be ignored.
async fn refuse_differences(
    instance: &InstanceProxy<'_>,
    name: &str,
    spec: &SpecRequest,
) -> Result<(), Failure> {
    let found = instance.compare(&spec.to_dict()).await;
    let found = found.map_err(Failure::call(format!("start '{name}'")))?;
    if found.is_empty() {
        return Ok(());
    }
    let handle = names::instance_of(instance.inner().path());
    let differences = found
        .into_iter()
        .map(|(name, have, asked)| Difference { name, have, asked });
    Err(Failure::Differs {
        handle: handle.map(String::from).unwrap_or_default(),
        differences: differences.collect(),
    })
}

/// Removes what has the name, as `instance delete` does.
async fn replace(
    client: &Client,
    instance: &InstanceProxy<'static>,
    name: &str,
    progress: &Progress,
) -> Result<(), Failure> {
    let what = format!("replace '{name}'");
    let options = DeleteOptions { purge: false }.to_dict();
    let deleted = job::perform(client, &what, progress, async || {
        instance.delete(&options).await
    });
    deleted.await.map(drop)
}

async fn start_existing(
    client: &Client,
    instance: &InstanceProxy<'static>,
    name: &str,
    progress: &Progress,
) -> Result<Started, Failure> {
    let what = format!("start '{name}'");
    let options = Dict::new();
    let start = async || instance.start(&options).await;
    let state = match job::perform(client, &what, progress, start).await {
        Err(failure) if failure.is(Symbol::Disabled) => {
            job::perform(client, &what, progress, async || instance.enable().await).await?;
            job::perform(client, &what, progress, start).await?;
            JobState::Done
        }
        outcome => outcome?,
    };
    Ok(Started::Existing(state))
}

async fn create(
    client: &Client,
    name: &str,
    spec: &SpecRequest,
    environment: &Environment,
    progress: &Progress,
    wiring: Option<&Wiring>,
) -> Result<(InstanceProxy<'static>, Started, Option<Session>), Failure> {
    let what = match name {
        "" => "make an instance".to_owned(),
        name => format!("make the instance '{name}'"),
    };
    let mut spec = spec.to_dict();
    environment.pass(&mut spec)?;
    let mut watch = JobWatch::start(client).await?;
    let created = client
        .manager()
        .await?
        .create_instance(name, &spec, &CreateOptions::default().to_dict())
        .await;
    let (path, job) = created.map_err(Failure::call(what.as_str()))?;
    let instance = client.instance_at(path).await?;
    let starting = async {
        match watch.wait(&job, &what, progress).await {
            // The intent is written before anything is started: it is there, and aegisd carries on.
            Err(failure) if failure.is_vanished() && !name.is_empty() => {
                start_existing(client, &instance, name, progress).await?;
            }
            outcome => {
                outcome?;
            }
        }
        Ok(Started::Created)
    };
    let (started, session) = with_terminal(&instance, wiring, name, starting).await?;
    Ok((instance, started, session))
}

async fn warn_of_logout(context: &Context, client: &Client) {
    if context.mode != Mode::User {
        return;
    }
    let Ok(manager) = client.manager().await else {
        return;
    };
    // Advice alone: without an answer there is none to give.
    if manager.lingering().await.is_ok_and(|lingering| !lingering) {
        context.ui.note(
            "note: lingering is off, so your instances end when you log out\n\
             hint: loginctl enable-linger",
        );
    }
}
