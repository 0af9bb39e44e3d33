//! Messages of instances.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use aegis_bus::dict::Dict;
use aegis_bus::tether::{FollowOptions, ReadOptions, TetherProxy};
use aegis_core::tether::Frame;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use zbus::proxy::CacheProperties;

use super::{Client, read};
use crate::failure::Failure;

impl Client {
    pub(crate) async fn tether_proxy(&self) -> Result<TetherProxy<'static>, Failure> {
        TetherProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    /// Sends a message to the guest of an instance; answers what it is called and its
    /// number. Sending it once more under its name changes nothing, so an aegisd that
    /// ended before it answered is asked again.
    pub(crate) async fn send_message(
        &self,
        instance: &str,
        frame: &Frame,
    ) -> Result<(String, u64), Failure> {
        let (tether, text) = (self.tether_proxy().await?, frame.to_text());
        let none = Dict::new();
        let sent = read(async || tether.send(instance, &text, &none).await).await;
        sent.map_err(Failure::call(format!("send a message to '{instance}'")))
    }

    /// Follows the messages of an instance from the one of this number on, or from now on.
    pub(crate) async fn follow_messages(
        &self,
        instance: &str,
        after: Option<u64>,
        channel: Option<String>,
    ) -> Result<Followed, Failure> {
        let after = match after {
            Some(after) => after,
            None => {
                let newest = ReadOptions {
                    newest: true,
                    limit: Some(1),
                    ..ReadOptions::default()
                };
                let newest = self.some_messages(instance, &newest).await?;
                newest.last().and_then(Frame::seq).unwrap_or(0)
            }
        };
        let mut followed = Followed {
            client: self.clone(),
            instance: instance.to_owned(),
            channel,
            after,
            lines: None,
        };
        followed.begin().await?;
        Ok(followed)
    }

    /// All messages of an instance from [`ReadOptions::after`] on.
    pub(crate) async fn messages(
        &self,
        instance: &str,
        mut options: ReadOptions,
    ) -> Result<Vec<Frame>, Failure> {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            let more = self.some_messages(instance, &options).await?;
            let Some(last) = more.last() else {
                return Ok(frames);
            };
            options.after = last.seq();
            frames.extend(more);
        }
    }

    /// As many messages as one answer holds.
    pub(crate) async fn some_messages(
        &self,
        instance: &str,
        options: &ReadOptions,
    ) -> Result<Vec<Frame>, Failure> {
        let (tether, options) = (self.tether_proxy().await?, options.to_dict());
        let texts = read(async || tether.read(instance, &options).await).await;
        let texts = texts.map_err(Failure::call(format!("read the messages of '{instance}'")))?;
        // What aegisd keeps it has checked.
        Ok(texts
            .iter()
            .filter_map(|text| Frame::parse(text).ok())
            .collect())
    }
}

/// Between two tries to go on where a stream of messages ended.
const PAUSE: Duration = Duration::from_millis(200);

/// The messages of an instance as they come. It outlives aegisd: each that is kept comes
/// once.
#[derive(Debug)]
pub(crate) struct Followed {
    client: Client,
    instance: String,
    channel: Option<String>,
    /// The number of the last message that came.
    after: u64,
    lines: Option<Lines<BufReader<UnixStream>>>,
}

impl Followed {
    /// The next message. Loses nothing when it is dropped.
    pub(crate) async fn next(&mut self) -> Result<Frame, Failure> {
        loop {
            let Some(lines) = &mut self.lines else {
                tokio::time::sleep(PAUSE).await;
                self.begin().await?;
                continue;
            };
            match lines.next_line().await {
                Ok(Some(line)) => {
                    let Ok(frame) = Frame::parse(&line) else {
                        continue;
                    };
                    self.after = frame.seq().unwrap_or(self.after);
                    return Ok(frame);
                }
                // aegisd has ended, or the instance is gone, which the next call tells.
                Ok(None) | Err(_) => self.lines = None,
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        let tether = self.client.tether_proxy().await?;
        let options = FollowOptions {
            after: Some(self.after),
            channel: self.channel.clone(),
        };
        let options = options.to_dict();
        let stream = read(async || tether.follow(&self.instance, &options).await).await;
        let what = format!("follow the messages of '{}'", self.instance);
        let stream = OwnedFd::from(stream.map_err(Failure::call(what))?);
        let usable = || -> io::Result<UnixStream> {
            let stream = StdUnixStream::from(stream);
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        };
        let stream = usable().map_err(|source| Failure::Io {
            what: "read the messages",
            source,
        })?;
        self.lines = Some(BufReader::new(stream).lines());
        Ok(())
    }
}
