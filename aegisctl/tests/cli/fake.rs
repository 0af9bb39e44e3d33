//! A fake aegisd for tests of the client: the D-Bus contract without VMs.
//!
//! The instance `web` exists. Instances whose handle begins with `broken` fail to
//! start; `flaky` loses aegisd at the first `Stop`, and is `Disable`d without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use aegis_bus::manager::SpecRequest;
use aegis_bus::names;
use aegis_core::handle::Handle;
use aegis_core::tether::Frame;
use zbus::Connection;
use zbus::fdo::RequestNameFlags;

use instance::Instance;
use managed::Managed;
use manager::Manager;
use secrets::Secrets;
use tether::Tether;
use volumes::Volumes;

mod guest;
mod image;
mod instance;
mod job;
mod managed;
mod manager;
mod secrets;
mod systemd;
mod tether;
mod volumes;

pub(crate) use image::DIGITS;

/// What a test shares with the fake.
#[derive(Clone, Default)]
pub(crate) struct Handles {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<String, Record>,
    jobs: u64,
    /// Every call that changes something, in words.
    calls: Vec<String>,
    logs: Vec<PathBuf>,
    lingering: bool,
    /// Values in clear, by name.
    secrets: BTreeMap<String, String>,
    /// Their key was rotated.
    rotated: bool,
    volumes: BTreeSet<String>,
    messages: BTreeMap<String, Vec<Frame>>,
    flaked: bool,
    /// What `Stats` takes for the time.
    clock_us: u64,
}

#[derive(Clone)]
struct Record {
    spec: SpecRequest,
    state: &'static str,
}

impl Handles {
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn handles(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap()
            .instances
            .keys()
            .cloned()
            .collect()
    }

    pub(crate) fn secret(&self, name: &str) -> Option<String> {
        self.with(|state| state.secrets.get(name).cloned())
    }

    /// Gives an instance messages.
    pub(crate) fn keep_messages(&self, instance: &str, texts: &[String]) {
        let frames = texts.iter().map(|text| Frame::parse(text).unwrap());
        self.with(|state| {
            let kept = state.messages.entry(instance.to_owned());
            kept.or_default().extend(frames);
        });
    }

    /// The files `OpenLogs` opens.
    pub(crate) fn set_logs(&self, logs: Vec<PathBuf>) {
        self.state.lock().unwrap().logs = logs;
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }
}

/// The server.
pub(crate) struct Fake;

impl Fake {
    /// Serves on a bus from now on, in a thread of its own.
    pub(crate) fn serve(address: &str, handles: Handles) {
        let address = address.to_owned();
        let (ready, served) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let first = publish(&address, &handles).await;
                first.request_name(names::BUS_NAME).await.unwrap();
                // Has the name when the first one gives it up.
                let second = publish(&address, &handles).await;
                second
                    .request_name_with_flags(names::BUS_NAME, RequestNameFlags::empty())
                    .await
                    .unwrap();
                let _systemd = zbus::connection::Builder::address(address.as_str())
                    .name(systemd::NAME)
                    .serve_at(systemd::UNIT, systemd::OneUnit)
                    .serve_at(systemd::PATH, systemd::Systemd)
                    .build()
                    .await
                    .unwrap();
                ready.send(()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        served.recv().unwrap();
    }
}
/// A connection that plays aegisd.
async fn publish(address: &str, handles: &Handles) -> Connection {
    let manager = Manager {
        handles: handles.clone(),
    };
    let managed = Managed {
        handles: handles.clone(),
    };
    let secrets = Secrets {
        handles: handles.clone(),
    };
    let volumes = Volumes {
        handles: handles.clone(),
    };
    let tether = Tether {
        handles: handles.clone(),
    };
    let connection = zbus::connection::Builder::address(address)
        .serve_at(names::ROOT_PATH, managed)
        .serve_at(names::ROOT_PATH, manager)
        .serve_at(names::ROOT_PATH, secrets)
        .serve_at(names::ROOT_PATH, volumes)
        .serve_at(names::ROOT_PATH, tether)
        .serve_at(names::image_path(image::DIGITS), image::Image)
        .build()
        .await
        .unwrap();
    let web = SpecRequest {
        kit: Some("agent".into()),
        ports: vec!["8080:80".parse().unwrap()],
        ..Default::default()
    };
    for handle in ["web", "flaky"] {
        add(&connection, handles, handle, web.clone(), "running").await;
    }
    connection
}

async fn add(
    connection: &Connection,
    handles: &Handles,
    handle: &str,
    spec: SpecRequest,
    state: &'static str,
) {
    let instance = Instance {
        handle: handle.parse().unwrap(),
        handles: handles.clone(),
    };
    let path = names::instance_path(&instance.handle);
    let record = Record { spec, state };
    handles.with(|state| state.instances.insert(handle.to_owned(), record));
    let server = connection.object_server();
    managed::added(connection, &path, &instance).await;
    server.at(path, instance).await.unwrap();
}

/// Removes an instance, from a task of its own: an object cannot be removed by a
/// method of its own.
fn remove(connection: Connection, handles: Handles, handle: Handle) {
    tokio::spawn(async move {
        handles.with(|state| state.instances.remove(handle.as_str()));
        let server = connection.object_server();
        let path = names::instance_path(&handle);
        server.remove::<Instance, _>(&path).await.unwrap();
        managed::removed(&connection, &path).await;
    });
}
