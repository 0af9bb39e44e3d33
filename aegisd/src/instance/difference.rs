//! What of a request is other than an instance is. Pure.
//!
//! An instance keeps the spec it was made with, so a request for another one must
//! not be ignored. What a request does not name is not compared.

use std::collections::BTreeSet;

use aegis_bus::manager::SpecRequest;
use aegis_core::port::PortRequest;
use aegis_core::spec::{DEFAULT_DISK_MIB, InstanceSpec};

/// Name, have, asked.
type Difference = (String, String, String);

/// The differences, in the order of the flags.
pub(super) fn differences(have: &InstanceSpec, asked: &SpecRequest) -> Vec<Difference> {
    let mut found = Found::default();
    let kit = have.kit.as_ref().map(|kit| kit.name.clone());
    found.compare("kit", kit.unwrap_or_default(), asked.kit.clone());
    found.compare("image", have.image.clone(), asked.image.clone());
    let entrypoint = have.entrypoint.as_deref().map(words).unwrap_or_default();
    let other = asked.entrypoint.as_deref().map(words);
    found.compare("entrypoint", entrypoint, other);
    let command = asked.command.as_deref().map(words);
    found.compare("command", words(&have.command), command);
    let terminal = asked.terminal.map(yes_no);
    found.compare("terminal", yes_no(have.terminal), terminal);
    let restart = asked.restart.map(|policy| policy.to_string());
    found.compare("restart", have.restart.to_string(), restart);
    for (name, value) in &asked.capabilities {
        let before = have.capabilities.get(name).map(ToString::to_string);
        let after = Some(value.to_string());
        found.compare(
            &format!("capability {name}"),
            before.unwrap_or_default(),
            after,
        );
    }
    for (name, source) in &asked.secrets {
        let (before, after) = match have.secrets.get(name) {
            // A value of the instance's own may be another one; it is not compared.
            Some(before) if before == source => continue,
            Some(_) => ("a secret", "another secret"),
            None => ("", "a secret"),
        };
        found.compare(&format!("env {name}"), before.into(), Some(after.into()));
    }
    for (name, value) in &asked.env {
        // Values may be secrets.
        let (before, after) = match have.env.get(name) {
            Some(before) if before == value => continue,
            Some(_) => ("set", "another value"),
            None => ("", "set"),
        };
        found.compare(&format!("env {name}"), before.into(), Some(after.into()));
    }
    let workdir = have.workdir.clone().unwrap_or_default();
    found.compare("workdir", workdir, asked.workdir.clone());
    let user = have.user.clone().unwrap_or_default();
    found.compare("user", user, asked.user.clone());
    let mib = |memory: u32| format!("{memory} MiB");
    found.compare("memory", mib(have.memory_mib), asked.memory_mib.map(mib));
    let cpus = asked.cpus.map(|cpus| cpus.to_string());
    found.compare("cpus", have.cpus.to_string(), cpus);
    let accel = asked.accel.map(|accel| accel.to_string());
    found.compare("accel", have.accel.to_string(), accel);
    let platform = asked.platform.map(|platform| platform.to_string());
    found.compare("platform", have.platform.to_string(), platform);
    let workspace = have.workspace.as_ref().map(ToString::to_string);
    let other = asked.workspace.as_ref().map(ToString::to_string);
    found.compare("workspace", workspace.unwrap_or_default(), other);
    let volumes = (!asked.volumes.is_empty()).then(|| sorted(&asked.volumes));
    found.compare("volume", sorted(&have.volumes), volumes);
    let disk = have.disk_mib.unwrap_or(DEFAULT_DISK_MIB);
    found.compare("disk", mib(disk), asked.disk_mib.map(mib));
    let read_only = asked.read_only.then(|| yes_no(true));
    found.compare("read-only", yes_no(have.read_only), read_only);
    let expose = (!asked.ports.is_empty()).then(|| sorted(&ports(have, asked)));
    found.compare("expose", sorted(&have.ports), expose);
    for (name, have, asked) in [
        ("idle-pause", have.idle.pause, asked.idle_pause),
        ("idle-hibernate", have.idle.hibernate, asked.idle_hibernate),
    ] {
        found.compare(name, have.to_string(), asked.map(|delay| delay.to_string()));
    }
    let network = asked.network.map(|network| network.to_string());
    found.compare("network", have.network.to_string(), network);
    let hosts = (!asked.allowed_hosts.is_empty()).then(|| sorted(&asked.allowed_hosts));
    found.compare("allow-host", sorted(&have.allowed_hosts), hosts);
    for (name, value) in &asked.labels {
        let before = have.labels.get(name).cloned().unwrap_or_default();
        found.compare(&format!("label {name}"), before, Some(value.clone()));
    }
    let (has, limits) = (have.limits, asked.limits);
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    for (name, have, asked) in [
        ("memory-max", has.memory_max_mib, limits.memory_max_mib),
        ("cpu-quota", has.cpu_quota, limits.cpu_quota),
        ("tasks-max", has.tasks_max, limits.tasks_max),
    ] {
        found.compare(name, number(have).unwrap_or_default(), number(asked));
    }
    let insecure = asked.insecure.then(|| yes_no(true));
    found.compare("insecure", yes_no(have.insecure), insecure);
    found.0
}

