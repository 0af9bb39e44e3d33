//! Flags that several commands share, and what they mean.

mod env_file;
mod resources;
mod volume;

use std::path::{Path, PathBuf};

use aegis_bus::dict::Dict;
use aegis_bus::instance::ExecOptions;
use aegis_bus::manager::SpecRequest;
use aegis_core::control::TerminalSize;
use aegis_core::idle::Delay;
use aegis_core::network::{AllowedHost, Network};
use aegis_core::platform::Platform;
use aegis_core::port::PortRequest;
use aegis_core::spec::{Accel, Workspace};
use clap::{Args, ValueEnum};

use crate::cli::Context;
use crate::client::Client;
use crate::environment::{self, Environment};
use crate::failure::Failure;
use crate::images;
use crate::session::{DetachKeys, Terminal, USUAL_DETACH_KEYS, Wiring};

pub(crate) use env_file::EnvFile;
pub(crate) use resources::{LabelFlags, LimitChanges, LimitFlags};
pub(crate) use volume::parse_volumes;

/// What the command in the guest starts with.
#[derive(Debug, Default, Args)]
pub(crate) struct ProcessFlags {
    /// Set a variable in the guest: to VALUE, to the secret NAME, or without either to the secret KEY; where that is none, to the value of this environment. '*' sets one for every secret
    #[arg(short, long, value_name = "KEY[=VALUE|=secret.NAME]|*")]
    env: Vec<String>,
    /// Set a variable of this name to the secret KEY, or with '*' one for every secret
    #[arg(long, value_name = "KEY|*")]
    secret: Vec<String>,
    /// Set the variables of a file, a line KEY=VALUE or KEY for each; --env wins over it
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Start in this directory of the guest
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user of the guest
    #[arg(short, long, value_name = "NAME|UID[:GROUP|GID]")]
    pub(crate) user: Option<String>,
}

/// What the guest boots.
#[derive(Debug, Default, Args)]
pub(crate) struct ImageFlags {
    /// Boot this image: a name as docker pull takes it, oci:DIR, oci-archive:FILE or
    /// docker-archive:FILE; an empty one is the built-in base image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Run this in place of the image's entry point; '' for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Pull the image when it is not here, always (a tag may have moved), or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    #[command(flatten)]
    pub(crate) registry: RegistryFlags,
    /// Whether programs may write to the root: rw or ro
    #[arg(long, value_name = "ro|rw", default_value = "rw")]
    rootfs: RootFs,
}

/// How registries are talked to.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RegistryFlags {
    /// Do not check the certificate of this registry, and let it speak plain HTTP
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// When it is not here.
    #[default]
    Missing,
    /// Each time, since a tag may have moved.
    Always,
    /// Never: it is here, or that is an error.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RootFs {
    #[default]
    Rw,
    Ro,
}

impl RootFs {
    pub(crate) fn is_read_only(self) -> bool {
        self == Self::Ro
    }
}

/// The words in place of an image's entry point; none for an empty text.
pub(crate) fn entrypoint(program: &str) -> Vec<String> {
    match program {
        "" => Vec::new(),
        program => vec![program.to_owned()],
    }
}

impl ImageFlags {
    /// Puts them into a spec.
    pub(crate) async fn apply(
        &self,
        client: &Client,
        spec: &mut SpecRequest,
    ) -> Result<(), Failure> {
        if let Some(text) = &self.image {
            spec.image = Some(images::told(client, text).await?);
        }
        spec.entrypoint = self.entrypoint.as_deref().map(entrypoint);
        spec.read_only = self.rootfs.is_read_only();
        Ok(())
    }
}

