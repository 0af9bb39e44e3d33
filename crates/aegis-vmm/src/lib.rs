//! The owner of one VM: QEMU, the guest link, exec streams, ports.
//!
//! `aegis-vmm` is a library with a thin program, so that tests can launch what
//! the program launches.
//!
//! | module | what it owns |
//! |---|---|
//! | [`runtime`] | a VM with everything around it |
//! | [`owner`] | the VM's state and every decision about it |
//! | [`status`] | what others are told about it |
//! | [`doorway`] | who uses it, and whether connections are let in |
//! | [`control`] | the control socket |
//! | [`exec`] | exec sessions |
//! | [`terminal`] | the terminal of the instance's command |
//! | [`ports`] | connections on exposed ports |
//! | [`dial`] | connections of aegisd to programs in the guest |
//! | [`guest_api`] | connections of programs in the guest to aegisd |
//! | [`guest`] | what the guest is told, and whether it answers |
//! | [`command_log`], [`console`], [`command_exit`] | what the guest leaves in files |
//! | [`rotated`] | files that do not grow without end |
//! | [`disk`] | the writable layer |
//! | [`inject`] | the layer of a kit's programs |
//! | [`activation`] | the listening sockets |
//! | [`notify`] | what the service manager is told |
//! | [`logging`] | our own log |
//! | [`hardening`] | what the process gives up at its start |
//! | [`hypervisor`] | starting a guest and holding its machine |
//! | [`jail`] | the sandbox of the machine's processes |
//! | [`share`] | the shared folder |
//! | [`snapshot`] | what a hibernated VM leaves |
//! | [`egress`] | the guest's way out |

pub mod activation;
pub mod command_exit;
pub mod command_log;
pub mod console;
pub mod control;
pub mod dial;
pub mod disk;
pub mod doorway;
pub mod egress;
pub mod exec;
pub mod guest;
pub mod guest_api;
pub mod hardening;
pub mod hypervisor;
pub mod inject;
pub mod jail;
pub mod logging;
pub mod notify;
pub mod owner;
pub mod ports;
pub mod rotated;
pub mod runtime;
pub mod share;
pub mod snapshot;
pub mod status;
pub mod terminal;
