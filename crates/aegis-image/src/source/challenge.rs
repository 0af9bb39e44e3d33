//! The `WWW-Authenticate` header: RFC 9110, 11.6.1, and the Bearer scheme of
//! registries, <https://distribution.github.io/distribution/spec/auth/token/>.

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from somewhere else.
    Bearer {
        realm: String,
        service: Option<String>,
    },
    /// Name and password.
    Basic,
}

/// The challenge to answer: Bearer before Basic, as only its tokens are short-lived.
pub(super) fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for (scheme, parameters) in schemes(header) {
            let get = |key: &str| {
                let found = parameters.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
                found.map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = get("realm")
            {
                return Some(Challenge::Bearer {
                    realm,
                    service: get("service"),
                });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// Splits a header into its schemes with their parameters. What does not follow the
/// grammar is left out.
fn schemes(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_word(rest);
        if word.is_empty() {
            return found;
        }
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = split_value(value);
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t', ',', '=']).unwrap_or(text.len());
    text.split_at(end)
}

fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (value.to_owned(), after);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_found_among_others() {
        let bearer = |service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: "https://auth.x/token".to_owned(),
                service: service.map(str::to_owned),
            })
        };
        for (headers, expected) in [
            (
                &[r#"Bearer realm="https://auth.x/token",service="a, \"b\"",scope="x""#][..],
                bearer(Some("a, \"b\"")),
            ),
            (
                &["Basic realm=\"r\"", "bearer realm=https://auth.x/token"],
                bearer(None),
            ),
            (
                &["Negotiate, Basic realm=r, Bearer realm=\"https://auth.x/token\""],
                bearer(None),
            ),
            (&["BASIC realm=r"], Some(Challenge::Basic)),
            (&["Bearer service=x"], None),
            (&["Bearer realm=\"https://auth.x/token"], bearer(None)),
            (&["", "=", "==\"", ",,,"], None),
            (&[], None),
        ] {
            assert_eq!(read(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
