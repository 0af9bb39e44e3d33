//! Keeps passt and the filter running, and serves the filter.

use std::env;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::egress::{MAX_MESSAGE, Order, Question, ToFilter};
use aegis_core::fault::Fault;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::uplink::{Changes, SETTLING, Uplink, own_addresses};
use super::watched::watched;
use super::{dns, passt};
use crate::egress::{EgressError, Ground, NetworkPlan, NetworkState};
use crate::hypervisor::process::Child;
use crate::jail::{Confinement, Program, View};
use crate::owner::backoff::Backoff;

/// The filter's program, beside our own.
const FILTER: &str = "aegis-egress";
/// When a network that runs is believed to go on: passt says within this if it cannot.
const SETTLED: Duration = Duration::from_secs(1);
/// After so long without a failure the next one is a new one.
const HEALTHY: Duration = Duration::from_secs(60);
/// Questions of DNS under way; the filter has no more.
const MOST_QUESTIONS: usize = 64;

/// Why a network that ran does so no more.
enum Outage {
    Failed(EgressError),
    /// The host's way out is another one.
    Moved,
}

impl From<EgressError> for Outage {
    fn from(error: EgressError) -> Self {
        Self::Failed(error)
    }
}

/// The task that keeps a network.
pub(super) struct Keeper {
    pub(super) plan: NetworkPlan,
    pub(super) ground: Ground,
    /// The filter's end of QEMU's socket.
    pub(super) guest: OwnedFd,
    pub(super) counters: Arc<File>,
    pub(super) state: watch::Sender<NetworkState>,
}

/// The processes of a network, and what ties them to us.
struct Running {
    passt: Child,
    filter: Child,
    control: Arc<AsyncFd<OwnedFd>>,
}

impl Keeper {
    /// Runs until it is aborted.
    pub(super) async fn keep(self) {
        let changes = Changes::follow();
        if let Err(error) = &changes {
            warn!("changes of the host's network cannot be followed: {error}, ignoring");
        }
        let changes = changes.ok();
        let mut backoff = Backoff::new();
        let mut had_network = false;
        loop {
            let began = Instant::now();
            let uplink = Uplink::look();
            let error = match self.run(&uplink, changes.as_ref(), &mut had_network).await {
                Outage::Moved => {
                    info!(
                        "the host's way out has changed; the network of the guest is started anew"
                    );
                    continue;
                }
                Outage::Failed(error) => error,
            };
            if began.elapsed() > HEALTHY {
                backoff = Backoff::new();
            }
            let fault = Fault::from(&error);
            let is_news = self.state.send_if_modified(|state| {
                let is_news = state.fault.as_ref() != Some(&fault);
                state.fault = Some(fault.clone());
                is_news
            });
            if is_news {
                warn!("the guest has no network: {fault}");
            }
            let delay = backoff.delay();
            match &changes {
                // There is no use in trying before something changes.
                Some(changes) if matches!(error, EgressError::NoUplink) => {
                    backoff = Backoff::new();
                    self.await_uplink(changes).await;
                }
                _ => sleep(delay).await,
            }
        }
    }

    async fn await_uplink(&self, changes: &Changes) {
        while Uplink::look().is_none() {
            if changes.next().await.is_err() {
                sleep(HEALTHY).await;
            }
            sleep(SETTLING).await;
        }
    }

    /// Runs a network until it fails or is outdone.
    async fn run(
        &self,
        uplink: &Uplink,
        changes: Option<&Changes>,
        had_network: &mut bool,
    ) -> Outage {
        match self.start(uplink).await {
            Ok(running) => self.serve(&running, uplink, changes, had_network).await,
            Err(error) => error.into(),
        }
    }

