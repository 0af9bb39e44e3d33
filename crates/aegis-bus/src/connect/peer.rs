//! The line to aegisd's own socket, in a client that knows buses.
//!
//! D-Bus peer to peer has no names: nobody starts aegisd, tells that it came or went, or
//! answers a call that it died over. A task of the client's own stands between and does
//! what a bus would, so that the rest of the client need not know.
//!
//! ```text
//!  client ──socket pair──► Line ──aegisd's socket──► aegisd
//!            calls to org.freedesktop.DBus │
//!            are answered here             └ connected at the first use, and again after
//!                                            it broke: calls that wait fail as on a bus
//! ```
//!
//! Messages go through as they are, with their serials and descriptors.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::message::{Flags, Type};
use zbus::{Connection, Guid, Message, MessageStream};

use super::ConnectError;
use crate::names::{BUS_NAME, ROOT_PATH};

/// The bus itself (D-Bus specification, "Message Bus Messages").
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// What the owner of aegisd's name is called. There is one of them at most.
const OWNER: &str = ":1.0";
/// How long aegisd may take for the handshake. It answers in milliseconds; where it has
/// as many clients as it takes, the next one waits.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Between two looks for the next aegisd. Nothing tells of a socket.
const LOOK: Duration = Duration::from_millis(250);

