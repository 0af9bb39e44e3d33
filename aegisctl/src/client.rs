//! The way to aegisd: a bus connection and the proxies on it.
//!
//! Properties are never cached: a cache would call aegisd, and so start it, from
//! commands that must not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aegis_bus::connect::{self, ConnectError};
use aegis_bus::dict::Dict;
use aegis_bus::image::ImageView;
use aegis_bus::instance::{InstanceProxy, InstanceView};
use aegis_bus::job::JobProxy;
use aegis_bus::kit::KitView;
use aegis_bus::manager::ManagerProxy;
use aegis_bus::names;
use aegis_bus::secrets::{SecretEntry, SecretsProxy, SecretsStatus, StaleUser};
use aegis_bus::volumes::{VolumeEntry, VolumesProxy};
use aegis_core::fault::Symbol;
use aegis_core::layout::Mode;
use zbus::connection::Builder;
use zbus::fdo::{self, DBusProxy, ObjectManagerProxy, PropertiesProxy};
use zbus::names::{BusName, InterfaceName, WellKnownName};
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath};

use crate::failure::Failure;
use crate::launchd::Launchd;
use crate::systemd::Systemd;

mod agent;
mod messages;

pub(crate) use agent::Agent;
pub(crate) use messages::Followed;

/// How long any call may take. The bus gives an aegisd that it starts two minutes to
/// come, and one that runs answers at once but where somebody waits for a guest: for
/// as long as an emulated one may boot, three minutes.
const ANSWER: Duration = Duration::from_secs(5 * 60);
/// How long an aegisd that launchd has started may take to listen: it leaves 5 s between
/// two starts.
const STARTS: Duration = Duration::from_secs(30);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(100);

/// A connection to the bus where aegisd is or can be started.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) connection: Connection,
    mode: Mode,
}

impl Client {
    /// Connects by the bus of a mode, or as `peer` says, a D-Bus address of aegisd's own.
    pub(crate) async fn connect(mode: Mode, peer: Option<&str>) -> Result<Self, Failure> {
        let patient = |builder: Builder<'static>| builder.method_timeout(ANSWER);
        let connection = connect::to_aegisd(mode, peer, patient).await;
        let connection = connection.map_err(Failure::Connect)?;
        Ok(Self { connection, mode })
    }

    /// Whether there is no bus between this program and aegisd, and so nobody who
    /// starts aegisd or leads to the service manager.
    pub(crate) fn is_peer(&self) -> bool {
        !self.connection.is_bus()
    }

