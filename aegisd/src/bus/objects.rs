//! The objects that come and go, and every signal about them.
//!
//! One task for each connection compares the board with what it last told there:
//!
//! ```text
//!  new on the board ─► InterfacesAdded     other than told ─► PropertiesChanged
//!  no longer there  ─► InterfacesRemoved   a job has ended ─► Completed
//! ```
//!
//! Changes that come faster than the connection takes them are told as one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use aegis_bus::image::ImageView;
use aegis_bus::instance::InstanceView;
use aegis_bus::job::JobState;
use aegis_bus::kit::KitView;
use aegis_bus::names::{ROOT_PATH, image_path, instance_path, job_path, kit_path};
use aegis_core::handle::Handle;
use tokio::sync::watch;
use zbus::connection::Builder;
use zbus::fdo::Properties;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use super::Service;
use super::image::ImageObject;
use super::instance::InstanceObject;
use super::job::JobObject;
use super::kit::KitObject;
use super::manager::ManagerObject;
use crate::board::{JobId, JobShown, Shown};

type Values = HashMap<String, OwnedVariant>;

/// An object that shows what is on the board as it was last told.
pub(super) trait Shows<V>: Interface {
    /// From now on it looks like this.
    fn show(&self, view: Arc<V>);
}

/// How an object looks. Changed while its methods run: they wait for what is told.
#[derive(Debug)]
pub(super) struct Looks<V>(Mutex<Arc<V>>);

impl<V> Looks<V> {
    pub(super) fn new(view: Arc<V>) -> Self {
        Self(Mutex::new(view))
    }

    pub(super) fn get(&self) -> Arc<V> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, view: Arc<V>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

/// Tells one connection what is on the board.
#[derive(Debug)]
pub struct Publisher {
    service: Service,
    /// From before the first telling: no change falls between two of them.
    shown: watch::Receiver<Shown>,
    manager: Values,
    instances: BTreeMap<Handle, Arc<InstanceView>>,
    kits: BTreeMap<String, Arc<KitView>>,
    images: BTreeMap<String, Arc<ImageView>>,
    jobs: BTreeMap<JobId, Arc<JobShown>>,
}

impl Publisher {
    /// One that told nothing yet.
    pub fn new(service: Service) -> Self {
        Self {
            shown: service.engine.board().follow(),
            service,
            manager: Values::new(),
            instances: BTreeMap::new(),
            kits: BTreeMap::new(),
            images: BTreeMap::new(),
            jobs: BTreeMap::new(),
        }
    }

    /// Gives a connection that is yet to be made every object that is on the board. The
    /// server of objects tells of each when the connection is made, before any answer.
    pub fn begin<'a>(&mut self, mut connection: Builder<'a>) -> Builder<'a> {
        let shown = self.shown.borrow_and_update().clone();
        for (handle, view) in &shown.instances {
            let object = self.service.instance(handle, view.clone());
            connection = connection.serve_at(instance_path(handle), object);
        }
        for (name, view) in &shown.kits {
            connection = connection.serve_at(kit_path(name), KitObject::new(view.clone()));
        }
        for (digits, view) in &shown.images {
            connection = connection.serve_at(image_path(digits), ImageObject::new(view.clone()));
        }
        for (&id, view) in &shown.jobs {
            connection = connection.serve_at(job_path(id), self.service.job(id, view.clone()));
        }
        self.instances = shown.instances;
        self.kits = shown.kits;
        self.images = shown.images;
        self.jobs = shown.jobs;
        connection
    }

    /// Tells every change until the connection breaks.
    ///
    /// # Errors
    /// How it broke.
    pub async fn run(mut self, connection: &Connection) -> zbus::Result<()> {
        // The board lives as long as the engine, which this task keeps.
        while self.changed().await {
            self.tell(connection).await?;
        }
        Ok(())
    }

    /// Waits for something to tell; `false` when there will be nothing any more.
    pub(super) async fn changed(&mut self) -> bool {
        self.shown.changed().await.is_ok()
    }

    /// Tells what is on the board now.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn tell(&mut self, connection: &Connection) -> zbus::Result<()> {
        let shown = self.shown.borrow_and_update().clone();
        let service = &self.service;
        let root = ObjectPath::from_static_str_unchecked(ROOT_PATH);
        let server = connection.object_server();
        let object = server.interface::<_, ManagerObject>(&root).await?;
        let now = values(connection, &*object.get().await, object.signal_emitter()).await?;
        tell_changes::<ManagerObject>(&self.manager, &now, object.signal_emitter()).await?;
        self.manager = now;
        let make = |handle: &Handle, view| service.instance(handle, view);
        let path = |handle: &Handle| instance_path(handle);
        sync(
            connection,
            &mut self.instances,
            &shown.instances,
            path,
            make,
        )
        .await?;
        let make = |_: &String, view| KitObject::new(view);
        let path = |object: &String| kit_path(object);
        sync(connection, &mut self.kits, &shown.kits, path, make).await?;
        let make = |_: &String, view| ImageObject::new(view);
        let path = |digits: &String| image_path(digits);
        sync(connection, &mut self.images, &shown.images, path, make).await?;
        let ended: Vec<JobId> = shown
            .jobs
            .iter()
            .filter(|(id, job)| !runs(job) && self.jobs.get(id).is_none_or(|told| runs(told)))
            .map(|(&id, _)| id)
            .collect();
        let make = |&id: &JobId, view| service.job(id, view);
        sync(
            connection,
            &mut self.jobs,
            &shown.jobs,
            |&id| job_path(id),
            make,
        )
        .await?;
        for id in ended {
            tell_end(connection, id, &shown.jobs[&id]).await?;
        }
        self.service.told.note(shown.generation());
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.service.told.give_up();
    }
}

