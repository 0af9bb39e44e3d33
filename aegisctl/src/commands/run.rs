//! `run`: a fresh microVM for one command, which leaves nothing behind.
//!
//! ```text
//!  CreateInstance ──► job, Exec ──► session ──► the object is gone ──► exit
//!                      └ a signal, a failure ──► Delete ──┘
//! ```
//!
//! The command is asked for while the VM starts, so that nothing is asked for when the
//! guest is ready: the VM's owner keeps it until then.

use std::time::Duration;

use aegis_bus::dict::Dict;
use aegis_bus::instance::{DeleteOptions, InstanceProxy};
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_bus::names;
use aegis_core::fault::Symbol;
use futures_util::StreamExt;
use zbus::OwnedObjectPath;
use zbus::fdo::InterfacesRemovedStream;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::flags::{ImageFlags, MachineFlags, ProcessFlags, StreamFlags};
use crate::images::Wanted;
use crate::job::{self, JobWatch};
use crate::session::{self, Carried, Session, Signals};
use crate::ui::Progress;

/// How long the instance may take to vanish by itself once its command has
/// ended: an orderly stop of the guest takes seconds on a slow host.
const VANISH_DEADLINE: Duration = Duration::from_secs(30);

/// Run a command in a fresh microVM that is gone afterwards
///
/// stdin is passed on, as ssh does. Signals (Ctrl-C) go to the command in the
/// guest; the third one ends aegisctl whatever the guest does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineFlags,
    #[command(flatten)]
    process: ProcessFlags,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    streams: StreamFlags,
    /// The command and its arguments; without one the image's own
    #[arg(last = true, required_unless_present = "image", value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let wiring = args.streams.wiring()?;
    let (options, mut exec) = args.process.exec_options(context, wiring.size()).await?;
    exec.insert("of-image".to_owned(), true.into());
    // In the spec too, so that what no guest could take is refused before there is one.
    let spec = SpecRequest {
        ephemeral: true,
        env: options.env.clone(),
        workdir: options.workdir.clone(),
        user: options.user.clone(),
        ..args.machine.to_spec()?
    };
    let mut signals = Signals::catch()?;
    let progress = context.ui.progress("Starting a microVM");
    let mut machine = tokio::select! {
        biased;
        // aegisd deletes what it made for a caller that leaves the bus.
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        machine = progress.during(Box::pin(Machine::obtain(context, &args, spec, &progress))) => machine?,
    };
    let opened = tokio::select! {
        biased;
        signal = signals.next_end() => Err(Ok(exit_code::of_signal(signal as i32))),
        session = progress.during(machine.open(&args.command, &exec, &progress)) => session.map_err(Err),
    };
    drop(progress);
    let cleanup = context.ui.progress("Removing the microVM");
    match opened {
        Ok(session) => {
            let code = session::carry(session, wiring, &mut signals).await;
            tokio::select! {
                biased;
                // Who asks again to end does not want to wait; the VM ends all the same.
                _ = signals.next_end() => {}
                left = cleanup.during(machine.vanish(&cleanup)) => left?,
            }
            code.map(Carried::code)
        }
        Err(code) => {
            cleanup.during(machine.delete(&cleanup)).await?;
            code
        }
    }
}

/// The instance of this run.
struct Machine {
    client: Client,
    path: OwnedObjectPath,
    instance: InstanceProxy<'static>,
    watch: JobWatch,
    /// The job that starts it.
    job: OwnedObjectPath,
    removed: InterfacesRemovedStream,
}

impl Machine {
    /// Makes it, with its image pulled first where that has to be.
    async fn obtain(
        context: &Context,
        args: &Args,
        mut spec: SpecRequest,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let client = context.aegisd().await?;
        args.image.apply(&client, &mut spec).await?;
        let wanted = Wanted {
            context,
            client: &client,
            flags: &args.image,
            spec: &spec,
            insecure: args.machine.insecure,
        };
        wanted.pull_first(progress).await?;
        match Self::create(client.clone(), &spec).await {
            Err(failure) if wanted.can_pull(&failure) => {
                wanted.pull(progress).await?;
                Self::create(client.clone(), &spec).await
            }
            made => made,
        }
    }

    async fn create(client: Client, spec: &SpecRequest) -> Result<Self, Failure> {
        let removed = async {
            client
                .object_manager()
                .await?
                .receive_interfaces_removed()
                .await
        };
        let removed = removed.await.map_err(Failure::call("watch aegisd"))?;
        let watch = JobWatch::start(&client).await?;
        let options = CreateOptions {
            foreground_owner: true,
            ..CreateOptions::default()
        };
        let created = client
            .manager()
            .await?
            .create_instance("", &spec.to_dict(), &options.to_dict())
            .await;
        let (path, job) = created.map_err(Failure::call("make a microVM"))?;
        Ok(Self {
            instance: client.instance_at(path.clone()).await?,
            client,
            path,
            watch,
            job,
            removed,
        })
    }

    /// Starts the command in the guest once there is one.
    async fn open(
        &mut self,
        command: &[String],
        options: &Dict,
        progress: &Progress,
    ) -> Result<Session, Failure> {
        let argv: Vec<_> = command.iter().map(String::as_str).collect();
        let asked = async {
            let descriptors = self.instance.exec(&argv, options).await;
            descriptors
                .map(Session::from)
                .map_err(Failure::call("run the command"))
        };
        let starting = self.watch.wait(&self.job, "start the microVM", progress);
        tokio::pin!(asked, starting);
        tokio::select! {
            biased;
            started = &mut starting => {
                started?;
                asked.await
            }
            session = &mut asked => match session {
                Ok(session) => Ok(session),
                Err(failure) => {
                    // Why the VM did not start is more than that nothing can run in it.
                    starting.await?;
                    Err(failure)
                }
            },
        }
    }

    /// Waits until the instance is gone; helps if it does not go by itself.
    async fn vanish(&mut self, progress: &Progress) -> Result<(), Failure> {
        let gone = async {
            if !self.exists().await {
                return;
            }
            while let Some(signal) = self.removed.next().await {
                let of_ours = signal
                    .args()
                    .is_ok_and(|args| args.object_path.as_str() == self.path.as_str());
                if of_ours {
                    return;
                }
            }
        };
        match tokio::time::timeout(VANISH_DEADLINE, gone).await {
            Ok(()) => Ok(()),
            Err(_) => self.delete(progress).await,
        }
    }

    async fn exists(&self) -> bool {
        let properties = self
            .client
            .properties(self.path.clone(), names::INSTANCE)
            .await;
        !properties.is_err_and(|error| job::is_unknown_object(&error))
    }

    async fn delete(&self, progress: &Progress) -> Result<(), Failure> {
        let options = DeleteOptions { purge: true }.to_dict();
        let deleted = job::perform(&self.client, "remove the microVM", progress, async || {
            self.instance.delete(&options).await
        });
        match deleted.await {
            Err(failure) if failure.is(Symbol::NotFound) => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}