    /// Starts aegisd unless it runs. The bus would do so at the first call; but if
    /// it cannot start, systemd says so at once and the bus after two minutes.
    pub(crate) async fn start_aegisd(&self) -> Result<(), Failure> {
        if self.is_running().await? {
            return Ok(());
        }
        if self.is_peer() {
            return self.start_peer().await;
        }
        match Systemd::of(self).await?.start_aegisd().await {
            // Who may not ask systemd (system mode, polkit) leaves it to the bus.
            Err(Failure::Systemd { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// Starts aegisd where no bus does: launchd can, and takes a moment until it listens.
    async fn start_peer(&self) -> Result<(), Failure> {
        let missing = || Failure::NoAegisd(ConnectError::NoAegisd(self.mode));
        Launchd::of(self.mode).ok_or_else(missing)?.start_aegisd()?;
        let end = Instant::now() + STARTS;
        while Instant::now() < end {
            if self.is_running().await? {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(missing())
    }

    pub(crate) async fn manager(&self) -> Result<ManagerProxy<'static>, Failure> {
        ManagerProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    /// The instance of a handle; `what` completes "cannot ..." if there is none.
    pub(crate) async fn instance(
        &self,
        handle: &str,
        what: &str,
    ) -> Result<InstanceProxy<'static>, Failure> {
        let manager = self.manager().await?;
        let path = read(async || manager.get_instance(handle).await).await;
        self.instance_at(path.map_err(Failure::call(what))?).await
    }

    pub(crate) async fn instance_at(
        &self,
        path: OwnedObjectPath,
    ) -> Result<InstanceProxy<'static>, Failure> {
        InstanceProxy::builder(&self.connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    /// A job that aegisd answered a call with.
    pub(crate) async fn job(&self, path: OwnedObjectPath) -> Result<JobProxy<'static>, Failure> {
        JobProxy::builder(&self.connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    pub(crate) async fn secrets_proxy(&self) -> Result<SecretsProxy<'static>, Failure> {
        SecretsProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    /// All secrets, by name.
    pub(crate) async fn secrets(&self) -> Result<Vec<SecretEntry>, Failure> {
        let secrets = self.secrets_proxy().await?;
        let listed = read(async || secrets.list().await).await;
        let listed = listed.map_err(Failure::call("list the secrets"))?;
        let entries = listed.into_iter().map(SecretEntry::from_dict);
        Ok(entries.collect::<Result<_, _>>()?)
    }

    /// The instances of which somebody has an older value of these secrets.
    pub(crate) async fn stale(&self, names: &[String]) -> Result<Vec<StaleUser>, Failure> {
        let secrets = self.secrets_proxy().await?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let users = read(async || secrets.stale(&names).await).await;
        let users = users.map_err(Failure::call("ask who has an older value"))?;
        let users = users.into_iter().map(StaleUser::from_dict);
        Ok(users.collect::<Result<_, _>>()?)
    }

    /// How secrets are kept.
    pub(crate) async fn secrets_status(&self) -> Result<SecretsStatus, Failure> {
        let secrets = self.secrets_proxy().await?;
        let status = read(async || secrets.status().await).await;
        let status = status.map_err(Failure::call("ask how secrets are kept"))?;
        Ok(SecretsStatus::from_dict(status)?)
    }

    pub(crate) async fn volumes_proxy(&self) -> Result<VolumesProxy<'static>, Failure> {
        VolumesProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    /// All named volumes, by name.
    pub(crate) async fn volumes(&self) -> Result<Vec<VolumeEntry>, Failure> {
        let volumes = self.volumes_proxy().await?;
        let listed = read(async || volumes.list().await).await;
        let listed = listed.map_err(Failure::call("list the volumes"))?;
        let entries = listed.into_iter().map(VolumeEntry::from_dict);
        Ok(entries.collect::<Result<_, _>>()?)
    }

    /// Every property of an instance at this moment.
    pub(crate) async fn view(&self, instance: &InstanceProxy<'_>) -> Result<InstanceView, Failure> {
        let path = instance.inner().path().to_owned().into();
        let properties = self.properties(path, names::INSTANCE).await;
        Ok(InstanceView::from_properties(
            properties.map_err(Failure::call("read the instance"))?,
        )?)
    }

    /// Every property of an interface of an object of aegisd.
    pub(crate) async fn properties(
        &self,
        path: OwnedObjectPath,
        interface: &'static str,
    ) -> zbus::Result<Dict> {
        let proxy = PropertiesProxy::builder(&self.connection)
            .destination(names::BUS_NAME)
            .path(path)
            .build()
            .await?;
        let interface = InterfaceName::from_static_str(interface)?;
        read(async || Ok(proxy.get_all(interface.clone()).await?)).await
    }

    /// All instances, by handle.
    pub(crate) async fn instances(&self) -> Result<Vec<InstanceView>, Failure> {
        let what = "list the instances";
        // Without a registry there are no objects, which is not to be taken for an
        // answer. The ObjectManager cannot say so; asking for no instance does.
        match self.instance("", what).await {
            Err(failure) if !failure.is(Symbol::NotFound) => return Err(failure),
            _ => {}
        }
        let objects = self.objects(names::INSTANCE, what).await?;
        let views = objects.into_iter().map(InstanceView::from_properties);
        let mut views = views.collect::<Result<Vec<_>, _>>()?;
        views.sort_by(|a, b| a.handle.cmp(&b.handle));
        Ok(views)
    }

    /// All kits, by name.
    pub(crate) async fn kits(&self) -> Result<Vec<KitView>, Failure> {
        let manager = self.manager().await?;
        let rescanned = read(async || manager.rescan_kits().await).await;
        rescanned.map_err(Failure::call("list the kits"))?;
        let objects = self.objects(names::KIT, "list the kits").await?;
        let views = objects.into_iter().map(KitView::from_properties);
        let mut views = views.collect::<Result<Vec<_>, _>>()?;
        views.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        Ok(views)
    }

    /// All images, by name, those without one last.
    pub(crate) async fn images(&self) -> Result<Vec<ImageView>, Failure> {
        let objects = self.objects(names::IMAGE, "list the images").await?;
        let views = objects.into_iter().map(ImageView::from_properties);
        let mut views = views.collect::<Result<Vec<_>, _>>()?;
        views.sort_by(|a, b| {
            let order =
                |view: &ImageView| (view.names.is_empty(), view.names.clone(), view.id.clone());
            order(a).cmp(&order(b))
        });
        Ok(views)
    }

    /// The handles of the instances of each image, by its identity.
    pub(crate) async fn image_users(&self) -> Result<BTreeMap<String, Vec<String>>, Failure> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for view in self.instances().await? {
            users.entry(view.image_id).or_default().push(view.handle);
        }
        Ok(users)
    }

    async fn objects(&self, interface: &str, what: &str) -> Result<Vec<Dict>, Failure> {
        let manager = self.object_manager().await.map_err(Failure::call(what))?;
        let objects = read(async || Ok(manager.get_managed_objects().await?)).await;
        let objects = objects.map_err(Failure::call(what))?;
        let of_interface = objects.into_values().filter_map(|mut interfaces| {
            let key = interfaces.keys().find(|name| name.as_str() == interface)?;
            let key = key.clone();
            interfaces.remove(&key)
        });
        Ok(of_interface.collect())
    }

    /// Follows which objects come and go.
    pub(crate) async fn object_manager(&self) -> zbus::Result<ObjectManagerProxy<'static>> {
        ObjectManagerProxy::builder(&self.connection)
            .destination(names::BUS_NAME)
            .path(names::ROOT_PATH)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// Whether aegisd runs. Does not start it.
    pub(crate) async fn is_running(&self) -> Result<bool, Failure> {
        let has_owner = async {
            let name = BusName::from(WellKnownName::from_static_str(names::BUS_NAME)?);
            Ok(self.bus().await?.name_has_owner(name).await?)
        };
        has_owner.await.map_err(Failure::call("look for aegisd"))
    }

    /// Whether the bus can start aegisd.
    pub(crate) async fn is_activatable(&self) -> Result<bool, Failure> {
        let activatable = async {
            let names = self.bus().await?.list_activatable_names().await?;
            Ok(names.iter().any(|name| name.as_str() == names::BUS_NAME))
        };
        activatable.await.map_err(Failure::call("look for aegisd"))
    }

    async fn bus(&self) -> zbus::Result<DBusProxy<'static>> {
        DBusProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }
}

/// Calls what changes nothing, and once more if aegisd ended before it answered: the
/// bus starts the next one, and who only asks need not know of it.
async fn read<T>(call: impl AsyncFn() -> zbus::Result<T>) -> zbus::Result<T> {
    match call().await {
        Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::NoReply(_)) => call().await,
        outcome => outcome,
    }
}