impl Service {
    fn instance(&self, handle: &Handle, view: Arc<InstanceView>) -> InstanceObject {
        let (engine, told) = (self.engine.clone(), self.told.clone());
        InstanceObject::new(engine, told, handle.clone(), view)
    }

    fn job(&self, id: JobId, view: Arc<JobShown>) -> JobObject {
        JobObject::new(self.engine.clone(), id, view)
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
async fn sync<I: Shows<V>, K: Ord + Clone, V>(
    connection: &Connection,
    told: &mut BTreeMap<K, Arc<V>>,
    shown: &BTreeMap<K, Arc<V>>,
    path: impl Fn(&K) -> OwnedObjectPath,
    make: impl Fn(&K, Arc<V>) -> I,
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
        match told.insert(key.clone(), view.clone()) {
            Some(before) if Arc::ptr_eq(&before, view) => {}
            Some(_) => show::<I, V>(connection, &path(key), view).await?,
            None => drop(server.at(path(key), make(key, view.clone())).await?),
        }
    }
    Ok(())
}

/// Lets an object look like this, and sends the properties that are other than before.
async fn show<I: Shows<V>, V>(
    connection: &Connection,
    path: &ObjectPath<'_>,
    view: &Arc<V>,
) -> zbus::Result<()> {
    let object = connection.object_server().interface::<_, I>(path).await?;
    let emitter = object.signal_emitter();
    let shows = object.get().await;
    let before = values(connection, &*shows, emitter).await?;
    shows.show(view.clone());
    let now = values(connection, &*shows, emitter).await?;
    tell_changes::<I>(&before, &now, emitter).await
}

/// Sends the properties that are other than before; all are new to who sees the object
/// for the first time.
async fn tell_changes<I: Interface>(
    before: &Values,
    now: &Values,
    emitter: &SignalEmitter<'_>,
) -> zbus::Result<()> {
    let mut changed: HashMap<&str, Variant<'_>> = HashMap::new();
    for (name, value) in now {
        if before.get(name) != Some(value) {
            changed.insert(name, Variant::try_from(value)?);
        }
    }
    if changed.is_empty() || before.is_empty() {
        return Ok(());
    }
    let none = Cow::Borrowed([].as_slice());
    Properties::properties_changed(emitter, I::name(), changed, none).await
}

/// The properties of an object.
pub(super) async fn values(
    connection: &Connection,
    object: &impl Interface,
    emitter: &SignalEmitter<'_>,
) -> zbus::Result<Values> {
    let server = connection.object_server();
    Ok(object.get_all(server, connection, None, emitter).await?)
}
