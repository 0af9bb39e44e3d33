//! What the original's instances become here. Pure.
//!
//! | there | here |
//! |---|---|
//! | handle, else id | handle |
//! | command, which is all that runs: an image's entry point, user and folder do not count | command, no entry point, root, `/`; with a kit the last two are its own |
//! | image, kit, env, memory, CPUs (512 MiB and one, where nothing is noted) | the same |
//! | secrets, `*` being all there are; `env` wins | named secrets |
//! | exposed ports, with or without a number of the host | ports of 127.0.0.1 |
//! | workspace, its own or any other | that folder, where it is |
//! | capabilities | the same, without what the original signs them with |
//! | disabled | disabled |

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use aegis_bus::manager::SpecRequest;
use aegis_core::capabilities;
use aegis_core::handle::Handle;
use aegis_core::port::{PortMapping, PortRequest};
use aegis_core::secret::{SecretName, SecretSource};
use aegis_core::spec::{
    MAX_PORTS, SpecError, Workspace, validate_cpus, validate_env_name, validate_memory,
    validate_program,
};
use serde_json::Value;

use super::row::WantedSecrets;
use super::{Choice, OldInstance, Problem, Values};

/// Memory in MiB where the original notes none.
const MEMORY_MIB: u32 = 512;
/// Who runs a command in a guest of the original, and where.
const USER: &str = "0:0";
const WORKDIR: &str = "/";
/// What the original adds to capabilities when it signs them.
const OF_THE_TOKEN: [&str; 3] = ["sub", "iat", "exp"];

/// What is to be made.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) wishes: Vec<Wish>,
    /// What is worth knowing, in words.
    pub(crate) notes: Vec<String>,
}

/// An instance that is to be here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    /// What it is called there.
    pub(crate) old_name: String,
    /// Its id there.
    pub(crate) old_id: String,
    pub(crate) handle: Handle,
    pub(crate) spec: SpecRequest,
    pub(crate) enabled: bool,
}

/// What instances may be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secrets<'a> {
    /// All there are.
    pub(crate) names: &'a BTreeSet<SecretName>,
    /// Those that were opened.
    pub(crate) values: &'a Values,
}

impl Plan {
    /// The plan, and all that stands in its way.
    pub(crate) fn of(
        instances: &[OldInstance],
        secrets: Secrets<'_>,
        choice: &Choice,
    ) -> (Self, Vec<Problem>) {
        let mut planner = Planner {
            secrets,
            plan: Self::default(),
            problems: Vec::new(),
        };
        for instance in instances {
            planner.add(instance, choice.name(instance));
            if !instance.parent.is_empty() {
                let parent = instances.iter().find(|other| other.id == instance.parent);
                planner.note(format!(
                    "'{}' was made by the guest of '{}': here it is an instance of its own",
                    instance.name(),
                    parent.map_or(instance.parent.as_str(), OldInstance::name)
                ));
            }
        }
        planner.refuse_same_names();
        (planner.plan, planner.problems)
    }
}

struct Planner<'a> {
    secrets: Secrets<'a>,
    plan: Plan,
    problems: Vec<Problem>,
}

