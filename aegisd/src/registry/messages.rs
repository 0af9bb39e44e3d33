//! The table of messages: what host and guest of an instance told each other.

use aegis_core::handle::Handle;
use aegis_core::tether::Frame;
use aegis_fault_points::around;
use rusqlite::{Connection, params};

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

#[expect(
    clippy::disallowed_methods,
    reason = "the registry's own table; every change is a step"
)]
impl Store {
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
        let statement = format!(
            "SELECT frame FROM message WHERE instance = ?1 AND seq > ?2 AND seq < ?3
                 AND (?4 IS NULL OR channel = ?4) AND (?5 IS NULL OR session = ?5)
                 AND (?6 = '[]' OR type IN (SELECT value FROM json_each(?6)))
             ORDER BY seq {order} LIMIT ?7"
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

/// Removes the oldest messages above so many, and so many bytes.
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
            let statement = "DELETE FROM message WHERE instance = ?1 AND seq <= ?2";
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
    let forgotten = connection.execute("DELETE FROM message WHERE instance = ?1", [owner]);
    forgotten.map(drop)
}

/// SQLite's integers have a sign.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn messages_are_found_by_what_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("registry.db")).unwrap();
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
        let mut store = Store::open(&folder.path().join("registry.db")).unwrap();
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