/// Connects to the socket at a D-Bus address, sooner or later.
///
/// # Errors
/// The address is none, or there are no descriptors left.
pub(super) async fn connect(
    address: &str,
    set_up: impl FnOnce(Builder<'static>) -> Builder<'static>,
) -> Result<Connection, ConnectError> {
    let refused = |source| ConnectError::Refused {
        address: address.to_owned(),
        source,
    };
    let (near, far) = UnixStream::pair().map_err(|source| refused(source.into()))?;
    let client = set_up(Builder::unix_stream(near).p2p()).build();
    let line = Builder::unix_stream(far).server(Guid::generate()).p2p();
    let (client, line) = tokio::try_join!(client, line.build()).map_err(refused)?;
    let line = Line {
        address: address.to_owned(),
        // Before the client is given out, so that none of its calls is missed.
        calls: MessageStream::from(&line),
        client: line,
        aegisd: None,
        was_lost: false,
    };
    tokio::spawn(line.run());
    Ok(client)
}

/// Says why aegisd was not reached.
type Unreached = zbus::Error;

struct Line {
    address: String,
    client: Connection,
    calls: MessageStream,
    aegisd: Option<Aegisd>,
    /// The client was told that aegisd went, and waits to be told that it came.
    was_lost: bool,
}

/// A connection to aegisd.
struct Aegisd {
    connection: Connection,
    messages: MessageStream,
    /// What is answered if aegisd does not, by the serial of the call.
    waiting: HashMap<NonZeroU32, Message>,
}

/// What there is to do.
enum Next {
    Call(Message),
    Told(Message),
    Lost,
    Look,
    End,
}

impl Line {
    /// Carries until the client is gone.
    async fn run(mut self) {
        // An error here is that of the client's end of the pair.
        while self.step().await.is_ok_and(|goes_on| goes_on) {}
    }

    async fn step(&mut self) -> zbus::Result<bool> {
        match self.next().await {
            Next::Call(call) => self.take(&call).await?,
            Next::Told(message) => {
                if let (Some(aegisd), Some(serial)) =
                    (&mut self.aegisd, message.header().reply_serial())
                {
                    aegisd.waiting.remove(&serial);
                }
                self.client.send(&message).await?;
            }
            Next::Lost => self.lose().await?,
            // It is told of where it is there.
            Next::Look => drop(self.reach().await),
            Next::End => return Ok(false),
        }
        Ok(true)
    }

    async fn next(&mut self) -> Next {
        let was_lost = self.was_lost && self.aegisd.is_none();
        let told = async {
            match &mut self.aegisd {
                None => std::future::pending().await,
                Some(aegisd) => aegisd.messages.next().await,
            }
        };
        tokio::select! {
            // What aegisd said before the client asked for more comes first.
            biased;
            told = told => match told {
                Some(Ok(message)) => Next::Told(message),
                Some(Err(_)) | None => Next::Lost,
            },
            call = self.calls.next() => match call {
                Some(Ok(call)) => Next::Call(call),
                Some(Err(_)) | None => Next::End,
            },
            () = sleep(LOOK), if was_lost => Next::Look,
        }
    }

    /// Takes what the client sent: an answer for the bus, all else for aegisd.
    async fn take(&mut self, call: &Message) -> zbus::Result<()> {
        let header = call.header();
        if header.message_type() != Type::MethodCall {
            return Ok(());
        }
        let to_bus = header.destination().is_some_and(|name| name == BUS);
        if to_bus {
            let answer = self.answer(call).await?;
            return self.client.send(&answer).await;
        }
        let serial = header.primary().serial_num();
        let waits = !header.primary().flags().contains(Flags::NO_REPLY_EXPECTED);
        let dead = failure(call, "NoReply", "aegisd ended before it answered")?;
        let unreached = match self.reach().await {
            Err(unreached) => unreached,
            Ok(aegisd) => {
                if waits {
                    aegisd.waiting.insert(serial, dead);
                }
                // That it broke is told to all that wait.
                drop(aegisd.connection.send(call).await);
                return Ok(());
            }
        };
        let failed = self.unreached(call, &unreached)?;
        self.client.send(&failed).await
    }

    /// Answers for the bus.
    async fn answer(&mut self, call: &Message) -> zbus::Result<Message> {
        let header = call.header();
        let reply = Message::method_return(&header);
        let body = call.body();
        let name = || body.deserialize::<&str>().unwrap_or_default();
        match header.member().map(|member| member.as_str()) {
            Some("NameHasOwner") if name() == BUS_NAME => match self.reach().await {
                Err(unreached) if is_denial(&unreached) => self.unreached(call, &unreached),
                reached => reply.build(&reached.is_ok()),
            },
            Some("NameHasOwner") => reply.build(&false),
            // Signals of aegisd's have no sender here, so whoever asks whose they are to be is
            // not to get a name: it would wait for signals of that one.
            Some("ListActivatableNames") => reply.build(&Vec::<&str>::new()),
            Some("AddMatch" | "RemoveMatch") => reply.build(&()),
            _ => failure(call, "NotSupported", "there is no bus here"),
        }
    }

    /// aegisd, connected to if need be. The client is told that it came where it had
    /// been told that it went.
    async fn reach(&mut self) -> Result<&mut Aegisd, Unreached> {
        if self.aegisd.is_none() {
            let made = timeout(HANDSHAKE, greet(&self.address)).await;
            let connection = made.map_err(|_| {
                let words = "it does not take another client";
                Unreached::Failure(words.to_owned())
            })??;
            if std::mem::take(&mut self.was_lost) {
                self.tell_owner("", OWNER).await?;
            }
            self.aegisd = Some(Aegisd {
                messages: MessageStream::from(&connection),
                connection,
                waiting: HashMap::new(),
            });
        }
        self.aegisd
            .as_mut()
            .ok_or_else(|| Unreached::Failure("it has gone".to_owned()))
    }

    /// The answer to a call that did not get to aegisd.
    fn unreached(&self, call: &Message, error: &Unreached) -> zbus::Result<Message> {
        let words = format!("nothing answers at {}: {error}", self.address);
        let name = match is_denial(error) {
            true => "AccessDenied",
            false => "Spawn.Failed",
        };
        failure(call, name, &words)
    }

    /// Ends what waited for an aegisd that is gone.
    async fn lose(&mut self) -> zbus::Result<()> {
        let Some(aegisd) = self.aegisd.take() else {
            return Ok(());
        };
        self.was_lost = true;
        for dead in aegisd.waiting.values() {
            self.client.send(dead).await?;
        }
        self.tell_owner(OWNER, "").await
    }

    async fn tell_owner(&self, before: &str, after: &str) -> zbus::Result<()> {
        let signal = Message::signal(BUS_PATH, BUS, "NameOwnerChanged").sender(BUS);
        let signal = signal.build(&(BUS_NAME, before, after))?;
        self.client.send(&signal).await
    }
}

/// Connects, and waits until aegisd answers. Before that it tells of every object that it
/// has, as D-Bus object managers do of what they are given; nobody asked for that here.
async fn greet(address: &str) -> zbus::Result<Connection> {
    let connection = Builder::address(address).p2p().build().await?;
    let peer = Some("org.freedesktop.DBus.Peer");
    connection
        .call_method(None::<&str>, ROOT_PATH, peer, "Ping", &())
        .await?;
    Ok(connection)
}

/// Whether the socket is somebody else's.
fn is_denial(error: &Unreached) -> bool {
    match error {
        zbus::Error::Connection(error, _) => error.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    }
}

/// The answer to a call that a bus gives under one of its error names.
fn failure(call: &Message, name: &str, words: &str) -> zbus::Result<Message> {
    Message::error(&call.header(), format!("{BUS}.Error.{name}")).build(&words)
}
