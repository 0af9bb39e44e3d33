//! The guest kernel's command line.
//!
//! What it holds beyond the console is there for the start time; the numbers are
//! from a minimal kernel under TCG, where a plain command line takes 940 ms to
//! the first program and this one 515 ms. Words are from the kernel's
//! Documentation/admin-guide/kernel-parameters.txt.

use aegis_core::platform::Platform;
use aegis_core::spec::Accel;

use super::kernel::KernelKind;

/// What the command line depends on.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    pub platform: Platform,
    pub kernel: KernelKind,
    /// Not [`Accel::Auto`].
    pub accel: Accel,
    pub cpus: u32,
    /// The frequency of the host's time stamp counter in kHz, where it is known
    /// and constant.
    pub tsc_khz: Option<u32>,
    /// Kernel messages below warnings stay off the console.
    pub quiet: bool,
}

/// The command line for a guest.
pub fn cmdline(conditions: Conditions) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut word = |text: &str| words.push(text.to_owned());
    word(match conditions.platform {
        Platform::Amd64 => "console=ttyS0",
        Platform::Arm64 => "console=ttyAMA0",
    });
    if conditions.quiet {
        word("quiet");
    }
    // A panic ends the guest instead of leaving it silent: by a reset, at which QEMU
    // ends (-no-reboot).
    word("panic=-1");
    // Grace periods during boot wait for nobody.
    word("rcupdate.rcu_expedited=1");
    if conditions.accel == Accel::Tcg {
        // Translated code does not run ahead of itself: mitigations cost and
        // protect from nothing.
        word("mitigations=off");
    }
    // On Arm there is nothing to add: the device tree names clock and devices.
    if conditions.platform == Platform::Amd64 {
        words.extend(of_a_pc(conditions));
    }
    words.join(" ")
}

/// What only x86 has to be told.
fn of_a_pc(conditions: Conditions) -> Vec<String> {
    // Without ACPI a reset is the only way out.
    let mut words = vec!["reboot=t".to_owned()];
    // With one CPU the kernel would patch every lock out of itself, 170 to 420 ms;
    // with more it does not patch, and the word changes nothing.
    words.push("noreplace-smp".to_owned());
    if conditions.accel == Accel::Tcg {
        // The timer is known to work; checking it needs real time.
        words.push("no_timer_check".to_owned());
        // Else the kernel measures it against the old timer, which a busy host makes
        // slow and wrong.
        words.extend(conditions.tsc_khz.map(|khz| format!("tsc_early_khz={khz}")));
        if conditions.cpus == 1 {
            // Calibrating it takes 200 ms of busy waiting. Further CPUs have no
            // other timer.
            words.push("nolapic_timer".to_owned());
        }
    }
    let of_kernel = match conditions.kernel {
        // A microvm has neither; looking for them takes time and prints errors.
        KernelKind::Own => ["acpi=off", "pci=off"],
        // What distributions' kernels do at boot that a guest has no use for.
        KernelKind::Fallback => ["8250.nr_uarts=1", "cryptomgr.notests"],
    };
    words.extend(of_kernel.map(str::to_owned));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCG: Conditions = Conditions {
        platform: Platform::Amd64,
        kernel: KernelKind::Own,
        accel: Accel::Tcg,
        cpus: 1,
        tsc_khz: Some(2_250_008),
        quiet: true,
    };

    fn has(conditions: Conditions, word: &str) -> bool {
        cmdline(conditions).split(' ').any(|other| other == word)
    }

    #[test]
    fn a_translated_guest_is_told_its_clock() {
        assert!(has(TCG, "tsc_early_khz=2250008"));
        assert!(has(TCG, "nolapic_timer"));
        assert!(
            !cmdline(Conditions {
                tsc_khz: None,
                ..TCG
            })
            .contains("tsc")
        );
    }

    #[test]
    fn several_cpus_keep_their_timers() {
        assert!(!has(Conditions { cpus: 2, ..TCG }, "nolapic_timer"));
    }

    #[test]
    fn kvm_brings_its_own_clock_and_keeps_mitigations() {
        let line = cmdline(Conditions {
            accel: Accel::Kvm,
            ..TCG
        });
        for word in [
            "tsc_early_khz",
            "nolapic_timer",
            "no_timer_check",
            "mitigations",
        ] {
            assert!(!line.contains(word), "{line}");
        }
    }

    #[test]
    fn a_distribution_kernel_keeps_pci() {
        let fallback = Conditions {
            kernel: KernelKind::Fallback,
            ..TCG
        };
        assert!(!has(fallback, "pci=off"));
        assert!(has(TCG, "pci=off"));
    }

    #[test]
    fn arm_hears_nothing_of_a_pc() {
        let line = cmdline(Conditions {
            platform: Platform::Arm64,
            ..TCG
        });
        assert_eq!(
            line,
            "console=ttyAMA0 quiet panic=-1 rcupdate.rcu_expedited=1 mitigations=off"
        );
    }
}
