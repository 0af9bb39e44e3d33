//! As much of a service manager as `up`, `down`, `status` and `doctor` ask.

use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, interface};

/// Where systemd is.
pub(super) const PATH: &str = "/org/freedesktop/systemd1";
pub(super) const NAME: &str = "org.freedesktop.systemd1";

/// The one object of all its units.
pub(super) const UNIT: &str = "/org/freedesktop/systemd1/unit/one";

pub(super) struct Systemd;

pub(super) struct OneUnit;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl OneUnit {
    #[zbus(property)]
    fn need_daemon_reload(&self) -> bool {
        false
    }
}

/// Name, description, load, active and sub state, followed unit, object, job.
type Unit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn subscribe(&self) {}

    async fn start_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(connection)] connection: &Connection,
    ) -> OwnedObjectPath {
        done(connection, name)
    }

    async fn stop_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(connection)] connection: &Connection,
    ) -> OwnedObjectPath {
        done(connection, name)
    }

    fn enable_unit_files(
        &self,
        _files: Vec<String>,
        _runtime: bool,
        _force: bool,
    ) -> (bool, Vec<(String, String, String)>) {
        (true, Vec::new())
    }

    fn list_units_by_patterns(&self, _states: Vec<String>, _patterns: Vec<String>) -> Vec<Unit> {
        let root = || OwnedObjectPath::try_from("/").unwrap();
        let word = str::to_owned;
        vec![(
            word("aegis-vm-web.socket"),
            word("Sockets of web"),
            word("loaded"),
            word("active"),
            word("listening"),
            String::new(),
            root(),
            0,
            String::new(),
            root(),
        )]
    }

    fn load_unit(&self, _name: String) -> OwnedObjectPath {
        OwnedObjectPath::try_from(UNIT).unwrap()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        "257".into()
    }
}

/// A job that ends as soon as it was answered.
fn done(connection: &Connection, unit: String) -> OwnedObjectPath {
    let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/1").unwrap();
    let (connection, ended) = (connection.clone(), job.clone());
    tokio::spawn(async move {
        let emitter = SignalEmitter::new(&connection, PATH).unwrap();
        Systemd::job_removed(&emitter, 1, ended, &unit, "done")
            .await
            .unwrap();
    });
    job
}
