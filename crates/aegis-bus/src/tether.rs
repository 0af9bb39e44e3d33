//! The Tether interface: messages between host and guest.

use zbus::Fd;

use crate::dict::{Dict, DictError, DictReader, put, put_some};

/// Messages of instances, at the root path. Frames are JSON texts
/// (`aegis_core::tether`).
#[zbus::proxy(
    interface = "org.aegisvm.Aegis1.Tether",
    default_service = "org.aegisvm.Aegis1",
    default_path = "/org/aegisvm/Aegis1"
)]
pub trait Tether {
    /// Sends a message to the guest of an instance: a frame of a type that goes there.
    /// It is kept when this returns, and the instance is woken for it. Answers what it is
    /// called and its number; a message that was sent under that name before is not sent
    /// again. There are no options.
    #[zbus(allow_interactive_auth)]
    fn send(&self, instance: &str, frame: &str, options: &Dict) -> zbus::Result<(String, u64)>;

    /// Follows the messages of an instance: a connected unix stream with a frame on each
    /// line. `options` is a [`FollowOptions`].
    #[zbus(allow_interactive_auth)]
    fn follow(&self, instance: &str, options: &Dict) -> zbus::Result<zbus::OwnedFd>;

    /// Messages that an instance has, in the order of their numbers. `options` is a
    /// [`ReadOptions`]. No more are given than one answer holds: ask again after the
    /// last of them until there are none.
    #[zbus(allow_interactive_auth)]
    fn read(&self, instance: &str, options: &Dict) -> zbus::Result<Vec<String>>;

    /// Keeps messages that were kept elsewhere: frames with numbers, a line each, of at
    /// most 4 MiB, behind a pipe or a file in memory. One whose number is there already
    /// is left out. Answers how many came. There are no options.
    #[zbus(allow_interactive_auth)]
    fn import(&self, instance: &str, frames: Fd<'_>, options: &Dict) -> zbus::Result<u32>;
}

/// The `options` of `Follow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowOptions {
    /// Those with a greater number first, and then what comes; without it what comes
    /// alone.
    pub after: Option<u64>,
    /// Only of this channel.
    pub channel: Option<String>,
}

impl FollowOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "after", self.after);
        put_some(&mut dict, "channel", self.channel.as_deref());
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            after: reader.take("after")?,
            channel: reader.take("channel")?,
        };
        reader.finish()?;
        Ok(options)
    }
}

/// The `options` of `Read`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Only of this channel.
    pub channel: Option<String>,
    /// Only of this session.
    pub session: Option<String>,
    /// Only of these types; all where there are none.
    pub types: Vec<String>,
    /// Those with a greater number.
    pub after: Option<u64>,
    /// Those with a smaller number.
    pub before: Option<u64>,
    /// At most so many; 1000 and more mean 1000.
    pub limit: Option<u32>,
    /// The last of them and not the first, if there are more.
    pub newest: bool,
}

impl ReadOptions {
    /// The options as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "channel", self.channel.as_deref());
        put_some(&mut dict, "session", self.session.as_deref());
        if !self.types.is_empty() {
            put(&mut dict, "types", self.types.clone());
        }
        put_some(&mut dict, "after", self.after);
        put_some(&mut dict, "before", self.before);
        put_some(&mut dict, "limit", self.limit);
        if self.newest {
            put(&mut dict, "newest", true);
        }
        dict
    }

    /// Reads the options.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("option", dict);
        let options = Self {
            channel: reader.take("channel")?,
            session: reader.take("session")?,
            types: reader.take("types")?.unwrap_or_default(),
            after: reader.take("after")?,
            before: reader.take("before")?,
            limit: reader.take("limit")?,
            newest: reader.take("newest")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_travel_whole() {
        let options = ReadOptions {
            channel: Some("telegram".into()),
            session: Some("42".into()),
            types: vec!["user.message".into()],
            after: Some(1),
            before: Some(9),
            limit: Some(5),
            newest: true,
        };
        assert_eq!(ReadOptions::from_dict(options.to_dict()).unwrap(), options);
        let follow = FollowOptions {
            after: Some(3),
            channel: Some("host".into()),
        };
        assert_eq!(FollowOptions::from_dict(follow.to_dict()).unwrap(), follow);
        let none = ReadOptions::default();
        assert!(none.to_dict().is_empty());
    }
}
