//! The objects that come and go, and every signal about them.
//!
//! One task compares the board with what it last told the bus:
//!
//! ```text
//!  new on the board ─► InterfacesAdded     other than told ─► PropertiesChanged
//!  no longer there  ─► InterfacesRemoved   a job has ended ─► Completed
//! ```
//!
//! Changes that come faster than the connection takes them are told as one. The gate
//! says who may know of each.

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
use super::access::{Guarded, Owned};
use super::image::ImageObject;
use super::job::JobObject;
use super::kit::KitObject;
use super::managed::Managed;
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

    /// Gives a connection that is yet to be made every object that is on the board: who
    /// connects now is told of changes alone.
    pub(super) fn begin<'a>(&mut self, mut connection: Builder<'a>) -> Builder<'a> {
        let shown = self.shown.borrow_and_update().clone();
        let service = &self.service;
        for (handle, view) in &shown.instances {
            let object = service.guarded(service.instance(handle, view.clone()));
            connection = connection.serve_at(instance_path(handle), object);
        }
        for (name, view) in &shown.kits {
            let object = service.guarded(KitObject::new(view.clone()));
            connection = connection.serve_at(kit_path(name), object);
        }
        for (digits, view) in &shown.images {
            let object = service.guarded(ImageObject::new(view.clone()));
            connection = connection.serve_at(image_path(digits), object);
        }
        for (&id, view) in &shown.jobs {
            let object = service.guarded(service.job(id, view.clone()));
            connection = connection.serve_at(job_path(id), object);
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
        let teller = Teller {
            connection,
            service,
        };
        let root = ObjectPath::from_static_str_unchecked(ROOT_PATH);
        let server = connection.object_server();
        let object = server.interface::<_, Guarded<ManagerObject>>(&root).await?;
        let emitter = object.signal_emitter();
        let now = values(connection, object.get().await.object(), emitter).await?;
        teller
            .changes::<ManagerObject>(&self.manager, &now, emitter, None)
            .await?;
        self.manager = now;
        let make = |handle: &Handle, view| service.instance(handle, view);
        let path = |handle: &Handle| instance_path(handle);
        teller
            .sync(&mut self.instances, &shown.instances, path, make)
            .await?;
        let make = |_: &String, view| KitObject::new(view);
        let path = |object: &String| kit_path(object);
        teller.sync(&mut self.kits, &shown.kits, path, make).await?;
        let make = |_: &String, view| ImageObject::new(view);
        let path = |digits: &String| image_path(digits);
        teller
            .sync(&mut self.images, &shown.images, path, make)
            .await?;
        let ended: Vec<JobId> = shown
            .jobs
            .iter()
            .filter(|(id, job)| !runs(job) && self.jobs.get(id).is_none_or(|told| runs(told)))
            .map(|(&id, _)| id)
            .collect();
        let make = |&id: &JobId, view| service.job(id, view);
        let path = |&id: &JobId| job_path(id);
        teller.sync(&mut self.jobs, &shown.jobs, path, make).await?;
        for id in ended {
            teller.end(id, &shown.jobs[&id]).await?;
        }
        self.service.told.note(shown.generation());
        Ok(())
    }
}

fn runs(job: &JobShown) -> bool {
    job.outcome.state == JobState::Running
}

/// Tells those who may know.
#[derive(Clone, Copy)]
struct Teller<'a> {
    connection: &'a Connection,
    service: &'a Service,
}

