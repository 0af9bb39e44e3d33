//! Deleting instances that are left over.

use aegis_bus::instance::{InstanceView, filter};
use aegis_bus::prune::PruneOptions;
use aegis_core::handle::Handle;
use aegis_core::state::InstanceState;

use super::{Engine, end_with};
use crate::board::JobId;
use crate::caller::Caller;
use crate::instance::{InstanceError, Operation, now_us};

impl Engine {
    /// The instances that [`Engine::prune`] would delete.
    ///
    /// # Errors
    /// The registry cannot be used.
    pub fn prunable(
        &self,
        caller: &Caller,
        options: &PruneOptions,
    ) -> Result<Vec<Handle>, InstanceError> {
        self.usable()?;
        let now = now_us();
        let shown = self.board().follow();
        let shown = shown.borrow();
        let meant = shown
            .instances
            .iter()
            .filter(|(_, view)| caller.sees.is_there(view.owner) && is_meant(view, options, now));
        Ok(meant.map(|(handle, _)| handle.clone()).collect())
    }

    /// Deletes them, each only if it is still left over at its turn. The answer
    /// names those the job is about.
    ///
    /// # Errors
    /// The registry cannot be used.
    pub fn prune(
        &self,
        caller: &Caller,
        options: &PruneOptions,
    ) -> Result<(Vec<Handle>, JobId), InstanceError> {
        let handles = self.prunable(caller, options)?;
        let job = self.shared.jobs.begin("prune", None, caller.owner());
        let id = job.id();
        let asleep = options.asleep;
        let asked = handles
            .iter()
            .filter_map(|handle| self.shared.directory.find(handle.as_str()))
            .map(|instance| instance.ask(Operation::Prune { asleep }))
            .collect();
        tokio::spawn(end_with(self.shared.board.clone(), job, asked));
        Ok((handles, id))
    }
}

fn is_meant(view: &InstanceView, options: &PruneOptions, now: u64) -> bool {
    let state: Option<InstanceState> = view.state.parse().ok();
    let least = options
        .older_than_secs
        .unwrap_or(0)
        .saturating_mul(1_000_000);
    state.is_some_and(|state| state.is_left_over(options.asleep))
        && now.saturating_sub(view.state_since_us) >= least
        && filter::matches(&options.filters, view)
}

#[cfg(test)]
mod tests {
    use aegis_bus::dict::{Dict, put};

    use super::*;

    fn view(state: &str, since: u64) -> InstanceView {
        let mut dict = Dict::new();
        put(&mut dict, "Handle", "web");
        put(&mut dict, "State", state);
        put(&mut dict, "StateSince", since);
        InstanceView::from_properties(dict).unwrap()
    }

    #[test]
    fn what_sleeps_is_left_over_only_for_who_says_so() {
        let all = PruneOptions::default();
        let asleep = PruneOptions {
            asleep: true,
            ..PruneOptions::default()
        };
        for (state, by_default, with_asleep) in [
            ("disabled", true, true),
            ("failed", true, true),
            ("stopped", false, true),
            ("starting", false, false),
            ("running", false, false),
            ("paused", false, false),
            ("hibernated", false, false),
            ("stopping", false, false),
        ] {
            assert_eq!(is_meant(&view(state, 0), &all, 1), by_default, "{state}");
            assert_eq!(
                is_meant(&view(state, 0), &asleep, 1),
                with_asleep,
                "{state}"
            );
        }
    }

    #[test]
    fn age_and_filters_narrow_it() {
        let old = PruneOptions {
            older_than_secs: Some(10),
            ..PruneOptions::default()
        };
        assert!(is_meant(&view("disabled", 0), &old, 10_000_000));
        assert!(!is_meant(&view("disabled", 1), &old, 10_000_000));
        let named = PruneOptions {
            filters: vec!["name=db".parse().unwrap()],
            ..PruneOptions::default()
        };
        assert!(!is_meant(&view("disabled", 0), &named, 1));
    }
}
