//! The engine: all instances, and what concerns more than one of them.
//!
//! It starts an actor per record, hands out what the service manager and the
//! kit folders report, and makes new instances. It knows no transport: the bus
//! asks it, and so would any other.

mod images;
mod messages;
mod prune;
mod secrets;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aegis_bus::job::JobState;
use aegis_bus::kit::{InstallOptions, RemoveOptions};
use aegis_bus::manager::{CreateOptions, SpecRequest};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use aegis_core::layout::Mode;
use aegis_core::secret::SecretEnv;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::board::{Board, JobId};
use crate::caller::Caller;
use crate::host::Host;
use crate::images::Images;
use crate::instance::ports::{Numbered, Wanted};
use crate::instance::{Directory, Instance, InstanceError, Operation, Shared, config, files};
use crate::jobs::{Job, Jobs, Outcome};
use crate::kits::Catalog;
use crate::kits::expand::{ExpandError, expand};
use crate::kits::install::{self, InstallError};
use crate::kits::watcher::{self, Changed};
use crate::messages::Messages;
use crate::registry::{Intent, Loaded, Record, Registry, RegistryError};
use crate::secrets::Vault;
use crate::supervisor::state::{Change, UnitState};
use crate::supervisor::{Supervisor, SupervisorError, UnitId};

/// Before a lost connection to the service manager is tried anew.
const RECONNECT: Duration = Duration::from_secs(1);
/// Bursts of changes in the kit folders that may wait.
const KIT_CHANGES: usize = 16;

/// Why aegisd cannot begin its work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the service manager does not answer")]
    Supervisor(#[from] SupervisorError),
    #[error("the folders of aegisd cannot be made")]
    Folders(#[source] Box<InstanceError>),
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Why there is no registry to work with. Everything is refused with it.
    unusable: Option<Fault>,
}

/// An instance as it is wanted, before anything of it is written.
struct Draft<'a> {
    record: Record,
    numbered: Numbered<'a>,
    /// Variables that its kit needs and that have no value.
    required: Vec<String>,
    /// Those that its kit's config names and that have none.
    mentioned: Vec<String>,
}

impl Engine {
    /// Finds out how things are and starts to take care of them.
    ///
    /// A registry that cannot be used does not keep aegisd from running: clients
    /// are told why. Nothing is corrected then, since nothing is known to be wrong.
    ///
    /// # Errors
    /// The service manager cannot be reached, or a folder cannot be made.
    pub async fn start(
        host: Host,
        supervisor: Arc<dyn Supervisor>,
        registry: Result<Registry, RegistryError>,
    ) -> Result<Arc<Self>, EngineError> {
        files::prepare(&host).map_err(|error| EngineError::Folders(Box::new(error)))?;
        let facts = supervisor.facts().await?;
        // Before the list, so that nothing happens unseen between the two.
        let changes = supervisor.changes().await?;
        let units = supervisor.list(None).await?;
        let (registry, loaded) = match registry {
            Ok(registry) => {
                let loaded = registry.load().await;
                (registry, loaded)
            }
            Err(error) => (Registry::closed(), Err(error)),
        };
        let unusable = loaded.as_ref().err().map(RegistryError::fault);
        if let Some(fault) = &unusable {
            tracing::error!(symbol = %fault.symbol, "{fault}");
        }
        let loaded = loaded.unwrap_or_default();
        let board = Arc::new(Board::default());
        let catalog = Arc::new(Catalog::new(&host, board.clone()));
        catalog.refresh();
        let images = Images::open(&host, board.clone());
        let images = images.map_err(|error| EngineError::Folders(Box::new(error.into())))?;
        let images = Arc::new(images);
        images.await_pulls();
        let engine = Arc::new(Self {
            shared: Arc::new(Shared {
                vault: Vault::of(&host, registry.clone()),
                messages: Messages::new(registry.clone()),
                host,
                supervisor,
                facts,
                registry,
                jobs: Jobs::new(board.clone()),
                board,
                catalog,
                images,
                directory: Directory::default(),
                kit_folders: tokio::sync::RwLock::default(),
                volumes_stay: tokio::sync::RwLock::default(),
                numbers: tokio::sync::Mutex::default(),
            }),
            unusable,
        });
        engine.show_manager(&loaded);
        if engine.unusable.is_none() {
            // Values can be had as it is; who sets one would meet the same error.
            if let Err(error) = engine.shared.vault.settle().await {
                tracing::error!("{}, ignoring", error.fault());
            }
            engine.take_over(loaded, units).await;
            engine.deliver_what_waits().await;
            engine.shared.sweep_kits().await;
        }
        tokio::spawn(follow_units(engine.clone(), changes));
        tokio::spawn(follow_kits(engine.clone()));
        Ok(engine)
    }

