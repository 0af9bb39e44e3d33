//! The Manager interface of the fake.

use std::fs::File;
use std::io::Read;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::image::{ImportOptions, PruneImagesOptions, PullOptions};
use aegis_bus::job::JobState;
use aegis_bus::manager::{CheckRow, CheckStatus, CreateOptions, SpecRequest};
use aegis_bus::names;
use aegis_bus::prune::PruneOptions;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::handle::Handle;
use zbus::{Connection, OwnedObjectPath, interface};

use super::instance::Instance;
use super::job::{failed_job, job};
use super::secrets::values;
use super::{Handles, add};

pub(super) struct Manager {
    pub(super) handles: Handles,
}

impl Manager {
    fn prunable(&self, options: &PruneOptions) -> Vec<String> {
        let left_over = |state: &str| state == "disabled" || (options.asleep && state == "stopped");
        self.handles.with(|state| {
            let found = state.instances.iter();
            let found = found.filter(|(_, record)| left_over(record.state));
            found.map(|(handle, _)| handle.clone()).collect()
        })
    }
}

#[interface(name = "org.aegisvm.Aegis1.Manager")]
impl Manager {
    #[zbus(out_args("instance", "job"))]
    async fn create_instance(
        &self,
        handle: String,
        mut spec: Dict,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath), BusFault> {
        // What is passed must be readable.
        let values = values(&self.handles, &mut spec);
        let spec = SpecRequest::from_dict(spec).map_err(Fault::from)?;
        values(spec.secrets.clone());
        let options = CreateOptions::from_dict(options).map_err(Fault::from)?;
        let handle = if handle.is_empty() {
            "run-1".to_owned()
        } else {
            handle
        };
        let parsed: Handle = handle
            .parse()
            .map_err(|error| Fault::from_error(Symbol::InvalidHandle, &error))?;
        let broken = handle.starts_with("broken") || spec.memory_mib == Some(666);
        self.handles.with(|state| {
            state.calls.push(format!("create {handle}"));
            assert_eq!(options.foreground_owner, spec.ephemeral);
        });
        let state = match options {
            _ if broken => "failed",
            CreateOptions { disabled: true, .. } => "disabled",
            CreateOptions { start: false, .. } => "stopped",
            _ => "running",
        };
        add(connection, &self.handles, &handle, spec, state).await;
        let job = if broken {
            let fault = Fault::new(Symbol::KernelMissing, "there is no kernel");
            failed_job(connection, &self.handles, fault.with_hint("make kernel")).await
        } else {
            job(connection, &self.handles, JobState::Done).await
        };
        Ok((names::instance_path(&parsed), job))
    }

    #[zbus(out_args("instance"))]
    async fn get_instance(&self, handle: String) -> Result<OwnedObjectPath, BusFault> {
        let known = self.handles.handles().contains(&handle);
        match handle.parse() {
            Ok(handle) if known => Ok(names::instance_path(&handle)),
            _ => Err(
                Fault::new(Symbol::NotFound, format!("there is no instance '{handle}'"))
                    .with_hint("aegisctl instance list shows all")
                    .into(),
            ),
        }
    }

    #[zbus(out_args("checks"))]
    async fn check(&self) -> Vec<CheckRow> {
        vec![
            CheckRow::new("qemu", CheckStatus::Ok, "QEMU 10.0", ""),
            CheckRow::new("kernel", CheckStatus::Fail, "no kernel", "make kernel"),
            CheckRow::new("lingering", CheckStatus::Warn, "no lingering", ""),
        ]
    }

    async fn rescan_kits(&self) {}

    #[zbus(out_args("handles"))]
    async fn find_prunable(&self, options: Dict) -> Result<Vec<String>, BusFault> {
        let options = PruneOptions::from_dict(options).map_err(Fault::from)?;
        Ok(self.prunable(&options))
    }

    #[zbus(out_args("handles", "job"))]
    async fn prune(
        &self,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<String>, OwnedObjectPath), BusFault> {
        let options = PruneOptions::from_dict(options).map_err(Fault::from)?;
        let handles = self.prunable(&options);
        for handle in handles.iter().filter(|handle| *handle != "busy") {
            self.handles
                .with(|state| state.instances.remove(handle.as_str()));
            let path = names::instance_path(&handle.parse().unwrap());
            let server = connection.object_server();
            server.remove::<Instance, _>(path).await.unwrap();
        }
        let job = job(connection, &self.handles, JobState::Done).await;
        Ok((handles, job))
    }

    #[zbus(out_args("job"))]
    async fn pull_image(
        &self,
        name: String,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let options = PullOptions::from_dict(options).map_err(Fault::from)?;
        assert!(options.access.is_some() && options.source.is_none());
        self.handles
            .with(|state| state.calls.push(format!("pull {name}")));
        Ok(job(connection, &self.handles, JobState::Done).await)
    }

    #[zbus(out_args("job"))]
    async fn import_image(
        &self,
        name: String,
        options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, BusFault> {
        let options = ImportOptions::from_dict(options).map_err(Fault::from)?;
        let mut archive = String::new();
        File::from(options.source)
            .read_to_string(&mut archive)
            .unwrap();
        self.handles.with(|state| {
            let (origin, config) = (options.origin, options.config);
            let call = format!(
                "import {name} of {origin}, {} bytes: {config:?}",
                archive.len()
            );
            state.calls.push(call);
        });
        Ok(job(connection, &self.handles, JobState::Done).await)
    }

    #[zbus(out_args("images", "size"))]
    async fn remove_image(&self, name: String, _options: Dict) -> (Vec<String>, u64) {
        let call = format!("remove image {name}");
        self.handles.with(|state| state.calls.push(call));
        (vec![format!("the image of {name}")], 3 << 20)
    }

    #[zbus(out_args("images", "size"))]
    async fn prune_images(&self, options: Dict) -> Result<(Vec<String>, u64), BusFault> {
        let options = PruneImagesOptions::from_dict(options).map_err(Fault::from)?;
        assert!(options.dry_run && !options.all);
        Ok((Vec::new(), 0))
    }

    #[zbus(out_args("job"))]
    async fn stop_all(
        &self,
        _options: Dict,
        #[zbus(connection)] connection: &Connection,
    ) -> OwnedObjectPath {
        self.handles
            .with(|state| state.calls.push("stop all".into()));
        job(connection, &self.handles, JobState::Done).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        "9.9".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> String {
        "user".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn home(&self) -> String {
        "/home/alice/.aegis".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn runtime_directory(&self) -> String {
        "/run/user/1000/aegis".into()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn supervisor(&self) -> String {
        "systemd 257".into()
    }

    #[zbus(property)]
    fn lingering(&self) -> bool {
        self.handles.with(|state| state.lingering)
    }

    #[zbus(property)]
    fn quarantined(&self) -> Vec<String> {
        Vec::new()
    }
}
