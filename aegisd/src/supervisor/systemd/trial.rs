//! Whether units can be confined here, tried with a unit that does nothing else.
//!
//! Settings of the kernel tell only of what they forbid; a security module or the
//! filter of a container may forbid the same without a word (user_namespaces(7)).

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use zbus::Variant;

use super::manager::Property;
use super::sandbox::{self, Profile};
use super::signals::Signal;
use super::{REPLACE, Systemd, failed, query};
use crate::supervisor::SupervisorError;
use crate::supervisor::plan::Reach;
use crate::supervisor::state::ProcessEnd;

/// What a trial runs, which every Linux has.
const TRUE: &str = "/bin/true";

/// How long setting up an empty sandbox may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells trials at the same time apart.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Systemd {
    /// Why units cannot be confined here, in words; `None` where both kinds can.
    pub(super) async fn obstacle(&self) -> Result<Option<String>, SupervisorError> {
        if let Some(obstacle) = sandbox::obstacle(self.mode()) {
            return Ok(Some(obstacle.to_owned()));
        }
        for profile in [Profile::Vm, Profile::Daemon] {
            if let Some(end) = self.try_profile(profile).await? {
                return Ok(Some(words(end)));
            }
        }
        Ok(None)
    }

    /// How the trial of a profile failed.
    async fn try_profile(
        &self,
        profile: Profile,
    ) -> Result<Option<Option<ProcessEnd>>, SupervisorError> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("aegis-check-{}-{number}.service", std::process::id());
        let call = |error| failed("try", &name, error);
        let mut signals = self.signals.resubscribe();
        let properties = self.trial(profile);
        let job = self
            .manager
            .start_transient_unit(&name, REPLACE, &properties, &[])
            .await
            .map_err(call)?;
        let ended = async {
            loop {
                match signals.recv().await {
                    Ok(Signal::Job(ended)) if ended.job == job => return ended.end.is_none(),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return false,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await == Ok(true) {
            return Ok(None);
        }
        let end = match self.manager.get_unit(&name).await {
            Ok(object) => query::last_end(&self.connection, &object)
                .await
                .map_err(call)?,
            Err(_) => None,
        };
        self.reset_failed(&name).await?;
        Ok(Some(end))
    }

    fn trial(&self, profile: Profile) -> Vec<Property> {
        let places = &self.maker.places;
        let program = Path::new(TRUE);
        let line: Variant<'static> = vec![(TRUE.to_owned(), vec![TRUE.to_owned()], false)].into();
        let mut properties: Vec<Property> = vec![
            ("Description", "AegisVM's trial of its sandbox".into()),
            ("Type", "oneshot".into()),
            ("ExecStart", line),
            ("TimeoutStartUSec", 10_000_000u64.into()),
            ("NoNewPrivileges", true.into()),
        ];
        let reach = Reach::default();
        properties.extend(places.confine(profile, &reach, &[program], false));
        properties
    }
}

/// What a failed trial says (systemd.exec(5), "Process Exit Codes").
fn words(end: Option<ProcessEnd>) -> String {
    let what = match end {
        Some(ProcessEnd::Code(217)) => "it may not make a user namespace",
        Some(ProcessEnd::Code(218)) => "it may not drop capabilities",
        Some(ProcessEnd::Code(226)) => "it may not make namespaces",
        Some(ProcessEnd::Code(228)) => "it may not set a filter of system calls",
        _ => "it did not run",
    };
    let code = match end {
        Some(ProcessEnd::Code(code)) => format!(" (exit code {code} of the service manager)"),
        Some(ProcessEnd::Signal(signal)) => format!(" (killed by signal {signal})"),
        None => String::new(),
    };
    format!(
        "a unit that tried was refused: {what}{code}; a security module or a container's filter forbids it"
    )
}
