//! The Job interface of the fake, and its jobs, which end as soon as they began.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_bus::job::{JobOutcome, JobState};
use aegis_bus::names;
use aegis_core::fault::Fault;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, interface};

use super::Handles;
use super::image::DIGITS;

struct Job {
    outcome: Arc<Mutex<JobOutcome>>,
}

#[interface(name = "org.aegisvm.Aegis1.Job")]
impl Job {
    fn cancel(&self) {}

    #[zbus(signal)]
    async fn completed(
        emitter: &SignalEmitter<'_>,
        state: &str,
        error_name: &str,
        message: &str,
        hint: &str,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        "test".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> OwnedObjectPath {
        OwnedObjectPath::try_from("/").unwrap()
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        -1.0
    }

    #[zbus(property)]
    fn status(&self) -> String {
        "Working".into()
    }

    #[zbus(property)]
    fn image(&self) -> String {
        format!("sha256:{DIGITS}")
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.outcome.lock().unwrap().to_parts().0
    }

    #[zbus(property)]
    fn error_name(&self) -> String {
        self.outcome.lock().unwrap().to_parts().1
    }

    #[zbus(property)]
    fn error_message(&self) -> String {
        self.outcome.lock().unwrap().to_parts().2
    }

    #[zbus(property)]
    fn hint(&self) -> String {
        self.outcome.lock().unwrap().to_parts().3
    }
}
pub(super) async fn failed_job(
    connection: &Connection,
    handles: &Handles,
    fault: Fault,
) -> OwnedObjectPath {
    let outcome = JobOutcome {
        state: JobState::Failed,
        fault: Some(fault),
    };
    start_job(connection, handles, Some(outcome)).await
}

pub(super) async fn job(
    connection: &Connection,
    handles: &Handles,
    state: JobState,
) -> OwnedObjectPath {
    let outcome = JobOutcome { state, fault: None };
    start_job(connection, handles, Some(outcome)).await
}

/// A job that ends soon without a word to anybody.
pub(super) async fn mute_job(
    connection: &Connection,
    handles: &Handles,
    state: JobState,
) -> OwnedObjectPath {
    let (path, outcome) = add_job(connection, handles).await;
    // Seen to run by who looks at once.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        *outcome.lock().unwrap() = JobOutcome { state, fault: None };
    });
    path
}

pub(super) async fn running_job(connection: &Connection, handles: &Handles) -> OwnedObjectPath {
    start_job(connection, handles, None).await
}

/// A job that ends soon after its path was answered, or never.
async fn start_job(
    connection: &Connection,
    handles: &Handles,
    end: Option<JobOutcome>,
) -> OwnedObjectPath {
    let (path, outcome) = add_job(connection, handles).await;
    if let Some(end) = end {
        let (connection, path) = (connection.clone(), path.clone());
        tokio::spawn(async move {
            let (state, name, message, hint) = end.to_parts();
            *outcome.lock().unwrap() = end;
            let emitter = SignalEmitter::new(&connection, path).unwrap();
            Job::completed(&emitter, &state, &name, &message, &hint)
                .await
                .unwrap();
        });
    }
    path
}

/// A job that runs.
async fn add_job(
    connection: &Connection,
    handles: &Handles,
) -> (OwnedObjectPath, Arc<Mutex<JobOutcome>>) {
    let number = handles.with(|state| {
        state.jobs += 1;
        state.jobs
    });
    let path = names::job_path(number);
    let outcome = Arc::new(Mutex::new(JobOutcome {
        state: JobState::Running,
        fault: None,
    }));
    let job = Job {
        outcome: outcome.clone(),
    };
    let server = connection.object_server();
    server.at(path.clone(), job).await.unwrap();
    (path, outcome)
}
