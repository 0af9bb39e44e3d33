//! `aegis-harness`: the first process of a guest.

#[cfg(target_os = "linux")]
fn main() {
    std::process::exit(aegis_harness::run());
}

/// Guests are Linux, whatever their host is.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::print_stderr, reason = "all that this program can say")]
fn main() -> std::process::ExitCode {
    eprintln!("aegis-harness: this program is for Linux, in guests alone");
    // EX_UNAVAILABLE of sysexits(3).
    std::process::ExitCode::from(69)
}
