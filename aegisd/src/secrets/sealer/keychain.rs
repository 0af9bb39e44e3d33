//! The user's keychain on macOS, asked by security(1).
//!
//! The keychain keeps the key itself, as a generic password whose account is the key's
//! id; what stands in our file is the name of the service it is kept under. Whoever runs
//! security(1) as the user while the keychain is open can have it, as whoever runs
//! systemd-creds as the user can.
//!
//! The key is in a line of the program's stdin (`security -i`), never on its command
//! line. That mode does not tell how a line went, so each is proven by reading back.
//!
//! This has not been run on a Mac: its tests have a stand-in that takes what the manual
//! page of security(1) describes, and nothing else.

use std::ffi::OsString;
use std::path::PathBuf;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::program::{Answer, ask};
use super::{Sealer, SealerError};
use crate::secrets::key::{KEY_LENGTH, Key, KeyBytes, KeyId};

/// The service that keys are kept under.
const SERVICE: &str = "org.aegisvm.secrets-key";
/// `errSecItemNotFound` (-25300) as an exit code: its lowest eight bits.
const NOT_FOUND: i32 = 44;
/// A key in hexadecimal digits.
const DIGITS: usize = 2 * KEY_LENGTH;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// See the module.
#[derive(Debug)]
pub struct Keychain {
    program: PathBuf,
    /// The keychain is found below it.
    home: Option<OsString>,
}

impl Keychain {
    pub fn new(program: PathBuf, home: Option<OsString>) -> Self {
        Self { program, home }
    }

    async fn ask(&self, arguments: &[&str], input: &[u8]) -> Result<Answer, SealerError> {
        let home = self.home.as_deref().map(|home| ("HOME", home));
        let environment: Vec<_> = home.into_iter().collect();
        // The digits, and the end of their line.
        ask(&self.program, arguments, &environment, input, DIGITS + 1).await
    }

    fn odd(&self) -> SealerError {
        SealerError::Answer(self.program.clone())
    }
}

#[async_trait]
impl Sealer for Keychain {
    fn name(&self) -> &'static str {
        "keychain"
    }

    fn bound_to(&self, _sealed: &str) -> &'static str {
        "the user's keychain"
    }

    async fn seal(&self, key: &Key) -> Result<String, SealerError> {
        let id = key.id();
        // The longest it becomes, so that no copy stays behind where it grows.
        let mut line = Zeroizing::new(String::with_capacity(256));
        line.push_str(&format!(
            "add-generic-password -U -a {id} -s {SERVICE} -D \"AegisVM key of secrets\" -w "
        ));
        for byte in key.bytes().iter() {
            let digits = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
            line.extend(digits.map(char::from));
        }
        line.push('\n');
        self.ask(&["-i"], line.as_bytes()).await?.given()?;
        match self.unseal(id, SERVICE).await? == *key.bytes() {
            true => Ok(SERVICE.to_owned()),
            false => Err(SealerError::Differs),
        }
    }

    async fn unseal(&self, id: KeyId, sealed: &str) -> Result<KeyBytes, SealerError> {
        let id = id.to_string();
        let arguments = ["find-generic-password", "-a", &id, "-s", sealed, "-w"];
        let given = self.ask(&arguments, b"").await?.given()?;
        let digits = given.strip_suffix(b"\n").unwrap_or(&given);
        let mut key = KeyBytes::default();
        if digits.len() != DIGITS {
            return Err(self.odd());
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| self.odd())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| self.odd())?;
        }
        Ok(key)
    }

    async fn forget(&self, id: KeyId, sealed: &str) -> Result<(), SealerError> {
        let id = id.to_string();
        let arguments = ["delete-generic-password", "-a", &id, "-s", sealed];
        let answer = self.ask(&arguments, b"").await?;
        match answer.code() {
            Some(NOT_FOUND) => Ok(()),
            // It tells what it deleted, which may be longer than a key.
            Some(0) => Ok(()),
            _ => answer.given().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::secrets::sealer::seal_surely;

    /// A stand-in for security(1): it keeps passwords as files, knows the three commands
    /// in the one form that is used here, and ends as the manual page says.
    fn stand_in(folder: &Path) -> Keychain {
        let path = folder.join("security");
        let script = format!(
            r#"#!/bin/sh
cd {folder} || exit 1
[ "$HOME" = /Users/alice ] || {{ echo "no keychain" >&2; exit 50; }}
echo "$*" >>args
service=org.aegisvm.secrets-key
case "$1 $2 $4 $5 $6" in
'-i    ')
    read -r verb u a account s at rest || exit 1
    [ "$verb $u $a $s $at" = "add-generic-password -U -a -s $service" ] || exit 0
    [ "${{rest% *}}" = '-D "AegisVM key of secrets" -w' ] || exit 0
    [ -e full ] || echo "${{rest##* }}" >"item-$account";;
"find-generic-password -a -s $service -w")
    cat "item-$3" 2>/dev/null || {{ echo 'SecKeychainSearchCopyNext: not found' >&2; exit 44; }};;
"delete-generic-password -a -s $service ")
    rm "item-$3" 2>/dev/null || exit 44
    echo 'keychain: "/Users/alice/Library/Keychains/login.keychain-db" and all its attributes';;
*) echo usage >&2; exit 2;;
esac"#,
            folder = folder.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Keychain::new(path, Some("/Users/alice".into()))
    }

    #[tokio::test]
    async fn a_key_is_kept_found_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let keychain = stand_in(folder.path());
        let key = Key::random().unwrap();
        let sealed = seal_surely(&keychain, &key).await.unwrap();
        assert_eq!(sealed, SERVICE);
        let digits: String = key.bytes().iter().map(|b| format!("{b:02x}")).collect();
        let arguments = fs::read_to_string(folder.path().join("args")).unwrap();
        assert!(arguments.contains("-i\n") && !arguments.contains(&digits));
        for _ in 0..2 {
            keychain.forget(key.id(), &sealed).await.unwrap();
        }
        let lost = keychain.unseal(key.id(), &sealed).await.unwrap_err();
        assert!(matches!(lost, SealerError::Refused { .. }), "{lost}");
    }

    #[tokio::test]
    async fn a_line_that_did_nothing_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let keychain = stand_in(folder.path());
        fs::write(folder.path().join("full"), "").unwrap();
        let sealed = keychain.seal(&Key::random().unwrap()).await;
        assert!(matches!(sealed, Err(SealerError::Refused { .. })));
    }

    #[tokio::test]
    async fn what_is_no_key_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let keychain = stand_in(folder.path());
        let id = Key::random().unwrap().id();
        for content in [
            "",
            "zz",
            &"zz".repeat(KEY_LENGTH),
            &"00".repeat(KEY_LENGTH + 1),
        ] {
            fs::write(folder.path().join(format!("item-{id}")), content).unwrap();
            let odd = keychain.unseal(id, SERVICE).await;
            assert!(matches!(odd, Err(SealerError::Answer(_))), "{content}");
        }
    }
}
