//! The tables of messages: what host and guest of an instance told each other, and how
//! far channels are with it.

use aegis_core::handle::Handle;
use aegis_core::tether::{ACK, Direction, Frame};
use aegis_fault_points::around;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::RegistryError;
use super::secrets::Owner;
use super::store::{Store, failed_write, sql};

/// Which messages are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageQuery {
    pub channel: Option<String>,
    pub session: Option<String>,
    /// All where there are none.
    pub types: Vec<String>,
    /// Those that answer or acknowledge the message that its sender calls so.
    pub about: Option<String>,
    /// Those that wait for the guest.
    pub waiting: bool,
    /// Those with a greater number.
    pub after: u64,
    /// Those with a smaller number.
    pub before: Option<u64>,
    /// The newest of them, if there are more than are wanted; else the oldest.
    pub newest: bool,
    /// Most of them.
    pub limit: u32,
    /// Most bytes of them; the first counts always.
    pub bytes: usize,
}

/// A message that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// With its number.
    pub frame: Frame,
    pub seq: u64,
    /// It was not there before.
    pub is_new: bool,
}

/// How much is kept of an instance, and how much may wait for its guest: numbers of
/// messages, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub kept: (usize, usize),
    pub waiting: (usize, usize),
}

/// Messages that are added between two looks whether old ones have to go.
const TRIM_EVERY: u64 = 64;

#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own tables; every change is a step"
)]
impl Store {
    /// Adds a message under the next number, with when it came in microseconds since
    /// 1970. One that its sender sent before stays as it is.
    pub(super) fn add_message(
        &mut self,
        instance: &Handle,
        mut frame: Frame,
        came_at: u64,
        bounds: Bounds,
    ) -> Result<Kept, RegistryError> {
        let owner = Owner::Instance(instance.clone()).key();
        around("registry.write", failed_write, || {
            let all = self.connection.transaction().map_err(sql("write"))?;
            check_owner(&all, &owner, instance)?;
            if let Some((seq, text)) = sent_before(&all, &owner, &frame).map_err(sql("read"))? {
                let frame = Frame::parse(&text).unwrap_or(frame);
                return Ok(Kept {
                    frame,
                    seq,
                    is_new: false,
                });
            }
            let waits = frame.direction() == Direction::ToGuest;
            if waits && is_full(&all, &owner, bounds.waiting).map_err(sql("read"))? {
                return Err(RegistryError::TooManyMessages(instance.clone()));
            }
            let seq = append(&all, &owner, &mut frame).map_err(sql("write"))?;
            if waits {
                let statement = "UPDATE message SET waits = 1, came_at = ?3
                                 WHERE instance = ?1 AND seq = ?2";
                let noted = all.execute(statement, params![owner, number(seq), number(came_at)]);
                noted.map_err(sql("write"))?;
            }
            if seq % TRIM_EVERY == 0 {
                trim(&all, &owner, bounds.kept).map_err(sql("write"))?;
            }
            all.commit().map_err(sql("write"))?;
            Ok(Kept {
                frame,
                seq,
                is_new: true,
            })
        })
    }

    /// Notes that the guest is done with a message, and keeps what tells so. `None` where
    /// it did not wait any more.
    pub(super) fn message_is_taken(
        &mut self,
        instance: &Handle,
        seq: u64,
        mut told: Frame,
    ) -> Result<Option<Kept>, RegistryError> {
        let owner = Owner::Instance(instance.clone()).key();
        around("registry.write", failed_write, || {
            let all = self.connection.transaction().map_err(sql("write"))?;
            let statement = "UPDATE message SET waits = 0
                             WHERE instance = ?1 AND seq = ?2 AND waits = 1";
            let changed = all.execute(statement, params![owner, number(seq)]);
            if changed.map_err(sql("write"))? == 0 {
                return Ok(None);
            }
            // Told once: the message had not been taken before.
            let seq = append(&all, &owner, &mut told).map_err(sql("write"))?;
            all.commit().map_err(sql("write"))?;
            Ok(Some(Kept {
                frame: told,
                seq,
                is_new: true,
            }))
        })
    }

