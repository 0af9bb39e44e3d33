//! What of a program that goes into a guest can be told to be wrong without the guest.

use std::collections::BTreeMap;

use super::SpecError;

/// The longest word that execve(2) takes, its NUL not counted (MAX_ARG_STRLEN of
/// Linux).
pub const MAX_WORD: usize = 128 * 1024 - 1;
/// The most that a command and its environment may come to: what goes to a guest in
/// one message, with room for its JSON.
pub const MAX_PROGRAM: usize = 256 * 1024;
/// The longest path, its NUL not counted (PATH_MAX of Linux).
pub(crate) const MAX_PATH: usize = 4095;
/// The longest name of a user or a group (LOGIN_NAME_MAX of Linux).
const MAX_NAME: usize = 255;

/// Checks a program that goes into a guest, as far as that can be told without the
/// guest. An empty command means "none".
///
/// # Errors
/// The first word that no guest could take.
pub fn validate_program(
    command: &[String],
    env: &BTreeMap<String, String>,
    workdir: Option<&str>,
    user: Option<&str>,
) -> Result<(), SpecError> {
    if command.first().is_some_and(String::is_empty) {
        return Err(SpecError::EmptyCommand);
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(SpecError::Argument);
    }
    validate_env(env)?;
    // A variable is one word, `NAME=VALUE`.
    let variables = env.iter().map(|(name, value)| name.len() + 1 + value.len());
    let words = command.iter().map(String::len).chain(variables);
    let mut together = 0;
    for length in words {
        if length > MAX_WORD {
            return Err(SpecError::WordTooLong(length));
        }
        together += length;
    }
    if together > MAX_PROGRAM {
        return Err(SpecError::ProgramTooLong(together));
    }
    match workdir {
        Some(workdir) if workdir.contains('\0') || workdir.len() > MAX_PATH => {
            return Err(SpecError::WorkdirText);
        }
        Some(workdir) if !workdir.starts_with('/') => {
            return Err(SpecError::Workdir(workdir.to_owned()));
        }
        _ => {}
    }
    match user {
        Some(user) if !is_user(user) => Err(SpecError::User(user.escape_default().to_string())),
        _ => Ok(()),
    }
}

/// Whether a text may name a user and a group. A number names a user by itself
/// (passwd(5) has no names of digits alone), but for the one that means "no change"
/// in chown(2).
fn is_user(text: &str) -> bool {
    let is_part = |part: &str| {
        let names = |c: char| !c.is_control() && !c.is_whitespace() && c != ':' && c != '/';
        match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse::<u32>().is_ok_and(|number| number != u32::MAX),
            false => part.len() <= MAX_NAME && part.chars().all(names),
        }
    };
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    is_part(user) && group.is_none_or(is_part)
}

/// Checks environment variables that go into a guest or a daemon.
///
/// # Errors
/// The first name or value that execve(2) could not carry.
pub fn validate_env(env: &BTreeMap<String, String>) -> Result<(), SpecError> {
    for (name, value) in env {
        validate_env_name(name)?;
        if value.contains('\0') {
            return Err(SpecError::EnvValue(name.clone()));
        }
    }
    Ok(())
}

/// Checks the name of an environment variable.
///
/// # Errors
/// When execve(2) could not carry it.
pub fn validate_env_name(name: &str) -> Result<(), SpecError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(SpecError::EnvName(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_guest_could_take_is_told_before_there_is_one() {
        let check = |command: &[&str], env: &[(&str, &str)], workdir, user| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let env = env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            validate_program(&command, &env.collect(), workdir, user)
        };
        for user in [
            "root",
            "1000",
            "0:0",
            "www-data:adm",
            "a.b_c$",
            "ü",
            "4294967294",
        ] {
            assert_eq!(check(&["id"], &[], None, Some(user)), Ok(()), "{user}");
        }
        for user in [
            "",
            ":",
            "a:",
            ":b",
            "a:b:c",
            "a b",
            "a\nb",
            "a\0",
            "4294967295",
            "99999999999",
            "a/b",
        ] {
            let refused = check(&["id"], &[], None, Some(user));
            assert!(matches!(refused, Err(SpecError::User(_))), "{user:?}");
        }
        let name = "x".repeat(MAX_NAME + 1);
        assert!(check(&["id"], &[], None, Some(&name)).is_err());
        for workdir in ["", "tmp", "./tmp"] {
            let refused = check(&["id"], &[], Some(workdir), None);
            assert!(matches!(refused, Err(SpecError::Workdir(_))), "{workdir:?}");
        }
        let deep = "/x".repeat(MAX_PATH);
        for workdir in ["/a\0b", deep.as_str()] {
            let refused = check(&["id"], &[], Some(workdir), None);
            assert_eq!(refused, Err(SpecError::WorkdirText));
        }
        let long = "x".repeat(MAX_WORD + 1);
        assert_eq!(
            check(&["id", &long], &[], None, None),
            Err(SpecError::WordTooLong(long.len()))
        );
        assert_eq!(
            check(&["id"], &[("A", &long)], None, None),
            Err(SpecError::WordTooLong(long.len() + 2))
        );
        let half = &long[1..];
        assert_eq!(
            check(&["id", half, half, half], &[], None, None),
            Err(SpecError::ProgramTooLong(2 + 3 * MAX_WORD))
        );
    }
}
