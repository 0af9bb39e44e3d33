//! The file name of a session, and back. Pure.
//!
//! `{channel}_{id}.jsonl`, as upstream names them. Bytes outside a safe set are
//! written as `%XX`, the channel's underscores too, so that the first underscore
//! always ends the channel and no two sessions share a name. A name that would be too
//! long for a file system has a hash at its end after `~`, which is never there
//! otherwise; the session's turns say whose it is.

use sha2::{Digest, Sha256};

use crate::frame::{SessionKey, hex};

/// The extension of a session's file.
pub(crate) const EXTENSION: &str = "jsonl";
/// The longest name without extension: file systems allow 255 bytes, and an archived
/// session has a time in its name too.
const LIMIT: usize = 200;

/// The name without extension.
#[must_use]
pub(crate) fn stem(session: &SessionKey) -> String {
    let mut name = String::new();
    encode(&mut name, &session.channel, true);
    name.push('_');
    encode(&mut name, &session.id, false);
    if name.len() <= LIMIT {
        return name;
    }
    let hash = hex(&Sha256::digest(&name));
    format!("{}~{hash}", &name[..LIMIT - hash.len() - 1])
}

/// The session of a name without extension, if it can be told from it.
#[must_use]
pub(crate) fn session(stem: &str) -> Option<SessionKey> {
    let (channel, id) = stem.split_once('_')?;
    let key = SessionKey {
        channel: decode(channel)?,
        id: decode(id)?,
    };
    (!key.channel.is_empty() && !key.id.is_empty()).then_some(key)
}

fn encode(name: &mut String, text: &str, channel: bool) {
    for (at, byte) in text.bytes().enumerate() {
        let safe = match byte {
            b'_' => !channel,
            // Not at the start: neither a hidden file nor a folder.
            b'.' => !channel || at > 0,
            byte => byte.is_ascii_alphanumeric() || b"-@+=,".contains(&byte),
        };
        if safe {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'~' => return None,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(channel: &str, id: &str) -> SessionKey {
        SessionKey {
            channel: channel.into(),
            id: id.into(),
        }
    }

    #[test]
    fn usual_sessions_have_upstreams_names() {
        assert_eq!(stem(&key("telegram", "-100123")), "telegram_-100123");
        assert_eq!(stem(&key("host", "my_session")), "host_my_session");
        assert_eq!(session("ui_default"), Some(key("ui", "default")));
    }

    #[test]
    fn names_do_not_collide_or_leave_the_folder() {
        let keys = [
            key("a_b", "c"),
            key("a", "b_c"),
            key("..", "/../../etc/passwd"),
            key(".", "."),
            key("a", "%5F"),
            key("ä", "\u{7f}"),
        ];
        let mut names: Vec<_> = keys.iter().map(stem).collect();
        for (name, key) in names.iter().zip(&keys) {
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(session(name).as_ref(), Some(key));
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), keys.len());
    }

    #[test]
    fn long_names_are_cut_and_told_apart_by_a_hash() {
        let one = stem(&key("telegram", &"x".repeat(255)));
        let two = stem(&key("telegram", &"x".repeat(256)));
        assert!(one.len() <= LIMIT && two.len() <= LIMIT);
        assert_ne!(one, two);
        assert_eq!(session(&one), None);
    }
}
