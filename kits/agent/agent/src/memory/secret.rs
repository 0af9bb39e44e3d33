//! Whether a text looks like a secret. Pure.

/// What kind of secret a text has in it, if any.
#[must_use]
pub(super) fn kind(text: &str) -> Option<&'static str> {
    if text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let words = text.split(|c: char| c.is_whitespace() || "\"'`,;()<>[]{}".contains(c));
    words
        .filter(|word| !word.is_empty())
        .find_map(token)
        .or_else(|| assigned(text).then_some("a password or key with its name"))
}

/// Tokens by the prefixes that their issuers give them.
fn token(word: &str) -> Option<&'static str> {
    // A token may stand behind "key=" or "token:".
    let bare = word
        .rsplit(['=', ':'])
        .find(|part| !part.is_empty())
        .unwrap_or(word);
    const PREFIXES: [(&str, usize, &str); 13] = [
        ("sk-", 20, "an API key"),
        ("pk-", 30, "an API key"),
        ("gsk_", 20, "an API key"),
        ("ghp_", 20, "a GitHub token"),
        ("gho_", 20, "a GitHub token"),
        ("ghs_", 20, "a GitHub token"),
        ("github_pat_", 20, "a GitHub token"),
        ("glpat-", 20, "a GitLab token"),
        ("xoxb-", 15, "a Slack token"),
        ("xoxp-", 15, "a Slack token"),
        ("AKIA", 20, "an AWS key"),
        ("AIza", 35, "a Google key"),
        ("hf_", 20, "a Hugging Face token"),
    ];
    for (prefix, length, kind) in PREFIXES {
        if bare.starts_with(prefix) && bare.len() >= length && is_token(bare) {
            return Some(kind);
        }
    }
    if bare.starts_with("eyJ") && bare.matches('.').count() == 2 && bare.len() > 40 {
        return Some("a JSON web token");
    }
    // A Telegram bot token: "123456789:" and 35 letters.
    if let Some((id, rest)) = word.rsplit_once(':') {
        let digits = id
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        if (8..=10).contains(&digits.len()) && rest.len() == 35 && is_token(rest) {
            return Some("a Telegram bot token");
        }
    }
    mixed(bare).then_some("a long random text")
}

fn is_token(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Long and random, with letters of both cases and digits all through; hashes in
/// hexadecimal, UUIDs, names of files and `sha256-…` are not.
fn mixed(word: &str) -> bool {
    let letters = word.bytes().all(|b| b.is_ascii_alphanumeric());
    let hex = word.bytes().all(|b| b.is_ascii_hexdigit());
    if word.len() < 40 || !letters || hex {
        return false;
    }
    let count = |test: fn(&u8) -> bool| word.bytes().filter(test).count() * 8 >= word.len();
    count(u8::is_ascii_uppercase)
        && count(u8::is_ascii_lowercase)
        && word.bytes().any(|b| b.is_ascii_digit())
}

/// "password: …", "api_key=…" and the like, with something that may be one.
fn assigned(text: &str) -> bool {
    let lower = text.to_lowercase();
    const NAMES: [&str; 8] = [
        "password",
        "passwort",
        "passwd",
        "api_key",
        "api key",
        "apikey",
        "secret_key",
        "access_token",
    ];
    NAMES.iter().any(|name| {
        lower.match_indices(name).any(|(at, _)| {
            let rest = lower[at + name.len()..].trim_start();
            let value = rest
                .strip_prefix([':', '='])
                .or_else(|| rest.strip_prefix("is "));
            let word = value
                .and_then(|value| value.split_whitespace().next())
                .unwrap_or_default();
            word.len() >= 6 && word.bytes().any(|b| b.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn secrets_are_known() {
        let key = format!("sk-ant-{}", "aB3-".repeat(8));
        for text in [
            key.as_str(),
            "use OPENAI_API_KEY=sk-proj-abcdefghijklmnop1234",
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "bot 123456789:AAabcdefghijklmnopqrstuvwxyz0123456",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "the password is hunter22",
            "api_key: abc12345",
            "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5hJ7k",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
        ] {
            assert!(kind(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_not_refused() {
        for text in [
            "sha256 9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
            "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "123e4567-e89b-12d3-a456-426614174000",
            "The password manager is Bitwarden",
            "/workspace/SomeVeryLongDirectoryNameOfAProject/WithAnotherLongName2024",
            "lives at https://example.com/a/path?with=query",
        ] {
            assert_eq!(kind(text), None, "{text}");
        }
    }
}
