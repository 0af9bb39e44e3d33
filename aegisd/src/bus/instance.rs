//! The Instance interface.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::instance::{
    AttachOptions, DaemonEntry, DeleteOptions, ExecOptions, GuestProcess, InstanceView, LastExit,
    LetSleepOptions, NextSleep, RefreshOptions, StaleSecret, StopOptions, UnitUsage, UpdateRequest,
    Usage, limits_to_dict,
};
use aegis_bus::manager::SpecRequest;
use aegis_bus::names::job_path;
use aegis_core::control::{AttachRequest, Process};
use aegis_core::handle::Handle;
use zbus::message::Header;
use zbus::{Connection, OwnedFd, OwnedObjectPath};

use super::Service;
use super::access::Owned;
use super::manager::{failed, refused};
use super::objects::{Looks, Shows};
use super::secrets::passed_values;
use crate::caller::Caller;
use crate::instance::{Instance, InstanceError, Operation, now_us};
use crate::jobs::Outcome;
use crate::supervisor::{self, UnitState};
use crate::vm::VmError;

/// An instance's object.
#[derive(Debug)]
pub struct InstanceObject {
    service: Service,
    handle: Handle,
    looks: Looks<InstanceView>,
}

impl Owned for InstanceObject {
    fn owner(&self) -> Option<u32> {
        Some(self.looks.get().owner)
    }
}

impl InstanceObject {
    pub fn new(service: Service, handle: Handle, view: Arc<InstanceView>) -> Self {
        Self {
            service,
            handle,
            looks: Looks::new(view),
        }
    }

    fn instance(&self) -> Result<Instance, BusFault> {
        self.service
            .engine
            .get(self.handle.as_str())
            .map_err(failed)
    }

    async fn ask(&self, operation: Operation) -> Result<OwnedObjectPath, BusFault> {
        let job = self.instance()?.ask(operation).map_err(failed)?;
        self.service.told.settled().await;
        Ok(job_path(job))
    }
}

impl Shows<InstanceView> for InstanceObject {
    fn show(&self, view: Arc<InstanceView>) {
        self.looks.set(view);
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Instance", introspection_docs = false)]
impl InstanceObject {
    #[zbus(out_args("job"))]
    async fn start(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        none(options)?;
        self.ask(Operation::Start).await
    }

    #[zbus(out_args("job"))]
    async fn stop(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        let StopOptions { grace_secs } = StopOptions::from_dict(options).map_err(refused)?;
        self.ask(Operation::Stop { grace_secs }).await
    }

    #[zbus(out_args("job"))]
    async fn restart(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        let StopOptions { grace_secs } = StopOptions::from_dict(options).map_err(refused)?;
        self.ask(Operation::Restart { grace_secs }).await
    }

    #[zbus(out_args("job"))]
    async fn update(&self, changes: Dict) -> Result<OwnedObjectPath, BusFault> {
        let request = UpdateRequest::from_dict(changes).map_err(refused)?;
        if request.is_empty() {
            return Err(failed(InstanceError::NoChange));
        }
        self.ask(Operation::Update(Box::new(request))).await
    }

    async fn kill(&self, signal: i32) -> Result<(), BusFault> {
        self.instance()?.kill(signal).await.map_err(failed)
    }

    #[zbus(out_args("processes"))]
    async fn processes(&self) -> Result<Vec<Dict>, BusFault> {
        let processes = self.instance()?.processes().await.map_err(failed)?;
        Ok(processes.into_iter().map(process).collect())
    }

    #[zbus(out_args("usage"))]
    async fn stats(&self) -> Result<Dict, BusFault> {
        let usage = self.instance()?.usage().await.map_err(failed)?;
        let units = usage.into_iter().map(unit_usage).collect();
        let at_us = now_us();
        Ok(Usage { at_us, units }.to_dict())
    }

    #[zbus(out_args("job"))]
    async fn enable(&self) -> Result<OwnedObjectPath, BusFault> {
        self.ask(Operation::Enable).await
    }

    #[zbus(out_args("job"))]
    async fn disable(&self) -> Result<OwnedObjectPath, BusFault> {
        self.ask(Operation::Disable).await
    }

    #[zbus(out_args("job"))]
    async fn delete(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        let DeleteOptions { purge } = DeleteOptions::from_dict(options).map_err(refused)?;
        self.ask(Operation::Delete { purge }).await
    }

    #[zbus(out_args("outcome"))]
    async fn pause(&self, options: Dict) -> Result<&'static str, BusFault> {
        none(options)?;
        let outcome = self.instance()?.pause().await;
        self.service.told.settled().await;
        outcome.map(word).map_err(failed)
    }

    #[zbus(out_args("outcome"))]
    async fn resume(&self, options: Dict) -> Result<&'static str, BusFault> {
        none(options)?;
        let outcome = self.instance()?.resume().await;
        self.service.told.settled().await;
        outcome.map(word).map_err(failed)
    }

    #[zbus(out_args("job"))]
    async fn hibernate(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        none(options)?;
        self.ask(Operation::Hibernate).await
    }

