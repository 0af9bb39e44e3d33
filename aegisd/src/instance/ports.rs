//! The exposed ports of an instance: which they are to be, and having them so.
//!
//! Each has units of its own, beside those of the VM: a socket that listens for as long
//! as the instance is enabled, and its door, which brings the socket to the VM's owner
//! while it is used. So a port comes and goes at once, whatever the VM does.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::port::{PortMapping, PortRequest, PortSelector};
use aegis_core::spec::InstanceSpec;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::error::PortHolder;
use super::start::outcome;
use super::work::Work;
use super::{Instance, InstanceError, Shared, blocking, plans};
use crate::jobs::Outcome;
use crate::ports;
use crate::reconcile::{self, Action};
use crate::supervisor::{SupervisorError, UnitId};

/// How long the VM's owner may take to let go of a port once its door is gone, which is
/// a matter of milliseconds unless the host is very busy. Nobody tells when it has.
const LET_GO: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// The ports of a spec with some removed and others added, or put in the place of what
/// listens there. A port of the guest that has one on the host already needs no other.
///
/// # Errors
/// There is nothing to remove.
pub(super) fn changed(
    before: &[PortMapping],
    add: &[PortRequest],
    remove: &[PortSelector],
) -> Result<Wanted, InstanceError> {
    let mut ports = before.to_vec();
    for selector in remove {
        let meant = selector.among(before);
        if meant.is_empty() {
            return Err(InstanceError::NoPort(*selector));
        }
        ports.retain(|port| !meant.contains(port));
    }
    for request in add {
        let PortRequest::Mapping(new) = request else {
            continue;
        };
        match ports.iter_mut().find(|port| port.host == new.host) {
            Some(port) => *port = *new,
            None => ports.push(*new),
        }
    }
    Ok(Wanted::of(ports, add))
}

/// The ports an instance is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) ports: Vec<PortMapping>,
    /// Ports of the guest that a number on the host is yet to be chosen for.
    unnumbered: BTreeSet<u16>,
}

impl Wanted {
    /// Ports, and what is asked for and not among them.
    pub(crate) fn of(ports: Vec<PortMapping>, asked: &[PortRequest]) -> Self {
        let is_met = |request: &&PortRequest| ports.iter().any(|port| request.is_met_by(port));
        let missing = asked.iter().filter(|request| !is_met(request));
        let unnumbered = missing.map(PortRequest::guest).collect();
        Self { ports, unnumbered }
    }
}

/// Keeps others from choosing the same numbers, until these are where they look.
pub(crate) type Numbered<'a> = Option<MutexGuard<'a, ()>>;

impl Shared {
    /// Chooses the numbers that are missing, once and for as long as the instance has
    /// the port: none that another instance has, asleep and disabled ones too.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn number(
        &self,
        wanted: Wanted,
    ) -> Result<(Vec<PortMapping>, Numbered<'_>), InstanceError> {
        let Wanted {
            mut ports,
            unnumbered,
        } = wanted;
        if unnumbered.is_empty() {
            return Ok((ports, None));
        }
        let numbered = self.numbers.lock().await;
        let others = self.directory.all();
        let others = others.iter().flat_map(Instance::ports);
        let mut taken: BTreeSet<u16> = others
            .chain(ports.iter().copied())
            .map(|port| port.host.port())
            .collect();
        let chosen = blocking(move || {
            let choose = |guest| {
                let number = ports::choose(&taken).ok_or(InstanceError::NoFreePort)?;
                taken.insert(number);
                let host = SocketAddr::from(([127, 0, 0, 1], number));
                Ok(PortMapping { host, guest })
            };
            let chosen = unnumbered.into_iter().map(choose);
            chosen.collect::<Result<Vec<_>, InstanceError>>()
        });
        ports.extend(chosen.await?);
        Ok((ports, Some(numbered)))
    }

    /// Who keeps a port from being listened on.
    async fn holder(&self, own: &UnitId, address: SocketAddr) -> PortHolder {
        let has_it = |instance: &Instance| {
            let ports = instance.ports();
            let mut ports = ports.iter();
            instance.is_enabled() && ports.any(|port| ports::conflict(port.host, address))
        };
        let instances = self.directory.all();
        let mut others = instances
            .iter()
            .filter(|instance| *instance.handle() != own.handle);
        if let Some(other) = others.find(|instance| has_it(instance)) {
            return PortHolder::Instance(other.handle().clone());
        }
        let found = blocking(move || ports::holder(address)).await;
        found.map_or(PortHolder::Unknown, PortHolder::Process)
    }
}

