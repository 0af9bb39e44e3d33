//! `aegis-image`: pulls or imports one image for aegisd and ends. Its standard input is a socket
//! ([`aegis_image::protocol`]); it runs as a unit of its own, which may write to the
//! store and use the network and sees nothing else of the user's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use aegis_core::fault::{Fault, Symbol};
use aegis_image::access::Access;
use aegis_image::environment::Environment;
use aegis_image::import;
use aegis_image::name::ImageName;
use aegis_image::protocol::{Import, LONGEST_LINE, Opened, Order, Progress, Pull, Report};
use aegis_image::pull::{self, Cancel};
use aegis_image::record::Image;
use aegis_image::store::Store;
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Between two reports of progress.
const REPORTS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.and_then(|runtime| {
        let served = runtime.block_on(serve());
        // Threads that wait for a lock or a tool are not waited for.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // The unit's standard error is the journal.
            #[expect(clippy::print_stderr, reason = "nobody else is there to be told")]
            {
                eprintln!("aegis-image: cannot talk to aegisd: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether the image is here now.
async fn serve() -> io::Result<bool> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The mark is held to the end.
    let Opened {
        mark: _mark,
        source,
    } = Opened::receive(&socket)?;
    socket.set_nonblocking(true)?;
    let (reader, mut writer) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let mut orders = Orders(BufReader::new(reader));
    let order = orders.next().await?;
    let (sender, progress) = watch::channel(Progress::default());
    let cancel = Cancel::default();
    if let Some(store) = order.as_ref().and_then(Order::store) {
        aegis_fault_points::arm(store);
    }
    let working = async {
        match order {
            Some(Order::Pull(order)) => Ok(pull_image(*order, source, sender, &cancel).await),
            Some(Order::Import(order)) => Ok(import_image(*order, source, sender, &cancel).await),
            Some(Order::Cancel) | None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    };
    tokio::pin!(working);
    let mut listens = true;
    let mut reports = tokio::time::interval(REPORTS);
    let made = loop {
        tokio::select! {
            made = &mut working => break made?,
            order = orders.next(), if listens => match order {
                Ok(Some(Order::Cancel)) => cancel.cancel(),
                // An aegisd that is gone wants the image all the same.
                Ok(_) | Err(_) => listens = false,
            },
            _ = reports.tick(), if progress.has_changed().unwrap_or_default() => {
                let shown = progress.clone().borrow_and_update().clone();
                say(&mut writer, &Report::Progress(shown)).await;
            }
        }
    };
    let done = made.is_ok();
    let report = match made {
        Ok(image) => Report::Done(Box::new(image)),
        Err(fault) => Report::Failed(fault),
    };
    say(&mut writer, &report).await;
    // aegisd takes the connection's end for that of this process, which has let go of
    // all locks then; a writer that is dropped would end it now.
    writer.forget();
    Ok(done)
}

async fn import_image(
    order: Import,
    open: Option<OwnedFd>,
    progress: watch::Sender<Progress>,
    cancel: &Cancel,
) -> Result<Image, Fault> {
    let archive =
        open.ok_or_else(|| Fault::new(Symbol::InvalidArgument, "there is no archive to import"))?;
    let (store, now) = (Store::at(order.store), Timestamp::now().to_string());
    let imported = import::import(&store, archive.into(), order.request, now, progress, cancel);
    Ok(imported.await?)
}

async fn pull_image(
    order: Pull,
    open: Option<OwnedFd>,
    progress: watch::Sender<Progress>,
    cancel: &Cancel,
) -> Result<Image, Fault> {
    let store = Store::at(order.store);
    let wanted: ImageName = order
        .name
        .parse()
        .map_err(|error| Fault::from_error(Symbol::InvalidArgument, &error))?;
    // What was opened for us, by a name of ours: the caller's may be hidden from us.
    let handed = open
        .as_ref()
        .map(|open| format!("/proc/self/fd/{}", open.as_raw_fd()));
    let place = match &handed {
        Some(path) => wanted.clone().at(Path::new(path)),
        None => wanted.clone(),
    };
    let access = match order.access {
        Some(text) => serde_json::from_str(text.reveal()).map_err(|_| {
            // The text is not repeated: it holds credentials.
            Fault::new(
                Symbol::InvalidArgument,
                "the access to the image is not understood",
            )
        })?,
        None => Access::of_environment(&wanted, &Environment::of_process(), &[])?,
    };
    let platform = order.platform.into();
    let pulled = pull::pull(
        &store, &wanted, &place, &platform, &access, progress, cancel,
    )
    .await;
    pulled.map_err(|error| {
        let mut fault = Fault::from(error);
        if let (Some(handed), Some(path)) = (&handed, wanted.path()) {
            fault.message = fault.message.replace(handed, &path.display().to_string());
        }
        fault
    })
}

/// Tells aegisd, if it is still there.
async fn say(writer: &mut OwnedWriteHalf, report: &Report) {
    let Ok(mut line) = serde_json::to_vec(report) else {
        return;
    };
    line.push(b'\n');
    writer.write_all(&line).await.ok();
}

/// What aegisd says.
struct Orders(BufReader<OwnedReadHalf>);

impl Orders {
    async fn next(&mut self) -> io::Result<Option<Order>> {
        let mut line = Zeroizing::new(Vec::new());
        let mut limited = (&mut self.0).take(LONGEST_LINE as u64);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
