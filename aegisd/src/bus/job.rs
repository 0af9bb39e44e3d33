//! The Job interface.

use std::sync::Arc;

use aegis_bus::job::JobPart;
use aegis_bus::names::instance_path;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedObjectPath};

use super::Service;
use super::access::Owned;
use super::objects::{Looks, Shows};
use crate::board::{JobId, JobShown};

/// A job's object.
#[derive(Debug)]
pub struct JobObject {
    service: Service,
    id: JobId,
    looks: Looks<JobShown>,
}

impl JobObject {
    pub fn new(service: Service, id: JobId, view: Arc<JobShown>) -> Self {
        Self {
            service,
            id,
            looks: Looks::new(view),
        }
    }
}

impl Owned for JobObject {
    fn owner(&self) -> Option<u32> {
        Some(self.looks.get().owner)
    }
}

impl Shows<JobShown> for JobObject {
    fn show(&self, view: Arc<JobShown>) {
        self.looks.set(view);
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Job", introspection_docs = false)]
impl JobObject {
    fn cancel(&self) {
        self.service.engine.shared().jobs.cancel(self.id);
    }

    #[zbus(signal)]
    pub(super) async fn completed(
        emitter: &SignalEmitter<'_>,
        state: &str,
        error_name: &str,
        message: &str,
        hint: &str,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> String {
        self.looks.get().kind.to_owned()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> OwnedObjectPath {
        let path = self.looks.get().instance.as_ref().map(instance_path);
        path.unwrap_or_else(|| ObjectPath::from_static_str_unchecked("/").into())
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.looks.get().progress
    }

    #[zbus(property)]
    fn status(&self) -> String {
        self.looks.get().status.clone()
    }

    #[zbus(property)]
    fn parts(&self) -> Vec<JobPart> {
        self.looks.get().parts.clone()
    }

    #[zbus(property)]
    fn image(&self) -> String {
        self.looks.get().image.clone()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.looks.get().outcome.to_parts().0
    }

    #[zbus(property)]
    fn error_name(&self) -> String {
        self.looks.get().outcome.to_parts().1
    }

    #[zbus(property)]
    fn error_message(&self) -> String {
        self.looks.get().outcome.to_parts().2
    }

    #[zbus(property)]
    fn hint(&self) -> String {
        self.looks.get().outcome.to_parts().3
    }
}
