//! The frames for one channel: a stream that is followed from where the channel stopped,
//! however often aegisd ends. Each channel has its own, so that one that is slow holds up
//! nobody else.

use std::sync::Arc;
use std::time::Duration;

use aegis_core::fault::chain;
use aegis_core::tether::MAX_FRAME;
use tokio::time::{Instant, sleep, timeout};

use crate::aegis::{Aegis, AegisError};
use crate::backoff::Backoff;
use crate::channel::Channel;
use crate::frame::Frame;
use crate::lines::Lines;
use crate::status::Status;

/// The waits between two tries to reach aegisd.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// A stream that says nothing for this long is asked for anew, in case its other end is
/// there and dead.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// So long after a frame it is looked at whether the channel is done with it.
const ATTENTION: Duration = Duration::from_secs(120);
/// The watermark is told to aegisd at most this often.
const WATERMARK: Duration = Duration::from_secs(5);

/// Brings the channel its frames until the task is dropped.
pub async fn follow(channel: Arc<dyn Channel>, aegis: Aegis, status: Status) {
    let mut backoff = Backoff::new(FIRST, LONGEST);
    let mut told = Told::default();
    loop {
        let error = match session(channel.as_ref(), &aegis, &status, &mut told, &mut backoff).await
        {
            Ok(End::Silent) => {
                channel.lost();
                continue;
            }
            Ok(End::Closed) => "the stream of messages has ended".to_owned(),
            Err(error) => chain(&error),
        };
        channel.lost();
        status.set("aegisd", format!("waiting for it: {error}"));
        sleep(backoff.wait()).await;
    }
}

/// How a stream has ended.
enum End {
    Closed,
    /// It has said nothing for long.
    Silent,
}

/// What aegisd was told of as the channel's watermark.
#[derive(Default)]
struct Told {
    seq: u64,
    at: Option<Instant>,
}

async fn session(
    channel: &dyn Channel,
    aegis: &Aegis,
    status: &Status,
    told: &mut Told,
    backoff: &mut Backoff,
) -> Result<End, AegisError> {
    let instance = aegis.instance().await?.created_at;
    let cursor = match channel.cursor(&instance) {
        Some(cursor) => cursor,
        None => {
            let cursor = beginning(channel.name(), aegis).await?;
            channel.begin_at(&instance, cursor);
            cursor
        }
    };
    let mut stream = aegis.frames(channel.name(), cursor).await?;
    status.set("aegisd", "connected");
    // A frame and what aegisd adds to it.
    let mut lines = Lines::new(MAX_FRAME + 4096);
    let mut heard: Option<Instant> = None;
    loop {
        // What has come may be done with a while later, without anything new.
        let watched = heard.is_some_and(|at| at.elapsed() < ATTENTION);
        let wait = if watched { WATERMARK } else { SILENCE };
        let chunk = match timeout(wait, stream.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(End::Closed),
            Ok(Err(source)) => {
                return Err(AegisError::Unreachable {
                    operation: "following the messages",
                    source: source.without_url(),
                });
            }
            Err(_) if !watched => return Ok(End::Silent),
            Err(_) => {
                tell(channel, aegis, &instance, told).await;
                continue;
            }
        };
        heard = Some(Instant::now());
        backoff.reset();
        let dropped = lines.dropped();
        for line in lines.take(&chunk) {
            match serde_json::from_slice::<Frame>(&line) {
                Ok(frame) => channel.frame(frame).await,
                Err(error) => tracing::warn!("a line is no frame, ignoring: {error}"),
            }
        }
        if lines.dropped() > dropped {
            tracing::warn!("a line is longer than a frame can be, ignoring");
        }
        if told.at.is_none_or(|at| at.elapsed() > WATERMARK) {
            tell(channel, aegis, &instance, told).await;
        }
    }
}

/// Where a channel begins that has no record: where an earlier one stopped, and else at
/// the newest frame. Messages that were there before are answered, by whomever.
async fn beginning(name: &str, aegis: &Aegis) -> Result<u64, AegisError> {
    match aegis.watermark(name).await? {
        0 => aegis.newest(name).await,
        seq => Ok(seq),
    }
}

/// Tells aegisd up to where the channel is done. Only a convenience of those who look, and
/// what is left where our own record is lost.
async fn tell(channel: &dyn Channel, aegis: &Aegis, instance: &str, told: &mut Told) {
    let seq = channel.cursor(instance).unwrap_or(0);
    told.at = Some(Instant::now());
    if seq <= told.seq {
        return;
    }
    match aegis.set_watermark(channel.name(), seq).await {
        Ok(()) => told.seq = seq,
        Err(error) => {
            tracing::debug!("cannot set the watermark, ignoring: {}", chain(&error));
            // Not asked for again before there is something new to say.
            told.seq = seq;
        }
    }
}