/// The ports asked for, those without a number as the instance has them.
fn ports(have: &InstanceSpec, asked: &SpecRequest) -> Vec<PortRequest> {
    let known = |request: &PortRequest| {
        let mut ports = have.ports.iter();
        let port = ports.find(|port| request.is_met_by(port));
        port.map_or(*request, |port| PortRequest::Mapping(*port))
    };
    asked.ports.iter().map(known).collect()
}

#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn compare(&mut self, name: &str, have: String, asked: Option<String>) {
        let or_none = |text: String| match text.is_empty() {
            true => "none".to_owned(),
            false => text,
        };
        if let Some(asked) = asked.filter(|asked| *asked != have) {
            self.0
                .push((name.to_owned(), or_none(have), or_none(asked)));
        }
    }
}

/// A command so that two different ones never look alike.
fn words(command: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && !word.contains([' ', '"', '\\']);
    let word = |word: &String| match plain(word) {
        true => word.clone(),
        false => format!("{word:?}"),
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Their order says nothing.
fn sorted<T: ToString>(values: &[T]) -> String {
    let sorted: BTreeSet<String> = values.iter().map(ToString::to_string).collect();
    sorted.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use aegis_core::restart::RestartPolicy;

    use super::*;

    fn found(asked: &SpecRequest) -> Vec<String> {
        let found = differences(&spec(), asked);
        found
            .into_iter()
            .map(|(name, have, asked)| format!("{name}: {have}, {asked}"))
            .collect()
    }

    fn spec() -> InstanceSpec {
        InstanceSpec {
            command: vec!["sh".into(), "-c".into(), "a b".into()],
            env: [("KEY".into(), "secret".into())].into(),
            ports: vec!["8080:80".parse().unwrap()],
            volumes: ["b:/b", "/a:/a:ro"].map(|v| v.parse().unwrap()).into(),
            ..InstanceSpec::default()
        }
    }

    #[test]
    fn what_is_not_named_or_is_the_same_is_no_difference() {
        assert!(found(&SpecRequest::default()).is_empty());
        let same = SpecRequest {
            command: Some(spec().command),
            env: spec().env,
            memory_mib: Some(spec().memory_mib),
            ports: vec!["127.0.0.1:8080:80".parse().unwrap()],
            volumes: ["/a:/a/:ro", "b:/b:rw"].map(|v| v.parse().unwrap()).into(),
            restart: Some(RestartPolicy::No),
            ..SpecRequest::default()
        };
        assert!(found(&same).is_empty());
        let chosen = SpecRequest {
            ports: vec!["80".parse().unwrap()],
            ..SpecRequest::default()
        };
        assert!(found(&chosen).is_empty());
    }

    #[test]
    fn every_difference_is_named_with_both_sides_and_no_secret() {
        let asked = SpecRequest {
            kit: Some("agent".into()),
            command: Some(vec!["sh".into(), "-c".into(), "a".into(), "b".into()]),
            terminal: Some(true),
            restart: Some(RestartPolicy::Always),
            env: [("KEY".into(), "other".into()), ("NEW".into(), "x".into())].into(),
            workdir: Some("/tmp".into()),
            memory_mib: Some(512),
            volumes: vec!["/a:/a".parse().unwrap()],
            ports: vec!["8081:80".parse().unwrap()],
            insecure: true,
            ..SpecRequest::default()
        };
        assert_eq!(
            found(&asked),
            [
                "kit: none, agent",
                r#"command: sh -c "a b", sh -c a b"#,
                "terminal: no, yes",
                "restart: no, always",
                "env KEY: set, another value",
                "env NEW: none, set",
                "workdir: none, /tmp",
                "memory: 256 MiB, 512 MiB",
                "volume: /a:/a:ro, b:/b, /a:/a",
                "expose: 127.0.0.1:8080:80, 127.0.0.1:8081:80",
                "insecure: no, yes",
            ]
        );
    }
}