    /// The number of the newest message; 0 where there is none.
    pub(super) fn last_message(&mut self, instance: &Handle) -> Result<u64, RegistryError> {
        let owner = Owner::Instance(instance.clone()).key();
        last(&self.connection, &owner).map_err(sql("read"))
    }

    /// The instances with messages that wait for their guest, by their folded handles,
    /// and when the newest of these came, in microseconds since 1970.
    pub(super) fn awaited(&mut self) -> Result<Vec<(String, u64)>, RegistryError> {
        let statement = "SELECT instance, max(came_at) FROM message
                         WHERE waits = 1 GROUP BY instance";
        let read = || {
            let mut statement = self.connection.prepare(statement)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(sql("read"))
    }

    /// How far a channel is; 0 where it has not said so.
    pub(super) fn watermark(
        &mut self,
        instance: &Handle,
        channel: &str,
    ) -> Result<u64, RegistryError> {
        let owner = Owner::Instance(instance.clone()).key();
        let statement = "SELECT seq FROM watermark WHERE instance = ?1 AND channel = ?2";
        let read = || {
            let mut statement = self.connection.prepare_cached(statement)?;
            let found = statement.query_row([owner.as_str(), channel], |row| row.get(0));
            found.optional()
        };
        read()
            .map(|seq| seq.map_or(0, unsigned))
            .map_err(sql("read"))
    }

    /// Notes how far a channel is.
    pub(super) fn set_watermark(
        &mut self,
        instance: &Handle,
        channel: &str,
        seq: u64,
    ) -> Result<(), RegistryError> {
        let owner = Owner::Instance(instance.clone()).key();
        around("registry.write", failed_write, || {
            let all = self.connection.transaction().map_err(sql("write"))?;
            check_owner(&all, &owner, instance)?;
            let statement = "INSERT INTO watermark (instance, channel, seq) VALUES (?1, ?2, ?3)
                             ON CONFLICT (instance, channel) DO UPDATE SET seq = excluded.seq";
            let written = all.execute(statement, params![owner, channel, number(seq)]);
            written.map_err(sql("write"))?;
            all.commit().map_err(sql("write"))
        })
    }

    /// Adds messages under the numbers they have; what has the number of one that is
    /// there is left out, and the oldest go that are more than are kept. Returns how many
    /// came.
    pub(super) fn add_messages(
        &mut self,
        instance: &Handle,
        frames: &[(u64, Frame)],
        most: (usize, usize),
    ) -> Result<usize, RegistryError> {
        let owner = Owner::Instance(instance.clone()).key();
        around("registry.write", failed_write, || {
            let all = self.connection.transaction().map_err(sql("write"))?;
            check_owner(&all, &owner, instance)?;
            let mut added = 0;
            for (seq, frame) in frames {
                let values = params![
                    owner,
                    number(*seq),
                    frame.channel(),
                    frame.session(),
                    frame.kind(),
                    frame.to_text(),
                ];
                let statement = "INSERT OR IGNORE INTO message
                     (instance, seq, channel, session, type, frame) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                let mut statement = all.prepare_cached(statement).map_err(sql("write"))?;
                added += statement.execute(values).map_err(sql("write"))?;
            }
            trim(&all, &owner, most).map_err(sql("write"))?;
            all.commit().map_err(sql("write"))?;
            Ok(added)
        })
    }

    /// Messages in the order of their numbers.
    pub(super) fn messages(
        &mut self,
        instance: &Handle,
        query: &MessageQuery,
    ) -> Result<Vec<String>, RegistryError> {
        let failed = sql("read");
        let order = if query.newest { "DESC" } else { "ASC" };
        let waiting = if query.waiting { "AND waits = 1" } else { "" };
        let statement = format!(
            "SELECT frame FROM message WHERE instance = ?1 AND seq > ?2 AND seq < ?3
                 AND (?4 IS NULL OR channel = ?4) AND (?5 IS NULL OR session = ?5)
                 AND (?6 = '[]' OR type IN (SELECT value FROM json_each(?6)))
                 AND (?7 IS NULL OR json_extract(frame, '$.reply_to_msg_id') = ?7
                      OR (type = '{ACK}' AND msg_id = ?7))
                 {waiting}
             ORDER BY seq {order} LIMIT ?8"
        );
        let mut statement = self
            .connection
            .prepare_cached(&statement)
            .map_err(&failed)?;
        // Strings always are JSON.
        let types = serde_json::to_string(&query.types).unwrap_or_default();
        let values = params![
            Owner::Instance(instance.clone()).key(),
            number(query.after),
            query.before.map_or(i64::MAX, number),
            query.channel,
            query.session,
            types,
            query.about,
            query.limit,
        ];
        let rows = statement.query_map(values, |row| row.get::<_, String>(0));
        let (mut frames, mut bytes) = (Vec::new(), 0);
        for row in rows.map_err(&failed)? {
            let frame = row.map_err(&failed)?;
            bytes += frame.len();
            if bytes > query.bytes && !frames.is_empty() {
                break;
            }
            frames.push(frame);
        }
        if query.newest {
            frames.reverse();
        }
        Ok(frames)
    }
}

/// Checks that the instance is there: a message must not outlive it, and be found by
/// the next one of its name.
fn check_owner(all: &Connection, owner: &str, instance: &Handle) -> Result<(), RegistryError> {
    let statement = "SELECT 1 FROM instance WHERE folded = ?1";
    let mut statement = all.prepare_cached(statement).map_err(sql("read"))?;
    match statement.exists([owner]).map_err(sql("read"))? {
        true => Ok(()),
        false => Err(RegistryError::NoInstance(instance.clone())),
    }
}

/// The message that its sender calls the same, in the same session, of the same type.
fn sent_before(
    all: &Connection,
    owner: &str,
    frame: &Frame,
) -> rusqlite::Result<Option<(u64, String)>> {
    let Some(msg_id) = frame.msg_id() else {
        return Ok(None);
    };
    let statement = "SELECT seq, frame FROM message WHERE instance = ?1 AND channel = ?2
                     AND session = ?3 AND type = ?4 AND msg_id = ?5";
    let mut statement = all.prepare_cached(statement)?;
    let values = [
        owner,
        frame.channel(),
        frame.session(),
        frame.kind(),
        msg_id,
    ];
    let read = |row: &Row<'_>| Ok((unsigned(row.get(0)?), row.get(1)?));
    statement.query_row(values, read).optional()
}

/// Whether no more may wait for the guest.
fn is_full(all: &Connection, owner: &str, most: (usize, usize)) -> rusqlite::Result<bool> {
    let statement = "SELECT count(*), coalesce(sum(octet_length(frame)), 0) FROM message
                     WHERE instance = ?1 AND waits = 1";
    let mut statement = all.prepare_cached(statement)?;
    let figure = |row: &Row<'_>, column| row.get(column).map(unsigned);
    let (count, bytes) =
        statement.query_row([owner], |row| Ok((figure(row, 0)?, figure(row, 1)?)))?;
    Ok(count >= most.0 as u64 || bytes >= most.1 as u64)
}

/// Adds a message under the next number, which it then has.
#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; its caller is a step"
)]
fn append(all: &Connection, owner: &str, frame: &mut Frame) -> rusqlite::Result<u64> {
    let seq = last(all, owner)? + 1;
    frame.number(seq);
    let values = params![
        owner,
        number(seq),
        frame.channel(),
        frame.session(),
        frame.kind(),
        frame.to_text(),
        frame.msg_id(),
    ];
    let statement = "INSERT INTO message
                     (instance, seq, channel, session, type, frame, msg_id)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    all.prepare_cached(statement)?.execute(values)?;
    Ok(seq)
}

