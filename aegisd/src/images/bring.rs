//! Bringing one image here, or making one: the conversation with the program that does it, which
//! runs as a unit of its own ([`aegis_image::protocol`]).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use aegis_core::fault::Symbol;
use aegis_core::platform::Platform;
use aegis_core::secret::SecretText;
use aegis_core::units;
use aegis_image::import::Request;
use aegis_image::name::ImageName;
use aegis_image::protocol::{Import, LONGEST_LINE, Opened, Order, Progress, Pull, Report, Stage};
use aegis_image::record::Image;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use zeroize::Zeroizing;

use super::ImageError;
use crate::instance::Shared;
use crate::jobs::Reporter;
use crate::supervisor::HelperPlan;
use crate::supervisor::plan::{Confinement, Program, Reach};

/// The program that pulls and imports.
const PROGRAM: &str = "aegis-image";

/// What a pull takes beside the name.
#[derive(Debug, Default)]
pub struct Given {
    /// How to get at the image ([`Pull::access`]).
    pub access: Option<SecretText>,
    /// The open file or folder of a local image.
    pub source: Option<OwnedFd>,
    /// Which of the images of the name.
    pub platform: Platform,
    /// Do without a sandbox.
    pub insecure: bool,
}

/// What an import takes beside what shall become of it.
#[derive(Debug)]
pub struct Archive {
    /// The open file or pipe.
    pub source: OwnedFd,
    /// Do without a sandbox.
    pub insecure: bool,
}

/// Brings an image here and shows it.
///
/// # Errors
/// What the program says, or why it did not run.
pub async fn pull(
    shared: &Arc<Shared>,
    name: &ImageName,
    given: Given,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    reporter.says(&format!("pulling {}", name.short()));
    let store = shared.images.plain().to_owned();
    let task = Task {
        unit: units::pull(number()),
        description: "AegisVM pull of an image",
        order: Order::Pull(Box::new(Pull {
            store: store.clone(),
            name: name.to_string(),
            access: given.access,
            platform: given.platform,
        })),
        source: given.source,
        confinement: confinement(store, given.insecure, false),
    };
    perform(shared, task, reporter).await
}

/// Makes an image of an archive and shows it.
///
/// # Errors
/// What the program says, or why it did not run.
pub async fn import(
    shared: &Arc<Shared>,
    request: Request,
    archive: Archive,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    reporter.says("importing an image");
    let store = shared.images.plain().to_owned();
    let task = Task {
        unit: units::import(number()),
        description: "AegisVM import of an image",
        order: Order::Import(Box::new(Import {
            store: store.clone(),
            request,
        })),
        source: Some(archive.source),
        confinement: confinement(store, archive.insecure, true),
    };
    perform(shared, task, reporter).await
}

/// One run of the program.
struct Task {
    unit: String,
    description: &'static str,
    order: Order,
    source: Option<OwnedFd>,
    confinement: Confinement,
}

async fn perform(shared: &Arc<Shared>, task: Task, reporter: &Reporter) -> Result<(), ImageError> {
    let (ours, theirs) = UnixStream::pair().map_err(ImageError::Pass)?;
    let images = shared.images.clone();
    let mark = crate::instance::blocking(move || images.store().mark_pull()).await?;
    let source = task.source;
    let opened = Opened { mark, source };
    opened.send(&ours).map_err(ImageError::Pass)?;
    // From here on the program alone says when the work has ended, and reads a pipe.
    drop(opened);
    let plan = HelperPlan {
        name: task.unit.clone(),
        description: task.description.to_owned(),
        program: Program {
            path: shared.host.program(PROGRAM),
            arguments: Vec::new(),
        },
        input: theirs.into(),
        confinement: task.confinement,
    };
    shared.supervisor.help(plan).await?;
    let followed = follow(ours, &task.order, &task.unit, reporter).await;
    let images = shared.images.clone();
    crate::instance::blocking(move || {
        images.sweep();
        images.show();
    })
    .await;
    reporter.brought(followed?.id.to_string());
    Ok(())
}

/// Tells the units of one kind apart.
fn number() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff_ffff_ffff
}

fn confinement(store: PathBuf, insecure: bool, no_network: bool) -> Confinement {
    match insecure {
        true => Confinement::Waived,
        false => Confinement::Reach(Reach {
            writable: vec![store],
            no_network,
            ..Reach::default()
        }),
    }
}

/// Hears the program to its end.
async fn follow(
    socket: UnixStream,
    order: &Order,
    unit: &str,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    socket.set_nonblocking(true).map_err(ImageError::Pass)?;
    let socket = tokio::net::UnixStream::from_std(socket).map_err(ImageError::Pass)?;
    let (reader, mut writer) = socket.into_split();
    // A program that is gone has been heard to its end below.
    drop(writer.write_all(&line_of(order)?).await);
    let mut reader = BufReader::new(reader);
    let mut cancelled = false;
    let mut line = Vec::new();
    loop {
        let mut limited = (&mut reader).take(LONGEST_LINE as u64);
        let read = tokio::select! {
            read = limited.read_until(b'\n', &mut line) => read.map_err(ImageError::Pass)?,
            () = reporter.cancelled(), if !cancelled => {
                cancelled = true;
                drop(writer.write_all(&line_of(&Order::Cancel)?).await);
                continue;
            }
        };
        if read == 0 {
            return Err(match cancelled {
                true => ImageError::Cancelled,
                false => ImageError::Silent(format!("{unit}.service")),
            });
        }
        let ended = match serde_json::from_slice(&line).map_err(ImageError::Garbled)? {
            Report::Progress(progress) => {
                show(&progress, reporter);
                line.clear();
                continue;
            }
            Report::Done(image) => Ok(*image),
            Report::Failed(fault) if fault.symbol == Symbol::Cancelled => {
                Err(ImageError::Cancelled)
            }
            Report::Failed(fault) => Err(ImageError::Failed(fault)),
        };
        // What it leaves can be removed once it is gone, which it says without words.
        drop(tokio::io::copy(&mut reader, &mut tokio::io::sink()).await);
        return ended;
    }
}

/// Holds credentials, so it is overwritten afterwards.
fn line_of(order: &Order) -> Result<Zeroizing<Vec<u8>>, ImageError> {
    let mut line = Zeroizing::new(serde_json::to_vec(order).map_err(ImageError::Garbled)?);
    line.push(b'\n');
    Ok(line)
}

fn show(progress: &Progress, reporter: &Reporter) {
    let layers = &progress.layers;
    let here = layers
        .iter()
        .filter(|layer| layer.stage == Stage::Here)
        .count();
    // Getting a layer and turning it into a file system count as a half each.
    let share = |layer: &aegis_image::protocol::LayerProgress| {
        #[expect(clippy::cast_precision_loss, reason = "a bar needs no more")]
        let part = layer.done.min(layer.total) as f64 / layer.total.max(1) as f64;
        match layer.stage {
            Stage::Waiting => 0.0,
            Stage::Pulling | Stage::Reading => part / 2.0,
            Stage::Converting => 0.5 + part / 2.0,
            Stage::Here => 1.0,
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "there are few layers")]
    let fraction = layers.iter().map(share).sum::<f64>() / layers.len().max(1) as f64;
    let parts = layers.iter().map(|layer| {
        let word = layer.stage.word().to_owned();
        (layer.id.clone(), word, layer.done, layer.total)
    });
    let words = format!("{here} of {} layers are here", layers.len());
    reporter.is_at(fraction, words, parts.collect());
}
