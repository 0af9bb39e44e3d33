//! Labels: what users note on instances to find them again.
//!
//! `KEY=VALUE` as people write it. A key without a value has the empty one, as
//! with podman and Docker.

use std::collections::BTreeMap;

/// The longest key or value in bytes: what a table or a filter can still show.
const LONGEST: usize = 4096;
/// Most labels of an instance: they travel with every list.
const MOST: usize = 256;

/// Labels by their keys.
pub type Labels = BTreeMap<String, String>;

/// Why labels are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("the label '{0}' has no key; it is written KEY=VALUE")]
    NoKey(String),
    #[error("the key of the label '{0}' must not hold white space, control characters or '='")]
    Key(String),
    #[error("the value of the label '{0}' must not hold control characters")]
    Value(String),
    #[error("the label '{0}...' is longer than {LONGEST} bytes")]
    TooLong(String),
    #[error("there are {0} labels, more than the {MOST} an instance may have")]
    TooMany(usize),
}

/// Reads `KEY=VALUE` or `KEY`.
///
/// # Errors
/// The text has no key, or holds what a label may not hold.
pub fn parse(text: &str) -> Result<(String, String), LabelError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(LabelError::NoKey(text.to_owned()));
    }
    check(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Checks labels that came as a map.
///
/// # Errors
/// The first one that is not acceptable.
pub fn validate(labels: &Labels) -> Result<(), LabelError> {
    if labels.len() > MOST {
        return Err(LabelError::TooMany(labels.len()));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return Err(LabelError::NoKey(format!("={value}")));
        }
        check(key, value)?;
    }
    Ok(())
}

fn check(key: &str, value: &str) -> Result<(), LabelError> {
    let begin = || key.chars().take(32).collect::<String>();
    if key.len() > LONGEST || value.len() > LONGEST {
        return Err(LabelError::TooLong(begin()));
    }
    if key.contains(|c: char| c.is_control() || c.is_whitespace() || c == '=') {
        return Err(LabelError::Key(begin()));
    }
    if value.contains(char::is_control) {
        return Err(LabelError::Value(begin()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs_and_a_value_may_be_absent() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse("team=web"), pair("team", "web"));
        assert_eq!(parse("a=b=c"), pair("a", "b=c"));
        assert_eq!(parse("canary"), pair("canary", ""));
        assert_eq!(parse("=x"), Err(LabelError::NoKey("=x".into())));
        assert_eq!(parse("a b=x"), Err(LabelError::Key("a b".into())));
        assert_eq!(parse("a=x\n"), Err(LabelError::Value("a".into())));
    }

    #[test]
    fn what_comes_as_a_map_is_held_to_the_same() {
        let of = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(validate(&of("team", "web 1")), Ok(()));
        assert!(validate(&of("", "x")).is_err());
        assert!(validate(&of("a=b", "x")).is_err());
        let long = "x".repeat(LONGEST + 1);
        assert!(matches!(
            validate(&of("a", &long)),
            Err(LabelError::TooLong(_))
        ));
        let many: Labels = (0..=MOST).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(validate(&many), Err(LabelError::TooMany(MOST + 1)));
    }
}
