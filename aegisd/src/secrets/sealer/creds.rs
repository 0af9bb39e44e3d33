//! systemd-creds(1): seals with the host's key, and with the TPM2 where there is one.
//!
//! In system mode aegisd is root and the program does it by itself. In user mode it
//! asks the system's manager, which binds what it seals to the user; it does so from
//! systemd 256 on, and an older one does not know the option.
//!
//! The key passes through pipes. On the command line is its id, which the sealed text
//! is bound to, so that one is not taken for another.

use std::path::PathBuf;

use aegis_core::layout::Mode;
use async_trait::async_trait;
use zeroize::Zeroizing;

use super::program::ask;
use super::{Sealer, SealerError};
use crate::secrets::key::{KEY_LENGTH, Key, KeyBytes, KeyId};

/// Most bytes of a sealed key, which has about 300, with a TPM2 about 1,500.
const MOST_SEALED: usize = 64 * 1024;

/// How sealed texts begin, by what opens them: whole characters of the base64 of
/// `CRED_AES256_GCM_BY_*` in systemd's creds-util.h.
const BOUND_TO: [(&str, &str); 8] = [
    ("Whxqht+dQJax1aZeCGLxm", HOST),
    ("VbntHThZTUOoMZ0uuzMqx", HOST),
    ("DHzAexF2RZGcSwvqCLwg/", TPM2),
    ("+vfrk0HjQSyhpDb5Wik2L", TPM2),
    ("k6iUCUh0RJCQyvL8k8q1U", BOTH),
    ("70rBNnmpSA6n22iJf58WX", BOTH),
    ("r0lQqEkTTrGnOEYwT/MMB", BOTH),
    ("rbxMo++2QgG6iBtvLkCV6", BOTH),
];
const HOST: &str = "the host's key";
const TPM2: &str = "the host's TPM2";
const BOTH: &str = "the host's key and TPM2";

/// How a text begins that everybody can open: for want of a key it is bound to none.
const UNBOUND: &str = "BYRp2vb1QySABUnaD46i+";

/// See the module.
#[derive(Debug)]
pub struct SystemdCreds {
    program: PathBuf,
    mode: Mode,
}

impl SystemdCreds {
    pub fn new(program: PathBuf, mode: Mode) -> Self {
        Self { program, mode }
    }

    /// Runs it with that on its stdin; no more than `most` bytes are taken.
    async fn run(
        &self,
        verb: &str,
        options: &[&str],
        id: KeyId,
        input: &[u8],
        most: usize,
    ) -> Result<Zeroizing<Vec<u8>>, SealerError> {
        let name = format!("--name=aegis-key-{id}");
        let user = (self.mode == Mode::User).then_some("--user");
        let mut arguments = vec![verb];
        arguments.extend(options.iter().copied().chain(user));
        // From stdin to stdout.
        arguments.extend([name.as_str(), "-", "-"]);
        ask(&self.program, &arguments, &[], input, most)
            .await?
            .given()
    }

    fn odd(&self) -> SealerError {
        SealerError::Answer(self.program.clone())
    }
}

#[async_trait]
impl Sealer for SystemdCreds {
    fn name(&self) -> &'static str {
        "systemd-creds"
    }

    fn bound_to(&self, sealed: &str) -> &'static str {
        let known = BOUND_TO.iter().find(|(begin, _)| sealed.starts_with(begin));
        known.map_or("this host", |(_, words)| words)
    }

    async fn seal(&self, key: &Key) -> Result<String, SealerError> {
        // Bound to no state of the firmware: an update of it would lose every secret.
        let options = ["--with-key=auto", "--tpm2-pcrs="];
        let bytes = key.bytes().as_slice();
        let sealed = self.run("encrypt", &options, key.id(), bytes, MOST_SEALED);
        let sealed = sealed.await?;
        let text = std::str::from_utf8(&sealed).map_err(|_| self.odd())?;
        // It breaks lines, which mean nothing.
        let text: String = text.split_whitespace().collect();
        match text.as_str() {
            "" => Err(self.odd()),
            text if text.starts_with(UNBOUND) => Err(SealerError::Unbound(self.program.clone())),
            _ => Ok(text),
        }
    }

    async fn unseal(&self, id: KeyId, sealed: &str) -> Result<KeyBytes, SealerError> {
        let opened = self.run("decrypt", &[], id, sealed.as_bytes(), KEY_LENGTH);
        let opened = opened.await?;
        let mut key = KeyBytes::default();
        match opened.len() == KEY_LENGTH {
            true => key.copy_from_slice(&opened),
            false => return Err(self.odd()),
        }
        Ok(key)
    }

    /// It keeps nothing.
    async fn forget(&self, _id: KeyId, _sealed: &str) -> Result<(), SealerError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::secrets::sealer::seal_surely;

    /// A stand-in that "seals" by writing the key's base64 behind what it begins with.
    fn stand_in(folder: &Path, begin: &str) -> SystemdCreds {
        let path = folder.join("creds");
        let script = format!(
            "#!/bin/sh
PATH=/usr/bin:/bin; export PATH
echo \"$@\" >>{args}
case $1 in
encrypt) printf '{begin}\\n'; base64 -w 20;;
decrypt) tr -d '\\n' | sed 's/^{begin}//' | base64 -d;;
esac",
            args = folder.join("args").display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        SystemdCreds::new(path, Mode::User)
    }

    #[tokio::test]
    async fn a_key_is_sealed_and_opened_through_pipes() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = stand_in(folder.path(), "VbntHThZTUOoMZ0uuzMqx");
        let key = Key::random().unwrap();
        let sealed = seal_surely(&sealer, &key).await.unwrap();
        assert_eq!(sealer.bound_to(&sealed), HOST);
        assert!(!sealed.contains('\n'));
        let id = key.id();
        assert_eq!(
            fs::read_to_string(folder.path().join("args")).unwrap(),
            format!(
                "encrypt --with-key=auto --tpm2-pcrs= --user --name=aegis-key-{id} - -\n\
                 decrypt --user --name=aegis-key-{id} - -\n"
            )
        );
    }

    #[tokio::test]
    async fn a_seal_that_everybody_opens_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = stand_in(folder.path(), UNBOUND);
        let sealed = sealer.seal(&Key::random().unwrap()).await;
        assert!(matches!(sealed, Err(SealerError::Unbound(_))));
    }

    #[tokio::test]
    async fn what_the_program_says_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("creds");
        fs::write(&path, "#!/bin/sh\necho one >&2; echo two >&2; exit 1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let sealer = SystemdCreds::new(path, Mode::System);
        let refused = sealer.seal(&Key::random().unwrap()).await.unwrap_err();
        assert!(refused.to_string().ends_with("refused: two"), "{refused}");
        let missing = SystemdCreds::new(folder.path().join("none"), Mode::System);
        let refused = missing.seal(&Key::random().unwrap()).await.unwrap_err();
        assert!(matches!(refused, SealerError::Run { .. }));
    }
}
