//! One aegisd with a client on a connection of its own.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aegis_bus::dict::Dict;
use aegis_bus::instance::{InstanceProxy, InstanceView};
use aegis_bus::job::{JobOutcome, JobProxy, JobState};
use aegis_bus::manager::{CreateOptions, ManagerProxy, SpecRequest};
use aegis_core::layout::{Layout, Mode, Surroundings};
use aegis_image::digest::Digest;
use aegis_image::record::{Image, Name};
use aegis_image::store::Store;
use aegisd::bus::{Gate, Service};
use aegisd::engine::Engine;
use aegisd::host::Host;
use aegisd::registry::Registry;
use zbus::connection::Builder;
use zbus::fdo::PropertiesProxy;
use zbus::{Connection, Guid, OwnedObjectPath};

use crate::fake_supervisor::FakeSupervisor;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// What outlives an aegisd: the disk and the service manager.
pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) supervisor: FakeSupervisor,
}

/// A running aegisd and its client.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) engine: Arc<Engine>,
    /// The other end, where it is held here.
    _server: Option<Connection>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            supervisor: FakeSupervisor::new(),
        }
    }

    pub(crate) fn host(&self) -> Host {
        let surroundings = Surroundings {
            aegis_home: Some(self.root.path().join("home")),
            home: None,
            runtime: Some(self.root.path().join("run")),
        };
        let layout = Layout::new(Mode::User, &surroundings).unwrap();
        Host {
            home: None,
            kit_dirs: vec![layout.kits()],
            program_dirs: vec![self.root.path().join("home/bin")],
            layout,
            libexec: self.root.path().join("libexec"),
            guest_dir: self.root.path().join("guest"),
            unit_owner: None,
            creds: None,
            keychain: None,
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::open(&self.host().layout.registry()).unwrap()
    }

    /// Every file and folder below a folder of the home.
    pub(crate) fn files(&self, folder: &str) -> Vec<PathBuf> {
        let folder = self.root.path().join("home").join(folder);
        let entries = folder.read_dir().into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Puts an image without layers into the store; its digest is one digit repeated.
    pub(crate) fn add_image(&self, digit: char) -> Digest {
        let store = Store::at(self.host().layout.images());
        std::fs::create_dir_all(self.host().layout.images()).unwrap();
        store.prepare().unwrap();
        let digits = String::from(digit).repeat(64);
        let id: Digest = format!("sha256:{digits}").parse().unwrap();
        let image = Image {
            id: id.clone(),
            manifest: None,
            platform: "linux/amd64".to_owned(),
            created: None,
            layers: Vec::new(),
            config: Default::default(),
        };
        let name = Name {
            name: format!("docker.io/library/{digit}:1"),
            image: id.clone(),
            pulled_us: 1,
        };
        store.publish(&image, Some(&name)).unwrap();
        id
    }

    /// Writes a kit with one daemon.
    pub(crate) fn install_kit(&self, name: &str) {
        let kits = self.host().layout.kits();
        std::fs::create_dir_all(&kits).unwrap();
        let manifest = r#"{"version":"1","instance_daemons":[{"binary":"true",
            "config":{"path":"gateway.json","label":"Gateway","default":{"a":1}}}]}"#;
        let bin = self.root.path().join("home/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/true", bin.join("true")).unwrap();
        std::fs::write(kits.join(format!("{name}.json")), manifest).unwrap();
    }

    /// Starts an engine on what is there.
    pub(crate) async fn engine(&self) -> Arc<Engine> {
        let path = self.host().layout.registry();
        let supervisor = Arc::new(self.supervisor.clone());
        let registry = Registry::open(&path);
        Engine::start(self.host(), supervisor, registry)
            .await
            .unwrap()
    }

    /// Starts aegisd on what is there.
    pub(crate) async fn start(&self) -> Client {
        let engine = self.engine().await;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guid = Guid::generate();
        let server = Builder::unix_stream(theirs).server(guid).p2p();
        let service = Service::new(engine.clone(), Gate::of(Mode::User));
        let server = service.serve(server);
        let client = Builder::unix_stream(ours).p2p();
        let (server, connection) = tokio::join!(server.build(), client.build());
        let (server, connection) = (server.unwrap(), connection.unwrap());
        service.publish(&server).await.unwrap();
        Client {
            connection,
            engine,
            _server: Some(server),
        }
    }
}

impl Client {
    /// On a connection that somebody else serves.
    pub(crate) fn over(connection: Connection, engine: Arc<Engine>) -> Self {
        Self {
            connection,
            engine,
            _server: None,
        }
    }

    pub(crate) async fn manager(&self) -> ManagerProxy<'_> {
        ManagerProxy::new(&self.connection).await.unwrap()
    }

    pub(crate) async fn instance(&self, handle: &str) -> InstanceProxy<'_> {
        let path = aegis_bus::names::instance_path(&handle.parse().unwrap());
        let builder = InstanceProxy::builder(&self.connection).path(path);
        builder.build().await.unwrap()
    }

    /// Asks for an instance and waits for the job.
    pub(crate) async fn create(&self, handle: &str, spec: SpecRequest, start: bool) -> JobOutcome {
        let options = CreateOptions {
            start,
            ..Default::default()
        };
        let manager = self.manager().await;
        let (spec, options) = (spec.to_dict(), options.to_dict());
        let created = manager.create_instance(handle, &spec, &options);
        let (_, job) = created.await.unwrap();
        self.end_of(job).await
    }

    /// Waits for a job's end.
    pub(crate) async fn end_of(&self, job: OwnedObjectPath) -> JobOutcome {
        let job = JobProxy::builder(&self.connection)
            .path(job)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .unwrap();
        within(async {
            loop {
                let state: JobState = job.state().await.unwrap().parse().unwrap();
                if state != JobState::Running {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let (name, message) = (
            job.error_name().await.unwrap(),
            job.error_message().await.unwrap(),
        );
        let (state, hint) = (job.state().await.unwrap(), job.hint().await.unwrap());
        JobOutcome::from_parts(&state, &name, &message, &hint).unwrap()
    }

    pub(crate) async fn view(&self, handle: &str) -> InstanceView {
        let path = aegis_bus::names::instance_path(&handle.parse().unwrap());
        let properties = PropertiesProxy::builder(&self.connection)
            .destination(aegis_bus::names::BUS_NAME)
            .path(path);
        let properties = properties.build().await.unwrap();
        let interface = aegis_bus::names::INSTANCE.try_into().unwrap();
        let all: Dict = properties.get_all(interface).await.unwrap();
        InstanceView::from_properties(all).unwrap()
    }

    /// Waits until an instance looks as wanted.
    pub(crate) async fn wait_for(&self, handle: &str, wanted: impl Fn(&InstanceView) -> bool) {
        let handle = handle.parse().unwrap();
        let mut shown = self.engine.board().follow();
        let seen = shown.wait_for(|shown| {
            shown
                .instances
                .get(&handle)
                .is_some_and(|view| wanted(view))
        });
        drop(within(seen).await.unwrap());
    }

    /// Waits until an instance is gone.
    pub(crate) async fn wait_gone(&self, handle: &str) {
        let handle = handle.parse().unwrap();
        let mut shown = self.engine.board().follow();
        drop(
            within(shown.wait_for(|shown| !shown.instances.contains_key(&handle)))
                .await
                .unwrap(),
        );
    }
}

/// Whatever it is, it must end.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it takes too long")
}

/// What a client asks for that wants nothing special.
pub(crate) fn plain() -> SpecRequest {
    SpecRequest {
        env: BTreeMap::new(),
        ..Default::default()
    }
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