    #[zbus(out_args("job"))]
    async fn wake(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        none(options)?;
        self.ask(Operation::Wake).await
    }

    #[zbus(out_args("job"))]
    async fn keep_awake(
        &self,
        reason: String,
        seconds: u64,
        options: Dict,
    ) -> Result<OwnedObjectPath, BusFault> {
        none(options)?;
        let time = Duration::from_secs(seconds);
        self.ask(Operation::KeepAwake { reason, time }).await
    }

    #[zbus(out_args("job"))]
    async fn let_sleep(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        let LetSleepOptions { reason } = LetSleepOptions::from_dict(options).map_err(refused)?;
        self.ask(Operation::LetSleep { reason }).await
    }

    #[zbus(out_args("job"))]
    async fn refresh(&self, options: Dict) -> Result<OwnedObjectPath, BusFault> {
        let RefreshOptions { secrets } = RefreshOptions::from_dict(options).map_err(refused)?;
        self.ask(Operation::Refresh { secrets }).await
    }

    #[zbus(out_args("stdin", "stdout", "stderr", "control"))]
    async fn exec(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        argv: Vec<String>,
        mut options: Dict,
    ) -> Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd), BusFault> {
        let values = passed_values(&mut options).await?;
        let options = ExecOptions::from_dict(options).map_err(refused)?;
        let instance = self.instance()?;
        // Who it is stands in the record of the use.
        let caller = match options.secrets.is_empty() {
            true => Caller::default(),
            false => self.service.gate.caller(connection, &header).await?,
        };
        let secrets = instance.secrets(&options.secrets, &values, &caller).await;
        let argv = match options.of_image {
            true => instance.words_of_image(&argv),
            false => argv,
        };
        let request = options.into_request(argv);
        let descriptors = instance.exec(request, secrets.map_err(failed)?).await;
        session(descriptors.map_err(failed)?)
    }

    #[zbus(out_args("stdin", "stdout", "stderr", "control"))]
    async fn attach(
        &self,
        options: Dict,
    ) -> Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd), BusFault> {
        let AttachOptions { size } = AttachOptions::from_dict(options).map_err(refused)?;
        let request = AttachRequest { size };
        let descriptors = self.instance()?.attach(request).await.map_err(failed)?;
        session(descriptors)
    }

    #[zbus(out_args("files"))]
    async fn open_console(&self, options: Dict) -> Result<Vec<OwnedFd>, BusFault> {
        none(options)?;
        let files = self.instance()?.open_console().await.map_err(failed)?;
        Ok(files.into_iter().map(OwnedFd::from).collect())
    }

    #[zbus(out_args("differences"))]
    async fn compare(&self, spec: Dict) -> Result<Vec<(String, String, String)>, BusFault> {
        let request = SpecRequest::from_dict(spec).map_err(refused)?;
        Ok(self.instance()?.compare(&request))
    }

    #[zbus(out_args("files"))]
    async fn open_logs(&self, options: Dict) -> Result<Vec<OwnedFd>, BusFault> {
        none(options)?;
        let files = self.instance()?.open_logs().await.map_err(failed)?;
        Ok(files.into_iter().map(OwnedFd::from).collect())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn handle(&self) -> String {
        self.handle.to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn owner(&self) -> u32 {
        self.looks.get().owner
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.looks.get().state.clone()
    }

    #[zbus(property)]
    fn state_reason(&self) -> String {
        self.looks.get().state_reason.clone()
    }

    #[zbus(property)]
    fn enabled(&self) -> bool {
        self.looks.get().enabled
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn kit(&self) -> String {
        self.looks.get().kit.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn kit_version(&self) -> String {
        self.looks.get().kit_version.clone()
    }

    #[zbus(property)]
    fn kit_installed(&self) -> bool {
        self.looks.get().kit_installed
    }

    #[zbus(property)]
    fn notes(&self) -> Vec<String> {
        self.looks.get().notes.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> String {
        self.looks.get().image.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn image_id(&self) -> String {
        self.looks.get().image_id.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> Vec<String> {
        self.looks.get().command.clone()
    }

    #[zbus(property)]
    fn memory(&self) -> u32 {
        self.looks.get().memory_mib
    }

    #[zbus(property)]
    fn cpus(&self) -> u32 {
        self.looks.get().cpus
    }

    #[zbus(property)]
    fn accel(&self) -> String {
        self.looks.get().accel.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn platform(&self) -> String {
        self.looks.get().platform.clone()
    }

    #[zbus(property)]
    fn kernel(&self) -> String {
        self.looks.get().kernel.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn workspace(&self) -> String {
        self.looks.get().workspace.clone()
    }

    #[zbus(property)]
    fn volumes(&self) -> Vec<String> {
        self.looks.get().volumes.clone()
    }

    #[zbus(property)]
    fn ports(&self) -> Vec<String> {
        self.looks.get().ports.clone()
    }

    #[zbus(property)]
    fn idle_pause(&self) -> String {
        self.looks.get().idle_pause.clone()
    }

    #[zbus(property)]
    fn idle_hibernate(&self) -> String {
        self.looks.get().idle_hibernate.clone()
    }

    #[zbus(property)]
    fn awake_because(&self) -> Vec<String> {
        self.looks.get().awake_because.clone()
    }

    #[zbus(property)]
    fn sleeps(&self) -> Dict {
        let looks = self.looks.get();
        looks
            .sleeps
            .as_ref()
            .map(NextSleep::to_dict)
            .unwrap_or_default()
    }

    #[zbus(property)]
    fn leases(&self) -> BTreeMap<String, u64> {
        self.looks.get().leases.clone()
    }

    #[zbus(property)]
    fn cannot_hibernate(&self) -> String {
        self.looks.get().cannot_hibernate.clone()
    }

    #[zbus(property)]
    fn not_restored(&self) -> String {
        self.looks.get().not_restored.clone()
    }

    #[zbus(property)]
    fn network(&self) -> String {
        self.looks.get().network.clone()
    }

    #[zbus(property)]
    fn allowed_hosts(&self) -> Vec<String> {
        self.looks.get().allowed_hosts.clone()
    }

    #[zbus(property)]
    fn network_problem(&self) -> String {
        self.looks.get().network_problem.clone()
    }

    #[zbus(property)]
    fn labels(&self) -> BTreeMap<String, String> {
        self.looks.get().labels.clone()
    }

    #[zbus(property)]
    fn limits(&self) -> Dict {
        limits_to_dict(&self.looks.get().limits)
    }

    #[zbus(property)]
    fn pending(&self) -> Vec<String> {
        self.looks.get().pending.clone()
    }

    #[zbus(property)]
    fn stale(&self) -> Vec<Dict> {
        let looks = self.looks.get();
        looks.stale.iter().map(StaleSecret::to_dict).collect()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn ephemeral(&self) -> bool {
        self.looks.get().ephemeral
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        self.looks.get().created_at_us
    }

    #[zbus(property)]
    fn state_since(&self) -> u64 {
        self.looks.get().state_since_us
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn unit(&self) -> String {
        self.looks.get().unit.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn socket_unit(&self) -> String {
        self.looks.get().socket_unit.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn slice(&self) -> String {
        self.looks.get().slice.clone()
    }

    #[zbus(property)]
    fn qemu_pid(&self) -> u32 {
        self.looks.get().qemu_pid
    }

    #[zbus(property)]
    fn execs(&self) -> u32 {
        self.looks.get().execs
    }

    #[zbus(property)]
    fn attached(&self) -> u32 {
        self.looks.get().attached
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn terminal(&self) -> bool {
        self.looks.get().terminal
    }

    #[zbus(property)]
    fn restart_policy(&self) -> String {
        self.looks.get().restart_policy.clone()
    }

    #[zbus(property)]
    fn restarts(&self) -> u32 {
        self.looks.get().restarts
    }

    #[zbus(property)]
    fn next_start(&self) -> u64 {
        self.looks.get().next_start_us
    }

    #[zbus(property)]
    fn last_exit(&self) -> Dict {
        self.looks
            .get()
            .last_exit
            .as_ref()
            .map(LastExit::to_dict)
            .unwrap_or_default()
    }

    #[zbus(property)]
    fn daemons(&self) -> Vec<Dict> {
        self.looks
            .get()
            .daemons
            .iter()
            .map(DaemonEntry::to_dict)
            .collect()
    }

    #[zbus(property)]
    fn stopped_by_hand(&self) -> BTreeMap<String, u64> {
        self.looks.get().stopped_by_hand.clone()
    }
}

/// The descriptors of a session as they are answered.
fn session(
    descriptors: Vec<rustix::fd::OwnedFd>,
) -> Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd), BusFault> {
    let four: [_; 4] = descriptors
        .try_into()
        .map_err(|_| failed(VmError::Misfit.into()))?;
    let [stdin, stdout, stderr, control] = four.map(OwnedFd::from);
    Ok((stdin, stdout, stderr, control))
}

/// Refuses every option where a method knows none yet.
fn none(options: Dict) -> Result<(), BusFault> {
    DictReader::new("option", options).finish().map_err(refused)
}

fn process(process: Process) -> Dict {
    let entry = GuestProcess {
        pid: process.pid,
        parent: process.parent,
        user: process.user,
        state: process.state,
        cpu_ms: process.cpu_ms,
        memory_kib: process.memory_kib,
        age_ms: process.age_ms,
        command: process.command,
    };
    entry.to_dict()
}

fn unit_usage((state, usage): (UnitState, supervisor::Usage)) -> UnitUsage {
    UnitUsage {
        unit: state.unit.name(),
        memory: usage.memory,
        memory_max: state.limits.memory_max,
        cpu_ns: usage.cpu_ns,
        tasks: usage.tasks,
        tasks_max: state.limits.tasks_max,
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Changed => "changed",
        Outcome::Unchanged => "unchanged",
    }
}