    async fn start(&self, uplink: &Uplink) -> Result<Running, EgressError> {
        let passt = passt::find()?;
        if uplink.is_none() {
            return Err(EgressError::NoUplink);
        }
        let system = |operation| move |source| EgressError::System { operation, source };
        let (outside, of_passt) = UnixStream::pair().map_err(system("make a stream"))?;
        let (control, of_filter) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(|errno| system("make a socket")(errno.into()))?;
        // What the filter waits for lies there before it is started.
        let order = ToFilter::Order(self.order(uplink)?).encode();
        let passed = [
            self.guest.as_raw_fd(),
            outside.as_raw_fd(),
            self.counters.as_raw_fd(),
        ];
        let rights = [ControlMessage::ScmRights(&passed)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(
            control.as_raw_fd(),
            &[IoSlice::new(&order)],
            &rights,
            flags,
            None,
        )
        .map_err(|errno| system("give the filter its order")(errno.into()))?;
        let allowed = &self.plan.allowed;
        let passt = passt::start(&passt, allowed, of_passt.into(), &self.ground).await?;
        let filter = self.start_filter(of_filter).await?;
        let control = watched(control).map_err(system("follow a socket"))?;
        Ok(Running {
            passt,
            filter,
            control: Arc::new(control),
        })
    }

    async fn start_filter(&self, control: OwnedFd) -> Result<Child, EgressError> {
        let own = env::current_exe().and_then(|path| path.canonicalize());
        let own = own.map_err(|source| EgressError::System {
            operation: "find our own program",
            source,
        })?;
        let path = own.with_file_name(FILTER);
        let confinement = match &self.ground.jail_root {
            Some(root) => Confinement::Jailed(View::of(&path, root)),
            None => Confinement::Open,
        };
        let program = |output| Program {
            path: path.clone(),
            args: Vec::new(),
            input: Some(control),
            descriptors: Vec::new(),
            output,
            capabilities: 0,
        };
        let started = Child::spawn("egress", program, confinement).await;
        started.map_err(|source| EgressError::Start {
            program: path.clone(),
            source,
        })
    }

    fn order(&self, uplink: &Uplink) -> Result<Order, EgressError> {
        let own = own_addresses().map_err(|source| EgressError::System {
            operation: "tell the host's own addresses",
            source,
        })?;
        Ok(Order {
            guest: self.plan.hardware,
            allowed: self.plan.allowed.clone(),
            own,
            ipv4: uplink.ipv4.is_some(),
            ipv6: uplink.ipv6.is_some(),
        })
    }

    async fn serve(
        &self,
        running: &Running,
        uplink: &Uplink,
        changes: Option<&Changes>,
        had_network: &mut bool,
    ) -> Outage {
        let began = Instant::now();
        let is_renewal = std::mem::replace(had_network, true);
        let mut is_settled = false;
        let mut look_at = None;
        let mut questions = JoinSet::new();
        loop {
            tokio::select! {
                // An end is what all else is about.
                biased;
                exit = running.passt.wait() => {
                    return EgressError::Ended { program: "passt", exit }.into();
                }
                exit = running.filter.wait() => {
                    // It ends when passt does, which then knows the reason.
                    return match timeout(SETTLED, running.passt.wait()).await {
                        Ok(exit) => EgressError::Ended { program: "passt", exit },
                        Err(_) => EgressError::Ended { program: FILTER, exit },
                    }
                    .into();
                }
                () = sleep_until(began + SETTLED), if !is_settled => {
                    is_settled = true;
                    self.state.send_modify(|state| {
                        if state.fault.take().is_some() {
                            info!("the guest has its network");
                        }
                        state.renewals += u32::from(is_renewal);
                    });
                }
                changed = followed(changes), if look_at.is_none() => {
                    if let Err(error) = changed {
                        warn!("changes of the host's network are not heard of: {error}, ignoring");
                    }
                    look_at.get_or_insert_with(|| Instant::now() + SETTLING);
                }
                () = reached(look_at) => {
                    look_at = None;
                    let later = Uplink::look();
                    if uplink.is_outdone_by(&later) {
                        return Outage::Moved;
                    }
                    match self.order(uplink) {
                        Ok(order) => tell(&running.control, &ToFilter::Order(order)),
                        Err(error) => return error.into(),
                    }
                }
                Some(_) = questions.join_next() => {}
                question = hear(&running.control), if questions.len() < MOST_QUESTIONS => {
                    let Some(question) = question else {
                        // Its end follows.
                        continue;
                    };
                    let control = Arc::clone(&running.control);
                    questions.spawn(async move {
                        let message = dns::ask(question.transport, &question.message).await;
                        tell(&control, &ToFilter::Answer { id: question.id, message });
                    });
                }
            }
        }
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn followed(changes: Option<&Changes>) -> io::Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// The filter's next question. What is none, and the end, is passed over.
async fn hear(control: &AsyncFd<OwnedFd>) -> Option<Question> {
    let Ok(mut guard) = control.readable().await else {
        return std::future::pending().await;
    };
    let mut bytes = vec![0; MAX_MESSAGE];
    match recv(control.as_fd().as_raw_fd(), &mut bytes, MsgFlags::empty()) {
        Ok(0) => std::future::pending().await,
        Ok(length) => Question::decode(&bytes[..length]),
        Err(Errno::EAGAIN) => {
            guard.clear_ready();
            None
        }
        Err(Errno::EINTR) => None,
        Err(_) => std::future::pending().await,
    }
}

/// Tells the filter something. One that does not listen is not waited for: an answer is
/// lost as on any network, and the next change brings the next order.
fn tell(control: &AsyncFd<OwnedFd>, message: &ToFilter) {
    let flags = MsgFlags::MSG_NOSIGNAL;
    if let Err(errno) = send(control.as_raw_fd(), &message.encode(), flags) {
        warn!("the filter of the network does not listen: {errno}, ignoring");
    }
}