    /// What everything works with.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What clients can see.
    pub fn board(&self) -> &Board {
        &self.shared.board
    }

    /// Why the registry cannot be used, if it cannot.
    pub fn unusable(&self) -> Option<&Fault> {
        self.unusable.as_ref()
    }

    fn show_manager(&self, loaded: &Loaded) {
        let words = loaded.quarantined.iter();
        let words = words.map(|record| format!("{}: {}", record.handle, record.reason));
        let quarantined: Vec<String> = words.collect();
        for words in &quarantined {
            tracing::error!("a record of the registry cannot be read, ignoring: {words}");
        }
        let lingering = self.shared.facts.lingering.unwrap_or(true);
        self.board().change(|shown| {
            shown.quarantined = quarantined;
            shown.lingering = lingering;
        });
    }

    /// Starts the actors, and stops what belongs to no instance.
    async fn take_over(&self, loaded: Loaded, units: Vec<UnitState>) {
        let mut by_handle: BTreeMap<Handle, Vec<UnitState>> = BTreeMap::new();
        for unit in units {
            by_handle
                .entry(unit.unit.handle.clone())
                .or_default()
                .push(unit);
        }
        for mut record in loaded.records {
            let units = by_handle.remove(&record.handle).unwrap_or_default();
            if crate::reconcile::adopt_unseen(&mut record, &units, self.shared.facts.started_at) {
                let written = self.shared.registry.update(record.clone()).await;
                if let Err(error) = written {
                    tracing::error!("{}, ignoring", error.fault());
                }
            }
            Instance::take_over(&self.shared, record, units);
        }
        let unreadable: BTreeSet<String> = loaded
            .quarantined
            .into_iter()
            .map(|record| record.handle)
            .collect();
        for handle in by_handle
            .into_keys()
            .filter(|h| !unreadable.contains(h.as_str()))
        {
            tracing::warn!(instance = %handle, "{handle}: its units belong to no instance, stopping them");
            let stopped = self.shared.supervisor.stop(&UnitId::group(&handle)).await;
            if let Err(error) = stopped {
                tracing::error!("{}, ignoring", InstanceError::from(error).fault());
            }
        }
    }

    fn usable(&self) -> Result<(), InstanceError> {
        match &self.unusable {
            None => Ok(()),
            Some(fault) => Err(InstanceError::Start(fault.clone())),
        }
    }

