//! The `changes` of `Update`.

use std::collections::BTreeMap;

use aegis_core::idle::Delay;
use aegis_core::network::{AllowedHost, Network};
use aegis_core::port::{PortRequest, PortSelector};
use aegis_core::restart::RestartPolicy;
use aegis_core::volume::Volume;

use crate::dict::{Dict, DictError, DictReader, put, put_some};

/// What to change of an instance; what is absent stays as it is.
///
/// Ports, idle times and the limits of the host's resources apply at once, labels are only
/// noted; the rest applies when the VM starts next, and until then is in `Pending`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// Guest memory in MiB.
    pub memory_mib: Option<u32>,
    pub cpus: Option<u32>,
    /// Most that the guest may write to its disk, in MiB; not less than before.
    pub disk_mib: Option<u32>,
    /// The root is read-only.
    pub read_only: Option<bool>,
    /// Words in place of the image's entry point; none mean that there is none.
    pub entrypoint: Option<Vec<String>>,
    /// The image's own entry point counts again.
    pub remove_entrypoint: bool,
    /// The words of the command; none mean the image's own.
    pub command: Option<Vec<String>>,
    /// The command runs on a terminal.
    pub terminal: Option<bool>,
    /// Empty means the image's choice.
    pub workdir: Option<String>,
    /// Empty means the image's choice.
    pub user: Option<String>,
    pub restart: Option<RestartPolicy>,
    /// After how long without a need it is paused.
    pub idle_pause: Option<Delay>,
    /// After how long without a need it is hibernated.
    pub idle_hibernate: Option<Delay>,
    /// Opened beside those that are there; one that listens at the same address and
    /// port of the host takes the place of the other.
    pub ports: Vec<PortRequest>,
    /// Closed.
    pub remove_ports: Vec<PortSelector>,
    /// Shown beside those that are there; one with the same target takes the place of
    /// the other.
    pub volumes: Vec<Volume>,
    /// Targets in the guest where no volume is any more.
    pub remove_volumes: Vec<String>,
    pub network: Option<Network>,
    /// Reached beside those that are reached already.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Not reached any more.
    pub remove_allowed_hosts: Vec<AllowedHost>,
    /// In MiB; 0 takes a limit back that was set.
    pub memory_max_mib: Option<u32>,
    /// Per cent of one CPU; 0 takes a limit back that was set.
    pub cpu_quota: Option<u32>,
    /// 0 takes a limit back that was set.
    pub tasks_max: Option<u32>,
    /// Set beside those that are there.
    pub labels: BTreeMap<String, String>,
    pub remove_labels: Vec<String>,
    /// Set beside those that are there.
    pub env: BTreeMap<String, String>,
    pub remove_env: Vec<String>,
}