impl Work {
    /// Makes the ports' units as the record wants them.
    pub(super) async fn arrange_ports(&self) -> Result<Outcome, InstanceError> {
        let record = self.record.borrow().clone();
        if !record.is_enabled() {
            return Ok(Outcome::Unchanged);
        }
        let units = self.shared.supervisor.list(Some(&self.handle)).await?;
        let mut outcome = Outcome::Unchanged;
        for action in reconcile::ports(&record, &units) {
            outcome = match action {
                Action::Expose(port) => self.expose(port).await?,
                Action::Unexpose(port) => self.unexpose(port).await?,
                _ => Outcome::Unchanged,
            }
            .or(outcome);
        }
        Ok(outcome)
    }

    /// Has a port listen.
    pub(super) async fn expose(&self, port: PortMapping) -> Result<Outcome, InstanceError> {
        let record = self.write_files().await?;
        let plan = plans::port(&self.shared.host, &record, port);
        match self.shared.supervisor.listen(&plan).await {
            Err(SupervisorError::Bind { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                let holder = self.shared.holder(&plan.socket, port.host).await;
                let address = port.host;
                Err(InstanceError::PortTaken { address, holder })
            }
            listened => Ok(outcome(listened?)),
        }
    }

    /// Closes a port. Its connections are the VM's owner's and go on.
    pub(super) async fn unexpose(&self, port: PortMapping) -> Result<Outcome, InstanceError> {
        let socket = UnitId::port_socket(&self.handle, port);
        let door = UnitId::port_door(&self.handle, port);
        let stopped = self.stop_unit(&socket).await?;
        let stopped = self.stop_unit(&door).await?.or(stopped);
        for unit in [socket, door] {
            self.shared.supervisor.clear(&unit).await?;
        }
        let deadline = Instant::now() + LET_GO;
        while blocking(move || ports::is_listening(port.host)).await && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        Ok(stopped)
    }
}

/// The names of the sockets of ports that are others after a change, or asked for again:
/// what was done to them by hand does not count any more.
pub(super) fn touched(
    handle: &Handle,
    before: &InstanceSpec,
    after: &InstanceSpec,
    asked: &[PortRequest],
) -> BTreeSet<String> {
    let is_asked = |port: &PortMapping| asked.iter().any(|request| request.is_met_by(port));
    let gone = before
        .ports
        .iter()
        .filter(|port| !after.ports.contains(port));
    let asked = after.ports.iter().filter(|port| is_asked(port));
    gone.chain(asked)
        .map(|port| UnitId::port_socket(handle, *port).name())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[&str]) -> Vec<PortMapping> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn change(before: &[&str], add: &[&str], remove: &[&str]) -> Result<Wanted, InstanceError> {
        let add: Vec<PortRequest> = add.iter().map(|text| text.parse().unwrap()).collect();
        let remove: Vec<PortSelector> = remove.iter().map(|text| text.parse().unwrap()).collect();
        changed(&ports(before), &add, &remove)
    }

    #[test]
    fn ports_come_and_go_and_take_the_place_of_others() {
        let wanted = change(&["8080:80", "8081:81"], &["8080:90", "9000:9"], &["8081"]);
        assert_eq!(wanted.unwrap().ports, ports(&["8080:90", "9000:9"]));
        let moved = change(&["8080:80"], &["8080:81"], &["8080:80"]);
        assert_eq!(moved.unwrap().ports, ports(&["8080:81"]));
        let refused = change(&["8080:80"], &[], &["8081"]);
        assert!(matches!(refused, Err(InstanceError::NoPort(_))));
    }

    #[test]
    fn a_number_is_wanted_once_for_each_port_of_the_guest_without_one() {
        let wanted = change(&["8080:80"], &["80", "81", "81", "9000:82", "82"], &[]).unwrap();
        assert_eq!(wanted.ports, ports(&["8080:80", "9000:82"]));
        assert_eq!(wanted.unnumbered, [81].into());
        let anew = change(&["8080:80"], &["80"], &["8080"]).unwrap();
        assert_eq!(anew.unnumbered, [80].into());
    }
}