    /// The instance of a handle, without regard to case.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, handle: &str) -> Result<Instance, InstanceError> {
        self.usable()?;
        let found = self.shared.directory.find(handle);
        found.ok_or_else(|| InstanceError::Unknown(handle.to_owned()))
    }

    /// The same for a caller, for whom those of others may not be there.
    ///
    /// # Errors
    /// There is none for them.
    pub fn find(&self, caller: &Caller, handle: &str) -> Result<Instance, InstanceError> {
        let found = self.get(handle)?;
        match caller.sees.is_there(found.record().owner()) {
            true => Ok(found),
            false => Err(InstanceError::Unknown(handle.to_owned())),
        }
    }

    /// Who keeps what the caller makes: in user mode everybody's home is aegisd's own.
    fn keeper(&self, caller: &Caller) -> Option<u32> {
        let mode = self.shared.host.layout.mode;
        caller.uid.filter(|_| mode == Mode::System)
    }

    /// Makes an instance; an empty name lets the engine choose one. `values` are the
    /// secrets that become its own.
    ///
    /// # Errors
    /// What was asked for cannot be; nothing is left then. What fails later is
    /// the job's to tell, and leaves nothing either.
    pub async fn create(
        &self,
        name: &str,
        request: SpecRequest,
        values: SecretEnv,
        options: CreateOptions,
        caller: Caller,
    ) -> Result<(Handle, JobId), InstanceError> {
        self.usable()?;
        let starts = options.start && !options.disabled;
        if request.ephemeral && !starts {
            return Err(InstanceError::EphemeralStart);
        }
        let _kits = self.shared.kit_folders.read().await;
        let _images = self.shared.images.keep().await;
        let _volumes = self.shared.volumes_stay.read().await;
        let Draft {
            mut record,
            numbered,
            required,
            mentioned,
        } = self.draft(name, request).await?;
        if options.disabled {
            record.intent = Intent::Disabled;
        }
        record.creator = self.keeper(&caller);
        files::check(&self.shared.host, &record)?;
        // Before anything is started: all secrets are there, encrypted, readable.
        let prepared = self
            .shared
            .vault
            .prepare(&record, values, required, caller.sees);
        let prepared = prepared.await?;
        let own = prepared.own.clone();
        self.shared.registry.insert(record.clone(), own).await?;
        drop(prepared);
        let handle = record.handle.clone();
        let mut notes = self.notes(&record).await;
        if !mentioned.is_empty() {
            let names = mentioned.join(", ");
            notes.push(format!(
                "its kit's config names variables without a value: {names}"
            ));
        }
        let (instance, job) = Instance::create(&self.shared, record, starts, notes);
        drop(numbered);
        if options.foreground_owner {
            instance.set_owner(caller.bus_name);
        }
        Ok((handle, job))
    }

    /// What an instance about to be made takes over from one before it.
    async fn notes(&self, record: &Record) -> Vec<String> {
        if record.spec.daemons.is_empty() {
            return Vec::new();
        }
        let (shared, record) = (self.shared.clone(), record.clone());
        crate::instance::blocking(move || {
            let at_home = config::found_in_home(&record);
            let mut notes: Vec<String> = at_home
                .iter()
                .map(|file| format!("its daemons use {}", file.display()))
                .collect();
            let found = files::found_config(&shared.host, &record.handle);
            if !found.is_empty() {
                let folder = shared.host.layout.daemon_config(&record.handle);
                notes.push(format!(
                    "its daemons use what was in {} before: {}",
                    folder.display(),
                    found.join(", ")
                ));
            }
            notes
        })
        .await
    }

    async fn draft(&self, name: &str, request: SpecRequest) -> Result<Draft<'_>, InstanceError> {
        let handle = match name {
            "" => self.generated(if request.ephemeral { "run" } else { "vm" })?,
            name => name.parse::<Handle>()?,
        };
        if self.shared.directory.find(handle.as_str()).is_some() {
            return Err(RegistryError::Taken(handle.to_string()).into());
        }
        let (shared, kit) = (self.shared.clone(), request.kit.clone());
        let kit = crate::instance::blocking(move || {
            // Programs may have come since the folders were read.
            shared.catalog.refresh();
            kit.map(|name| shared.catalog.find(&name)).transpose()
        });
        let kit = kit.await.map_err(ExpandError::from)?;
        let (mut spec, ports) = expand(request, kit.as_ref(), &handle, &self.shared.host)?;
        if !spec.image.is_empty() {
            let (images, name) = (self.shared.images.clone(), spec.image.clone());
            let platform = spec.platform;
            let image = crate::instance::blocking(move || images.find_for(&name, platform));
            let image = image.await?;
            spec.pinned = Some(image.pin());
        }
        let wanted = Wanted::of(std::mem::take(&mut spec.ports), &ports);
        let (ports, numbered) = self.shared.number(wanted).await?;
        spec.ports = ports;
        let lacks =
            |name: &String| !spec.env.contains_key(name) && !spec.secrets.contains_key(name);
        let manifest = kit.as_ref().and_then(|kit| kit.usable().ok());
        let (mut required, mut mentioned) = (Vec::new(), Vec::new());
        if let Some((manifest, _)) = manifest {
            required.extend(
                manifest
                    .required_secrets
                    .iter()
                    .filter(|name| lacks(name))
                    .cloned(),
            );
            let names = manifest.variables().into_iter().map(str::to_owned);
            mentioned.extend(names.filter(lacks));
        }
        Ok(Draft {
            record: Record::new(handle, spec, crate::instance::now_us()),
            numbered,
            required,
            mentioned,
        })
    }

    /// A name nobody has: the standard library's hash keys are random.
    fn generated(&self, prefix: &str) -> Result<Handle, InstanceError> {
        loop {
            let number = RandomState::new().build_hasher().finish() & 0xff_ffff;
            let handle: Handle = format!("{prefix}-{number:06x}").parse()?;
            if self.shared.directory.find(handle.as_str()).is_none() {
                return Ok(handle);
            }
        }
    }

    /// Deletes an ephemeral instance whose owner left before its exec began.
    pub fn owner_left(&self, handle: &Handle, owner: &str) {
        let Ok(instance) = self.get(handle.as_str()) else {
            return;
        };
        if !instance.give_up(owner) {
            return;
        }
        if let Err(error) = instance.ask(Operation::Delete { purge: false }) {
            tracing::warn!(instance = %handle, "{handle}: {}, ignoring", error.fault());
        }
    }

    fn look_everywhere(&self) {
        for instance in self.shared.directory.all() {
            instance.units_may_differ();
        }
    }

    /// Reads the kit folders again.
    pub async fn rescan_kits(&self) {
        let catalog = self.shared.catalog.clone();
        crate::instance::blocking(move || catalog.refresh()).await;
    }

    /// Installs a kit from an open folder and gives its name.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub async fn install_kit(
        &self,
        folder: File,
        options: InstallOptions,
    ) -> Result<String, InstanceError> {
        self.usable()?;
        let folders = self.shared.kit_folders.write().await;
        let shared = self.shared.clone();
        let name = crate::instance::blocking(move || {
            let name = options.name.as_deref();
            install::install(&shared.host, &shared.catalog, folder, name)
        })
        .await?;
        drop(folders);
        self.kits_changed().await;
        Ok(name)
    }

    /// Removes an installed kit; unless forced, only if no instance uses it.
    ///
    /// # Errors
    /// It is used, or was not installed from a folder.
    pub async fn remove_kit(
        &self,
        name: &str,
        options: RemoveOptions,
    ) -> Result<(), InstanceError> {
        self.usable()?;
        self.shared.catalog.find(name).map_err(ExpandError::from)?;
        let folders = self.shared.kit_folders.write().await;
        let instances = self.shared.directory.all();
        let uses = |instance: &&Instance| instance.kit().as_deref() == Some(name);
        let users: Vec<Handle> = instances
            .iter()
            .filter(uses)
            .map(|instance| instance.handle().clone())
            .collect();
        if !users.is_empty() && !options.force {
            return Err(InstanceError::Install(InstallError::Used {
                kit: name.to_owned(),
                instances: users,
            }));
        }
        let (shared, name) = (self.shared.clone(), name.to_owned());
        let remove = move || install::remove(&shared.host, &shared.catalog, &name);
        crate::instance::blocking(remove).await?;
        drop(folders);
        self.kits_changed().await;
        Ok(())
    }

    async fn kits_changed(&self) {
        self.rescan_kits().await;
        self.shared.sweep_kits().await;
        for instance in self.shared.directory.all() {
            instance.config_may_differ();
        }
    }

    /// Stops every instance until it is started or aegisd is.
    ///
    /// # Errors
    /// The registry cannot be used.
    pub fn stop_all(&self, caller: &Caller) -> Result<JobId, InstanceError> {
        self.usable()?;
        let job = self.shared.jobs.begin("stop-all", None, caller.owner());
        let id = job.id();
        let asked: Vec<Result<JobId, InstanceError>> = self
            .shared
            .directory
            .all()
            .iter()
            .map(|instance| instance.ask(Operation::Rest))
            .collect();
        tokio::spawn(end_with(self.shared.board.clone(), job, asked));
        Ok(id)
    }
}

