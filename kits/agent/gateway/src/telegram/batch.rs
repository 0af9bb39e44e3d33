//! What of the updates that Telegram holds is dealt with now. Pure.
//!
//! Telegram gives the same updates again until they are confirmed, and the photos of an
//! album as messages of their own. An album is dealt with when all of it must be there: an
//! answer of Telegram brought no further photo of it, or it has ten, the most there are.

use std::collections::BTreeSet;

use super::types::{Message, Update};

/// Most photos and files of an album.
const ALBUM: usize = 10;

/// Messages that belong together: one, or those of an album.
#[derive(Clone, Debug)]
pub struct Group {
    pub messages: Vec<Message>,
    pub updates: Vec<i64>,
    album: Option<String>,
}

/// The state between two answers of Telegram.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// All updates before this one are dealt with.
    offset: i64,
    /// Updates from there on that are dealt with.
    done: BTreeSet<i64>,
    /// How many messages of which albums were there the last time.
    waiting: Vec<(i64, String, usize)>,
}

impl Batch {
    pub fn new(offset: i64) -> Self {
        Self {
            offset,
            ..Self::default()
        }
    }

    /// What to ask Telegram for next, which confirms all before.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Whether an album may not be complete, so that Telegram is asked again soon.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The groups that can be dealt with, in the order of their first messages. Updates
    /// that are nothing for us are dealt with by this.
    pub fn plan(&mut self, updates: &[Update]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for update in updates {
            if update.update_id < self.offset || self.done.contains(&update.update_id) {
                continue;
            }
            let Some(message) = read(update) else {
                self.done.insert(update.update_id);
                continue;
            };
            let album = message.media_group_id.clone();
            let same = album.as_ref().and_then(|id| {
                groups.iter_mut().find(|group| {
                    group.album.as_ref() == Some(id) && group.messages[0].chat.id == message.chat.id
                })
            });
            match same {
                Some(group) => {
                    group.updates.push(update.update_id);
                    group.messages.push(message);
                }
                None => groups.push(Group {
                    updates: vec![update.update_id],
                    messages: vec![message],
                    album,
                }),
            }
        }
        let before = std::mem::take(&mut self.waiting);
        let mut ready = Vec::new();
        for group in groups {
            let chat = group.messages[0].chat.id;
            let behind = self.waiting.iter().any(|(other, _, _)| *other == chat);
            let album = group.album.clone();
            let entry = album.map(|album| (chat, album, group.messages.len()));
            match entry {
                // What was written after an album of the same chat waits with it.
                _ if behind => {}
                Some(entry) if entry.2 < ALBUM && !before.contains(&entry) => {
                    self.waiting.push(entry);
                }
                _ => ready.push(group),
            }
        }
        ready
    }

    /// These updates are dealt with; all that Telegram gave were `given`. What is asked for
    /// next begins at the first that is not dealt with.
    pub fn finish(&mut self, dealt_with: &[i64], given: &[Update]) {
        self.done.extend(dealt_with);
        let ids = given.iter().map(|update| update.update_id);
        let ids = ids.filter(|id| *id >= self.offset);
        let open = ids.clone().filter(|id| !self.done.contains(id)).min();
        let next = open.or_else(|| ids.max().map(|last| last + 1));
        self.offset = next.unwrap_or(self.offset);
        self.done = self.done.split_off(&self.offset);
    }
}

/// The message of an update, if it has one of a form we know.
fn read(update: &Update) -> Option<Message> {
    let message = update.message.clone()?;
    match serde_json::from_value(message) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::warn!(
                "the update {} makes no sense, ignoring: {error}",
                update.update_id
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn update(id: i64, chat: i64, album: Option<&str>) -> Update {
        let message = json!({"message_id": id, "chat": {"id": chat, "type": "private"},
            "text": "x", "media_group_id": album});
        serde_json::from_value(json!({"update_id": id, "message": message})).unwrap()
    }

    fn deal(batch: &mut Batch, updates: &[Update]) -> Vec<Vec<i64>> {
        let groups = batch.plan(updates);
        let told: Vec<_> = groups.iter().map(|group| group.updates.clone()).collect();
        batch.finish(&told.concat(), updates);
        told
    }

    #[test]
    fn updates_are_confirmed_when_they_are_dealt_with() {
        let mut batch = Batch::new(0);
        let updates = [update(5, 1, None), update(6, 2, None)];
        assert_eq!(deal(&mut batch, &updates), [vec![5], vec![6]]);
        assert_eq!(batch.offset(), 7);
        assert_eq!(deal(&mut batch, &updates), Vec::<Vec<i64>>::new());
        let edited = serde_json::from_value(json!({"update_id": 7, "edited_message": {}})).unwrap();
        let odd = serde_json::from_value(json!({"update_id": 8, "message": {"x": 1}})).unwrap();
        assert_eq!(deal(&mut batch, &[edited, odd]), Vec::<Vec<i64>>::new());
        assert_eq!(batch.offset(), 9);
    }

    #[test]
    fn an_album_is_joined_and_waited_for_while_other_chats_go_on() {
        let mut batch = Batch::new(1);
        let mut updates = vec![
            update(1, 1, Some("a")),
            update(2, 2, None),
            update(3, 1, None),
        ];
        assert_eq!(deal(&mut batch, &updates), [vec![2]]);
        assert!(batch.is_waiting());
        assert_eq!(batch.offset(), 1);
        updates.push(update(4, 1, Some("a")));
        assert_eq!(deal(&mut batch, &updates), Vec::<Vec<i64>>::new());
        assert_eq!(batch.offset(), 1);
        assert_eq!(deal(&mut batch, &updates), [vec![1, 4], vec![3]]);
        assert!(!batch.is_waiting());
        assert_eq!(batch.offset(), 5);
    }

    #[test]
    fn an_album_of_ten_is_complete() {
        let mut batch = Batch::new(1);
        let updates: Vec<_> = (1..=10).map(|id| update(id, 1, Some("a"))).collect();
        assert_eq!(deal(&mut batch, &updates), [(1..=10).collect::<Vec<_>>()]);
    }
}
