//! aegisd, aegis-vmm and QEMU end or fail at every step that changes something.
//! The whole walk is a part of `make soak`; this one goes as far as its time lets
//! it, along another way in each run.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use aegis_tests::cache;
use aegis_tests::fault_walk::{self, Extent};
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result};

/// What a short walk may take.
const SHORT: Duration = Duration::from_secs(150);

/// The same for one operation in system mode.
const SHORT_SYSTEM: Duration = Duration::from_secs(25);

/// The same for the steps of a VM, which cost a boot each.
const SHORT_MACHINE: Duration = Duration::from_secs(80);

/// Passed with launchd alone, where a log is a file of ours: nothing here has one. What it
/// guards is bounded again by the next look.
const WITH_LAUNCHD: &str = "file.empty";

#[test]
fn aegisd_may_end_or_fail_at_every_point() -> Result<()> {
    let machine = Machine::temporary("test-fault-points", Systemd::V257)?;
    let walks = [
        (Seat::alice(&machine), SHORT, ""),
        // Files change hands in system mode only.
        (Seat::root(&machine), SHORT_SYSTEM, "create"),
    ];
    let mut unwalked = named_in_the_source()?;
    unwalked.remove(WITH_LAUNCHD);
    for (seat, limit, only) in walks {
        let report = fault_walk::walk(seat, Extent::Within(limit), only)?;
        println!("{report}");
        println!("not reached: {:#?}", report.missed());
        let failures = report.failures().join("\n\n");
        assert!(failures.is_empty(), "{failures}");
        unwalked.retain(|name| !report.names().contains(name));
    }
    assert!(unwalked.is_empty(), "no operation passes {unwalked:?}");
    Ok(())
}

#[test]
fn a_vms_owner_and_its_qemu_may_end_at_every_step() -> Result<()> {
    let machine = Machine::temporary("test-machine-steps", Systemd::V257)?;
    let report = fault_walk::walk_machine(Seat::alice(&machine), Some(SHORT_MACHINE))?;
    println!("{report}");
    println!("not reached: {:#?}", report.missed());
    let failures = report.failures().join("\n\n");
    assert!(failures.is_empty(), "{failures}");
    Ok(())
}

/// The names of the points of aegisd and of the program that pulls and imports: what their source
/// calls `step`, `around` and `around_async` with.
fn named_in_the_source() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in [
        "aegisd/src/effects.rs",
        "aegisd/src/registry/given.rs",
        "aegisd/src/registry/messages.rs",
        "aegisd/src/registry/secrets.rs",
        "aegisd/src/registry/store.rs",
        "aegisd/src/supervisor/systemd/manager.rs",
        "aegisd/src/vm.rs",
        "crates/aegis-image/src/import.rs",
        "crates/aegis-image/src/pull/maker.rs",
        "crates/aegis-image/src/store.rs",
    ] {
        let path = cache::repository().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut found = BTreeSet::new();
        for call in ["step(", "around(", "around_async("] {
            let rest = text.split(call).skip(1).map(str::trim_start);
            let named = rest.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
            found.extend(named.map(str::to_owned));
        }
        assert!(!found.is_empty(), "{file} names no point");
        names.extend(found);
    }
    Ok(names)
}
