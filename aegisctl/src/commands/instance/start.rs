//! `instance start`: a new instance, or one that exists.

use aegis_bus::dict::Dict;
use aegis_bus::instance::InstanceProxy;
use aegis_bus::job::JobState;
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_bus::names;
use aegis_core::fault::Symbol;
use aegis_core::layout::Mode;
use serde_json::json;

use super::{outcome_of, to_json};
use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::{MachineFlags, ProcessFlags};
use crate::job::{self, JobWatch};
use crate::ui::Progress;

/// Start an instance; one that does not exist yet is made
///
/// An instance keeps the settings it was made with: for one that exists give
/// only its name. One that is disabled is enabled.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make it from this kit; explicit flags win over the kit's defaults
    #[arg(long)]
    kit: Option<String>,
    /// Its name; without one AegisVM chooses
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    machine: MachineFlags,
    #[command(flatten)]
    process: ProcessFlags,
    /// The command it runs after boot, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let spec = args.spec()?;
    let name = args.name.as_deref().unwrap_or_default();
    let progress = context.ui.progress("Starting the instance");
    let start = async {
        let client = context.aegisd().await?;
        let (instance, started) = match find(&client, name).await? {
            Some(instance) => {
                args.refuse_settings(&instance)?;
                let started = start_existing(&client, &instance, name, &progress).await?;
                (instance, started)
            }
            None => create(&client, name, &spec, &progress).await?,
        };
        let view = client.view(&instance).await?;
        Ok::<_, Failure>((client, view, started))
    };
    let (client, view, started) = progress.during(start).await?;
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
    warn_of_logout(context, &client).await;
    Ok(exit_code::OK)
}

/// What had to be done.
#[derive(Clone, Copy)]
enum Started {
    Created,
    Existing(JobState),
}

impl Args {
    fn spec(&self) -> Result<SpecRequest, Failure> {
        Ok(SpecRequest {
            kit: self.kit.clone(),
            command: (!self.command.is_empty()).then(|| self.command.clone()),
            env: self.process.env()?,
            workdir: self.process.workdir.clone(),
            user: self.process.user.clone(),
            ..self.machine.to_spec()?
        })
    }

    /// An instance that exists keeps its settings; asking for others must not be ignored.
    fn refuse_settings(&self, instance: &InstanceProxy<'_>) -> Result<(), Failure> {
        let command = (!self.command.is_empty()).then_some("a command");
        let kit = self.kit.is_some().then_some("--kit");
        let flag = kit
            .or_else(|| self.machine.given())
            .or_else(|| self.process.given())
            .or(command);
        match flag {
            None => Ok(()),
            Some(flag) => {
                // Its name as it was made: handles are found without regard to case.
                let handle = names::instance_of(instance.inner().path());
                Err(Failure::Exists {
                    handle: handle.map(String::from).unwrap_or_default(),
                    flag,
                })
            }
        }
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
    progress: &Progress,
) -> Result<(InstanceProxy<'static>, Started), Failure> {
    let what = match name {
        "" => "make an instance".to_owned(),
        name => format!("make the instance '{name}'"),
    };
    let mut watch = JobWatch::start(client).await?;
    let created = client
        .manager()
        .await?
        .create_instance(name, &spec.to_dict(), &CreateOptions::default().to_dict())
        .await;
    let (path, job) = created.map_err(Failure::call(what.as_str()))?;
    let instance = client.instance_at(path).await?;
    match watch.wait(&job, &what, progress).await {
        // The intent is written before anything is started: it is there, and aegisd carries on.
        Err(failure) if failure.is_vanished() && !name.is_empty() => {
            start_existing(client, &instance, name, progress).await?;
        }
        outcome => {
            outcome?;
        }
    }
    Ok((instance, Started::Created))
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
