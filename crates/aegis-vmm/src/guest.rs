//! The guest's side of a VM as its owner sees it: what it is told at boot, what
//! its faults mean, and whether it answers.

use std::pin::Pin;
use std::time::Duration;

use aegis_core::control::{ExecRequest, TerminalSize};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::network::{self, Network};
use aegis_core::tether;
use aegis_core::vm_spec::VmSpec;
use aegis_link::message::{
    self, Boot, GENERATION, Hello, Program, Root, Share, ShareKind, SharePlace, TtySize, Upper,
};
use aegis_link::{CallError, Handle, LinkError};
use tokio::time::{Instant, sleep_until};

use crate::egress::NetworkPlan;
use crate::hypervisor::{self, DiskSerial, MachineFacts, SHARE_TAG};
use crate::status::now_ns;

/// Between two questions whether the guest is there. It costs the guest a wake-up.
const PULSE_INTERVAL: Duration = Duration::from_secs(30);

/// A guest that has not answered for so long is called silent. Translated guests
/// on a loaded host miss several seconds while they are well.
const PULSE_PATIENCE: Duration = Duration::from_secs(15);

/// The disks with read-only layers, the lowest first.
fn layers(spec: &VmSpec) -> Vec<String> {
    let mut layers = vec![DiskSerial::Base];
    if !spec.inject.is_empty() {
        layers.push(DiskSerial::Kit);
    }
    layers.iter().map(ToString::to_string).collect()
}

/// What a guest that introduced itself is told.
pub fn boot_order(spec: &VmSpec, hello: &Hello, machine: &MachineFacts) -> Boot {
    Boot {
        generation: hello.generation.min(GENERATION),
        hostname: spec.handle.to_string(),
        time_ns: now_ns(),
        root: Root {
            layers: layers(spec),
            partitions: (!spec.layers.is_empty())
                .then(|| u32::try_from(spec.layers.len()).unwrap_or(u32::MAX)),
            read_only: spec.read_only_root,
            upper: match spec.root_disk() {
                Some(_) => Upper::Disk {
                    serial: DiskSerial::Upper.to_string(),
                },
                None => Upper::Tmpfs,
            },
        },
        workdir: spec.workdir.clone(),
        share: share(spec, machine),
        network: network(spec),
        api: spec.serves_api().then_some(tether::API_PORT),
        // One with a terminal is started by the terminal.
        command: command(spec).filter(|_| !spec.terminal),
    }
}

/// The network that the guest is to have.
pub fn network_plan(spec: &VmSpec) -> Option<NetworkPlan> {
    (spec.network == Network::Open).then(|| NetworkPlan {
        hardware: match spec.starts_afresh() {
            true => network::AFRESH_HARDWARE,
            false => network::hardware_address(&spec.handle),
        },
        allowed: spec.allowed_hosts.clone(),
    })
}

/// What the guest is told of its network.
fn network(spec: &VmSpec) -> Option<message::Network> {
    let plan = network_plan(spec)?;
    Some(message::Network {
        hardware: network::hardware_text(plan.hardware),
        mtu: network::MTU,
        ipv4: message::NetworkAddress {
            address: network::GUEST_V4.to_string(),
            prefix: network::PREFIX_V4,
            gateway: network::GATEWAY_V4.to_string(),
        },
        ipv6: message::NetworkAddress {
            address: network::GUEST_V6.to_string(),
            prefix: network::PREFIX_V6,
            gateway: network::GATEWAY_V6.to_string(),
        },
        name_server: network::GATEWAY_V4.to_string(),
    })
}

/// What the guest is told of the share.
fn share(spec: &VmSpec, machine: &MachineFacts) -> Option<Share> {
    let kind = match machine.share? {
        hypervisor::ShareKind::Virtiofs => ShareKind::Virtiofs,
        hypervisor::ShareKind::NineP => ShareKind::NineP,
    };
    let shares = spec.shares().into_iter().enumerate();
    let places = shares.map(|(number, shared)| SharePlace {
        name: match machine.jailed {
            true => number.to_string(),
            false => String::new(),
        },
        target: shared.target,
        read_only: shared.read_only,
        filled: shared.filled,
    });
    Some(Share {
        kind,
        tag: SHARE_TAG.to_owned(),
        places: places.collect(),
    })
}

/// The instance's own command.
pub fn command(spec: &VmSpec) -> Option<Program> {
    (!spec.ephemeral && !spec.command.is_empty()).then(|| Program {
        argv: spec.command.clone(),
        env: spec.full_env(),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        stop_signal: spec.stop_signal,
    })
}