/// What the machine is made of.
#[derive(Debug, Default, Args)]
pub(crate) struct MachineFlags {
    /// Memory of the guest: a number of MiB, or with suffix, e.g. 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u32>,
    /// Virtual CPUs
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// What executes the guest: auto, kvm, hvf or tcg
    #[arg(long)]
    accel: Option<Accel>,
    /// What the guest's programs are built for: linux/amd64 or linux/arm64; another one than this host's is translated
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Share a folder as /workspace: a path (with a slash), or the name of one that AegisVM keeps
    #[arg(long, value_name = "PATH|NAME")]
    workspace: Option<String>,
    /// Show a folder or file of the host, or a named volume that AegisVM keeps, at a path of the guest
    #[arg(short, long, value_name = "PATH|NAME:TARGET[:ro]")]
    volume: Vec<String>,
    /// Let a port of this host lead to a TCP port of the guest; without PORT one is chosen
    #[arg(long, value_name = "[[ADDRESS:]PORT:]GUEST-PORT")]
    expose: Vec<PortRequest>,
    #[command(flatten)]
    network: NetworkFlags,
    #[command(flatten)]
    labels: LabelFlags,
    #[command(flatten)]
    limits: LimitFlags,
    /// Run without the sandbox where the host forbids it
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// When an instance that nobody needs falls asleep.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct IdleFlags {
    /// Pause it when nobody has needed it for so long: 60s unless given; or never
    #[arg(long, value_name = "TIME|never")]
    pub(crate) idle_pause: Option<Delay>,
    /// Hibernate it when nobody has needed it for so long: 5m unless given; or never
    #[arg(long, value_name = "TIME|never")]
    pub(crate) idle_hibernate: Option<Delay>,
}

/// Other idle times.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct IdleChanges {
    /// Pause it when nobody has needed it for so long, or never
    #[arg(long, value_name = "TIME|never")]
    pub(crate) idle_pause: Option<Delay>,
    /// Hibernate it when nobody has needed it for so long, or never
    #[arg(long, value_name = "TIME|never")]
    pub(crate) idle_hibernate: Option<Delay>,
}

/// What of the network the guest reaches.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NetworkFlags {
    /// What the guest reaches: open, which is public addresses, or none
    #[arg(long, value_name = "open|none")]
    pub(crate) network: Option<Network>,
    /// Let the guest reach this address too, or a port of it; the host's 127.0.0.1 is 192.0.0.1 to it
    #[arg(long, value_name = "ADDRESS[/PREFIX][:PORT]")]
    pub(crate) allow_host: Vec<AllowedHost>,
}

/// How our streams are connected to a command in the guest.
#[derive(Debug, Args)]
pub(crate) struct StreamFlags {
    /// Run it on a terminal
    #[arg(short, long)]
    tty: bool,
    /// Pass stdin on; this is the default
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Do not read stdin; the command finds it at its end
    #[arg(short, long)]
    no_stdin: bool,
}

/// How a client leaves a command that runs on.
#[derive(Debug, Args)]
pub(crate) struct DetachFlags {
    /// The keys that detach: single characters or ctrl-KEY, separated by commas; '' for none
    #[arg(long, value_name = "KEYS", default_value = USUAL_DETACH_KEYS)]
    detach_keys: DetachKeys,
}

impl DetachFlags {
    /// Our side of the session.
    pub(crate) fn wiring(&self) -> Wiring {
        Wiring {
            forward_stdin: true,
            terminal: Terminal::of_both(),
            detach: Some(self.detach_keys.clone()),
        }
    }
}

impl StreamFlags {
    /// Our side of the session.
    pub(crate) fn wiring(&self) -> Result<Wiring, Failure> {
        let terminal = if self.tty {
            Some(Terminal::of_stdin().ok_or(Failure::NoTerminal)?)
        } else {
            None
        };
        Ok(Wiring {
            forward_stdin: self.interactive || !self.no_stdin,
            terminal,
            detach: None,
        })
    }
}

