//! Instructions of a Dockerfile that say something about an image's programs
//! ([Dockerfile reference](https://docs.docker.com/reference/dockerfile/)), as
//! `--change` of `docker import` and `podman import` takes them.
//!
//! Variables in them are not replaced: there is no image before this one that would
//! have set any.

use std::path::Path;

use crate::record::{Config, signal};

/// Why a text changes nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error(
        "'{0}' is no instruction for an image: those are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER and WORKDIR"
    )]
    Instruction(String),
    #[error("{0} says nothing")]
    Nothing(&'static str),
    #[error("'{text}' of {instruction} is not KEY=VALUE")]
    Pair {
        instruction: &'static str,
        text: String,
    },
    #[error("a quotation in {0} does not end")]
    Quotation(&'static str),
    #[error("{0} begins with [ and is not a JSON array of strings")]
    Array(&'static str),
    #[error("'{0}' is not a port: a number from 1 to 65535, with /tcp, /udp or /sctp or without")]
    Port(String),
    #[error("'{0}' is not a signal")]
    Signal(String),
}

impl Config {
    /// Does what an instruction says: `CMD ["sh"]`, `ENV A=b`, or `CMD=sh` as podman
    /// has it.
    ///
    /// # Errors
    /// It is none of those that mean something here, or not as it should be.
    pub fn change(&mut self, instruction: &str) -> Result<(), ChangeError> {
        let text = instruction.trim();
        let end = text.find(|c: char| c.is_whitespace() || c == '=');
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        match word.to_ascii_uppercase().as_str() {
            "CMD" => self.cmd = command("CMD", rest)?,
            "ENTRYPOINT" => self.entrypoint = command("ENTRYPOINT", rest)?,
            "ENV" => {
                for (name, value) in pairs("ENV", rest)? {
                    let same = |old: &String| old.split('=').next() == Some(&name);
                    let variable = format!("{name}={value}");
                    match self.env.iter_mut().find(|old| same(old)) {
                        Some(old) => *old = variable,
                        None => self.env.push(variable),
                    }
                }
            }
            "EXPOSE" => {
                let known = |text| port(text).ok_or_else(|| ChangeError::Port(text.to_owned()));
                let ports = some("EXPOSE", rest)?.split_whitespace().map(known);
                // All or none of them.
                for port in ports.collect::<Result<Vec<String>, _>>()? {
                    if !self.exposed.contains(&port) {
                        self.exposed.push(port);
                    }
                }
            }
            "LABEL" => self.labels.extend(pairs("LABEL", rest)?),
            "STOPSIGNAL" => {
                let text = some("STOPSIGNAL", rest)?;
                signal(text).ok_or_else(|| ChangeError::Signal(text.to_owned()))?;
                self.stop_signal = Some(text.to_owned());
            }
            "USER" => self.user = Some(some("USER", rest)?.to_owned()),
            "WORKDIR" => {
                let before = self.workdir.as_deref().unwrap_or("/");
                let folder = Path::new(before).join(some("WORKDIR", rest)?);
                self.workdir = Some(folder.display().to_string());
            }
            _ => return Err(ChangeError::Instruction(word.to_owned())),
        }
        Ok(())
    }
}

fn some<'a>(instruction: &'static str, text: &'a str) -> Result<&'a str, ChangeError> {
    match text {
        "" => Err(ChangeError::Nothing(instruction)),
        text => Ok(text),
    }
}

/// A JSON array of words, or a line for the shell.
fn command(instruction: &'static str, text: &str) -> Result<Vec<String>, ChangeError> {
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(|_| ChangeError::Array(instruction));
    }
    let line = some(instruction, text)?;
    Ok(["/bin/sh", "-c", line].map(str::to_owned).into())
}

fn port(text: &str) -> Option<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().ok().filter(|number| *number > 0)?;
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    known.then(|| format!("{number}/{protocol}"))
}

/// `A=b C="d e"`, or one as `A b`.
fn pairs(instruction: &'static str, text: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let text = some(instruction, text)?;
    let first = text.find(|c: char| c.is_whitespace() || c == '=');
    if let Some((name, value)) = first.map(|at| text.split_at(at))
        && value.starts_with(char::is_whitespace)
    {
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let words = words(text).ok_or(ChangeError::Quotation(instruction))?;
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ChangeError::Pair {
            instruction,
            text: word,
        }),
    };
    words.into_iter().map(pair).collect()
}

/// Words as a shell has them, without its variables; `None` if a quotation does not
/// end.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '"' => break,
                        '\\' => match characters.next()? {
                            escaped @ ('"' | '\\' | '$') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> Config {
        let mut config = Config::default();
        for instruction in instructions {
            config.change(instruction).unwrap();
        }
        config
    }

    #[test]
    fn instructions_become_a_configuration() {
        let config = changed(&[
            r#"CMD ["serve", "--port", "80"]"#,
            "entrypoint exec /bin/app",
            r#"ENV A=b C="d \"e\"" F='g $h' I=j\ k"#,
            "ENV A=later",
            "ENV TEXT  of several words ",
            "EXPOSE 80 53/udp 80/tcp",
            r#"LABEL org.example.title="A title" empty="#,
            "STOPSIGNAL SIGQUIT",
            "USER www:33",
            "WORKDIR /srv",
            "WORKDIR data",
        ]);
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let labels = [("empty", ""), ("org.example.title", "A title")];
        let expected = Config {
            cmd: list(&["serve", "--port", "80"]),
            entrypoint: list(&["/bin/sh", "-c", "exec /bin/app"]),
            env: list(&[
                "A=later",
                "C=d \"e\"",
                "F=g $h",
                "I=j k",
                "TEXT=of several words",
            ]),
            exposed: list(&["80/tcp", "53/udp"]),
            labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
            stop_signal: Some("SIGQUIT".into()),
            user: Some("www:33".into()),
            workdir: Some("/srv/data".into()),
        };
        assert_eq!(config, expected);
        assert_eq!(changed(&["CMD=sh"]).cmd, ["/bin/sh", "-c", "sh"]);
        assert_eq!(changed(&["ENV=A=b"]).env, ["A=b"]);
        assert_eq!(changed(&["WORKDIR app"]).workdir.as_deref(), Some("/app"));
        assert!(changed(&["CMD sh", "CMD []"]).cmd.is_empty());
    }

    #[test]
    fn what_is_none_is_refused() {
        use ChangeError as E;
        let refused = |text: &str| Config::default().change(text).unwrap_err();
        assert_eq!(refused("VOLUME /data"), E::Instruction("VOLUME".into()));
        assert_eq!(refused(""), E::Instruction(String::new()));
        assert_eq!(refused("USER"), E::Nothing("USER"));
        assert_eq!(refused("ENV A=\"b"), E::Quotation("ENV"));
        assert!(matches!(refused("ENV A"), E::Pair { .. }));
        assert!(matches!(refused("LABEL a=b =c"), E::Pair { .. }));
        assert_eq!(refused("CMD [sh]"), E::Array("CMD"));
        assert_eq!(refused("EXPOSE 0"), E::Port("0".into()));
        assert_eq!(refused("EXPOSE 80/http"), E::Port("80/http".into()));
        assert_eq!(refused("STOPSIGNAL NOW"), E::Signal("NOW".into()));
    }
}
