//! The few calls of systemd's D-Bus interface that are used
//! (org.freedesktop.systemd1(5)).

use zbus::{OwnedObjectPath, Variant, proxy};

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
pub(super) trait Manager {
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

    /// When this run of the manager began, in microseconds since 1970.
    #[zbus(property(emits_changed_signal = "const"))]
    fn userspace_timestamp(&self) -> zbus::Result<u64>;
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
    is_error(error, "NoSuchUnit")
        || matches!(error, zbus::Error::FDO(inner) if matches!(**inner, zbus::fdo::Error::UnknownObject(_)))
}