fn last(all: &Connection, owner: &str) -> rusqlite::Result<u64> {
    let statement = "SELECT coalesce(max(seq), 0) FROM message WHERE instance = ?1";
    let mut statement = all.prepare_cached(statement)?;
    statement.query_row([owner], |row| row.get(0).map(unsigned))
}

/// Removes the oldest messages above so many, and so many bytes; never one that waits
/// for the guest.
#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; its caller is a step"
)]
fn trim(all: &Connection, owner: &str, most: (usize, usize)) -> rusqlite::Result<()> {
    let (count, bytes) = most;
    let statement = "SELECT seq, octet_length(frame) FROM message WHERE instance = ?1
                     ORDER BY seq DESC";
    let mut statement = all.prepare_cached(statement)?;
    let mut rows = statement.query([owner])?;
    let (mut kept, mut sum) = (0, 0);
    while let Some(row) = rows.next()? {
        kept += 1;
        sum += usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
        if kept > count || sum > bytes {
            let seq: i64 = row.get(0)?;
            let statement = "DELETE FROM message
                             WHERE instance = ?1 AND seq <= ?2 AND waits = 0";
            all.execute(statement, params![owner, seq])?;
            break;
        }
    }
    Ok(())
}

/// Forgets the messages of an instance.
#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; its caller is a step"
)]
pub(super) fn forget(connection: &Connection, owner: &str) -> rusqlite::Result<()> {
    for table in ["message", "watermark"] {
        let statement = format!("DELETE FROM {table} WHERE instance = ?1");
        connection.execute(&statement, [owner])?;
    }
    Ok(())
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}

