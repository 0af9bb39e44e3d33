//! Commands that people write, and to whom a message of a group speaks. Pure.

use super::types::{Entity, Message, User};

/// A command of the gateway's own. Others are words for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Start,
    Help,
    Status,
    Cancel,
    New,
    /// A command for the guest's shell; none begins the shell mode.
    Exec(Option<String>),
    Exit,
}

/// What the clients offer, with its description.
pub const OFFERED: [(&str, &str); 4] = [
    ("new", "Begin a new conversation"),
    ("cancel", "Stop the answer that is being written"),
    ("status", "What the agent is doing"),
    ("help", "What this bot can do"),
];
/// Offered where the settings allow a shell.
pub const OFFERED_WITH_SHELL: [(&str, &str); 2] = [
    ("exec", "Run a command in the VM, or begin a shell"),
    ("exit", "Leave the shell"),
];

impl Command {
    /// The command that a text begins with, if it is one for this bot: `/name`,
    /// or `/name@bot`. `/exec` and `/exit` are commands only where there is a `shell`.
    pub fn read(text: &str, bot: &str, shell: bool) -> Option<Self> {
        let (word, rest) = match text.split_once(char::is_whitespace) {
            Some((word, rest)) => (word, rest.trim()),
            None => (text, ""),
        };
        let word = word.strip_prefix('/')?;
        let name = match word.split_once('@') {
            Some((name, whom)) if whom.eq_ignore_ascii_case(bot) => name,
            Some(_) => return None,
            None => word,
        };
        match name.to_ascii_lowercase().as_str() {
            "start" => Some(Self::Start),
            "help" => Some(Self::Help),
            "status" => Some(Self::Status),
            "cancel" => Some(Self::Cancel),
            "new" => Some(Self::New),
            "exec" if shell => Some(Self::Exec((!rest.is_empty()).then(|| rest.to_owned()))),
            "exit" if shell => Some(Self::Exit),
            _ => None,
        }
    }
}

/// Whether a message is for the bot: any of a private chat; in a group one that mentions
/// it, answers it, or is a command with its name.
pub fn addresses(message: &Message, bot: &User) -> bool {
    let answers = message
        .reply_to_message
        .as_ref()
        .and_then(|other| other.from.as_ref());
    message.chat.is_private()
        || answers.is_some_and(|from| from.id == bot.id)
        || message
            .marks()
            .iter()
            .any(|mark| is_bot(message.words(), mark, bot))
}

/// The words of a message without a mention of the bot in front.
pub fn words_for<'a>(message: &'a Message, bot: &User) -> &'a str {
    let words = message.words();
    let first = message.marks().iter().find(|mark| mark.offset == 0);
    match first.filter(|mark| mark.kind != "bot_command" && is_bot(words, mark, bot)) {
        Some(mark) => {
            let rest = &words[slice(words, mark).len()..];
            rest.trim_start_matches([' ', ',', ':', '\n'])
        }
        None => words,
    }
}

fn is_bot(text: &str, mark: &Entity, bot: &User) -> bool {
    let name = bot.username.as_deref().unwrap_or_default();
    match mark.kind.as_str() {
        "mention" => slice(text, mark)
            .strip_prefix('@')
            .is_some_and(|word| word.eq_ignore_ascii_case(name)),
        "text_mention" => mark.user.as_ref().is_some_and(|user| user.id == bot.id),
        "bot_command" => slice(text, mark)
            .split_once('@')
            .is_some_and(|(_, whom)| whom.eq_ignore_ascii_case(name)),
        _ => false,
    }
}

/// The text that an entity marks; empty where the entity makes no sense.
fn slice<'a>(text: &'a str, mark: &Entity) -> &'a str {
    let place = |units: usize| {
        let mut used = 0;
        for (at, character) in text.char_indices() {
            if used >= units {
                return at;
            }
            used += character.len_utf16();
        }
        text.len()
    };
    let end = mark.offset.saturating_add(mark.length);
    text.get(place(mark.offset)..place(end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bot() -> User {
        serde_json::from_value(
            json!({"id": 9, "is_bot": true, "first_name": "B", "username": "my_bot"}),
        )
        .unwrap()
    }

    fn message(kind: &str, text: &str, entities: &Value, more: &Value) -> Message {
        let mut message = json!({"message_id": 1, "chat": {"id": 1, "type": kind}, "text": text,
            "entities": entities});
        message
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn commands_are_read_with_and_without_the_name_of_the_bot() {
        let read = |text| Command::read(text, "my_bot", true);
        assert_eq!(read("/status"), Some(Command::Status));
        assert_eq!(read("/STATUS@My_Bot now"), Some(Command::Status));
        assert_eq!(read("/status@other"), None);
        assert_eq!(
            read("/exec ls -l\n/tmp "),
            Some(Command::Exec(Some("ls -l\n/tmp".into())))
        );
        assert_eq!(read("/exec@my_bot"), Some(Command::Exec(None)));
        assert_eq!(read("/unknown"), None);
        assert_eq!(read("status"), None);
    }

    #[test]
    fn without_a_shell_there_is_no_command_for_it() {
        assert_eq!(Command::read("/exec id", "my_bot", false), None);
        assert_eq!(Command::read("/exit", "my_bot", false), None);
    }

    #[test]
    fn in_groups_only_what_is_said_to_the_bot_counts() {
        let none = json!({});
        let addressed = |text: &str, entities: Value, more: Value| {
            addresses(&message("group", text, &entities, &more), &bot())
        };
        assert!(!addressed("hello", json!([]), none.clone()));
        let mention = json!([{"type": "mention", "offset": 3, "length": 7}]);
        assert!(addressed("😀 @My_Bot hi", mention.clone(), none.clone()));
        assert!(!addressed("😀 @Xy_Bot hi", mention, none.clone()));
        let command = json!([{"type": "bot_command", "offset": 0, "length": 14}]);
        assert!(addressed("/status@my_bot", command, none.clone()));
        let command = json!([{"type": "bot_command", "offset": 0, "length": 7}]);
        assert!(!addressed("/status", command, none.clone()));
        let reply = |id| {
            json!({"reply_to_message": {"message_id": 1, "from": {"id": id},
                "chat": {"id": 1, "type": "group"}}})
        };
        assert!(addressed("yes", json!([]), reply(9)));
        assert!(!addressed("yes", json!([]), reply(8)));
        assert!(addresses(
            &message("private", "hi", &json!([]), &none),
            &bot()
        ));
    }

    #[test]
    fn a_mention_in_front_is_no_word_for_the_agent() {
        let words = |offset, text: &str| {
            let mention = json!([{"type": "mention", "offset": offset, "length": 7}]);
            words_for(&message("group", text, &mention, &json!({})), &bot()).to_owned()
        };
        assert_eq!(words(0, "@my_bot, what is it?"), "what is it?");
        assert_eq!(words(500, "what"), "what");
    }
}