impl UpdateRequest {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The changes as they travel.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put_some(&mut dict, "memory", self.memory_mib);
        put_some(&mut dict, "cpus", self.cpus);
        put_some(&mut dict, "disk", self.disk_mib);
        put_some(&mut dict, "read-only", self.read_only);
        put_some(&mut dict, "entrypoint", self.entrypoint.clone());
        put_some(
            &mut dict,
            "remove-entrypoint",
            self.remove_entrypoint.then_some(true),
        );
        put_some(&mut dict, "command", self.command.clone());
        put_some(&mut dict, "terminal", self.terminal);
        put_some(&mut dict, "workdir", self.workdir.clone());
        put_some(&mut dict, "user", self.user.clone());
        let restart = self.restart.map(|policy| policy.to_string());
        put_some(&mut dict, "restart", restart);
        let delay = |delay: Option<Delay>| delay.map(|delay| delay.to_string());
        put_some(&mut dict, "idle-pause", delay(self.idle_pause));
        put_some(&mut dict, "idle-hibernate", delay(self.idle_hibernate));
        put_words(&mut dict, "ports", &self.ports);
        put_words(&mut dict, "remove-ports", &self.remove_ports);
        put_words(&mut dict, "volumes", &self.volumes);
        put_words(&mut dict, "remove-volumes", &self.remove_volumes);
        let network = self.network.map(|network| network.to_string());
        put_some(&mut dict, "network", network);
        put_words(&mut dict, "allowed-hosts", &self.allowed_hosts);
        put_words(
            &mut dict,
            "remove-allowed-hosts",
            &self.remove_allowed_hosts,
        );
        put_some(&mut dict, "memory-max", self.memory_max_mib);
        put_some(&mut dict, "cpu-quota", self.cpu_quota);
        put_some(&mut dict, "tasks-max", self.tasks_max);
        for (key, map) in [("labels", &self.labels), ("env", &self.env)] {
            if !map.is_empty() {
                put(&mut dict, key, map.clone());
            }
        }
        put_words(&mut dict, "remove-labels", &self.remove_labels);
        put_words(&mut dict, "remove-env", &self.remove_env);
        dict
    }

    /// Reads the changes.
    ///
    /// # Errors
    /// The first entry that is unknown or of the wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("change", dict);
        let request = Self {
            memory_mib: reader.take("memory")?,
            cpus: reader.take("cpus")?,
            disk_mib: reader.take("disk")?,
            read_only: reader.take("read-only")?,
            entrypoint: reader.take("entrypoint")?,
            remove_entrypoint: reader.take("remove-entrypoint")?.unwrap_or_default(),
            command: reader.take("command")?,
            terminal: reader.take("terminal")?,
            workdir: reader.take("workdir")?,
            user: reader.take("user")?,
            restart: reader.parse("restart")?,
            idle_pause: reader.parse("idle-pause")?,
            idle_hibernate: reader.parse("idle-hibernate")?,
            ports: reader.parse_all("ports")?,
            remove_ports: reader.parse_all("remove-ports")?,
            volumes: reader.parse_all("volumes")?,
            remove_volumes: reader.take("remove-volumes")?.unwrap_or_default(),
            network: reader.parse("network")?,
            allowed_hosts: reader.parse_all("allowed-hosts")?,
            remove_allowed_hosts: reader.parse_all("remove-allowed-hosts")?,
            memory_max_mib: reader.take("memory-max")?,
            cpu_quota: reader.take("cpu-quota")?,
            tasks_max: reader.take("tasks-max")?,
            labels: reader.take("labels")?.unwrap_or_default(),
            remove_labels: reader.take("remove-labels")?.unwrap_or_default(),
            env: reader.take("env")?.unwrap_or_default(),
            remove_env: reader.take("remove-env")?.unwrap_or_default(),
        };
        reader.finish()?;
        Ok(request)
    }
}

/// A list of texts, left out where there is nothing in it.
fn put_words<T: ToString>(dict: &mut Dict, key: &str, values: &[T]) {
    if !values.is_empty() {
        let words: Vec<String> = values.iter().map(ToString::to_string).collect();
        put(dict, key, words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_travel_whole() {
        let request = UpdateRequest {
            network: Some(Network::None),
            allowed_hosts: vec!["10.0.0.0/8:80".parse().unwrap()],
            remove_allowed_hosts: vec!["fd00::1".parse().unwrap()],
            memory_mib: Some(512),
            cpus: Some(2),
            disk_mib: Some(16384),
            read_only: Some(true),
            entrypoint: Some(vec!["tini".into()]),
            remove_entrypoint: true,
            command: Some(Vec::new()),
            terminal: Some(false),
            workdir: Some(String::new()),
            user: Some("1000".into()),
            restart: Some(RestartPolicy::Always),
            idle_pause: Some("90s".parse().unwrap()),
            idle_hibernate: Some(Delay::Never),
            ports: vec!["8080:80".parse().unwrap(), "81".parse().unwrap()],
            remove_ports: vec!["8081".parse().unwrap(), "127.0.0.1:1".parse().unwrap()],
            volumes: vec!["/srv:/data:ro".parse().unwrap()],
            remove_volumes: vec!["/old".into()],
            memory_max_mib: Some(1024),
            cpu_quota: Some(150),
            tasks_max: Some(0),
            labels: [("a".into(), "b".into())].into(),
            remove_labels: vec!["c".into()],
            env: [("A".into(), "b".into())].into(),
            remove_env: vec!["C".into()],
        };
        assert_eq!(
            UpdateRequest::from_dict(request.to_dict()).unwrap(),
            request
        );
        assert!(UpdateRequest::default().to_dict().is_empty());
        assert!(UpdateRequest::default().is_empty());
    }
}