/// Ends a job when the jobs it is made of have ended.
async fn end_with(board: Arc<Board>, job: Job, parts: Vec<Result<JobId, InstanceError>>) {
    let mut shown = board.follow();
    let mut result = Ok(Outcome::Unchanged);
    for part in parts {
        let ended = match part {
            Err(error) => Err(error.fault()),
            Ok(id) => {
                let running = |job: &crate::board::JobShown| job.outcome.state == JobState::Running;
                let ended =
                    shown.wait_for(|shown| !shown.jobs.get(&id).is_some_and(|j| running(j)));
                let outcome = match ended.await {
                    Ok(shown) => shown.jobs.get(&id).map(|job| job.outcome.clone()),
                    Err(_) => None,
                };
                match outcome {
                    Some(outcome) if outcome.state == JobState::Unchanged => Ok(Outcome::Unchanged),
                    Some(outcome) => outcome.fault.map_or(Ok(Outcome::Changed), Err),
                    None => Err(Fault::new(Symbol::Internal, "a part of the job was lost")),
                }
            }
        };
        result = match (result, ended) {
            (Err(first), _) | (Ok(_), Err(first)) => Err(first),
            (Ok(before), Ok(outcome)) => Ok(outcome.or(before)),
        };
    }
    job.end(result);
}