impl Planner<'_> {
    fn note(&mut self, words: String) {
        self.plan.notes.push(words);
    }

    fn add(&mut self, old: &OldInstance, name: &str) {
        let handle: Handle = match name.parse() {
            Ok(handle) => handle,
            Err(error) => return self.problems.push(Problem::Name(name.to_owned(), error)),
        };
        let has_kit = !old.kit.is_empty();
        let has_command = !old.command.is_empty();
        let as_there = |value: &str| (has_command && !has_kit).then(|| value.to_owned());
        let mut spec = SpecRequest {
            kit: has_kit.then(|| old.kit.clone()),
            image: (!old.image.is_empty()).then(|| old.image.clone()),
            entrypoint: has_command.then(Vec::new),
            command: has_command.then(|| old.command.clone()),
            user: as_there(USER),
            workdir: as_there(WORKDIR),
            env: old.env.clone(),
            memory_mib: Some(size(old.memory_mb, MEMORY_MIB)),
            cpus: Some(size(old.vcpus, 1)),
            workspace: self.workspace(&handle, old),
            ports: self.ports(&handle, old),
            ..SpecRequest::default()
        };
        self.give_secrets(&handle, old, &mut spec);
        self.give_capabilities(&handle, old, &mut spec);
        if let Err(error) = validate(&spec) {
            self.problems.push(Problem::Spec(handle.clone(), error));
        }
        self.plan.wishes.push(Wish {
            old_name: old.name().to_owned(),
            old_id: old.id.clone(),
            handle,
            spec,
            enabled: old.enabled,
        });
    }

    fn workspace(&mut self, handle: &Handle, old: &OldInstance) -> Option<Workspace> {
        if old.workspace.is_empty() {
            return None;
        }
        let path = PathBuf::from(&old.workspace);
        if !path.is_absolute() {
            let name = handle.clone();
            self.problems.push(Problem::WorkspacePath { name, path });
            return None;
        }
        if old.own_workspace {
            self.note(format!(
                "'{handle}' goes on with its workspace {} where it is; deleting the instance \
                 here does not delete it",
                old.workspace
            ));
        }
        Some(Workspace::Path(path))
    }

    fn ports(&mut self, handle: &Handle, old: &OldInstance) -> Vec<PortRequest> {
        let mut ports = Vec::new();
        for (&guest, &host) in &old.ports {
            match request(guest, host) {
                Ok(request) => ports.push(request),
                Err(port) => {
                    let name = handle.clone();
                    self.problems.push(Problem::Port { name, port });
                }
            }
        }
        ports
    }

    fn give_secrets(&mut self, handle: &Handle, old: &OldInstance, spec: &mut SpecRequest) {
        let Secrets { names, values } = self.secrets;
        let wanted: BTreeSet<SecretName> = match &old.secrets {
            WantedSecrets::All => {
                if !names.is_empty() {
                    self.note(format!(
                        "'{handle}' was given every secret: here it is given those that there are now"
                    ));
                }
                names.clone()
            }
            WantedSecrets::Named(wanted) => {
                let (known, unknown): (Vec<_>, Vec<_>) = wanted
                    .iter()
                    .partition(|name| names.iter().any(|known| known.as_str() == *name));
                if !unknown.is_empty() {
                    let unknown: Vec<&str> = unknown.iter().map(|name| name.as_str()).collect();
                    self.note(format!(
                        "'{handle}' asks for secrets that are not there, and was not given them: {}",
                        unknown.join(", ")
                    ));
                }
                known.iter().filter_map(|name| name.parse().ok()).collect()
            }
        };
        for name in wanted {
            let variable = name.as_str().to_owned();
            if !spec.env.contains_key(&variable) {
                spec.secrets.insert(variable, SecretSource::Named(name));
            }
        }
        // Versions of the original have kept values of secrets in clear among the
        // variables. What is a secret's value is that secret.
        let is_value = |variable: &String, value: &String| {
            let found = values.iter().find(|(name, _)| name.as_str() == variable);
            found.filter(|(_, known)| known.reveal() == value)
        };
        let found = spec.env.iter().filter_map(|(variable, value)| {
            let (name, _) = is_value(variable, value)?;
            Some((variable.clone(), name.clone()))
        });
        let in_clear: Vec<(String, SecretName)> = found.collect();
        for (variable, name) in in_clear {
            self.note(format!(
                "'{handle}' has the value of the secret {name} in clear there: here it is given \
                 the secret"
            ));
            spec.env.remove(&variable);
            spec.secrets.insert(variable, SecretSource::Named(name));
        }
    }

    fn give_capabilities(&mut self, handle: &Handle, old: &OldInstance, spec: &mut SpecRequest) {
        let is_right =
            |name: &str, value: &Value| !OF_THE_TOKEN.contains(&name) && !value.is_null();
        let rights = old.capabilities.iter();
        let rights = rights.filter(|(name, value)| is_right(name, value));
        let (known, unknown): (Vec<_>, Vec<_>) =
            rights.partition(|(name, _)| capabilities::is_known(name));
        let fields = known
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Err(error) = capabilities::check(&fields) {
            let problem = Problem::Capability(handle.clone(), error);
            return self.problems.push(problem);
        }
        spec.capabilities = fields.into_iter().collect();
        if !unknown.is_empty() {
            let names: Vec<&str> = unknown.iter().map(|(name, _)| name.as_str()).collect();
            self.note(format!(
                "'{handle}' has rights there that do not exist here: {}",
                names.join(", ")
            ));
        }
    }

    /// Names are one here that differ in case alone.
    fn refuse_same_names(&mut self) {
        let mut seen = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for wish in &self.plan.wishes {
            let folded = wish.handle.folded();
            if !seen.insert(folded.clone()) && refused.insert(folded) {
                let problem = Problem::TwoOfAName(wish.handle.clone());
                self.problems.push(problem);
            }
        }
    }
}

