//! A QEMU that runs: what is asked of it, and its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aegis_core::egress::Carried;
use aegis_core::idle::Activity;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Binary, cause_of, server_end};
use crate::egress::{Egress, NetworkState};
use crate::hypervisor::binary::BuildIdentity;
use crate::hypervisor::layers::LayerNode;
use crate::hypervisor::process::{Child, ExitStatus};
use crate::hypervisor::qmp::{Command, Qmp, Shutdown};
use crate::hypervisor::{EndCause, Machine, MachineEnd, MachineError, MachineFacts, SaveRefusal};

/// How long QEMU may take to end once it was asked to: it flushes its disks.
pub(super) const QUIT_DEADLINE: Duration = Duration::from_secs(5);

/// A running QEMU and what belongs to it.
#[derive(Debug)]
pub struct QemuMachine {
    pub(super) facts: MachineFacts,
    network: Option<Egress>,
    pub(super) qmp: Qmp,
    child: Arc<Child>,
    /// Whether we asked for the end.
    quitting: Arc<AtomicBool>,
    end: watch::Receiver<Option<MachineEnd>>,
    pub(super) program: Running,
    /// A save has begun; what it did to the machine is not undone.
    pub(super) saving: AtomicBool,
}

/// The program that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) binary: Binary,
    /// Which file it was when it was started.
    pub(super) file: Option<(u64, u64, BuildIdentity)>,
    pub(super) layers: Vec<LayerNode>,
}

impl QemuMachine {
    pub(super) fn watch(
        child: Child,
        server: Option<Child>,
        network: Option<Egress>,
        qmp: Qmp,
        facts: MachineFacts,
        program: Running,
    ) -> Self {
        let child = Arc::new(child);
        let quitting = Arc::new(AtomicBool::new(false));
        let (end_tx, end) = watch::channel(None);
        tokio::spawn({
            let (child, qmp, quitting) = (Arc::clone(&child), qmp.clone(), Arc::clone(&quitting));
            async move {
                let end = follow(&child, server, &qmp, &quitting).await;
                end_tx.send_replace(Some(end));
            }
        });
        Self {
            facts,
            network,
            qmp,
            child,
            quitting,
            end,
            program,
            saving: AtomicBool::new(false),
        }
    }

    pub(super) async fn execute(
        &self,
        operation: &'static str,
        command: Command,
    ) -> Result<(), MachineError> {
        self.ask(operation, command).await.map(drop)
    }

    pub(super) async fn ask(
        &self,
        operation: &'static str,
        command: Command,
    ) -> Result<Value, MachineError> {
        match self.qmp.execute(command).await {
            Ok(answer) => Ok(answer),
            Err(source) => match self.end.borrow().clone() {
                Some(end) => Err(MachineError::Ended(end)),
                None => Err(MachineError::Qmp { operation, source }),
            },
        }
    }
}

/// Waits for the end of QEMU, or of the file server without which it is no use.
async fn follow(
    child: &Child,
    server: Option<Child>,
    qmp: &Qmp,
    quitting: &AtomicBool,
) -> MachineEnd {
    let lost = tokio::select! {
        // QEMU first: when it ends, so does the server.
        biased;
        exit = child.wait() => Err(exit),
        lost = server_end(server.as_ref()) => Ok(lost),
    };
    match lost {
        Ok(lost) => {
            child.kill();
            child.wait().await;
            MachineEnd {
                cause: EndCause::ShareLost,
                last_words: lost.last_words,
            }
        }
        Err(exit) => {
            // The last event may still be on its way here.
            let observed = qmp.closed().await;
            let cause = match observed.shutdown {
                _ if quitting.load(Ordering::Acquire) => EndCause::Quit,
                Some(Shutdown::Guest) if exit.status == ExitStatus::Exited(0) => EndCause::Guest,
                _ => cause_of(exit.status),
            };
            MachineEnd {
                cause,
                last_words: exit.last_words,
            }
        }
    }
}

impl Machine for QemuMachine {
    fn facts(&self) -> &MachineFacts {
        &self.facts
    }

    fn pid(&self) -> u32 {
        self.child.pid()
    }

    async fn activity(&self) -> Result<Activity, MachineError> {
        let disks = self.ask("ask after", Command::QueryBlockstats).await?;
        let network = self.network.as_ref().map(Egress::carried);
        let bytes = |carried: Carried| carried.sent.saturating_add(carried.received);
        Ok(Activity {
            cpu: self.child.cpu_time(),
            disk: disk_bytes(&disks),
            network: network.map_or(0, bytes),
        })
    }

    fn network_state(&self) -> Option<watch::Receiver<NetworkState>> {
        self.network.as_ref().map(Egress::state)
    }

    async fn pause(&self) -> Result<(), MachineError> {
        self.execute("pause", Command::Stop).await
    }

    async fn resume(&self) -> Result<(), MachineError> {
        self.end_save().await?;
        self.execute("resume", Command::Cont).await
    }

    async fn can_save(&self) -> Result<(), SaveRefusal> {
        self.judge_save().await
    }

    async fn save(&self, to: OwnedFd) -> Result<(), MachineError> {
        self.write_state(to).await
    }

    async fn wait(&self) -> MachineEnd {
        match self.end.clone().wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            // Only a runtime that shuts down ends the watching task early.
            Err(_) => None,
        }
        .unwrap_or(MachineEnd {
            cause: EndCause::Quit,
            last_words: String::new(),
        })
    }

    async fn quit(&self) -> MachineEnd {
        self.quitting.store(true, Ordering::Release);
        let asked = async {
            // Whatever it answers, the end is what counts.
            self.qmp.execute(Command::Quit).await.ok();
            self.wait().await
        };
        match timeout(QUIT_DEADLINE, asked).await {
            Ok(end) => end,
            Err(_) => {
                self.child.kill();
                self.wait().await
            }
        }
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        // The watching task holds the child too.
        self.child.kill();
    }
}

/// What was read from all disks and written to them (query-blockstats of QEMU's QMP
/// reference). What is missing counts nothing.
fn disk_bytes(answer: &Value) -> u64 {
    let disks = answer.as_array().into_iter().flatten();
    let figures = disks.flat_map(|disk| ["rd_bytes", "wr_bytes"].map(|name| &disk["stats"][name]));
    figures
        .filter_map(Value::as_u64)
        .fold(0, u64::saturating_add)
}
