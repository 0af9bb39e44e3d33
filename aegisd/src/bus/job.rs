//! The Job interface.

use std::sync::Arc;

use aegis_bus::error::BusFault;
use aegis_bus::names::instance_path;
use aegis_core::fault::{Fault, Symbol};
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedObjectPath};

use crate::board::{JobId, JobShown};
use crate::engine::Engine;

/// A job's object.
#[derive(Debug)]
pub struct JobObject {
    engine: Arc<Engine>,
    id: JobId,
}

impl JobObject {
    pub fn new(engine: Arc<Engine>, id: JobId) -> Self {
        Self { engine, id }
    }

    fn shown(&self) -> Result<Arc<JobShown>, BusFault> {
        let shown = self.engine.board().job(self.id);
        shown.ok_or_else(|| Fault::new(Symbol::NotFound, "the job is over").into())
    }

    fn parts(&self) -> Result<(String, String, String, String), BusFault> {
        Ok(self.shown()?.outcome.to_parts())
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Job", introspection_docs = false)]
impl JobObject {
    fn cancel(&self) {
        self.engine.shared().jobs.cancel(self.id);
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
    fn kind(&self) -> Result<String, BusFault> {
        Ok(self.shown()?.kind.to_owned())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn instance(&self) -> Result<OwnedObjectPath, BusFault> {
        let path = self.shown()?.instance.as_ref().map(instance_path);
        Ok(path.unwrap_or_else(|| ObjectPath::from_static_str_unchecked("/").into()))
    }

    #[zbus(property)]
    fn progress(&self) -> Result<f64, BusFault> {
        Ok(self.shown()?.progress)
    }

    #[zbus(property)]
    fn status(&self) -> Result<String, BusFault> {
        Ok(self.shown()?.status.clone())
    }

    #[zbus(property)]
    fn state(&self) -> Result<String, BusFault> {
        Ok(self.parts()?.0)
    }

    #[zbus(property)]
    fn error_name(&self) -> Result<String, BusFault> {
        Ok(self.parts()?.1)
    }

    #[zbus(property)]
    fn error_message(&self) -> Result<String, BusFault> {
        Ok(self.parts()?.2)
    }

    #[zbus(property)]
    fn hint(&self) -> Result<String, BusFault> {
        Ok(self.parts()?.3)
    }
}
