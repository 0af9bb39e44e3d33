//! aegis-harness: PID 1 of an AegisVM guest.
//!
//! It is the whole of the initramfs. The kernel starts it; it brings the guest
//! up in phases and then serves the host over the link until told to stop:
//!
//! ```text
//!   early     /proc, /sys, /dev; modules, if the kernel needs some
//!   port      the virtio port of the link                  ── until here without a runtime
//!   hello     who we are; wait for Boot
//!   boot      clock, name, root of layers, switch, share   ── a fault names what failed
//!   serve     the command, exec sessions, connections
//!   stop      SIGTERM, grace, SIGKILL, sync, read-only, reset
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`early`], [`modules`], [`port`] | what has to be there before the link |
//! | [`boot`] | turning a `Boot` message into a root file system |
//! | [`guest`] | the loop that answers the host; who is in which phase |
//! | [`network`] | the loopback, the network device, connections over it |
//! | [`memory`] | what the kernel says about memory |
//! | [`reaper`] | every wait status of every process |
//! | [`process`], [`users`], [`tty`] | starting one program |
//! | [`session`], [`command`] | a program on streams; the program of the instance |
//! | [`api`] | programs' way to the API of their instance |
//! | [`valve`] | whether output is taken from programs |
//! | [`entropy`] | fresh randomness for a restored guest |
//! | [`copy`] | what a copy runs in the guest: files as an archive |
//! | [`stop`] | the end |
//!
//! A failure before the link is up is one line on the console that starts with
//! [`console::BOOT_FAILED`], then a reset of the machine; later ones are faults
//! on the link.

#![cfg(target_os = "linux")]

mod api;
mod boot;
mod command;
mod console;
mod copy;
mod early;
mod entropy;
mod fd;
mod guest;
mod memory;
mod modules;
mod network;
mod port;
mod process;
mod processes;
mod pump;
mod reaper;
mod session;
mod stop;
mod tty;
mod users;
mod valve;

use std::convert::Infallible;

/// What the program does: all that a guest needs of its first process, which never
/// returns; or files for a copy. The exit code.
pub fn run() -> i32 {
    // The same program is what a copy runs in the guest, whatever its image has.
    if std::process::id() != 1
        && let Some(code) = copy::run(std::env::args_os().skip(1))
    {
        return code;
    }
    let Err(error) = start();
    console::boot_failed(&error);
    stop::reset_machine();
}

/// Why the guest cannot even reach its host.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("Cannot mount the kernel's file systems")]
    Early(#[source] early::EarlyError),
    #[error("Cannot load the kernel's modules")]
    Modules(#[source] modules::ModuleError),
    #[error("Cannot open the link to the host")]
    Port(#[source] port::PortError),
    #[error("Cannot start the event loop")]
    Runtime(#[source] std::io::Error),
    #[error("The link to the host ended")]
    Link(#[source] aegis_link::LinkError),
}

fn start() -> Result<Infallible, StartError> {
    early::mount_kernel_file_systems().map_err(StartError::Early)?;
    early::raise_descriptor_limit();
    modules::load_all().map_err(StartError::Modules)?;
    let port = port::find().map_err(StartError::Port)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    runtime.block_on(async {
        let channel = fd::Nonblocking::port(port).map_err(StartError::Runtime)?;
        let reaper = reaper::Reaper::start().map_err(StartError::Runtime)?;
        guest::serve(channel, reaper)
            .await
            .map_err(StartError::Link)
    })
}
