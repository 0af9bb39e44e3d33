//! `cp`: files and trees between this host and a guest.
//!
//! ```text
//!  from the guest:  harness packs ──► stdout of a session ──► unpacked here, or a tar file
//!  into the guest:  packed here, or a tar file ──► stdin of a session ──► harness unpacks
//! ```
//!
//! The harness does the guest's part itself, so images without tar(1) serve as well.
//! What comes from a guest is not trusted: see `aegis_archive::unpack`.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use aegis_archive::pack::{PackOptions, pack};
use aegis_archive::unpack::{UnpackOptions, unpack};
use aegis_archive::{ArchiveError, Summary};
use aegis_bus::instance::ExecOptions;
use aegis_core::control::ExecEvent;
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::session::{self, Session, Signals, Transferred};
use crate::ui::clean;

/// The harness of the guest, as every process of it can reach it.
const HARNESS: &str = "/proc/1/exe";

/// Copy files between an instance and this host
///
/// One side is NAME:PATH, the other a local path, or - for a tar file on stdin or
/// stdout. As with docker cp: a folder that does not exist is made, into one that
/// exists the source is copied by its name, PATH/. means the content alone. Modes,
/// times, links and holes are kept. The instance is started or woken if need be.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to copy
    source: String,
    /// Where to
    destination: String,
    /// Keep owners too (uid and gid); on this host that takes root
    #[arg(short, long)]
    archive: bool,
    /// Copy what the source leads to, if it is a symbolic link
    #[arg(short = 'L', long)]
    follow_link: bool,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let (source, destination) = (Side::of(&args.source), Side::of(&args.destination));
    let copy = match (source, destination) {
        (Side::Guest { name, path }, to @ (Side::Host(_) | Side::Tar)) => {
            Copy::Out { name, path, to }
        }
        (from @ (Side::Host(_) | Side::Tar), Side::Guest { name, path }) => {
            Copy::In { name, path, from }
        }
        (Side::Guest { .. }, Side::Guest { .. }) => {
            return Err(Failure::CopyUsage(
                "both sides are instances; copy through here: aegisctl cp A:PATH - | aegisctl cp - B:PATH",
            ));
        }
        _ => return Err(Failure::CopyUsage("neither side is an instance")),
    };
    let mut signals = Signals::catch()?;
    let what = copy.words();
    let progress = context.ui.progress(&format!("Waking '{}'", copy.name()));
    let open = async {
        let client = context.aegisd().await?;
        let instance = client.instance(copy.name(), &what).await?;
        let argv = copy.command(&args);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let options = ExecOptions {
            user: Some("0:0".to_owned()),
            workdir: Some("/".to_owned()),
            ..ExecOptions::default()
        };
        let descriptors = instance.exec(&argv, &options.to_dict()).await;
        Ok::<Session, Failure>(descriptors.map_err(Failure::call(what.as_str()))?.into())
    };
    let session = tokio::select! {
        biased;
        signal = signals.next_end() => return Ok(exit_code::of_signal(signal as i32)),
        session = progress.during(open) => session?,
    };
    drop(progress);
    let progress = context.ui.progress("Copying");
    let job = copy.job(&args);
    let carried = session::transfer(session, &mut signals, move |stdin, stdout, stop| {
        job(stdin, stdout, stop)
    });
    let transferred = progress.during(carried).await?;
    drop(progress);
    let summary = conclude(transferred, &what, &args.destination)?;
    // stdout may be the tar file itself.
    if matches!(copy, Copy::Out { to: Side::Tar, .. }) {
        return Ok(exit_code::OK);
    }
    let skipped = summary.skipped;
    if skipped > 0 {
        let note = format!("note: {skipped} sockets and devices were left out");
        context.ui.note(&note);
    }
    if context.ui.wants_json() {
        let row = json!({"entries": summary.entries, "bytes": summary.bytes, "skipped": skipped});
        context.ui.data(|| row, String::new)?;
    }
    Ok(exit_code::OK)
}

/// One side of a copy, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Guest { name: String, path: String },
    Host(PathBuf),
    Tar,
}

impl Side {
    fn of(text: &str) -> Self {
        if text == "-" {
            return Self::Tar;
        }
        match text.split_once(':') {
            // A path that begins like one is one, whatever is in it.
            Some((name, path))
                if !name.is_empty() && !name.contains('/') && !name.starts_with('.') =>
            {
                Self::Guest {
                    name: name.to_owned(),
                    // As with docker-cp(1) paths of a guest begin at its root.
                    path: match path.starts_with('/') {
                        true => path.to_owned(),
                        false => format!("/{path}"),
                    },
                }
            }
            _ => Self::Host(text.into()),
        }
    }
}

#[derive(Debug)]
enum Copy {
    Out {
        name: String,
        path: String,
        to: Side,
    },
    In {
        name: String,
        path: String,
        from: Side,
    },
}

type Job = Box<dyn FnOnce(File, File, &AtomicBool) -> Result<Summary, ArchiveError> + Send>;

