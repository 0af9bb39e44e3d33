//! The exit codes of every command. `--help` prints [`TABLE`].

/// The command did what was asked.
pub(crate) const OK: u8 = 0;
/// The command failed; stderr says why.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong (as with getopt-style tools and clap).
pub(crate) const USAGE: u8 = 2;
/// `run`, `exec` and `attach`: AegisVM failed, not the guest's command (docker-run(1)).
pub(crate) const OURS: u8 = 125;
/// Added to the number of the signal that killed the guest's command (sh(1)).
pub(crate) const SIGNAL_BASE: u8 = 128;
/// A mistake of ours; stderr holds the panic's message.
pub(crate) const INTERNAL: u8 = 255;

/// The table as `--help` shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0      done
  1      failed; stderr says what, why and what to do
  2      wrong usage
  255    internal error
Of run, exec, attach, and of instance start when it attaches:
  0-124  the code of the command in the guest
  125    AegisVM failed; stderr names the reason
  126    the command in the guest cannot be executed
  127    the command was not found in the guest
  128+n  the command in the guest was killed by signal n";

/// The code of a guest's command as a process can return it: the lowest eight
/// bits, as wait(2) would have them.
pub(crate) fn of_guest(code: i32) -> u8 {
    code.to_le_bytes()[0]
}

/// The code for an end by signal `n`.
pub(crate) fn of_signal(signal: i32) -> u8 {
    SIGNAL_BASE.wrapping_add(of_guest(signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_cut_as_wait_does() {
        assert_eq!(of_guest(3), 3);
        assert_eq!(of_guest(256), 0);
        assert_eq!(of_guest(-1), 255);
        assert_eq!(of_signal(9), 137);
    }

    #[test]
    fn the_table_names_every_code() {
        for code in [OK, FAILED, USAGE, OURS, INTERNAL] {
            let named = TABLE
                .lines()
                .any(|line| line.trim_start().split([' ', '-']).next() == Some(&code.to_string()));
            assert!(named, "{code}");
        }
    }
}
