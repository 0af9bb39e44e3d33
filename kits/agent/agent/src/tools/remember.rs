//! The tools memory_store, memory_search and memory_delete.

use super::{Call, Input, Said};
use crate::frame::SessionKey;
use crate::memory::{Memories, Scope, Viewer};
use crate::provider::exchange::chain;
use crate::session::turn::User;

/// Who asks, as memories name people.
pub(super) fn viewer(session: &SessionKey, user: Option<&User>) -> Viewer {
    let person = user
        .map(|user| user.id.as_str())
        .filter(|id| !id.is_empty());
    Viewer {
        session: format!("{}/{}", session.channel, session.id),
        user: person.map(|id| format!("{}/{id}", session.channel)),
    }
}

pub(super) fn call(memories: &Memories, call: &Call<'_>) -> Said {
    let input = Input(call.input);
    let viewer = viewer(call.session, call.user);
    match call.name {
        "memory_store" => {
            let tags = call.input["tags"].as_array().into_iter().flatten();
            let tags = tags
                .filter_map(|tag| tag.as_str().map(str::to_owned))
                .collect();
            let scope = match input.optional("scope") {
                None | Some("") => None,
                Some("user") => Some(Scope::User),
                Some("workspace") => Some(Scope::Workspace),
                Some("session") => Some(Scope::Session),
                Some(other) => return Err(format!("There is no scope {other}.")),
            };
            let total = call.config.memory.total();
            let stored = memories.store(input.text("text")?, tags, scope, &viewer, total);
            stored
                .map(|id| format!("Remembered as {id}."))
                .map_err(|error| chain(&error))
        }
        "memory_search" => {
            let query = input.optional("query").unwrap_or_default();
            let tag = input.optional("tag").filter(|tag| !tag.is_empty());
            let found = memories.search(query, tag, &viewer);
            let line = |memory: &crate::memory::Memory| {
                let tags = match memory.tags.is_empty() {
                    true => String::new(),
                    false => format!(" ({})", memory.tags.join(", ")),
                };
                format!("[{}] {}{tags}", memory.id, memory.text)
            };
            Ok(match found.is_empty() {
                true => "Nothing is remembered of that.".to_owned(),
                false => found.iter().map(line).collect::<Vec<_>>().join("\n"),
            })
        }
        _ => {
            let id = input.text("id")?;
            let forgotten = memories.delete(id, &viewer);
            forgotten
                .map(|()| format!("Forgot {id}."))
                .map_err(|error| chain(&error))
        }
    }
}
