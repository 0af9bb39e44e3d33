//! Sleep and its keepers: leases, hibernation, waking.

use std::time::Duration;

use aegis_core::control::{Call, Keep};
use aegis_core::idle::{Lease, LeaseError, MAX_LEASES};

use super::owner_calls::change;
use super::work::Work;
use super::{InstanceError, blocking, files, now_us};
use crate::jobs::{Outcome, Reporter};
use crate::registry::Record;

/// How long the processes of a VM that was hibernated may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

impl Work {
    /// Keeps the instance awake for a time, from now on. One that sleeps is woken.
    pub(super) async fn keep_awake(
        &self,
        reason: &str,
        time: Duration,
        report: &Reporter,
    ) -> Result<Outcome, InstanceError> {
        self.check_enabled()?;
        let now = now_us();
        let lease = Lease::new(reason, time, now).map_err(InstanceError::Lease)?;
        let mut leases = current(&self.record.borrow(), now);
        leases.retain(|other| other.reason != lease.reason);
        if leases.len() >= MAX_LEASES {
            return Err(InstanceError::Lease(LeaseError::Many));
        }
        leases.push(lease);
        report.says("noting the lease");
        self.lease(leases).await?;
        self.start_vm(report).await?;
        Ok(Outcome::Changed)
    }

    /// Ends a lease before its time, or all of them.
    pub(super) async fn let_sleep(&self, reason: Option<&str>) -> Result<Outcome, InstanceError> {
        self.check_not_deleting()?;
        let before = current(&self.record.borrow(), now_us());
        let mut after = before.clone();
        after.retain(|lease| reason.is_some_and(|reason| lease.reason != reason));
        if after == before {
            return Ok(Outcome::Unchanged);
        }
        self.lease(after).await?;
        Ok(Outcome::Changed)
    }

    pub(super) async fn lease(&self, leases: Vec<Lease>) -> Result<(), InstanceError> {
        self.intend(|record| {
            record.leases = leases;
            // Reconciliation brings them to the owner where we cannot.
            record.limits_due = true;
        })
        .await?;
        self.limit().await.map(drop)
    }

    /// Tells the owner of a VM that runs when it may fall asleep.
    pub(super) async fn tell_keep(&self) -> Result<(), InstanceError> {
        if self.status.borrow().is_none() {
            return Ok(());
        }
        let keep = {
            let record = self.record.borrow();
            Keep {
                idle: record.spec.idle,
                leases: current(&record, now_us()),
            }
        };
        change(&self.control_socket(), Call::Keep(keep)).await?;
        Ok(())
    }

    /// Writes the machine to the disk and ends its processes.
    pub(super) async fn hibernate(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        self.check_enabled()?;
        if self.status.borrow().is_none() {
            return match self.is_saved().await {
                true => Ok(Outcome::Unchanged),
                false => Err(InstanceError::NoVm(self.handle.clone())),
            };
        }
        report.says("writing the machine to the disk");
        let outcome = change(&self.control_socket(), Call::Hibernate).await?;
        let mut status = self.status.clone();
        let gone = status.wait_for(Option::is_none);
        // The snapshot is there; how long the end takes to be seen changes nothing.
        drop(tokio::time::timeout(GONE_WITHIN, gone).await);
        Ok(outcome)
    }

    /// Lets an enabled instance run on, from wherever it is.
    pub(super) async fn wake(&self, report: &Reporter) -> Result<Outcome, InstanceError> {
        self.check_enabled()?;
        self.intend(|record| record.stopped_at = None).await?;
        self.start_vm(report).await
    }

    /// Lets the machine of a hibernated instance run on, so that it can be ended in
    /// order: its programs and its file systems are in the middle of something. One
    /// that cannot run on is ended all the same.
    pub(super) async fn thaw(&self, report: &Reporter) {
        if self.status.borrow().is_some() || !self.is_saved().await {
            return;
        }
        report.says("letting the hibernated machine run on");
        if let Err(error) = self.start_vm(report).await {
            let (handle, fault) = (&self.handle, error.fault());
            tracing::warn!(instance = %handle, "{handle}: {fault}, ending it all the same");
        }
    }

    /// Removes the machine of an instance that nobody wants to run on.
    pub(super) async fn forget_machine(&self) -> Result<Outcome, InstanceError> {
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        let removed = blocking(move || files::remove_snapshot(&shared.host, &handle)).await?;
        Ok(match removed {
            true => Outcome::Changed,
            false => Outcome::Unchanged,
        })
    }

    /// Whether the instance's machine is on the disk.
    pub(super) async fn is_saved(&self) -> bool {
        let path = self.shared.host.layout.instance(&self.handle).snapshot();
        blocking(move || aegis_core::snapshot::counts(&path)).await
    }

    fn check_enabled(&self) -> Result<(), InstanceError> {
        self.check_not_deleting()?;
        match self.record.borrow().is_enabled() {
            true => Ok(()),
            false => Err(InstanceError::Disabled(self.handle.clone())),
        }
    }
}

/// The leases that have not ended.
pub(crate) fn current(record: &Record, now: u64) -> Vec<Lease> {
    let leases = record.leases.iter();
    leases
        .filter(|lease| !lease.is_over(now))
        .cloned()
        .collect()
}
