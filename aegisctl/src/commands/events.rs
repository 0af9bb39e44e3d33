//! `events`: what happens, as aegisd tells it by D-Bus signals.
//!
//! ```text
//!  bus ── InterfacesAdded/Removed, PropertiesChanged, NameOwnerChanged ──► Known ──► lines
//!                                                 new aegisd: all objects ──┘
//! ```
//!
//! What is known is only needed to tell what a change changed, and what changed
//! while aegisd was away.

mod known;

use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_bus::dict::Dict;
use aegis_bus::names;
use clap::ValueEnum;
use futures_util::StreamExt;
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream};

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::listing::{self, Format, FormatFlags};
use crate::session::Signals;
use crate::ui::{JSON_VERSION, Ui, clean, local};
use known::{Event, Kind, Known};

/// Signals kept while a line is printed: more than a burst of hundreds of
/// instances that change at once.
const QUEUE: NonZeroUsize = NonZeroUsize::new(8192).expect("8192 is not zero");

/// Show what happens to instances and kits from now on, until Ctrl-C
///
/// On a terminal a line for each event, otherwise with --json a JSON object. The
/// past is not kept: `logs --all` shows it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only such events: type=instance|kit|aegisd, name=NAME or event=created|deleted|changed|state|started|ended; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<EventFilter>,
    #[command(flatten)]
    format: FormatFlags,
}

/// A condition on events. Values of one key are alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum EventFilter {
    Type(Kind),
    Name(String),
    Event(String),
}

/// Why a condition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum EventFilterError {
    #[error("not KEY=VALUE; known keys are type, name and event")]
    Shape,
    #[error("there is no type '{0}'; known are instance, kit and aegisd")]
    Type(String),
    #[error("there is no event '{0}'; known are {known}", known = known::WORDS.join(", "))]
    Event(String),
}

impl std::str::FromStr for EventFilter {
    type Err = EventFilterError;

    fn from_str(text: &str) -> Result<Self, EventFilterError> {
        let (key, value) = text.split_once('=').ok_or(EventFilterError::Shape)?;
        let owned = value.to_owned();
        match key {
            "type" => Kind::from_str(value, false)
                .map(Self::Type)
                .map_err(|_| EventFilterError::Type(owned)),
            "name" | "handle" | "instance" => Ok(Self::Name(owned)),
            "event" if known::WORDS.contains(&value) => Ok(Self::Event(owned)),
            "event" => Err(EventFilterError::Event(owned)),
            _ => Err(EventFilterError::Shape),
        }
    }
}

impl EventFilter {
    fn key(&self) -> u8 {
        match self {
            Self::Type(_) => 0,
            Self::Name(_) => 1,
            Self::Event(_) => 2,
        }
    }

    fn holds(&self, event: &Event) -> bool {
        match self {
            Self::Type(kind) => event.kind == *kind,
            Self::Name(name) => event.name == *name,
            Self::Event(word) => event.word == word,
        }
    }
}

fn is_meant(filters: &[EventFilter], event: &Event) -> bool {
    filters.iter().all(|filter| {
        filters
            .iter()
            .any(|other| other.key() == filter.key() && other.holds(event))
    })
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let progress = context.ui.progress("Asking aegisd");
    let begin = async {
        let client = context.aegisd().await?;
        // Followed before the first look, so that nothing falls between the two.
        let signals = follow(&client)
            .await
            .map_err(Failure::call("watch aegisd"))?;
        let mut known = Known::default();
        known.look(&client).await?;
        Ok::<_, Failure>((client, signals, known))
    };
    let (client, mut signals, mut known) = progress.during(begin).await?;
    drop(progress);
    context.ui.note("Waiting for events; Ctrl-C ends it");
    let mut ends = Signals::catch()?;
    let show = async {
        while let Some(message) = signals.next().await {
            let message = message.map_err(Failure::call("watch aegisd"))?;
            for event in read(&message, &client, &mut known).await? {
                if is_meant(&args.filter, &event) {
                    print(context.ui, &args.format, &event)?;
                }
            }
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        biased;
        _ = ends.next_end() => Ok(exit_code::OK),
        end = show => end.map(|()| exit_code::OK),
    }
}

async fn follow(
    client: &Client,
) -> zbus::Result<impl futures_util::Stream<Item = zbus::Result<Message>> + Unpin + use<>> {
    let ours = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(names::BUS_NAME)
        .path_namespace(names::ROOT_PATH)
        .build()?;
    let owner = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, names::BUS_NAME)
        .build()?;
    let ours = MessageStream::for_match_rule(ours, &client.connection, Some(QUEUE)).await?;
    let owner = MessageStream::for_match_rule(owner, &client.connection, None).await?;
    Ok(futures_util::stream::select(ours, owner))
}

