//! What an import says it did, or would do.

use std::path::Path;

use serde_json::{Value, json};

use super::steps::{Fate, Steps};
use crate::cli::Context;
use crate::failure::Failure;
use crate::ui::{Table, Tone, clean};

pub(super) struct Report<'a> {
    pub(super) from: &'a Path,
    pub(super) dry_run: bool,
    pub(super) steps: &'a Steps,
    pub(super) messages_left: usize,
    pub(super) notes: &'a [String],
}

impl Report<'_> {
    pub(super) fn print(&self, context: &Context) -> Result<(), Failure> {
        context
            .ui
            .data(|| self.to_json(), || self.table().render(context.ui))?;
        if context.ui.wants_json() {
            return Ok(());
        }
        for note in self.notes {
            context.ui.note(&format!("note: {}", clean(note)));
        }
        let end = match (self.steps.are_none(), self.dry_run) {
            (true, _) => "Everything is here already; nothing was changed.",
            (false, true) => "Nothing was changed: this is what an import would do.",
            (false, false) => "No instance was started: aegisctl instance start --name NAME",
        };
        context.ui.note(end);
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["WHAT", "NAME", "OUTCOME"]);
        let mut row = |what: &str, name: &str, tone: Tone, outcome: String| {
            let plain = |text: &str| (Tone::Plain, text.to_owned());
            table.row(vec![plain(what), plain(name), (tone, outcome)]);
        };
        for image in &self.steps.images {
            let word = self.word("pulled", "to be pulled");
            row("image", image, Tone::Good, word.to_owned());
        }
        for (name, fate) in &self.steps.secrets {
            let (tone, word) = self.outcome(*fate);
            row("secret", name, tone, word.to_owned());
        }
        for (wish, fate) in &self.steps.instances {
            let (tone, word) = self.outcome(*fate);
            let mut words = word.to_owned();
            if wish.old_name != wish.handle.as_str() {
                words.push_str(&format!(", '{}' there", wish.old_name));
            }
            if !wish.enabled && *fate == Fate::Imported {
                words.push_str(", disabled");
            }
            row("instance", wish.handle.as_str(), tone, words);
            if let Some(frames) = self.steps.messages.get(&wish.handle) {
                let word = self.word("imported", "to be imported");
                let words = format!("{} {word}", frames.len());
                row("messages", wish.handle.as_str(), Tone::Good, words);
            }
        }
        table
    }

    fn outcome(&self, fate: Fate) -> (Tone, &'static str) {
        match fate {
            Fate::Imported => (Tone::Good, self.word("imported", "to be imported")),
            Fate::Replaced => (Tone::Good, self.word("replaced", "to be replaced")),
            Fate::Here => (Tone::Plain, "already here"),
        }
    }

    fn word(&self, done: &'static str, to_do: &'static str) -> &'static str {
        if self.dry_run { to_do } else { done }
    }

    fn to_json(&self) -> Value {
        let outcome = match (self.steps.are_none(), self.dry_run) {
            (true, _) => "unchanged",
            (false, true) => "planned",
            (false, false) => "imported",
        };
        let secrets = self.steps.secrets.iter();
        let secrets = secrets.map(|(name, fate)| json!({"name": name, "outcome": word(*fate)}));
        let instances = self.steps.instances.iter().map(|(wish, fate)| {
            json!({
                "handle": wish.handle,
                "original": wish.old_name,
                "enabled": wish.enabled,
                "outcome": word(*fate),
                "messages": self.steps.messages.get(&wish.handle).map_or(0, Vec::len),
            })
        });
        json!({
            "outcome": outcome,
            "from": self.from.to_string_lossy(),
            "images": self.steps.images,
            "secrets": secrets.collect::<Vec<_>>(),
            "instances": instances.collect::<Vec<_>>(),
            "messages_left": self.messages_left,
            "notes": self.notes,
        })
    }
}

/// As programs read it.
fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Imported => "imported",
        Fate::Replaced => "replaced",
        Fate::Here => "here",
    }
}
