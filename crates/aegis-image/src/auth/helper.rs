//! Credential helpers, `docker-credential-NAME`:
//! <https://github.com/docker/docker-credential-helpers>.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;
use zeroize::Zeroizing;

use aegis_core::secret::SecretText;

use super::Credentials;
use crate::error::{ConfigError, HelperError, SourceError};

/// What a helper says that has no credentials, on its standard output.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user of an answer whose secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// Longest answer; tokens of cloud registries have a few thousand bytes.
const MAX_ANSWER: u64 = 256 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: SecretText,
}

/// Asks a helper for the credentials of a server. `path` is the file that names it.
pub(super) fn get(
    name: &str,
    server: &str,
    host: &str,
    path: &Path,
) -> Result<Option<Credentials>, SourceError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(SourceError::Config {
            path: path.to_owned(),
            source: ConfigError::HelperName(name.to_owned()),
        });
    }
    let program = format!("docker-credential-{name}");
    ask(&program, server).map_err(|source| SourceError::Helper {
        helper: program,
        host: host.to_owned(),
        source,
    })
}

fn ask(program: &str, server: &str) -> Result<Option<Credentials>, HelperError> {
    let (status, output) = run(program, server).map_err(HelperError::Run)?;
    if !status.success() {
        let words = String::from_utf8_lossy(&output);
        return match words.trim() == NOT_FOUND {
            true => Ok(None),
            false => Err(HelperError::Failed(status)),
        };
    }
    // The error of the reader could show a part of the secret.
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| HelperError::Answer)?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password {
            username: answer.username,
            password: answer.secret,
        },
    }))
}

fn run(program: &str, server: &str) -> io::Result<(ExitStatus, Zeroizing<Vec<u8>>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = Zeroizing::new(Vec::new());
    let asked = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(server.as_bytes()),
        None => Ok(()),
    };
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(MAX_ANSWER).read_to_end(&mut output),
        None => Ok(0),
    };
    // It is gone before anything else is said about it.
    let status = child.wait()?;
    match asked {
        // One that ended without reading has said why with its status.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    read?;
    Ok((status, output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn helper(folder: &Path, script: &str) -> String {
        let path = folder.join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\nread server\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_helper_is_asked_by_its_protocol() {
        let folder = tempfile::tempdir().unwrap();
        let program = helper(
            folder.path(),
            r#"[ "$1 $server" = "get h.x" ] && echo '{"ServerURL":"h.x","Username":"me","Secret":"hunter2"}'"#,
        );
        let found = ask(&program, "h.x").unwrap().unwrap();
        assert!(
            matches!(found, Credentials::Password { username, password } if username == "me" && password.reveal() == "hunter2")
        );

        let program = helper(
            folder.path(),
            r#"echo '{"Username":"<token>","Secret":"t"}'"#,
        );
        let found = ask(&program, "h.x").unwrap().unwrap();
        assert!(matches!(found, Credentials::IdentityToken(_)));

        let program = helper(folder.path(), &format!("echo {NOT_FOUND}; exit 1"));
        assert_eq!(ask(&program, "h.x").unwrap(), None);
        let program = helper(folder.path(), "echo locked; exit 1");
        assert!(matches!(ask(&program, "h.x"), Err(HelperError::Failed(_))));
        let program = helper(folder.path(), "echo hunter2");
        assert!(matches!(ask(&program, "h.x"), Err(HelperError::Answer)));
    }

    #[test]
    fn a_helper_is_a_name_and_no_path() {
        let error = get("../x", "h.x", "h.x", Path::new("auth.json")).unwrap_err();
        assert!(matches!(error, SourceError::Config { .. }), "{error}");
        let error = get("no-such-helper", "h.x", "h.x", Path::new("auth.json")).unwrap_err();
        assert!(matches!(error, SourceError::Helper { .. }), "{error}");
    }
}
