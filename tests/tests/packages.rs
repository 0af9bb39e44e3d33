//! The Debian packages in systems where nothing of AegisVM ever was.

use std::thread;

use aegis_tests::install::Package;
use aegis_tests::instance::Instance;
use aegis_tests::kit;
use aegis_tests::load::{Load, no_message_is_lost};
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::packages::{
    self, bring, deb, difference, left_since, nothing_is_left, system_files,
};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result};

const UNITS: [&str; 3] = [
    "aegisd.service",
    "aegisd.socket",
    "aegisd-credentials.socket",
];

/// What the guest runs: the program that answers messages, and a server that gives back each
/// line.
const SERVES: &str = "sh -c 'echo-agent & exec nc -ll -p 80 -e cat'";

#[test]
fn debian_packages_from_installation_to_purge() -> Result<()> {
    from_installation_to_purge("test-packages", Systemd::V257)
}

#[test]
fn debian_packages_from_installation_to_purge_on_systemd_252() -> Result<()> {
    from_installation_to_purge("test-packages-252", Systemd::V252)
}

fn from_installation_to_purge(name: &str, systemd: Systemd) -> Result<()> {
    let machine = Machine::temporary_bare(name, systemd)?;
    let dpkg = |line: &str| machine.run(User::Root, &format!("dpkg {line}"));
    let seats = [Seat::alice(&machine), Seat::root(&machine)];
    let before = system_files(&machine)?;
    let debs = Package::ALL.iter().map(|&package| deb(package));
    let first = bring(&machine, &debs.collect::<Result<Vec<_>>>()?)?;

    dpkg(&format!("--install {first}"))?.success()?;
    for seat in seats {
        is_ready_to_use(seat).with_context(|| format!("{} after installing", seat.scope()))?;
    }

    let running = seats
        .into_iter()
        .map(Running::start)
        .collect::<Result<Vec<_>>>()?;
    let later = packages::upgraded("9.0.0-1")?;
    let later: Vec<_> = Package::ALL
        .iter()
        .map(|package| later.path().join(format!("{}.deb", package.name())))
        .collect();
    let later = bring(&machine, &later)?;
    let old = running
        .iter()
        .map(Running::look)
        .collect::<Result<Vec<_>>>()?;
    under_load(&running, || dpkg(&format!("--install {later}"))?.success())?;
    for (running, old) in running.iter().zip(&old) {
        running
            .went_on(old)
            .with_context(|| format!("{} after an upgrade", running.seat.scope()))?;
    }

    let outside = |line: &&String| !line.starts_with("/var/lib/aegis/");
    let upgraded = system_files(&machine)?;
    let old = running
        .iter()
        .map(Running::look)
        .collect::<Result<Vec<_>>>()?;
    let refused = dpkg(&format!("--install {first}"))?;
    assert_ne!(refused.code(), 0);
    for package in Package::ALL {
        let words = format!("{}: version 9.0.0-1 is installed", package.name());
        assert!(
            refused.error_text().contains(&words),
            "{}",
            refused.error_text()
        );
    }
    // A running instance writes what is its own.
    let changed = difference(
        system_files(&machine)?.iter().filter(outside),
        upgraded.iter().filter(outside),
    );
    assert_eq!(changed, "", "a refused downgrade changes nothing");
    for (running, old) in running.iter().zip(&old) {
        assert_eq!(running.look()?, *old, "a refused downgrade stops nothing");
    }

    let names: Vec<_> = Package::ALL.iter().map(|package| package.name()).collect();
    dpkg(&format!("--remove {}", names.join(" ")))?.success()?;
    nothing_is_left(&machine)?;
    for seat in seats {
        let registry = format!("test -s {}/registry.db", seat.home());
        machine.run(User::Root, &registry)?.success()?;
    }

    dpkg(&format!("--install {later}"))?.success()?;
    for running in &running {
        let list = running.seat.aegis_ok("instance list")?;
        assert!(list.contains(running.instance.handle()), "{list}");
        // What a removal stopped was stopped by hand.
        running.instance.start_again()?;
        assert_eq!(running.instance.exec_ok("echo again")?, "again");
    }

    let purged = dpkg(&format!("--purge {}", names.join(" ")))?;
    purged.success()?;
    nothing_is_left(&machine)?;
    let words = "What users keep in their homes (~/.aegis) is left to them.";
    assert!(
        purged.error_text().contains(words),
        "{}",
        purged.error_text()
    );
    machine
        .run(
            User::Root,
            "test ! -e /var/lib/aegis && test -s /home/alice/.aegis/registry.db",
        )?
        .success()?;
    let left = left_since(&machine, &before)?;
    assert_eq!(left, "", "a purge leaves what was there before");
    Ok(())
}

