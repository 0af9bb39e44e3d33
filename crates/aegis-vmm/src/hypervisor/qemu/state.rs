//! The state of a QEMU: whether it can be saved, saving and loading it.
//!
//! QEMU calls this migration. The state leaves it through a pipe and enters the next
//! one through another, so nothing of it is in a file of QEMU's; both work alike
//! from 7.2 on, which has no other way without a program of its own.

use std::fs;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use aegis_core::spec::Accel;
use nix::sys::utsname::uname;
use serde_json::Value;
use tokio::time::timeout;

use super::running::{QemuMachine, Running};
use super::{Binary, Command, Machine, MachineError, SaveRefusal};
use crate::hypervisor::qmp::{COMMAND_DEADLINE, Migration, QmpError};
use crate::hypervisor::{LoadError, ShareKind};
use crate::snapshot::stamp::Stamp;

/// What of the host a state depends on. A translated guest sees the same processor
/// everywhere but for its counter, which is the host's.
pub(super) fn stamp_of_host(accel: Accel, tsc_khz: Option<u32>) -> Stamp {
    let stamp = Stamp::default().with("the accelerator", accel);
    match accel {
        Accel::Tcg | Accel::Auto => stamp.with_tsc(tsc_khz),
        Accel::Kvm | Accel::Hvf => stamp
            .with("the processor of the host", processor())
            .with("the kernel of the host", kernel())
            .with_tsc(tsc_khz),
    }
}

/// What of QEMU and its command line a state depends on.
pub(super) fn stamp_of_qemu(binary: &Binary, version: &str, options: Stamp, host: Stamp) -> Stamp {
    let stamp = Stamp::default().with("QEMU", version);
    let stamp = match binary.identity() {
        Some(identity) => stamp.with_quiet("the program of QEMU", &identity),
        None => stamp.with("the program of QEMU", "gone"),
    };
    stamp.and(options).and(host)
}

/// The first processor's model and abilities.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = |line: &&str| {
        [
            "vendor_id",
            "cpu family",
            "model",
            "stepping",
            "microcode",
            "flags",
        ]
        .iter()
        .any(|name| line.starts_with(name))
    };
    let first = text.lines().take_while(|line| !line.trim().is_empty());
    first.filter(wanted).collect::<Vec<_>>().join("\n")
}

fn kernel() -> String {
    let name = uname().map(|name| name.release().to_string_lossy().into_owned());
    name.unwrap_or_default()
}

impl QemuMachine {
    pub(super) async fn judge_save(&self) -> Result<(), SaveRefusal> {
        if self.facts.share == Some(ShareKind::NineP) {
            return Err(SaveRefusal::NineP);
        }
        if self.facts.accel == Accel::Hvf {
            return Err(SaveRefusal::Accel(self.facts.accel));
        }
        let Running { binary, file, .. } = &self.program;
        if file.is_none() || binary.file() != *file {
            return Err(SaveRefusal::Replaced {
                path: binary.path().to_owned(),
                running: self.facts.version.clone(),
            });
        }
        let answer = self
            .ask("look at the state of", Command::QueryMigrate)
            .await
            .map_err(SaveRefusal::Unknown)?;
        let reasons = answer.get("blocked-reasons").and_then(Value::as_array);
        let mut reasons = reasons.into_iter().flatten().filter_map(Value::as_str);
        match reasons.find(|reason| !self.is_of_layers(reason)) {
            None => Ok(()),
            Some(reason) => Err(SaveRefusal::Blocked(reason.to_owned())),
        }
    }

    /// Whether a reason speaks of layers, which are put away for a save.
    fn is_of_layers(&self, reason: &str) -> bool {
        let mut layers = self.program.layers.iter();
        layers.any(|layer| reason.contains(&format!("'{}'", layer.source_name())))
    }

    /// Puts the layers away, which QEMU saves no machine with.
    async fn put_layers_away(&self) -> Result<(), MachineError> {
        const OPERATION: &str = "put away the layers of";
        for layer in &self.program.layers {
            for command in [
                Command::AddNode(layer.nothing()),
                Command::ReopenNode(layer.on_nothing()),
                Command::DeleteNode(layer.source_name()),
            ] {
                self.execute(OPERATION, command).await?;
            }
        }
        Ok(())
    }

    /// Undoes that, as far as it was done.
    async fn put_layers_back(&self) -> Result<(), MachineError> {
        for layer in &self.program.layers {
            let there = Command::AddNode(layer.source());
            self.qmp.execute(there).await.ok();
            let onto = Command::ReopenNode(layer.on_source());
            self.execute("put back the layers of", onto).await?;
            let gone = Command::DeleteNode(layer.nothing_name());
            self.qmp.execute(gone).await.ok();
        }
        Ok(())
    }

    pub(super) async fn write_state(&self, to: OwnedFd) -> Result<(), MachineError> {
        const OPERATION: &str = "save the state of";
        self.saving.store(true, Ordering::Release);
        self.put_layers_away().await?;
        for command in [
            Command::FollowMigration,
            Command::UnboundMigration,
            Command::GetFd(to),
        ] {
            self.execute(OPERATION, command).await?;
        }
        self.execute(OPERATION, Command::Migrate).await?;
        let moved = tokio::select! {
            moved = self.qmp.migrated() => moved,
            end = self.wait() => return Err(MachineError::Ended(end)),
        };
        match moved {
            Ok(Migration::Completed) => Ok(()),
            Ok(_) => {
                let answer = self.ask(OPERATION, Command::QueryMigrate).await?;
                let reason = answer.get("error-desc").and_then(Value::as_str);
                Err(MachineError::Unsaved(
                    reason.unwrap_or("it was cancelled").to_owned(),
                ))
            }
            Err(QmpError::Closed) => Err(MachineError::Ended(self.wait().await)),
            Err(source) => Err(MachineError::Qmp {
                operation: OPERATION,
                source,
            }),
        }
    }

    /// Ends a save, complete or not, before the machine runs on.
    pub(super) async fn end_save(&self) -> Result<(), MachineError> {
        if !self.saving.load(Ordering::Acquire) {
            return Ok(());
        }
        // Either may have nothing to end.
        for command in [Command::MigrateCancel, Command::CloseFd] {
            self.qmp.execute(command).await.ok();
        }
        timeout(COMMAND_DEADLINE, self.qmp.migrated()).await.ok();
        self.put_layers_back().await?;
        self.saving.store(false, Ordering::Release);
        Ok(())
    }

    /// Loads the state of a machine that was like this one.
    pub(super) async fn load(&self, saved: &Stamp, descriptor: RawFd) -> Result<(), LoadError> {
        if let Some(difference) = saved.difference(&self.facts.stamp) {
            return Err(LoadError::Differs(difference));
        }
        for command in [
            Command::FollowMigration,
            Command::MigrateIncoming(descriptor),
        ] {
            if let Err(error) = self.qmp.execute(command).await {
                return Err(self.load_error(error).await);
            }
        }
        match self.qmp.migrated().await {
            Ok(Migration::Completed) => Ok(()),
            Ok(_) => match timeout(COMMAND_DEADLINE, self.wait()).await {
                Ok(end) => Err(LoadError::Ended(end)),
                Err(_) => Err(LoadError::Failed),
            },
            Err(error) => Err(self.load_error(error).await),
        }
    }

    /// A QEMU that dislikes a state ends, and says more than the silence it causes.
    async fn load_error(&self, error: QmpError) -> LoadError {
        match timeout(COMMAND_DEADLINE, self.wait()).await {
            Ok(end) => LoadError::Ended(end),
            Err(_) => LoadError::Qmp(error),
        }
    }
}