impl Copy {
    fn name(&self) -> &str {
        let (Self::Out { name, .. } | Self::In { name, .. }) = self;
        name
    }

    /// Completes "cannot ...".
    fn words(&self) -> String {
        match self {
            Self::Out { name, path, .. } => format!("copy from '{name}:{path}'"),
            Self::In { name, path, .. } => format!("copy to '{name}:{path}'"),
        }
    }

    /// What the guest runs.
    fn command(&self, args: &Args) -> Vec<String> {
        let (verb, path) = match self {
            Self::Out { path, .. } => ("pack", path),
            Self::In { path, .. } => ("unpack", path),
        };
        let whole = matches!(
            self,
            Self::In {
                from: Side::Tar,
                ..
            }
        );
        let follow = args.follow_link && verb == "pack";
        let flags = [
            (
                args.archive || matches!(self, Self::Out { to: Side::Tar, .. }),
                "--owners",
            ),
            (whole, "--whole"),
            (follow, "--follow"),
        ];
        let flags = flags.into_iter().filter(|(given, _)| *given);
        [HARNESS, verb]
            .into_iter()
            .chain(flags.map(|(_, flag)| flag))
            .chain([path.as_str()])
            .map(str::to_owned)
            .collect()
    }

    /// Our part.
    fn job(&self, args: &Args) -> Job {
        let owners = args.archive;
        match self {
            Self::Out {
                to: Side::Host(path),
                ..
            } => {
                let path = path.clone();
                Box::new(move |stdin, stdout, stop| {
                    drop(stdin);
                    let options = UnpackOptions {
                        whole: false,
                        trusted: false,
                        owners,
                    };
                    unpack(stdout, &path, options, stop)
                })
            }
            Self::Out { .. } => Box::new(|stdin, stdout, stop| {
                drop(stdin);
                pass(stdout, io::stdout().lock(), stop)
            }),
            Self::In {
                from: Side::Host(path),
                ..
            } => {
                let path = path.clone();
                let follow = args.follow_link;
                Box::new(move |stdin, stdout, stop| {
                    drop(stdout);
                    pack(&path, stdin, PackOptions { follow, owners }, stop)
                })
            }
            Self::In { .. } => Box::new(|stdin, stdout, stop| {
                drop(stdout);
                pass(io::stdin().lock(), stdin, stop)
            }),
        }
    }
}

/// Passes a tar file on as it is.
fn pass(
    mut from: impl io::Read,
    mut to: impl io::Write,
    stop: &AtomicBool,
) -> Result<Summary, ArchiveError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut summary = Summary::default();
    while !stop.load(Ordering::Relaxed) {
        let count = from.read(&mut buffer).map_err(ArchiveError::Read)?;
        if count == 0 {
            to.flush().map_err(ArchiveError::Write)?;
            return Ok(summary);
        }
        to.write_all(&buffer[..count])
            .map_err(ArchiveError::Write)?;
        summary.bytes += count as u64;
    }
    Err(ArchiveError::Interrupted)
}

/// What became of a copy: the side that knows why it failed has the word.
fn conclude(
    transferred: Transferred<Result<Summary, ArchiveError>>,
    what: &str,
    destination: &str,
) -> Result<Summary, Failure> {
    let Transferred {
        ours,
        theirs,
        words,
    } = transferred;
    let failed = |source| Failure::Copy {
        what: what.to_owned(),
        source,
    };
    match (ours, theirs) {
        (Err(ArchiveError::Interrupted), _) => Err(Failure::CopyInterrupted {
            destination: destination.to_owned(),
        }),
        (_, ExecEvent::Failed(fault)) => Err(Failure::Exec(fault)),
        (Ok(summary), ExecEvent::Exited { code: 0 }) => Ok(summary),
        // Whose own files are at fault has the word, not who only saw the stream end.
        (ours, ExecEvent::Exited { code })
            if code != 0
                && !words.is_empty()
                && ours.as_ref().err().is_none_or(is_of_the_stream) =>
        {
            Err(Failure::CopyInGuest {
                what: what.to_owned(),
                words: clean(&words),
            })
        }
        (Err(error), _) => Err(failed(error)),
        (Ok(_), _) => Err(Failure::CopyInGuest {
            what: what.to_owned(),
            words: "it ended before it was done".to_owned(),
        }),
    }
}

/// Whether a failure is no more than the other side's end.
fn is_of_the_stream(error: &ArchiveError) -> bool {
    matches!(
        error,
        ArchiveError::Empty | ArchiveError::Read(_) | ArchiveError::Write(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart_as_docker_does() {
        let guest = |name: &str, path: &str| Side::Guest {
            name: name.into(),
            path: path.into(),
        };
        assert_eq!(Side::of("web:/etc"), guest("web", "/etc"));
        assert_eq!(Side::of("web:etc/."), guest("web", "/etc/."));
        assert_eq!(Side::of("-"), Side::Tar);
        for path in ["file", "/a:b", "./a:b", "../a:b", "dir/a:b", ":x", "."] {
            assert_eq!(Side::of(path), Side::Host(path.into()), "{path}");
        }
    }
}
