//! Hibernation, as the owner carries it out.

use aegis_core::control::Outcome;
use aegis_core::fault::{Fault, Symbol};

use super::Owner;
use super::mailbox::{Reply, tell};
use crate::hypervisor::Hypervisor;

impl<H> Owner<H>
where
    H: Hypervisor + Send + Sync + 'static,
    H::Machine: 'static,
{
    pub(super) fn can_hibernate(&self) -> bool {
        false
    }

    pub(super) fn begin_save(&mut self) -> Result<(), Fault> {
        Err(Fault::new(Symbol::Unsupported, "not yet"))
    }

    pub(super) fn hibernate(&mut self, reply: Reply<Outcome>) {
        tell(reply, Err(Fault::new(Symbol::Unsupported, "not yet")));
    }
}
