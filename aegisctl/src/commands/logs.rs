//! `logs`: what the instance's command and its daemons wrote, in the order of time.
//!
//! ```text
//!  command.log (files opened by aegisd) ─┐
//!  journal (journalctl), if asked for    ├─► merge by time ─► since, until, tail ─► print
//!  the same of further instances ────────┘        then, with --follow, as it comes
//! ```
//!
//! aegisd opens the files and is not needed while they are followed; after a
//! rotation it is asked for the new one. The journal is read with the rights of
//! who asks.

mod entry;
mod follow;
mod journal;
mod merge;
mod print;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_bus::dict::Dict;
use aegis_bus::instance::InstanceView;
use aegis_core::fault::Symbol;
use futures_util::StreamExt;

use crate::cli::Context;
use crate::client::Client;
use crate::exit_code;
use crate::failure::Failure;
use crate::moment::Moment;
use crate::session::Signals;

use entry::Entry;
use follow::Follower;
use journal::Journal;
use print::Printer;

/// Show what the command and the daemons of instances wrote
///
/// Lines of daemons begin with their name in brackets. What the command wrote to
/// stderr goes to stderr. With --json every line is a record.
#[derive(Debug, clap::Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Args {
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Go on with what they write from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since: 10m or -1h for so long ago, a date, RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only what was written until then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Moment>,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Begin every line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Only what the command wrote
    #[arg(long, conflicts_with_all = ["daemon", "all"])]
    command: bool,
    /// Only what this daemon wrote; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    daemon: Vec<String>,
    /// What AegisVM and the service manager say about the instance as well
    #[arg(long)]
    all: bool,
}

/// One instance whose log is shown.
struct Source {
    view: InstanceView,
    /// Its command's log, unless only daemons are asked for.
    command: Option<Follower>,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let now_us = now_us();
    let window = Window {
        since_us: args.since.map(|since| since.at_us(now_us)),
        until_us: args.until.map(|until| until.at_us(now_us)),
    };
    let progress = context.ui.progress("Asking aegisd");
    let client = progress.during(context.aegisd()).await?;
    let mut sources = progress.during(open(&client, &args)).await?;
    drop(progress);
    let mut journal = args.journal(context, &sources)?;
    let mut printer = Printer::new(context.ui, args.timestamps, sources.len() > 1);
    if args.daemon.len() == 1 && sources.len() == 1 {
        printer.spare_prefix();
    }
    if let Err(failure) = history(&args, &window, &mut sources, &mut journal, &mut printer) {
        // Without the journal there is still the command's log, unless the journal
        // is what was asked for.
        let is_journal = matches!(failure, Failure::Journal(_) | Failure::Journalctl(_));
        if !is_journal || args.needs_journal() {
            return Err(failure);
        }
        context.ui.note(&format!(
            "note: {}; its daemons' lines are left out",
            failure.message()
        ));
        journal = None;
        let mut sources_again = open(&client, &args).await?;
        std::mem::swap(&mut sources, &mut sources_again);
        history(&args, &window, &mut sources, &mut journal, &mut printer)?;
    }
    let is_over = window.until_us.is_some_and(|until| until <= now_us);
    if !args.follow || is_over {
        return Ok(exit_code::OK);
    }
    let mut signals = Signals::catch()?;
    tokio::select! {
        biased;
        _ = signals.next_end() => Ok(exit_code::OK),
        () = reached(&window, now_us) => Ok(exit_code::OK),
        end = follow_all(&client, &window, sources, journal, printer) => {
            end.map(|()| exit_code::OK)
        }
    }
}

impl Args {
    /// Whether lines of the journal are what was asked for, and not an addition.
    fn needs_journal(&self) -> bool {
        self.all || !self.daemon.is_empty()
    }

    /// What of the journal is to be read; nothing, where nothing can be in it.
    fn journal(&self, context: &Context, sources: &[Source]) -> Result<Option<Journal>, Failure> {
        if self.command {
            return Ok(None);
        }
        let mut journal = Journal::new(context.mode);
        for Source { view, .. } in sources {
            for name in &self.daemon {
                if !view.daemons.iter().any(|daemon| daemon.name == *name) {
                    return Err(Failure::NoDaemon {
                        handle: view.handle.clone(),
                        daemon: name.clone(),
                    });
                }
            }
            let wanted = view
                .daemons
                .iter()
                .filter(|daemon| self.daemon.is_empty() || self.daemon.contains(&daemon.name));
            for daemon in wanted {
                journal.add_daemon(&view.handle, &daemon.name, &daemon.unit, self.all);
            }
            if self.all {
                journal.add_vm(&view.handle, [&view.unit, &view.socket_unit]);
            }
        }
        Ok(Some(journal).filter(|journal| !journal.is_empty()))
    }
}