/// A size in the terms of the link.
pub fn tty_size(size: TerminalSize) -> TtySize {
    TtySize {
        rows: size.rows,
        cols: size.cols,
    }
}

/// What an exec runs: the instance's own surroundings with the request's on top.
pub fn program(spec: &VmSpec, request: ExecRequest) -> (Program, Option<TtySize>) {
    let mut env = spec.full_env();
    env.extend(request.env);
    let program = Program {
        argv: request.argv,
        env,
        workdir: request.workdir.or_else(|| spec.workdir.clone()),
        user: request.user.or_else(|| spec.user.clone()),
        stop_signal: None,
    };
    (program, request.tty.map(tty_size))
}

/// A guest's fault in the words of our protocol. Its message is text of the guest,
/// shortened and cleaned by the link.
pub fn fault(fault: &message::Fault) -> Fault {
    use message::Symbol as Guest;
    let symbol = match fault.symbol {
        Guest::CommandNotFound => Symbol::CommandNotFound,
        Guest::CommandNotExecutable => Symbol::CommandNotExecutable,
        Guest::UserNotFound => Symbol::UserNotFound,
        Guest::WorkdirNotFound => Symbol::WorkdirNotFound,
        Guest::Busy => Symbol::Busy,
        Guest::NotReady => Symbol::WrongState,
        Guest::BadRequest => Symbol::InvalidArgument,
        Guest::NoSuchSession | Guest::StreamGone => Symbol::NotFound,
        Guest::Unsupported => Symbol::Unsupported,
        Guest::BootDeviceMissing
        | Guest::BootMountFailed
        | Guest::BootShareFailed
        | Guest::BootFailed => Symbol::GuestBootFailed,
        Guest::SpawnFailed | Guest::ConnectionRefused | Guest::Internal => Symbol::Internal,
    };
    Fault::new(symbol, fault.message.clone())
}

/// Why a call to the guest failed, in the words of our protocol.
pub fn call_fault(error: &CallError) -> Fault {
    match error {
        CallError::Fault(of_guest) => fault(of_guest),
        CallError::Link(link) if is_violation(link) => {
            Fault::from_error(Symbol::LinkViolation, error)
        }
        CallError::UnexpectedReply => Fault::from_error(Symbol::LinkViolation, error),
        CallError::Link(_) => Fault::new(Symbol::VmEnded, "the VM ended"),
        CallError::TooLong { .. } => Fault::from_error(Symbol::InvalidArgument, error),
        CallError::TooManyStreams | CallError::TooManyCalls => {
            Fault::from_error(Symbol::Busy, error)
        }
    }
}

/// Whether a link ended because the guest broke its rules, and not with the guest.
pub fn is_violation(error: &LinkError) -> bool {
    match error {
        LinkError::Eof | LinkError::Closed | LinkError::Io(_) => false,
        LinkError::Violation(_) | LinkError::Message(_) | LinkError::TooManyCalls { .. } => true,
    }
}

/// An answer that is awaited.
type Question = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>>;

/// Asks the guest now and then whether it is there.
pub struct Pulse {
    link: Handle,
    /// When to ask next, or when to call the guest silent.
    due: Instant,
    question: Option<Question>,
    silent: bool,
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse")
            .field("silent", &self.silent)
            .finish_non_exhaustive()
    }
}

impl Pulse {
    pub fn new(link: Handle) -> Self {
        Self {
            link,
            due: Instant::now() + PULSE_INTERVAL,
            question: None,
            silent: false,
        }
    }

    /// Forgets a question that is open: the guest was paused meanwhile.
    pub fn restart(&mut self) {
        self.question = None;
        self.silent = false;
        self.due = Instant::now() + PULSE_INTERVAL;
    }

    /// Resolves when the guest falls silent (`true`) or speaks again (`false`).
    /// Loses nothing when it is dropped.
    pub async fn changed(&mut self) -> bool {
        loop {
            let Some(question) = &mut self.question else {
                sleep_until(self.due).await;
                let link = self.link.clone();
                self.question = Some(Box::pin(async move { link.ping().await }));
                self.due = Instant::now() + PULSE_PATIENCE;
                continue;
            };
            tokio::select! {
                biased;
                // Any answer is a sign of life; the end of the link is told elsewhere.
                _ = question => {
                    self.question = None;
                    self.due = Instant::now() + PULSE_INTERVAL;
                    if std::mem::take(&mut self.silent) {
                        return false;
                    }
                }
                () = sleep_until(self.due), if !self.silent => {
                    self.silent = true;
                    return true;
                }
            }
        }
    }
}