impl Wish {
    /// The ports of this host that it listens at, as far as they are known.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.spec.ports.iter().filter_map(|port| match port {
            PortRequest::Mapping(mapping) => Some(mapping.host),
            PortRequest::Guest(_) => None,
        })
    }

    /// The secrets it is given.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.spec
            .secrets
            .values()
            .filter_map(|source| match source {
                SecretSource::Named(name) => Some(name),
                SecretSource::Own => None,
            })
    }

    /// The folder of the host that is its workspace.
    pub(crate) fn workspace(&self) -> Option<&Path> {
        match &self.spec.workspace {
            Some(Workspace::Path(path)) => Some(path),
            _ => None,
        }
    }
}

/// A number that the original takes its own for, if there is none.
fn size(number: i64, default: u32) -> u32 {
    match number {
        ..=0 => default,
        number => u32::try_from(number).unwrap_or(u32::MAX),
    }
}

/// A port; an error is a number that is none.
fn request(guest: i64, host: i64) -> Result<PortRequest, i64> {
    let number = |number: i64| match u16::try_from(number) {
        Ok(0) | Err(_) => Err(number),
        Ok(number) => Ok(number),
    };
    let guest = number(guest)?;
    if host == 0 {
        return Ok(PortRequest::Guest(guest));
    }
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, number(host)?));
    Ok(PortRequest::Mapping(PortMapping { host, guest }))
}