/// Which times are shown, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since_us: Option<u64>,
    until_us: Option<u64>,
}

impl Window {
    fn holds(&self, entry: &Entry) -> bool {
        self.since_us.is_none_or(|since| entry.time_us >= since)
            && self.until_us.is_none_or(|until| entry.time_us <= until)
    }
}

async fn open(client: &Client, args: &Args) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for name in &args.names {
        let what = format!("read the log of '{name}'");
        let instance = client.instance(name, &what).await?;
        let view = client.view(&instance).await?;
        let command = if args.daemon.is_empty() {
            let mut follower = Follower::default();
            follower.open(files(client, &view.handle).await?)?;
            Some(follower)
        } else {
            None
        };
        sources.push(Source { view, command });
    }
    Ok(sources)
}

async fn files(client: &Client, handle: &str) -> Result<Vec<zbus::OwnedFd>, Failure> {
    let what = format!("read the log of '{handle}'");
    let instance = client.instance(handle, &what).await?;
    let opened = instance.open_logs(&Dict::new()).await;
    opened.map_err(Failure::call(what))
}

/// Prints what is there.
fn history(
    args: &Args,
    window: &Window,
    sources: &mut [Source],
    journal: &mut Option<Journal>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    // Asked for first: a journal that cannot be read is known before a line is printed.
    let mut past = match journal {
        Some(journal) => Some(journal.past(window.since_us, window.until_us)?),
        None => None,
    };
    let mut inputs: Vec<Box<dyn Iterator<Item = Result<Entry, Failure>> + '_>> = Vec::new();
    for Source { view, command } in sources.iter_mut() {
        let handle = view.handle.clone();
        if let Some(follower) = command {
            inputs.push(Box::new(follower.entries(handle)));
        }
    }
    if let Some(past) = &mut past {
        inputs.push(Box::new(past));
    }
    let merged = merge::by_time(inputs)
        .filter(|entry| entry.as_ref().map_or(true, |entry| window.holds(entry)));
    match args.tail {
        None => {
            for entry in merged {
                printer.print(&entry?)?;
            }
        }
        Some(count) => {
            for entry in merge::last(merged, count)? {
                printer.print(&entry)?;
            }
        }
    }
    if let (Some(journal), Some(past)) = (journal, past) {
        journal.continue_after(past);
    }
    Ok(())
}

async fn follow_all(
    client: &Client,
    window: &Window,
    sources: Vec<Source>,
    journal: Option<Journal>,
    printer: Printer,
) -> Result<(), Failure> {
    let printer = std::cell::RefCell::new(printer);
    let print = |entry: Entry| match window.holds(&entry) {
        true => printer.borrow_mut().print(&entry),
        false => Ok(()),
    };
    let instances = sources
        .into_iter()
        .map(|source| follow_instance(client, source, &print));
    // It is over when every instance is gone.
    let instances = futures_util::future::try_join_all(instances);
    let lines = async {
        let Some(journal) = journal else {
            return std::future::pending().await;
        };
        let mut lines = journal.future()?;
        while let Some(entry) = lines.next().await? {
            print(entry)?;
        }
        Err(lines.failure().await)
    };
    tokio::select! {
        biased;
        gone = instances => gone.map(drop),
        failed = lines => failed,
    }
}

/// Until the instance is gone, and with it its log.
async fn follow_instance(
    client: &Client,
    source: Source,
    print: &impl Fn(Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let handle = source.view.handle;
    let Some(mut follower) = source.command else {
        return wait_until_gone(client, &handle).await;
    };
    loop {
        if follower.is_at_end_of_file() {
            match files(client, &handle).await {
                Ok(opened) => follower.open(opened)?,
                Err(failure) if failure.is(Symbol::NotFound) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
        for entry in follower.entries(handle.clone()) {
            print(entry?)?;
        }
        follower.changed().await?;
    }
}

async fn wait_until_gone(client: &Client, handle: &str) -> Result<(), Failure> {
    let what = format!("follow '{handle}'");
    let removed = async {
        let objects = client.object_manager().await?;
        objects.receive_interfaces_removed().await
    };
    let mut removed = removed.await.map_err(Failure::call(what.as_str()))?;
    loop {
        match client.instance(handle, &what).await {
            Ok(_) => {}
            Err(failure) if failure.is(Symbol::NotFound) => return Ok(()),
            Err(failure) => return Err(failure),
        }
        if removed.next().await.is_none() {
            return Ok(());
        }
    }
}

async fn reached(window: &Window, now_us: u64) {
    match window.until_us {
        Some(until) => {
            tokio::time::sleep(Duration::from_micros(until.saturating_sub(now_us))).await;
        }
        None => std::future::pending().await,
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}
