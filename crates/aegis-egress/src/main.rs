//! `aegis-egress`: started by aegis-vmm, once for each VM that has a network, with the
//! socket to aegis-vmm as its standard input.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use aegis_egress::filter::{End, Filter, tell};

    match Filter::begin(rustix::stdio::stdin()).and_then(Filter::serve) {
        Ok(End::Owner | End::Outside) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// passt, to which it leads, is for Linux.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::print_stderr, reason = "all that this program can say")]
fn main() -> ExitCode {
    eprintln!("aegis-egress: this program is for Linux, where guests have a network");
    // EX_UNAVAILABLE of sysexits(3).
    ExitCode::from(69)
}
