//! The objects that come and go, and every signal about them.
//!
//! One task compares the board with what it last told the bus:
//!
//! ```text
//!  new on the board ─► InterfacesAdded     other than told ─► PropertiesChanged
//!  no longer there  ─► InterfacesRemoved   a job has ended ─► Completed
//! ```
//!
//! Changes that come faster than the bus takes them are told as one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aegis_bus::instance::InstanceView;
use aegis_bus::job::JobState;
use aegis_bus::kit::KitView;
use aegis_bus::names::{ROOT_PATH, instance_path, job_path, kit_path};
use aegis_core::handle::Handle;
use zbus::fdo::Properties;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use super::instance::InstanceObject;
use super::job::JobObject;
use super::kit::KitObject;
use super::manager::ManagerObject;
use crate::board::{JobId, JobShown, Shown};
use crate::engine::Engine;

type Values = HashMap<String, OwnedVariant>;

/// An object as it was last told.
#[derive(Debug)]
struct Told<V> {
    view: Arc<V>,
    values: Values,
}

/// Tells the bus what is on the board.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    engine: Arc<Engine>,
    manager: Values,
    instances: BTreeMap<Handle, Told<InstanceView>>,
    kits: BTreeMap<String, Told<KitView>>,
    jobs: BTreeMap<JobId, Told<JobShown>>,
}

impl Publisher {
    pub fn new(connection: Connection, engine: Arc<Engine>) -> Self {
        Self {
            connection,
            engine,
            manager: Values::new(),
            instances: BTreeMap::new(),
            kits: BTreeMap::new(),
            jobs: BTreeMap::new(),
        }
    }

    /// Tells every change until the connection breaks.
    ///
    /// # Errors
    /// How it broke.
    pub async fn run(mut self) -> zbus::Result<()> {
        let mut shown = self.engine.board().follow();
        // The board lives as long as the engine, which this task keeps.
        while shown.changed().await.is_ok() {
            shown.mark_unchanged();
            self.tell().await?;
        }
        Ok(())
    }

    /// Tells what is on the board now.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn tell(&mut self) -> zbus::Result<()> {
        let shown: Shown = self.engine.board().follow().borrow().clone();
        let engine = &self.engine;
        let connection = &self.connection;
        let root = ObjectPath::from_static_str_unchecked(ROOT_PATH);
        tell_changes::<ManagerObject>(connection, &root, &mut self.manager).await?;
        let make = |handle: &Handle| InstanceObject::new(engine.clone(), handle.clone());
        let path = |handle: &Handle| instance_path(handle);
        sync(
            connection,
            &mut self.instances,
            &shown.instances,
            path,
            make,
        )
        .await?;
        let make = |object: &String| KitObject::new(engine.clone(), object.clone());
        let path = |object: &String| kit_path(object);
        sync(connection, &mut self.kits, &shown.kits, path, make).await?;
        let running: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, told)| runs(&told.view))
            .map(|(&id, _)| id)
            .collect();
        let make = |&id: &JobId| JobObject::new(engine.clone(), id);
        sync(
            connection,
            &mut self.jobs,
            &shown.jobs,
            |&id| job_path(id),
            make,
        )
        .await?;
        for (&id, job) in &shown.jobs {
            let is_new = !self.jobs.contains_key(&id);
            if !runs(job) && (is_new || running.contains(&id)) {
                tell_end(connection, id, job).await?;
            }
        }
        self.engine.board().note_told(shown.generation());
        Ok(())
    }
}

fn runs(job: &JobShown) -> bool {
    job.outcome.state == JobState::Running
}

async fn tell_end(connection: &Connection, id: JobId, job: &JobShown) -> zbus::Result<()> {
    let (state, name, message, hint) = job.outcome.to_parts();
    let emitter = SignalEmitter::new(connection, job_path(id))?;
    JobObject::completed(&emitter, &state, &name, &message, &hint).await
}

/// Makes the objects of one interface be those on the board.
async fn sync<I: Interface, K: Ord + Clone, V>(
    connection: &Connection,
    told: &mut BTreeMap<K, Told<V>>,
    shown: &BTreeMap<K, Arc<V>>,
    path: impl Fn(&K) -> OwnedObjectPath,
    make: impl Fn(&K) -> I,
) -> zbus::Result<()> {
    let server = connection.object_server();
    let gone: Vec<K> = told
        .keys()
        .filter(|key| !shown.contains_key(*key))
        .cloned()
        .collect();
    for key in gone {
        told.remove(&key);
        server.remove::<I, _>(path(&key)).await?;
    }
    for (key, view) in shown {
        let path = path(key);
        match told.get_mut(key) {
            Some(told) if Arc::ptr_eq(&told.view, view) => {}
            Some(told) => {
                told.view = view.clone();
                tell_changes::<I>(connection, &path, &mut told.values).await?;
            }
            None => {
                server.at(&path, make(key)).await?;
                let values = values::<I>(connection, &path).await?;
                let view = view.clone();
                told.insert(key.clone(), Told { view, values });
            }
        }
    }
    Ok(())
}

/// Sends the properties of an object that are other than before.
async fn tell_changes<I: Interface>(
    connection: &Connection,
    path: &ObjectPath<'_>,
    told: &mut Values,
) -> zbus::Result<()> {
    let now = values::<I>(connection, path).await?;
    let mut changed: HashMap<&str, Variant<'_>> = HashMap::new();
    for (name, value) in &now {
        if told.get(name) != Some(value) {
            changed.insert(name, Variant::try_from(value)?);
        }
    }
    if !changed.is_empty() && !told.is_empty() {
        let emitter = SignalEmitter::new(connection, path)?;
        let none = Cow::Borrowed([].as_slice());
        Properties::properties_changed(&emitter, I::name(), changed, none).await?;
    }
    *told = now;
    Ok(())
}

async fn values<I: Interface>(
    connection: &Connection,
    path: &ObjectPath<'_>,
) -> zbus::Result<Values> {
    let server = connection.object_server();
    let object = server.interface::<_, I>(path).await?;
    let values = object.get().await;
    let emitter = object.signal_emitter();
    Ok(values.get_all(server, connection, None, emitter).await?)
}
