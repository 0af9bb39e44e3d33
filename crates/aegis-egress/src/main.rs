//! `aegis-egress`: started by aegis-vmm, once for each VM that has a network, with the
//! socket to aegis-vmm as its standard input.

use std::process::ExitCode;

use aegis_egress::filter::{End, Filter, tell};

fn main() -> ExitCode {
    match Filter::begin(rustix::stdio::stdin()).and_then(Filter::serve) {
        Ok(End::Owner | End::Outside) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}
