//! A follower as a stream of lines, a frame each, for a client that was passed the
//! other end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::line::Follower;

/// The client's end. It ends with the instance, or with aegisd; who closes it ends the
/// following.
///
/// # Errors
/// There are no more descriptors.
pub fn into_stream(follower: Follower) -> io::Result<OwnedFd> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    tokio::spawn(carry(follower, ours));
    Ok(theirs.into())
}

async fn carry(mut follower: Follower, stream: UnixStream) {
    let (mut from, mut to) = stream.into_split();
    let mut byte = [0];
    let tell = async {
        loop {
            let mut line = match follower.next().await {
                Ok(Some(text)) => text,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!("messages cannot be followed: {}", error.fault());
                    return;
                }
            };
            line.push('\n');
            if to.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = tell => {}
        // Clients say nothing: this is the end of one.
        _ = from.read(&mut byte) => {}
    }
}