/// Hands every change of a unit to its instance.
async fn follow_units(engine: Arc<Engine>, mut changes: BoxStream<'static, Change>) {
    loop {
        while let Some(change) = changes.next().await {
            match &change {
                Change::Changed(unit) | Change::Stopped(unit) | Change::Gone(unit) => {
                    if let Some(instance) = engine.shared.directory.find(unit.handle.as_str()) {
                        instance.unit_changed(&change);
                    }
                }
                Change::Missed => engine.look_everywhere(),
            }
        }
        tracing::warn!("the service manager stopped telling of changes; asking again");
        changes = loop {
            tokio::time::sleep(RECONNECT).await;
            match engine.shared.supervisor.changes().await {
                Ok(changes) => break changes,
                Err(error) => {
                    tracing::warn!("{}, ignoring", InstanceError::from(error).fault());
                }
            }
        };
        engine.look_everywhere();
    }
}

/// Keeps the catalog as the folders are, and hands changes of config on.
async fn follow_kits(engine: Arc<Engine>) {
    let (sender, mut changes) = mpsc::channel(KIT_CHANGES);
    let dirs = engine.shared.host.kit_dirs.clone();
    let in_homes = engine.shared.directory.in_homes();
    tokio::spawn(async move {
        if let Err(error) = watcher::watch(dirs, in_homes, sender).await {
            tracing::error!("cannot follow the kit folders: {error}; kits are read on use only");
        }
    });
    while let Some(change) = changes.recv().await {
        match change {
            Changed::Kits => {
                engine.rescan_kits().await;
                // A config folder may have come with its content.
                for instance in engine.shared.directory.all() {
                    instance.config_may_differ();
                }
            }
            Changed::Config(handle) => {
                if let Ok(instance) = engine.get(handle.as_str()) {
                    instance.config_may_differ();
                }
            }
        }
    }
}