impl Teller<'_> {
    /// Makes the objects of one interface be those on the board.
    async fn sync<I: Shows<V> + Owned, K: Ord + Clone, V>(
        self,
        told: &mut BTreeMap<K, Arc<V>>,
        shown: &BTreeMap<K, Arc<V>>,
        path: impl Fn(&K) -> OwnedObjectPath,
        make: impl Fn(&K, Arc<V>) -> I,
    ) -> zbus::Result<()> {
        let gone: Vec<K> = told
            .keys()
            .filter(|key| !shown.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            told.remove(&key);
            self.remove::<I>(path(&key)).await?;
        }
        for (key, view) in shown {
            match told.insert(key.clone(), view.clone()) {
                Some(before) if Arc::ptr_eq(&before, view) => {}
                Some(_) => self.show::<I, V>(&path(key), view).await?,
                None => self.add(path(key), make(key, view.clone())).await?,
            }
        }
        Ok(())
    }

    async fn add<I: Interface + Owned>(self, path: OwnedObjectPath, object: I) -> zbus::Result<()> {
        let of_object = SignalEmitter::new(self.connection, &path)?;
        let values = values(self.connection, &object, &of_object).await?;
        let owner = object.owner();
        let server = self.connection.object_server();
        server.at(&path, self.service.guarded(object)).await?;
        for way in self.service.gate.ways(self.root()?, owner) {
            let interfaces = HashMap::from([(I::name(), borrowed(values.iter())?)]);
            Managed::interfaces_added(&way, path.as_ref(), interfaces).await?;
        }
        Ok(())
    }

    async fn remove<I: Interface + Owned>(self, path: OwnedObjectPath) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let object = server.interface::<_, Guarded<I>>(&path).await?;
        let owner = object.get().await.object().owner();
        server.remove::<Guarded<I>, _>(&path).await?;
        for way in self.service.gate.ways(self.root()?, owner) {
            Managed::interfaces_removed(&way, path.as_ref(), vec![I::name()]).await?;
        }
        Ok(())
    }

    /// Lets an object look like this, and sends the properties that are other than
    /// before.
    async fn show<I: Shows<V> + Owned, V>(
        self,
        path: &ObjectPath<'_>,
        view: &Arc<V>,
    ) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let object = server.interface::<_, Guarded<I>>(path).await?;
        let emitter = object.signal_emitter();
        let guarded = object.get().await;
        let shows = guarded.object();
        let before = values(self.connection, shows, emitter).await?;
        shows.show(view.clone());
        let now = values(self.connection, shows, emitter).await?;
        self.changes::<I>(&before, &now, emitter, shows.owner())
            .await
    }

    /// Sends the properties that are other than before; all are new to who sees the
    /// object for the first time.
    async fn changes<I: Interface>(
        self,
        before: &Values,
        now: &Values,
        emitter: &SignalEmitter<'_>,
        owner: Option<u32>,
    ) -> zbus::Result<()> {
        let is_new = |(name, value): &(&String, &OwnedVariant)| before.get(*name) != Some(value);
        if before.is_empty() || !now.iter().any(|property| is_new(&property)) {
            return Ok(());
        }
        for way in self.service.gate.ways(emitter.clone(), owner) {
            let changed = borrowed(now.iter().filter(is_new))?;
            let none = Cow::Borrowed([].as_slice());
            Properties::properties_changed(&way, I::name(), changed, none).await?;
        }
        Ok(())
    }

    async fn end(self, id: JobId, job: &JobShown) -> zbus::Result<()> {
        let (state, name, message, hint) = job.outcome.to_parts();
        let emitter = SignalEmitter::new(self.connection, job_path(id))?;
        for way in self.service.gate.ways(emitter, Some(job.owner)) {
            JobObject::completed(&way, &state, &name, &message, &hint).await?;
        }
        Ok(())
    }

    /// The object that tells which others come and go.
    fn root(self) -> zbus::Result<SignalEmitter<'static>> {
        SignalEmitter::new(self.connection, ROOT_PATH)
    }
}

/// Properties as a signal takes them.
fn borrowed<'a>(
    values: impl Iterator<Item = (&'a String, &'a OwnedVariant)>,
) -> zbus::Result<HashMap<&'a str, Variant<'a>>> {
    values
        .map(|(name, value)| Ok((name.as_str(), Variant::try_from(value)?)))
        .collect()
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