/// As aegisd will, but before anything is made.
fn validate(spec: &SpecRequest) -> Result<(), SpecError> {
    validate_memory(spec.memory_mib.unwrap_or(MEMORY_MIB))?;
    validate_cpus(spec.cpus.unwrap_or(1))?;
    let command = spec.command.as_deref().unwrap_or_default();
    validate_program(command, &spec.env, None, None)?;
    let mut variables = spec.secrets.keys();
    variables.try_for_each(|name| validate_env_name(name))?;
    let mut hosts = BTreeSet::new();
    for port in &spec.ports {
        if let PortRequest::Mapping(mapping) = port
            && !hosts.insert(mapping.host)
        {
            return Err(SpecError::DuplicatePort(mapping.host));
        }
    }
    match spec.ports.len() {
        ports if ports > MAX_PORTS => Err(SpecError::Ports(ports)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn old(id: &str) -> OldInstance {
        OldInstance {
            id: id.into(),
            command: vec!["serve".into()],
            image: "alpine".into(),
            enabled: true,
            ..OldInstance::default()
        }
    }

    fn secret(name: &str) -> SecretName {
        name.parse().unwrap()
    }

    fn plan(instances: &[OldInstance]) -> (Plan, Vec<String>) {
        let names = ["A", "B"].map(secret).into();
        let values = [(secret("A"), "a-value".to_owned().into())].into();
        let secrets = Secrets {
            names: &names,
            values: &values,
        };
        let (plan, problems) = Plan::of(instances, secrets, &Choice::default());
        (plan, problems.iter().map(Problem::words).collect())
    }

    /// The wish of the only instance of a plan without problems.
    fn wish(instance: OldInstance) -> (Wish, Vec<String>) {
        let (mut plan, problems) = plan(&[instance]);
        assert!(problems.is_empty(), "{problems:?}");
        (plan.wishes.pop().unwrap(), plan.notes)
    }

    #[test]
    fn an_instance_is_what_it_was() {
        let (wish, notes) = wish(OldInstance {
            handle: "web".into(),
            ports: [(80, 8080), (443, 0)].into(),
            workspace: "/srv/web".into(),
            memory_mb: 1024,
            vcpus: 2,
            env: [("E".into(), "e".into())].into(),
            enabled: false,
            ..old("inst-1")
        });
        let expected = SpecRequest {
            image: Some("alpine".into()),
            entrypoint: Some(Vec::new()),
            command: Some(vec!["serve".into()]),
            user: Some("0:0".into()),
            workdir: Some("/".into()),
            env: [("E".into(), "e".into())].into(),
            memory_mib: Some(1024),
            cpus: Some(2),
            workspace: Some(Workspace::Path("/srv/web".into())),
            ports: ["127.0.0.1:8080:80", "443"]
                .map(|port| port.parse().unwrap())
                .into(),
            ..SpecRequest::default()
        };
        assert_eq!((wish.handle.as_str(), wish.enabled), ("web", false));
        assert_eq!(wish.spec, expected);
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn what_is_not_noted_is_what_the_original_takes() {
        let (wish, _) = wish(OldInstance {
            kit: "agent".into(),
            image: String::new(),
            ..old("inst-1")
        });
        assert_eq!(wish.handle.as_str(), "inst-1");
        assert_eq!(wish.spec.memory_mib, Some(512));
        assert_eq!(wish.spec.cpus, Some(1));
        assert_eq!(wish.spec.image, None);
        // The kit's own business.
        assert_eq!((wish.spec.user, wish.spec.workdir), (None, None));
    }

    #[test]
    fn secrets_are_given_by_name_and_env_wins() {
        let named = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            WantedSecrets::Named(names)
        };
        let keys = |instance: OldInstance| {
            let (wish, notes) = wish(instance);
            let secrets: Vec<_> = wish.spec.secrets.into_keys().collect();
            (secrets.join(","), wish.spec.env, notes.len())
        };
        let with = |secrets, env: &[(&str, &str)]| OldInstance {
            secrets,
            env: env
                .iter()
                .map(|&(name, value)| (name.into(), value.into()))
                .collect(),
            ..old("inst-1")
        };
        let none = BTreeMap::new();
        assert_eq!(
            keys(with(named(&[]), &[])),
            (String::new(), none.clone(), 0)
        );
        assert_eq!(
            keys(with(WantedSecrets::All, &[])),
            ("A,B".into(), none.clone(), 1)
        );
        assert_eq!(
            keys(with(named(&["A", "GONE"]), &[])),
            ("A".into(), none.clone(), 1)
        );
        let env = BTreeMap::from([("A".to_owned(), "other".to_owned())]);
        assert_eq!(
            keys(with(named(&["A"]), &[("A", "other")])),
            (String::new(), env, 0)
        );
        let found = keys(with(named(&[]), &[("A", "a-value")]));
        assert_eq!(found, ("A".into(), none, 1));
    }

    #[test]
    fn rights_lose_what_they_are_signed_with() {
        let fields = json!({"sub": "", "iat": 1, "exp": 2, "spawn": true, "max_children": 5,
            "allowed_images": null, "fly": true});
        let (wish, notes) = wish(OldInstance {
            capabilities: fields.as_object().unwrap().clone(),
            ..old("inst-1")
        });
        let expected = [("spawn", json!(true)), ("max_children", json!(5))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(wish.spec.capabilities, expected.into());
        assert_eq!(
            notes,
            ["'inst-1' has rights there that do not exist here: fly"]
        );
    }

    #[test]
    fn a_child_is_an_instance_of_its_own() {
        let child = OldInstance {
            parent: "inst-1".into(),
            workspace: "/w".into(),
            own_workspace: true,
            ..old("inst-2")
        };
        let (plan, problems) = plan(&[old("inst-1"), child]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(plan.wishes.len(), 2);
        assert_eq!(
            plan.notes,
            [
                "'inst-2' goes on with its workspace /w where it is; deleting the instance \
                 here does not delete it",
                "'inst-2' was made by the guest of 'inst-1': here it is an instance of its own",
            ]
        );
    }

    #[test]
    fn all_problems_are_found() {
        let named = |handle: &str| OldInstance {
            handle: handle.into(),
            ..old(&format!("inst-{handle}"))
        };
        let odd = OldInstance {
            ports: [(70000, 0), (80, -1)].into(),
            workspace: "data".into(),
            memory_mb: 8,
            capabilities: json!({"spawn": 1}).as_object().unwrap().clone(),
            ..named("odd")
        };
        let (_, problems) = plan(&[named("web-"), named("web"), named("WEB"), odd]);
        let begins = [
            "the instance 'web-' cannot keep its name, choose one: --rename web-=NAME: \
             the handle 'web-' must begin and end",
            "the workspace data of the instance 'odd' is not an absolute path",
            "the instance 'odd' exposes the port -1, which is none",
            "the instance 'odd' exposes the port 70000, which is none",
            "the instance 'odd' cannot have the rights it has there: ",
            "the instance 'odd' cannot be made as it is there: the memory of 8 MiB",
            "two instances would be called 'WEB'",
        ];
        assert_eq!(problems.len(), begins.len(), "{problems:#?}");
        for (problem, begin) in problems.iter().zip(begins) {
            assert!(problem.starts_with(begin), "{problem}");
        }
    }
}
