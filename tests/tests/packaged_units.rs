//! The packaged units, as the service managers themselves judge them.

use aegis_tests::machine::{Machine, Systemd, User};
use anyhow::Result;

/// Highest exposure score of the system's aegisd.service, in tenths, as
/// `systemd-analyze security` counts it: 2.8 with 257 and 3.0 with 252. What
/// is left is due to its capabilities, /dev/kvm, TCP and the home directories.
const SYSTEM_EXPOSURE: u32 = 30;

/// `systemd-analyze verify` exits 0 even for unknown keys, so what it says
/// counts.
fn units_are_understood(systemd: Systemd) -> Result<()> {
    let machine = Machine::shared(systemd)?;
    for (user, mode) in [(User::Root, "system"), (User::Alice, "user")] {
        for unit in [
            "aegisd.service",
            "aegisd.socket",
            "aegisd-credentials.socket",
        ] {
            let line =
                format!("systemd-analyze --{mode} verify --man=no /usr/lib/systemd/{mode}/{unit}");
            let output = machine.run(user, &line)?;
            assert_eq!(
                (output.text(), output.error_text()),
                (String::new(), String::new()),
                "{unit} in {mode} mode"
            );
        }
    }
    let line = format!(
        "systemd-analyze security --offline=yes --threshold={SYSTEM_EXPOSURE} --no-pager \
         /usr/lib/systemd/system/aegisd.service"
    );
    machine.run(User::Root, &line)?.success()?;
    Ok(())
}

#[test]
fn aegisd_units_are_understood() -> Result<()> {
    units_are_understood(Systemd::V257)
}

#[test]
fn aegisd_units_are_understood_on_systemd_252() -> Result<()> {
    units_are_understood(Systemd::V252)
}

#[test]
fn the_units_user_may_not_call_aegisd() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let groups = machine.run(User::Root, "id -Gn aegis")?.success()?;
    assert!(!groups.split(' ').any(|group| group == "aegis"), "{groups}");
    let call = "busctl call org.aegisvm.Aegis1 /org/aegisvm/Aegis1 \
                org.aegisvm.Aegis1.Manager GetInstance s nobody";
    let refused = machine.run(
        User::Root,
        &format!("setpriv --reuid=aegis --regid=aegis-vm --init-groups {call}"),
    )?;
    let text = refused.error_text();
    assert!(text.contains("this needs the authorization"), "{text}");
    assert_ne!(refused.code(), 0);
    Ok(())
}
