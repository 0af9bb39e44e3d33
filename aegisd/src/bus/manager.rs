//! The Manager interface.

use std::sync::Arc;

use aegis_bus::dict::{Dict, DictError, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::image::{ImportOptions, PruneImagesOptions, PullOptions};
use aegis_bus::kit::{InstallOptions, RemoveOptions};
use aegis_bus::manager::{CheckRow, CreateOptions, SpecRequest};
use aegis_bus::names::{instance_path, job_path, kit_path};
use aegis_bus::prune::PruneOptions;
use aegis_core::fault::Fault;
use aegis_core::handle::Handle;
use futures_util::StreamExt;
use zbus::message::Header;
use zbus::{Connection, OwnedFd, OwnedObjectPath, fdo};

use super::Service;
use super::access::Owned;
use super::secrets::{passed_document, passed_values};
use crate::checks;
use crate::engine::Engine;
use crate::images::Given;
use crate::instance::InstanceError;

/// The manager's object.
#[derive(Debug)]
pub struct ManagerObject {
    service: Service,
}

impl Owned for ManagerObject {}

impl ManagerObject {
    pub fn new(service: Service) -> Self {
        Self { service }
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Manager", introspection_docs = false)]
impl ManagerObject {
    #[zbus(out_args("instance", "job"))]
    async fn create_instance(
        &self,
        handle: String,
        mut spec: Dict,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath), BusFault> {
        let values = passed_values(&mut spec).await?;
        let request = SpecRequest::from_dict(spec).map_err(refused)?;
        let options = CreateOptions::from_dict(options).map_err(refused)?;
        let caller = self.service.gate.caller(connection, &header).await?;
        let owner = caller.bus_name.clone();
        let created = self
            .service
            .engine
            .create(&handle, request, values, options, caller)
            .await;
        let (handle, job) = created.map_err(failed)?;
        if let Some(owner) = owner.filter(|_| options.foreground_owner) {
            tokio::spawn(watch(
                self.service.engine.clone(),
                connection.clone(),
                handle.clone(),
                owner,
            ));
        }
        self.service.told.settled().await;
        Ok((instance_path(&handle), job_path(job)))
    }

    #[zbus(out_args("instance"))]
    async fn get_instance(
        &self,
        handle: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let instance = self.service.engine.find(&caller, &handle).map_err(failed)?;
        Ok(instance_path(instance.handle()))
    }

    #[zbus(out_args("rows"))]
    async fn check(&self) -> Vec<CheckRow> {
        checks::check(&self.service.engine).await
    }

    async fn rescan_kits(&self) {
        self.service.engine.rescan_kits().await;
        self.service.told.settled().await;
    }

    #[zbus(out_args("handles"))]
    async fn find_prunable(
        &self,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let options = PruneOptions::from_dict(options).map_err(refused)?;
        let handles = self
            .service
            .engine
            .prunable(&caller, &options)
            .map_err(failed)?;
        Ok(handles.iter().map(ToString::to_string).collect())
    }

    #[zbus(out_args("handles", "job"))]
    async fn prune(
        &self,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<String>, OwnedObjectPath), BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let options = PruneOptions::from_dict(options).map_err(refused)?;
        let (handles, job) = self
            .service
            .engine
            .prune(&caller, &options)
            .map_err(failed)?;
        self.service.told.settled().await;
        let handles = handles.iter().map(ToString::to_string).collect();
        Ok((handles, job_path(job)))
    }

    #[zbus(out_args("kit"))]
    async fn install_kit(
        &self,
        folder: OwnedFd,
        options: Dict,
    ) -> Result<OwnedObjectPath, BusFault> {
        let options = InstallOptions::from_dict(options).map_err(refused)?;
        let folder = std::os::fd::OwnedFd::from(folder).into();
        let name = self
            .service
            .engine
            .install_kit(folder, options)
            .await
            .map_err(failed)?;
        self.service.told.settled().await;
        Ok(kit_path(&name))
    }

    async fn remove_kit(&self, name: String, options: Dict) -> Result<(), BusFault> {
        let options = RemoveOptions::from_dict(options).map_err(refused)?;
        self.service
            .engine
            .remove_kit(&name, options)
            .await
            .map_err(failed)?;
        self.service.told.settled().await;
        Ok(())
    }

    #[zbus(out_args("job"))]
    async fn pull_image(
        &self,
        name: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let options = PullOptions::from_dict(options).map_err(refused)?;
        let access = match options.access {
            Some(descriptor) => Some(passed_document(descriptor).await?),
            None => None,
        };
        let given = Given {
            access,
            source: options.source,
            platform: options.platform.unwrap_or_default(),
            insecure: options.insecure,
        };
        let job = self
            .service
            .engine
            .pull_image(&caller, &name, given)
            .map_err(failed)?;
        self.service.told.settled().await;
        Ok(job_path(job))
    }

    #[zbus(out_args("job"))]
    async fn import_image(
        &self,
        name: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        let options = ImportOptions::from_dict(options).map_err(refused)?;
        let job = self
            .service
            .engine
            .import_image(&caller, &name, options)
            .map_err(failed)?;
        self.service.told.settled().await;
        Ok(job_path(job))
    }

    #[zbus(out_args("images", "size"))]
    async fn remove_image(
        &self,
        name: String,
        options: Dict,
    ) -> Result<(Vec<String>, u64), BusFault> {
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let removed = self
            .service
            .engine
            .remove_image(&name)
            .await
            .map_err(failed)?;
        self.service.told.settled().await;
        Ok((removed.images, removed.size))
    }

    #[zbus(out_args("images", "size"))]
    async fn prune_images(&self, options: Dict) -> Result<(Vec<String>, u64), BusFault> {
        let options = PruneImagesOptions::from_dict(options).map_err(refused)?;
        let removed = self
            .service
            .engine
            .prune_images(options)
            .await
            .map_err(failed)?;
        self.service.told.settled().await;
        Ok((removed.images, removed.size))
    }

    #[zbus(out_args("job"))]
    async fn stop_all(
        &self,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let caller = self.service.gate.caller(connection, &header).await?;
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let job = self.service.engine.stop_all(&caller).map_err(failed)?;
        self.service.told.settled().await;
        Ok(job_path(job))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> String {
        self.service.engine.shared().host.layout.mode.to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn home(&self) -> String {
        self.service
            .engine
            .shared()
            .host
            .layout
            .home
            .display()
            .to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn runtime_directory(&self) -> String {
        self.service
            .engine
            .shared()
            .host
            .layout
            .runtime
            .display()
            .to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn supervisor(&self) -> String {
        self.service.engine.shared().facts.name.clone()
    }

    #[zbus(property)]
    fn lingering(&self) -> bool {
        self.service.engine.board().follow().borrow().lingering
    }

    #[zbus(property)]
    fn quarantined(&self) -> Vec<String> {
        self.service
            .engine
            .board()
            .follow()
            .borrow()
            .quarantined
            .clone()
    }
}

/// A dictionary that is refused.
pub(super) fn refused(error: DictError) -> BusFault {
    Fault::from(error).into()
}

/// An operation that failed.
#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub(super) fn failed(error: InstanceError) -> BusFault {
    error.fault().into()
}

/// Waits until the owner of an ephemeral instance leaves the bus, or closes the
/// connection where there is no bus between.
async fn watch(engine: Arc<Engine>, connection: Connection, handle: Handle, owner: String) {
    if let Err(error) = left(&connection, &owner).await {
        tracing::warn!("cannot watch {owner} on the bus: {error}, taking it for gone");
    }
    engine.owner_left(&handle, &owner);
}

async fn left(connection: &Connection, owner: &str) -> zbus::Result<()> {
    if !connection.is_bus() {
        connection.closed().await;
        return Ok(());
    }
    let bus = fdo::DBusProxy::new(connection).await?;
    let mut changes = bus
        .receive_name_owner_changed_with_args(&[(0, owner)])
        .await?;
    // It may have left before the rule was in place.
    if !bus
        .name_has_owner(zbus::names::BusName::try_from(owner)?)
        .await?
    {
        return Ok(());
    }
    while let Some(change) = changes.next().await {
        if change.args()?.new_owner().is_none() {
            return Ok(());
        }
    }
    Ok(())
}