/// What is there after an installation, with no further step.
fn is_ready_to_use(seat: Seat<'_>) -> Result<()> {
    let mode = seat.scope().trim_start_matches('-');
    for unit in UNITS {
        let verify = format!(
            "systemd-analyze {} verify --man=no /usr/lib/systemd/{mode}/{unit}",
            seat.scope()
        );
        let said = seat.run(&verify)?;
        assert_eq!(
            (said.text(), said.error_text()),
            (String::new(), String::new()),
            "{unit}"
        );
    }
    for socket in &UNITS[1..] {
        seat.systemctl(&format!("is-enabled {socket}"))?.success()?;
        assert_eq!(seat.active_state(socket)?, "active", "{socket}");
    }
    assert_eq!(
        seat.active_state("aegisd.service")?,
        "inactive",
        "before any use"
    );
    seat.aegis("doctor")?.success()?;
    let kits = seat.aegis_ok("kit list")?;
    assert!(
        kits.lines()
            .any(|line| line.starts_with("agent ") && line.contains(" ok ")),
        "{kits}"
    );
    Ok(())
}

/// Does something while every instance is used in each way there is, before, meanwhile and
/// after it.
#[expect(clippy::print_stdout, reason = "the counts are the test's report")]
fn under_load(running: &[Running<'_>], something: impl FnOnce() -> Result<String>) -> Result<()> {
    thread::scope(|scope| {
        let mut loads = Vec::new();
        for Running {
            seat,
            instance,
            port,
        } in running
        {
            loads.push(Load::begin(scope, *seat, instance.handle(), *port)?);
        }
        let get_on = |when: &str| {
            let mut all = loads.iter();
            all.try_for_each(|load| load.gets_on().context(when.to_owned()))
        };
        let done = get_on("before it")
            .and_then(|()| something())
            .and_then(|_| get_on("after it"));
        // Each user's own error says more than that it did not get on.
        for load in loads {
            for (what, count) in load.end()? {
                println!("{what} got on {count} times");
            }
        }
        done
    })?;
    let mut all = running.iter();
    all.try_for_each(|running| no_message_is_lost(running.seat, &running.instance))
}

/// An instance with a daemon, a port and a program that takes messages.
struct Running<'a> {
    seat: Seat<'a>,
    instance: Instance<'a>,
    port: u16,
}

/// What must not change under it, and aegisd, which does.
#[derive(Debug, PartialEq, Eq)]
struct Processes {
    qemu: Option<u32>,
    owner: Option<u32>,
    daemon: u32,
    aegisd: Option<u32>,
}

impl<'a> Running<'a> {
    fn start(seat: Seat<'a>) -> Result<Self> {
        let (handle, port) = match seat.user() {
            User::Alice => ("packaged", 18461),
            User::Root => ("packaged-system", 18462),
        };
        seat.aegis_ok("up")?;
        kit::install_compiled(seat, "echoing", "echo-agent")?;
        kit::install(seat, "echoing", &["api-daemon"])?;
        let flags = format!("--kit echoing --detach --expose {port}:80 -- {SERVES}");
        let instance = Instance::start(seat, handle, &flags)?;
        Ok(Self {
            seat,
            instance,
            port,
        })
    }

    fn look(&self) -> Result<Processes> {
        Ok(Processes {
            qemu: self.instance.qemu_pid()?,
            owner: self.seat.main_pid(&self.instance.vm_unit())?,
            daemon: self.instance.daemon_pid("api-daemon")?,
            aegisd: self.seat.main_pid("aegisd.service")?,
        })
    }

    /// Nothing but aegisd is another one, and that one is in charge.
    fn went_on(&self, old: &Processes) -> Result<()> {
        let new = self.look()?;
        assert!(
            old.qemu.is_some() && new.aegisd.is_some(),
            "{old:?} {new:?}"
        );
        assert_ne!(new.aegisd, old.aegisd);
        assert_eq!(
            (new.qemu, new.owner, new.daemon),
            (old.qemu, old.owner, old.daemon)
        );
        assert_eq!(self.instance.exec_ok("echo served")?, "served");
        assert_eq!(self.instance.state()?, "running");
        Ok(())
    }
}
