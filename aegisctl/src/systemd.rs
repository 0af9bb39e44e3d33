//! The few calls of org.freedesktop.systemd1(5) that `up`, `down`, `status` and
//! `doctor` need: they work on aegisd's own unit, so aegisd cannot do them.

use std::time::Duration;

use aegis_core::units;
use futures_util::StreamExt;
use zbus::OwnedObjectPath;
use zbus::proxy::CacheProperties;

use crate::client::Client;
use crate::failure::Failure;

/// Longest wait for aegisd to start or stop: systemd's default timeout for either,
/// after which it kills, and a margin.
const JOB_DEADLINE: Duration = Duration::from_secs(100);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[allow(clippy::type_complexity, reason = "the type of the D-Bus method")]
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<(String, String, String)>)>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait UnitObject {
    #[zbus(property)]
    fn need_daemon_reload(&self) -> zbus::Result<bool>;
}

/// A line of `ListUnitsByPatterns`, `(ssssssouso)`.
type ListedUnit = (
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

/// A unit of ours that systemd has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// The service manager of a mode.
pub(crate) struct Systemd(ManagerProxy<'static>);

impl Systemd {
    pub(crate) async fn of(client: &Client) -> Result<Self, Failure> {
        if client.is_peer() {
            return Err(Failure::NoManager);
        }
        ManagerProxy::builder(&client.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map(Self)
            .map_err(Failure::systemd("be asked"))
    }

    /// Its version, e.g. `257.9-1`.
    pub(crate) async fn version(&self) -> Result<String, Failure> {
        self.0
            .version()
            .await
            .map_err(Failure::systemd("tell its version"))
    }

    /// The units of aegisd whose files have changed since systemd has read them.
    pub(crate) async fn stale_units(&self) -> Result<Vec<&'static str>, Failure> {
        let mut stale = Vec::new();
        for name in units::CONTROL_PLANE {
            let changed = async {
                let unit = self.0.load_unit(name).await?;
                let unit = UnitObjectProxy::builder(self.0.inner().connection())
                    .path(unit)
                    .cache_properties(CacheProperties::No)
                    .build()
                    .await?;
                unit.need_daemon_reload().await
            };
            let failed = Failure::systemd(format!("tell of {name}"));
            if changed.await.map_err(failed)? {
                stale.push(name);
            }
        }
        Ok(stale)
    }

    /// Has aegisd started at login (or at boot). Says whether that is new.
    pub(crate) async fn enable_aegisd(&self) -> Result<bool, Failure> {
        let enabled = self.0.enable_unit_files(&[units::AEGISD], false, false);
        let (_, changes) = enabled
            .await
            .map_err(Failure::systemd(format!("enable {}", units::AEGISD)))?;
        Ok(!changes.is_empty())
    }

    /// Starts aegisd and waits until it answers.
    pub(crate) async fn start_aegisd(&self) -> Result<(), Failure> {
        self.job(format!("start {}", units::AEGISD), || {
            self.0.start_unit(units::AEGISD, "replace")
        })
        .await
    }

    /// Stops aegisd and waits until it is gone.
    pub(crate) async fn stop_aegisd(&self) -> Result<(), Failure> {
        self.job(format!("stop {}", units::AEGISD), || {
            self.0.stop_unit(units::AEGISD, "replace")
        })
        .await
    }

    /// The units of instances that are active: what runs or listens.
    pub(crate) async fn active_units(&self) -> Result<Vec<Unit>, Failure> {
        let states = ["active", "activating", "reloading", "deactivating"];
        let listed = self
            .0
            .list_units_by_patterns(&states, &[units::PATTERN])
            .await
            .map_err(Failure::systemd("list its units"))?;
        let mut active: Vec<_> = listed
            .into_iter()
            .filter(|unit| {
                units::parse(&unit.0).is_some_and(|(_, kind)| kind != units::UnitKind::Slice)
            })
            .map(|unit| Unit {
                name: unit.0,
                description: unit.1,
            })
            .collect();
        active.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(active)
    }

    /// Asks for a job of systemd and waits for its end.
    async fn job(
        &self,
        what: String,
        ask: impl AsyncFnOnce() -> zbus::Result<OwnedObjectPath>,
    ) -> Result<(), Failure> {
        let wait = async {
            // Only a subscriber is told of jobs; it comes before the call, so that
            // the end of the job cannot be missed.
            self.0.subscribe().await?;
            let mut removed = self.0.receive_job_removed().await?;
            let job = ask().await?;
            while let Some(signal) = removed.next().await {
                let signal = signal.args()?;
                if signal.job == job {
                    return Ok(signal.result.to_owned());
                }
            }
            Err(zbus::Error::InvalidReply)
        };
        let result = match tokio::time::timeout(JOB_DEADLINE, wait).await {
            Ok(result) => result.map_err(Failure::systemd(what))?,
            Err(_) => "timeout".to_owned(),
        };
        if result == "done" {
            return Ok(());
        }
        Err(Failure::UnitJob {
            unit: units::AEGISD.to_owned(),
            result,
        })
    }
}
