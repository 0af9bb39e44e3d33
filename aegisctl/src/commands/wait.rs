//! `wait`: until an instance is as it should be, by signals.

use std::time::Duration;

use aegis_bus::instance::{DaemonState, InstanceProxy, InstanceView, LastExit};
use aegis_bus::names;
use aegis_core::duration::Span;
use aegis_core::fault::Symbol;
use clap::ValueEnum;
use futures_util::StreamExt;
use serde_json::{Value, json};
use zbus::message::Type;
use zbus::{MatchRule, MessageStream};

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::job;

/// Wait until instances are stopped, or as --condition says
///
/// Prints for each the exit code with which its command last ended: the code,
/// 128+n for signal n, or `-` if it never ended.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// What to wait for
    #[arg(long, value_enum, default_value_t = Condition::Stopped)]
    condition: Condition,
    /// Give up after this long, e.g. 30s or 5m
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// No VM runs: stopped, disabled or failed
    Stopped,
    /// The guest answers
    Running,
    /// The guest answers and every daemon runs or has ended with success
    Ready,
    /// There is no such instance any more
    Deleted,
}

impl Condition {
    fn holds(self, view: &InstanceView) -> bool {
        let runs = view.state == "running";
        let up = |state| matches!(state, DaemonState::Running | DaemonState::Exited);
        match self {
            Self::Stopped => matches!(view.state.as_str(), "stopped" | "disabled" | "failed"),
            Self::Running => runs,
            Self::Ready => runs && view.daemons.iter().all(|daemon| up(daemon.state)),
            Self::Deleted => false,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Stopped => "stop",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Deleted => "deletion",
        }
    }
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Waiting");
    let client = progress.during(context.aegisd()).await?;
    let mut waited = Vec::new();
    let wait = async {
        for name in &args.names {
            waited.push(wait_for(&client, name, args.condition).await?);
        }
        Ok::<_, Failure>(())
    };
    let limit = args.timeout.map_or(Duration::MAX, |span| span.0);
    match tokio::time::timeout(limit, progress.during(wait)).await {
        Ok(done) => done?,
        Err(_) => {
            let name = &args.names[waited.len().min(args.names.len() - 1)];
            return Err(Failure::WaitedInVain {
                what: format!("the {} of '{name}'", args.condition.words()),
                seconds: limit.as_secs(),
            });
        }
    }
    context.ui.data(
        || json!({"instances": waited.iter().map(Waited::to_json).collect::<Vec<_>>()}),
        || waited.iter().map(Waited::line).collect(),
    )?;
    Ok(exit_code::OK)
}

/// How one instance was found in the end.
struct Waited {
    handle: String,
    state: String,
    exit: Option<LastExit>,
}

impl Waited {
    fn code(&self) -> Option<i32> {
        let exit = self.exit.as_ref()?;
        exit.code.or(exit.signal.map(|signal| 128 + signal))
    }

    fn line(&self) -> String {
        self.code()
            .map_or_else(|| "-\n".to_owned(), |code| format!("{code}\n"))
    }

    fn to_json(&self) -> Value {
        json!({"handle": self.handle, "state": self.state, "exit_code": self.code()})
    }
}

/// Follows one instance. The signals are asked for before the first look, so no
/// change falls between the two.
async fn wait_for(client: &Client, name: &str, condition: Condition) -> Result<Waited, Failure> {
    let what = format!("wait for '{name}'");
    let instance = match client.instance(name, &what).await {
        Err(failure) if failure.is(Symbol::NotFound) && condition == Condition::Deleted => {
            return Ok(gone(name, None));
        }
        instance => instance?,
    };
    let mut signals = follow(client, &instance)
        .await
        .map_err(Failure::call(what.as_str()))?;
    let mut last = None;
    loop {
        let path = instance.inner().path().to_owned().into();
        match client.properties(path, names::INSTANCE).await {
            Ok(properties) => {
                let view = InstanceView::from_properties(properties)?;
                if condition.holds(&view) {
                    return Ok(Waited {
                        handle: view.handle,
                        state: view.state,
                        exit: view.last_exit,
                    });
                }
                last = Some(view);
            }
            Err(error) if job::is_unknown_object(&error) => {
                let handle = last.as_ref().map_or(name, |view| view.handle.as_str());
                let exit = last.as_ref().and_then(|view| view.last_exit.clone());
                return match condition {
                    // What is gone is stopped as well.
                    Condition::Deleted | Condition::Stopped => Ok(gone(handle, exit)),
                    _ => Err(Failure::Call {
                        what,
                        source: aegis_bus::error::CallError::Fault(aegis_core::fault::Fault::new(
                            Symbol::NotFound,
                            "it was deleted",
                        )),
                    }),
                };
            }
            Err(error) => return Err(Failure::call(what)(error)),
        }
        if signals.next().await.is_none() {
            return Err(Failure::Call {
                what,
                source: aegis_bus::error::CallError::Vanished,
            });
        }
    }
}

fn gone(handle: &str, exit: Option<LastExit>) -> Waited {
    Waited {
        handle: handle.to_owned(),
        state: "deleted".to_owned(),
        exit,
    }
}

/// Every change of the instance, its end, and the start of another aegisd.
async fn follow(
    client: &Client,
    instance: &InstanceProxy<'_>,
) -> zbus::Result<impl futures_util::Stream<Item = ()> + Unpin + use<>> {
    let changes = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(names::BUS_NAME)
        .path(instance.inner().path().to_owned())
        .build()?;
    let removals = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(names::BUS_NAME)
        .path(names::ROOT_PATH)
        .member("InterfacesRemoved")
        .build()?;
    let owner = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, names::BUS_NAME)
        .build()?;
    let connection = &client.connection;
    let changes = MessageStream::for_match_rule(changes, connection, None).await?;
    let removals = MessageStream::for_match_rule(removals, connection, None).await?;
    let owner = MessageStream::for_match_rule(owner, connection, None).await?;
    let objects = futures_util::stream::select(changes, removals);
    Ok(futures_util::stream::select(objects, owner).map(drop))
}