/// SQLite's integers have a sign.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use aegis_core::spec::InstanceSpec;

    use super::*;
    use crate::registry::Record;

    fn frames(numbers: std::ops::Range<u64>, channel: &str) -> Vec<(u64, Frame)> {
        let frame = |seq| {
            let text = format!(
                r#"{{"v":1,"type":"t{}","seq":{seq},"session":{{"channel":"{channel}","id":"s"}}}}"#,
                seq % 2
            );
            (seq, Frame::parse(&text).unwrap())
        };
        numbers.map(frame).collect()
    }

    fn numbers(store: &mut Store, query: &MessageQuery) -> Vec<u64> {
        let web = "web".parse().unwrap();
        let frames = store.messages(&web, query).unwrap();
        let seq = |text: &String| Frame::parse(text).unwrap().seq().unwrap();
        frames.iter().map(seq).collect()
    }

    fn query() -> MessageQuery {
        MessageQuery {
            limit: 100,
            bytes: usize::MAX,
            ..MessageQuery::default()
        }
    }

    /// One with the instance `web`.
    fn store(folder: &std::path::Path) -> Store {
        let mut store = Store::open(&folder.join("registry.db")).unwrap();
        let record = Record::new("web".parse().unwrap(), InstanceSpec::default(), 7);
        store.insert(&record, &[]).unwrap();
        store
    }

    fn message(kind: &str, msg_id: &str) -> Frame {
        let mut frame = Frame::new(kind, "a", "s", &serde_json::Value::Null).unwrap();
        frame.name_it(|| msg_id.to_owned());
        frame
    }

    const BOUNDS: Bounds = Bounds {
        kept: (100, usize::MAX),
        waiting: (3, usize::MAX),
    };

    #[test]
    fn a_message_is_kept_once_and_waits_until_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let web: Handle = "web".parse().unwrap();
        let mut times = 101..;
        let mut add = |kind, msg_id| {
            let came_at = times.next().unwrap();
            store.add_message(&web, message(kind, msg_id), came_at, BOUNDS)
        };
        let first = add("user.message", "m-1").unwrap();
        assert_eq!(
            (first.seq, first.is_new, first.frame.seq()),
            (1, true, Some(1))
        );
        let again = add("user.message", "m-1").unwrap();
        assert_eq!((again.seq, again.is_new), (1, false));
        assert_eq!(add("assistant.done", "m-1").unwrap().seq, 2, "another type");
        add("user.message", "m-2").unwrap();
        add("control.cancel", "m-3").unwrap();
        let full = add("user.message", "m-4").unwrap_err();
        assert!(matches!(full, RegistryError::TooManyMessages(_)), "{full}");
        assert!(add("user.message", "m-2").is_ok(), "it is there already");
        let waiting = MessageQuery {
            waiting: true,
            ..query()
        };
        assert_eq!(numbers(&mut store, &waiting), [1, 3, 4]);
        assert_eq!(store.awaited().unwrap(), [("web".to_owned(), 105)]);

        let told = first.frame.acknowledged(None);
        let taken = store
            .message_is_taken(&web, 1, told.clone())
            .unwrap()
            .unwrap();
        assert_eq!(taken.seq, 5);
        assert_eq!(store.message_is_taken(&web, 1, told).unwrap(), None);
        assert_eq!(numbers(&mut store, &waiting), [3, 4]);
        let about = MessageQuery {
            about: Some("m-1".into()),
            ..query()
        };
        assert_eq!(numbers(&mut store, &about), [5]);
        assert_eq!(store.last_message(&web).unwrap(), 5);
    }

    #[test]
    fn what_waits_stays_however_much_comes() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let web: Handle = "web".parse().unwrap();
        let bounds = Bounds {
            kept: (2, usize::MAX),
            ..BOUNDS
        };
        store
            .add_message(&web, message("user.message", "m"), 1, bounds)
            .unwrap();
        for number in 0..TRIM_EVERY {
            let frame = message("status.presence", &number.to_string());
            store.add_message(&web, frame, 1, bounds).unwrap();
        }
        let left = numbers(&mut store, &query());
        assert_eq!((left[0], left.len()), (1, 4), "{left:?}");
    }

    #[test]
    fn nothing_is_kept_of_an_instance_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let web: Handle = "web".parse().unwrap();
        store.set_watermark(&web, "a", 7).unwrap();
        store.set_watermark(&web, "a", 5).unwrap();
        assert_eq!(store.watermark(&web, "a").unwrap(), 5);
        store.remove(&web).unwrap();
        assert_eq!(store.watermark(&web, "a").unwrap(), 0);
        let late = store.add_message(&web, message("user.message", "m"), 1, BOUNDS);
        assert!(matches!(late, Err(RegistryError::NoInstance(_))));
        assert!(store.set_watermark(&web, "a", 1).is_err());
    }

    #[test]
    fn messages_are_found_by_what_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let (web, most) = ("web".parse().unwrap(), (100, usize::MAX));
        let added = store.add_messages(&web, &frames(1..5, "a"), most);
        assert_eq!(added.unwrap(), 4);
        let again = store.add_messages(&web, &frames(3..7, "b"), most);
        assert_eq!(again.unwrap(), 2, "numbers are given once");
        let mut asked = |change: fn(&mut MessageQuery)| {
            let mut query = query();
            change(&mut query);
            numbers(&mut store, &query)
        };
        assert_eq!(asked(|_| {}), [1, 2, 3, 4, 5, 6]);
        assert_eq!(asked(|query| query.after = 4), [5, 6]);
        assert_eq!(asked(|query| query.before = Some(3)), [1, 2]);
        assert_eq!(asked(|query| query.channel = Some("b".into())), [5, 6]);
        assert_eq!(
            asked(|query| query.session = Some("x".into())),
            [] as [u64; 0]
        );
        assert_eq!(asked(|query| query.types = vec!["t1".into()]), [1, 3, 5]);
        assert_eq!(asked(|query| query.limit = 2), [1, 2]);
        assert_eq!(
            asked(|query| (query.limit, query.newest) = (2, true)),
            [5, 6]
        );
        assert_eq!(asked(|query| query.bytes = 1), [1]);
    }

    #[test]
    fn the_oldest_go_and_those_of_a_deleted_instance() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let web: Handle = "web".parse().unwrap();
        store
            .add_messages(&web, &frames(1..9, "a"), (3, usize::MAX))
            .unwrap();
        assert_eq!(numbers(&mut store, &query()), [6, 7, 8]);
        let length = frames(1..2, "a")[0].1.to_text().len();
        store
            .add_messages(&web, &frames(9..10, "a"), (100, 2 * length))
            .unwrap();
        assert_eq!(numbers(&mut store, &query()), [8, 9]);
        store.remove(&web).unwrap();
        assert!(numbers(&mut store, &query()).is_empty());
    }
}
