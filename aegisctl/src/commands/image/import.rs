//! `image import`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aegis_bus::image::{ImageConfig, ImportOptions};
use aegis_image::record::Config;
use serde_json::json;

use super::short_id;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::images;
use crate::job::JobWatch;
use crate::session::Signals;

/// Completes "cannot ...".
const WHAT: &str = "make an image";

/// Make an image of a tar archive of files
///
/// The archive, plain or packed with gzip or zstd, becomes the one layer of an image.
/// Without a name the image is known by its digest alone. An interrupt ends the import.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The image's name: [HOST/]NAME[:TAG]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Say this of it in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The platform of its programs; by default that of this host
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Import without the sandbox where the host forbids it
    #[arg(long)]
    insecure: bool,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = match &args.name {
        Some(name) => images::full_name(name)?,
        None => String::new(),
    };
    let config = config(&args.change)?;
    let (source, origin) = open(&args.file)?;
    let options = ImportOptions {
        source,
        origin,
        config,
        message: args.message,
        platform: args.platform,
        insecure: args.insecure,
    };
    let progress = context.ui.progress("Asking aegisd");
    let mut signals = Signals::catch()?;
    let import = async {
        let client = context.aegisd().await?;
        let manager = client.manager().await?;
        let mut watch = JobWatch::start(&client).await?;
        let dict = options.to_dict().map_err(Failure::call(WHAT))?;
        let job = manager.import_image(&name, &dict).await;
        let job = job.map_err(Failure::call(WHAT))?;
        let import = client.job(job.clone()).await?;
        let ended = tokio::select! {
            ended = watch.wait(&job, WHAT, &progress) => ended,
            signal = signals.next_end() => {
                let cancelled = import.cancel().await;
                cancelled.map_err(Failure::call("end the import"))?;
                return Ok(Err(signal));
            }
        };
        progress.show(Vec::new());
        ended?;
        let id = import.image().await.map_err(Failure::call(WHAT))?;
        Ok::<_, Failure>(Ok(id))
    };
    let id = match progress.during(import).await? {
        Ok(id) => id,
        Err(signal) => return Ok(exit_code::of_signal(signal as i32)),
    };
    context.ui.data(
        || json!({"name": name, "id": id}),
        || match name.is_empty() {
            true => format!("{id}\n"),
            false => format!("{}  {name}\n", short_id(&id)),
        },
    )?;
    Ok(exit_code::OK)
}

/// What the instructions make of an image that says nothing.
fn config(changes: &[String]) -> Result<ImageConfig, Failure> {
    let mut config = Config::default();
    for change in changes {
        config.change(change).map_err(Failure::Change)?;
    }
    Ok(ImageConfig {
        env: config.env,
        entrypoint: config.entrypoint,
        command: config.cmd,
        workdir: config.workdir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
        exposed: config.exposed,
        labels: config.labels,
    })
}

/// The archive, and where it comes from.
fn open(path: &Path) -> Result<(OwnedFd, String), Failure> {
    if path == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::ArchiveFromTerminal);
        }
        let copy = stdin.as_fd().try_clone_to_owned();
        let copy = copy.map_err(|source| Failure::Io {
            what: "use the standard input",
            source,
        })?;
        return Ok((copy, "-".to_owned()));
    }
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    let file = opened.map_err(|source| Failure::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok((file.into(), path.display().to_string()))
}
