//! What is read of an instance beside its looks: by the credentials of units, by the
//! API of daemons, for one command's secrets, and by readers of its logs.

use std::collections::BTreeMap;
use std::path::Path;

use aegis_core::audit::Purpose;
use aegis_core::control::VmStatus;
use aegis_core::layout::InstanceFiles;
use aegis_core::secret::{SecretEnv, SecretSource};
use aegis_core::units;

use rustix::fd::OwnedFd;

use super::{Instance, InstanceError, blocking, files};
use crate::caller::Caller;
use crate::registry::Record;
use crate::secrets::audit::User;

impl Instance {
    /// It as it is wanted.
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// The VM as its owner last told; `None` while there is none.
    pub fn seen(&self) -> Option<VmStatus> {
        self.status.borrow().clone()
    }

    /// The values for the variables of one command that this user asks for.
    ///
    /// # Errors
    /// One is missing or cannot be decrypted.
    pub async fn secrets(
        &self,
        sources: &BTreeMap<String, SecretSource>,
        passed: &SecretEnv,
        caller: &Caller,
    ) -> Result<SecretEnv, InstanceError> {
        let values = self
            .shared
            .vault
            .env_for(sources, passed, caller.sees)
            .await?;
        User {
            purpose: Purpose::Exec,
            instance: &self.handle,
            unit: &units::vm(&self.handle),
            caller: caller.uid,
        }
        .is_given(sources);
        Ok(values)
    }

    /// Opens the command's log for reading, the oldest file first.
    ///
    /// # Errors
    /// A file is there and cannot be opened.
    pub async fn open_logs(&self) -> Result<Vec<OwnedFd>, InstanceError> {
        self.open_rotated("command.log").await
    }

    /// Opens the record of the guest's console likewise.
    ///
    /// # Errors
    /// A file is there and cannot be opened.
    pub async fn open_console(&self) -> Result<Vec<OwnedFd>, InstanceError> {
        self.open_rotated("console.log").await
    }

    async fn open_rotated(&self, name: &'static str) -> Result<Vec<OwnedFd>, InstanceError> {
        let files = self.shared.host.layout.instance(&self.handle);
        blocking(move || open_rotated(&files, name)).await
    }
}

fn open_rotated(files: &InstanceFiles, name: &str) -> Result<Vec<OwnedFd>, InstanceError> {
    let mut opened = Vec::new();
    for name in [format!("log/{name}.1"), format!("log/{name}")] {
        match files::open_inside(files.dir(), Path::new(&name)) {
            Ok(file) => opened.push(file.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(InstanceError::File {
                    operation: "open",
                    path: files.dir().join(name),
                    source,
                });
            }
        }
    }
    Ok(opened)
}