impl ProcessFlags {
    /// The variables and where their values come from.
    pub(crate) async fn environment(&self, context: &Context) -> Result<Environment, Failure> {
        let mut texts = Vec::new();
        for path in &self.env_file {
            let file = EnvFile::read(path)?;
            let variables = file.variables()?.into_iter();
            texts.extend(variables.map(|(_, text)| text.to_owned()));
        }
        texts.extend(self.secret.iter().map(|name| match name.as_str() {
            environment::ALL => name.clone(),
            name => format!("{name}=secret.{name}"),
        }));
        texts.extend(self.env.iter().cloned());
        Environment::resolve(context, &texts).await
    }

    /// The options of an exec with these flags, and the same as they travel, with the
    /// values that only go by descriptor.
    pub(crate) async fn exec_options(
        &self,
        context: &Context,
        tty: Option<TerminalSize>,
    ) -> Result<(ExecOptions, Dict), Failure> {
        let environment = self.environment(context).await?;
        environment.note_values(context, "is used");
        let mut env = environment.plain.clone();
        if tty.is_some()
            && let Ok(term) = std::env::var("TERM")
        {
            // The keys and colours of this terminal, as ssh(1) passes them on.
            env.entry("TERM".to_owned()).or_insert(term);
        }
        let options = ExecOptions {
            env,
            secrets: environment.secrets.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            tty,
            of_image: false,
        };
        let mut dict = options.to_dict();
        environment.pass(&mut dict)?;
        Ok((options, dict))
    }
}

impl MachineFlags {
    /// The part of a spec these flags are about.
    pub(crate) fn to_spec(&self) -> Result<SpecRequest, Failure> {
        let workspace = self.workspace.as_deref().map(parse_workspace);
        Ok(SpecRequest {
            memory_mib: self.memory,
            cpus: self.cpus,
            accel: self.accel,
            platform: self.platform,
            workspace: workspace.transpose()?,
            volumes: parse_volumes(&self.volume)?,
            ports: self.expose.clone(),
            network: self.network.network,
            allowed_hosts: self.network.allow_host.clone(),
            labels: self.labels.labels(),
            limits: self.limits.limits(),
            insecure: self.insecure,
            ..SpecRequest::default()
        })
    }
}

/// A text with a slash, `.` and `..` are paths, seen from here; the rest are names.
fn parse_workspace(text: &str) -> Result<Workspace, Failure> {
    if !text.contains('/') && text != "." && text != ".." {
        return text.parse().map_err(Failure::Spec);
    }
    let path = Path::new(text);
    let absolute = std::path::absolute(path).map_err(|source| Failure::Path {
        path: path.to_owned(),
        source,
    })?;
    Ok(Workspace::Path(absolute))
}

/// Why a size is refused.
#[derive(Debug, thiserror::Error)]
#[error("not a size: a number of MiB, or with suffix M or G, e.g. 512M or 2G")]
pub(crate) struct MemoryError;

pub(crate) fn parse_memory(text: &str) -> Result<u32, MemoryError> {
    let (digits, factor) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let number: u32 = digits.parse().map_err(|_| MemoryError)?;
    number.checked_mul(factor).ok_or(MemoryError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_makes_a_path() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            parse_workspace("data").unwrap(),
            Workspace::Named("data".into())
        );
        assert_eq!(
            parse_workspace("./data").unwrap(),
            Workspace::Path(here.join("data"))
        );
        assert_eq!(parse_workspace(".").unwrap(), Workspace::Path(here));
        assert_eq!(
            parse_workspace("/data").unwrap(),
            Workspace::Path("/data".into())
        );
        assert!(matches!(parse_workspace("a b"), Err(Failure::Spec(_))));
    }

    #[test]
    fn sizes_are_mebibytes() {
        assert_eq!(parse_memory("512").unwrap(), 512);
        assert_eq!(parse_memory("512M").unwrap(), 512);
        assert_eq!(parse_memory("2g").unwrap(), 2048);
        for text in ["", "M", "-1", "1T", "9999999G", "1.5G"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }
}
