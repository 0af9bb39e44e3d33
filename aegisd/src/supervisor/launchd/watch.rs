//! Changes of units, by looking at all of them again and again: launchd reports nothing.
//!
//! One look is one call of `launchctl print` and the records of aegis-shim, and it takes
//! place only while somebody follows.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::launchd::{RunRecord, rows};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::sleep;

use super::domain::Domain;
use super::files;
use super::jobs;
use super::readiness::Heard;
use crate::supervisor::Change;

/// Between two looks. A person who waits for a state hardly notices, and a look costs a
/// short-lived process.
const PAUSE: Duration = Duration::from_secs(1);

/// What is compared of a job: launchd's line about it, aegis-shim's record, its words.
type Look = (String, RunRecord, Option<Heard>);
type Looks = BTreeMap<String, Look>;

struct Watch {
    domain: Arc<Domain>,
    last: Option<Looks>,
    told: VecDeque<Change>,
}

/// Everything that happens to units from now on.
pub(super) async fn changes(domain: Arc<Domain>) -> BoxStream<'static, Change> {
    let last = look(&domain).await;
    let watch = Watch {
        domain,
        last,
        told: VecDeque::new(),
    };
    stream::unfold(watch, |mut watch| async {
        loop {
            if let Some(change) = watch.told.pop_front() {
                return Some((change, watch));
            }
            sleep(PAUSE).await;
            let now = look(&watch.domain).await;
            watch.told.extend(match (&watch.last, &now) {
                (Some(before), Some(now)) => differences(before, now),
                // launchd could not be asked, or can be again.
                (None, None) => Vec::new(),
                _ => vec![Change::Missed],
            });
            watch.last = now;
        }
    })
    .boxed()
}

async fn look(domain: &Domain) -> Option<Looks> {
    let text = domain.launchctl.print(&domain.maker.domain).await;
    let text = text
        .inspect_err(|error| tracing::debug!("cannot look at jobs: {error}"))
        .ok()??;
    let ours = rows(&text).filter_map(|row| {
        let label = row.split_whitespace().last()?;
        jobs::unit(label)?;
        let record = domain.folder.read(label).record;
        let look = (
            row.to_owned(),
            files::read_record(record.as_deref()),
            domain.ears.heard(label),
        );
        Some((label.to_owned(), look))
    });
    Some(ours.collect())
}

/// What became of each job. A label goes only when someone boots it out: that is an act.
fn differences(before: &Looks, now: &Looks) -> Vec<Change> {
    let mut changes = Vec::new();
    for (label, look) in now {
        if before.get(label) != Some(look) {
            let units = units(label);
            changes.extend(units.into_iter().map(Change::Changed));
        }
    }
    for label in before.keys().filter(|label| !now.contains_key(*label)) {
        for unit in units(label) {
            changes.push(Change::Stopped(unit.clone()));
            changes.push(Change::Gone(unit));
        }
    }
    changes
}

/// The units that a job stands for.
fn units(label: &str) -> Vec<crate::supervisor::UnitId> {
    let unit = jobs::unit(label);
    let socket = unit.as_ref().and_then(jobs::socket_of);
    unit.into_iter().chain(socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::UnitId;

    fn looks(jobs: &[(&str, &str)]) -> Looks {
        let look = |row: &str| (row.to_owned(), RunRecord::default(), None);
        let jobs = jobs.iter();
        jobs.map(|(label, row)| ((*label).to_owned(), look(row)))
            .collect()
    }

    #[test]
    fn a_job_that_went_was_stopped() {
        let handle = "web".parse().unwrap();
        let (vm, sockets) = (UnitId::vm(&handle), UnitId::sockets(&handle));
        let rest = looks(&[("org.aegisvm.vm:web", "0 - org.aegisvm.vm:web")]);
        let runs = looks(&[("org.aegisvm.vm:web", "7 - org.aegisvm.vm:web")]);
        assert_eq!(differences(&rest, &rest), []);
        let changed = [vm.clone(), sockets.clone()].map(Change::Changed);
        assert_eq!(differences(&rest, &runs), changed);
        let gone = differences(&rest, &Looks::new());
        assert!(gone.contains(&Change::Stopped(vm)) && gone.contains(&Change::Gone(sockets)));
    }
}
