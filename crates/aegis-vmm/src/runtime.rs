//! A VM with everything around it: owner, control socket, ports, notifications.

use std::io;
use std::sync::Arc;

use aegis_core::vm_spec::VmSpec;
use tokio::task::JoinSet;
use tracing::error;

use crate::activation::{Listeners, Queues};
use crate::control::connection::Services;
use crate::doorway::Doorway;
use crate::exec::Sessions;
use crate::hypervisor::Hypervisor;
use crate::owner::{Owner, Verdict};
use crate::ports::PortServices;
use crate::status::StatusDoor;
use crate::{control, notify, ports};

/// Runs one VM until it has ended. To be called in a runtime with one thread: the
/// owner's futures stay on it, and a second thread would cost memory for nothing,
/// since QEMU does the work.
///
/// # Errors
/// When the listening sockets cannot be used.
pub async fn run<H>(
    spec: VmSpec,
    listeners: Listeners,
    hypervisor: H,
    stop: impl Future<Output = ()>,
) -> io::Result<Verdict>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    let spec = Arc::new(spec);
    let status = Arc::new(StatusDoor::new(spec.revision));
    let doorway = Doorway::new();
    let queues = Queues::of(&listeners.control)?;
    let (owner, handle) = Owner::new(
        Arc::clone(&spec),
        Arc::new(hypervisor),
        Arc::clone(&status),
        Arc::clone(&doorway),
        queues.clone(),
    );
    let port_services =
        PortServices::new(handle.clone(), Arc::clone(&doorway), status.watch(), queues);
    let services = Services {
        owner: handle,
        status: status.watch(),
        doorway,
        sessions: Sessions::new(),
        ports: port_services.clone(),
        spec,
    };

    // The set ends all servers with this function.
    let mut servers: JoinSet<io::Result<()>> = JoinSet::new();
    servers.spawn(control::serve(listeners.control, services));
    for port in listeners.ports {
        servers.spawn(ports::serve(port, port_services.clone()));
    }
    let notifications = status.watch();
    servers.spawn(async {
        notify::follow(notifications).await;
        Ok(())
    });
    drop(status);

    let owner = owner.run(stop);
    tokio::pin!(owner);
    loop {
        tokio::select! {
            verdict = &mut owner => return Ok(verdict),
            Some(ended) = servers.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(panicked) => error!("a server failed: {panicked}"),
            },
        }
    }
}
