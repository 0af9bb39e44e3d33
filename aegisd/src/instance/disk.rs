//! What the actor finds on the disk beside its record, and clears from it.

use std::collections::BTreeMap;
use std::path::Path;

use aegis_core::control::CommandExit;

use super::work::Work;
use super::{blocking, files, reach};

/// Clears up after an aegisd that died; nothing depends on it.
pub(super) async fn remove_unfinished(work: &Work) {
    let (shared, record) = (work.shared.clone(), work.record.borrow().clone());
    let removed = blocking(move || files::remove_unfinished(&shared.host, &record)).await;
    if let Err(error) = removed {
        let (handle, fault) = (&work.handle, error.fault());
        tracing::warn!(instance = %handle, "{handle}: {fault}, ignoring");
    }
}

/// What the daemons may read, as people see it.
pub(super) async fn reads(work: &Work) -> BTreeMap<String, Vec<String>> {
    let (shared, record) = (work.shared.clone(), work.record.borrow().clone());
    blocking(move || {
        let daemons = record.spec.daemons.iter();
        let readable = daemons.map(|daemon| {
            let mut paths = reach::program(&daemon.program, &shared.host);
            paths.extend(daemon.sandbox.read.iter().cloned());
            let paths = paths.iter().map(|path| path.display().to_string());
            (daemon.name.clone(), paths.collect())
        });
        readable.collect()
    })
    .await
}

/// How the command ended in the last VM.
pub(super) async fn read_exit(work: &Work) -> Option<CommandExit> {
    let files = work.shared.host.layout.instance(&work.handle);
    blocking(move || {
        let name = files.exit();
        let (bytes, _) = files::read_inside(files.dir(), Path::new(name.file_name()?))?;
        serde_json::from_slice(&bytes).ok()
    })
    .await
}
