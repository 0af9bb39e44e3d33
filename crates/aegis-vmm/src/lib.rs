//! The owner of one VM: QEMU, the guest link, exec streams, ports.
//!
//! `aegis-vmm` is a library with a thin program, so that tests can launch what
//! the program launches.
//!
//! | module | what it owns |
//! |---|---|
//! | [`hypervisor`] | starting a guest and holding its machine |
//! | [`jail`] | the sandbox of the machine's processes |
//! | [`share`] | the shared folder |

pub mod hypervisor;
pub mod jail;
pub mod share;