/// What a signal tells.
async fn read(
    message: &Message,
    client: &Client,
    known: &mut Known,
) -> Result<Vec<Event>, Failure> {
    type Added = (
        zbus::OwnedObjectPath,
        std::collections::HashMap<String, Dict>,
    );
    type Removed = (zbus::OwnedObjectPath, Vec<String>);
    type Changed = (String, Dict, Vec<String>);
    let header = message.header();
    let (Some(member), Some(path)) = (header.member(), header.path()) else {
        return Ok(Vec::new());
    };
    let body = message.body();
    Ok(match member.as_str() {
        "NameOwnerChanged" => {
            let owners: zbus::Result<(String, String, String)> = body.deserialize();
            match owners {
                Ok((_, _, after)) if after.is_empty() => vec![Event::of_aegisd("ended")],
                Ok(_) => {
                    // What it made of its registry may be other than what it left.
                    let mut events = vec![Event::of_aegisd("started")];
                    events.extend(known.look(client).await?);
                    events
                }
                Err(_) => Vec::new(),
            }
        }
        "InterfacesAdded" => match body.deserialize::<Added>() {
            Ok((path, mut interfaces)) => known.added(path.as_str(), &mut interfaces),
            Err(_) => Vec::new(),
        },
        "InterfacesRemoved" => match body.deserialize::<Removed>() {
            Ok((path, interfaces)) => known.removed(path.as_str(), &interfaces),
            Err(_) => Vec::new(),
        },
        "PropertiesChanged" => match body.deserialize::<Changed>() {
            Ok((interface, changed, _)) => known.changed(path.as_str(), &interface, changed),
            Err(_) => Vec::new(),
        },
        _ => Vec::new(),
    })
}

fn print(ui: Ui, format: &FormatFlags, event: &Event) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let time_us = u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
    let mut row = event.to_json();
    if let Some(object) = row.as_object_mut() {
        object.insert("version".to_owned(), JSON_VERSION.into());
        object.insert("time_us".to_owned(), time_us.into());
    }
    match &format.format {
        Some(Format::Lines(template) | Format::Table(template)) => {
            ui.text(&listing::line(template, &row)?)
        }
        Some(Format::Json) => ui.text(&format!("{row}\n")),
        None if ui.wants_json() => ui.text(&format!("{row}\n")),
        None => {
            let (kind, name) = (event.kind.word(), clean(&event.name));
            let words = clean(&event.words());
            let time = local(time_us);
            let line = format!("{time}  {kind}  {name}  {}  {words}", event.word);
            ui.text(&format!("{}\n", line.trim_end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_one_key_are_alternatives() {
        let started = Event::of_aegisd("started");
        let meant = |conditions: &[&str]| {
            let parsed = conditions.iter().map(|text| text.parse().unwrap());
            is_meant(&parsed.collect::<Vec<_>>(), &started)
        };
        assert!(meant(&[]));
        assert!(meant(&["type=kit", "type=aegisd"]));
        assert!(!meant(&["type=aegisd", "event=ended"]));
        assert!(!meant(&["name=web"]));
    }

    #[test]
    fn what_is_no_condition_says_what_is() {
        for text in ["web", "size=1", "type=vm", "event=moved"] {
            let error = text.parse::<EventFilter>().unwrap_err().to_string();
            assert!(error.contains("known"), "{error}");
        }
    }
}
