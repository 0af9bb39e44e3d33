//! The few calls of systemd's D-Bus interface that are used
//! (org.freedesktop.systemd1(5)).

#![expect(
    clippy::disallowed_methods,
    reason = "the place these calls are to be made in"
)]

use aegis_fault_points::around_async;
use zbus::{Connection, OwnedObjectPath, Variant, proxy};

/// One property of a transient unit.
pub(super) type Property = (&'static str, Variant<'static>);

/// A unit that is made together with another.
pub(super) type AuxiliaryUnit<'a> = (&'a str, &'a [Property]);

/// One row of `ListUnitsByPatterns`: name, description, load state, active state,
/// sub-state, followed unit, object, job number, job type, job object.
pub(super) type ListedUnit = (
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

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait RawManager {
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[Property],
        auxiliary: &[AuxiliaryUnit<'_>],
    ) -> zbus::Result<OwnedObjectPath>;

    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[Property],
    ) -> zbus::Result<()>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;
    fn subscribe(&self) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn userspace_timestamp(&self) -> zbus::Result<u64>;
}

/// The manager. What changes units has a fault point before the call and one
/// after its answer; what only asks has none.
#[derive(Debug)]
pub(super) struct Manager {
    raw: RawManagerProxy<'static>,
}

impl Manager {
    pub(super) async fn new(connection: &Connection) -> zbus::Result<Self> {
        let raw = RawManagerProxy::new(connection).await?;
        Ok(Self { raw })
    }

    pub(super) async fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[Property],
        auxiliary: &[AuxiliaryUnit<'_>],
    ) -> zbus::Result<OwnedObjectPath> {
        let call = self
            .raw
            .start_transient_unit(name, mode, properties, auxiliary);
        step("systemd.StartTransientUnit", call).await
    }

    pub(super) async fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath> {
        step("systemd.StartUnit", self.raw.start_unit(name, mode)).await
    }

    pub(super) async fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath> {
        step("systemd.StopUnit", self.raw.stop_unit(name, mode)).await
    }

    pub(super) async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
    ) -> zbus::Result<OwnedObjectPath> {
        step("systemd.RestartUnit", self.raw.restart_unit(name, mode)).await
    }

    pub(super) async fn reset_failed_unit(&self, name: &str) -> zbus::Result<()> {
        step("systemd.ResetFailedUnit", self.raw.reset_failed_unit(name)).await
    }

    pub(super) async fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()> {
        step("systemd.KillUnit", self.raw.kill_unit(name, whom, signal)).await
    }

    pub(super) async fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[Property],
    ) -> zbus::Result<()> {
        let call = self.raw.set_unit_properties(name, runtime, properties);
        step("systemd.SetUnitProperties", call).await
    }

    pub(super) async fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath> {
        self.raw.get_unit(name).await
    }

    pub(super) async fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>> {
        self.raw.list_units_by_patterns(states, patterns).await
    }

    pub(super) async fn subscribe(&self) -> zbus::Result<()> {
        self.raw.subscribe().await
    }

    pub(super) async fn version(&self) -> zbus::Result<String> {
        self.raw.version().await
    }

    /// When this run of the manager began, in microseconds since 1970.
    pub(super) async fn userspace_timestamp(&self) -> zbus::Result<u64> {
        self.raw.userspace_timestamp().await
    }
}

/// One call that changes something, with its fault points.
async fn step<T>(name: &str, call: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    around_async(name, |error| zbus::Error::InputOutput(error.into()), call).await
}

/// Whether a call failed with this error name of systemd, e.g. `NoSuchUnit`.
pub(super) fn is_error(error: &zbus::Error, name: &str) -> bool {
    let zbus::Error::MethodError(found, ..) = error else {
        return false;
    };
    found.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name)
}

/// Whether the call failed because the manager does not know the unit or object.
pub(super) fn is_absent(error: &zbus::Error) -> bool {
    match error {
        // The names that the D-Bus specification defines are variants of their own.
        zbus::Error::FDO(error) => matches!(**error, zbus::fdo::Error::UnknownObject(_)),
        error => is_error(error, "NoSuchUnit"),
    }
}
