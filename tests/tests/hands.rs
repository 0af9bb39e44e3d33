//! What people do with systemctl, row by row of the table in docs/UNITS.md: the
//! table is the expectation, so the two cannot drift apart.

use std::fs;

use aegis_tests::cache;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, bail, ensure};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    unit: String,
    vm_runs: bool,
    act: String,
    becomes: Outcome,
}

/// What comes of an act, in the words of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    vm: String,
    sockets: String,
    daemon: String,
    by_systemctl: String,
}

/// The table of docs/UNITS.md with seven columns.
fn table() -> Result<Vec<Row>> {
    let path = cache::repository().join("docs/UNITS.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let rows = rows.filter(|row| row.len() == 7).skip(2);
    let rows: Vec<Row> = rows
        .map(|row| {
            let [unit, vm, act, becomes @ ..] = row.as_slice() else {
                bail!("no row: {row:?}");
            };
            let [vm_becomes, sockets, daemon, by_systemctl] = becomes else {
                bail!("no row: {row:?}");
            };
            Ok(Row {
                unit: unit.clone(),
                vm_runs: vm == "runs",
                act: act.clone(),
                becomes: Outcome {
                    vm: vm_becomes.clone(),
                    sockets: sockets.clone(),
                    daemon: daemon.clone(),
                    by_systemctl: by_systemctl.clone(),
                },
            })
        })
        .collect::<Result<_>>()?;
    ensure!(rows.len() > 40, "the table has {} rows only", rows.len());
    Ok(rows)
}

/// An instance with a daemon, and what it was before an act.
struct Scene<'a> {
    seat: Seat<'a>,
    instance: Instance<'a>,
    qemu: Option<u32>,
    daemon: u32,
}

impl<'a> Scene<'a> {
    fn new(seat: Seat<'a>) -> Result<Self> {
        kit::install(seat, "shell", &["shell-gateway"])?;
        let instance = Instance::start(seat, "hands", "--kit shell")?;
        Ok(Self {
            qemu: None,
            daemon: instance.daemon_pid("gateway")?,
            seat,
            instance,
        })
    }

    /// Begins a row: all is there, and the VM runs or sleeps.
    fn set(&mut self, vm_runs: bool) -> Result<()> {
        if self.seat.active_state(&self.instance.socket_unit())? != "active" {
            // A VM without its sockets has to end before they can be made again.
            self.instance.act("stop")?;
        }
        if vm_runs {
            self.instance.start_again()?;
        } else {
            self.instance.act("stop")?;
            self.instance.act("enable")?;
        }
        self.qemu = self.instance.qemu_pid()?;
        ensure!(self.qemu.is_some() == vm_runs, "the VM is not as wanted");
        self.daemon = self.instance.daemon_pid("gateway")?;
        ensure!(self.look()?.by_systemctl == "–", "something is still noted");
        Ok(())
    }

    fn unit(&self, unit: &str) -> Result<String> {
        Ok(match unit {
            "VM" => self.instance.vm_unit(),
            "sockets" => self.instance.socket_unit(),
            "daemon" => self.instance.daemon_unit("gateway"),
            "slice" => self.instance.slice(),
            "aegis.slice" => "aegis.slice".to_owned(),
            "aegisd" => "aegisd.service".to_owned(),
            "manager" => String::new(),
            other => bail!("no unit is called {other}"),
        })
    }

    fn act(&self, row: &Row) -> Result<()> {
        let unit = self.unit(&row.unit)?;
        let on_unit = |verb: &str| self.seat.systemctl(&format!("{verb} '{unit}'"));
        match row.act.split_once(", then ") {
            Some((first, then)) => {
                on_unit(first)?.success()?;
                self.wait_for(&Outcome {
                    vm: "stopped".into(),
                    daemon: "stopped".into(),
                    sockets: if row.unit == "slice" {
                        "closed"
                    } else {
                        "listening"
                    }
                    .into(),
                    by_systemctl: if row.unit == "slice" {
                        "daemon, sockets"
                    } else {
                        "daemon"
                    }
                    .into(),
                })?;
                match then {
                    "a new manager" => self.new_manager()?,
                    "start" => drop(on_unit("start")?.success()?),
                    verb => drop(self.seat.systemctl(verb)?.success()?),
                }
            }
            None if row.act == "stop without aegisd" => {
                // Only its own unit, so that nothing starts it again meanwhile.
                self.seat.systemctl("stop aegisd.service")?.success()?;
                on_unit("stop")?.success()?;
            }
            // Of a unit without processes systemctl says that there are none.
            None if row.act.starts_with("kill") => drop(on_unit(&row.act)?),
            // A socket cannot be started while its service runs.
            None if row.unit == "sockets" && row.act == "restart" && row.vm_runs => {
                ensure!(on_unit("restart")?.code() != 0, "it was not refused");
            }
            None if row.unit == "manager" => drop(self.seat.systemctl(&row.act)?.success()?),
            None => drop(on_unit(&row.act)?.success()?),
        }
        self.seat.wait_for_aegisd()
    }

    /// Another run of the service manager: the user's, since the machine's own is
    /// another machine.
    fn new_manager(&self) -> Result<()> {
        let machine = self.seat.machine();
        let restart = "systemctl restart user@1000.service";
        machine.run(User::Root, restart)?.success()?;
        Ok(())
    }

    /// What there is now, in the words of the table.
    fn look(&self) -> Result<Outcome> {
        let word = |before: Option<u32>, now: Option<u32>| match now {
            None => "stopped",
            Some(_) if now == before => "same",
            Some(_) => "anew",
        };
        let daemon_unit = self.instance.daemon_unit("gateway");
        let daemon = self.seat.main_pid(&daemon_unit)?;
        let daemon = match self.seat.unit_property(&daemon_unit, "SubState")?.as_str() {
            "exited" => "exited",
            _ => word(Some(self.daemon), daemon),
        };
        let sockets = match self
            .seat
            .active_state(&self.instance.socket_unit())?
            .as_str()
        {
            "active" => "listening",
            _ => "closed",
        };
        let running = self.seat.active_state(&self.instance.vm_unit())? == "active";
        let qemu = self.instance.qemu_pid()?.filter(|_| running);
        Ok(Outcome {
            vm: word(self.qemu, qemu).to_owned(),
            sockets: sockets.to_owned(),
            daemon: daemon.to_owned(),
            by_systemctl: self.noted()?,
        })
    }

    /// What `info` lists as stopped by systemctl.
    fn noted(&self) -> Result<String> {
        let info = self.instance.info()?;
        let mut noted: Vec<&str> = info
            .lines()
            .filter_map(|line| line.strip_prefix("Stopped:")?.split_once(','))
            .map(|(unit, _)| match unit.trim() {
                unit if unit.ends_with(".socket") => "sockets",
                unit if unit.contains(':') => "daemon",
                unit if unit.starts_with("aegis-vm-") => "VM",
                unit => unit,
            })
            .collect();
        noted.sort_unstable();
        // The ports and the API of its daemons are sockets of two units.
        noted.dedup();
        Ok(match noted.is_empty() {
            true => "–".to_owned(),
            false => noted.join(", "),
        })
    }

    fn wait_for(&self, expected: &Outcome) -> Result<()> {
        let mut found = None;
        wait_until(DEADLINE, &format!("{expected:?}"), || {
            let now = self.look()?;
            let as_expected = now == *expected;
            found = Some(now);
            Ok(as_expected)
        })
        .with_context(|| format!("it is {found:?}"))
    }

    /// A row, and that all of it can be had back by a start.
    fn run(&mut self, row: &Row) -> Result<()> {
        self.set(row.vm_runs).context("before the act")?;
        self.act(row).context("the act")?;
        self.wait_for(&row.becomes)?;
        // Other work makes aegisd look at everything; what is settled stays so.
        self.seat.aegis_ok("instance enable hands-other")?;
        ensure!(self.look()? == row.becomes, "it did not stay so");
        if row.becomes.vm == "same" && row.becomes.sockets == "closed" {
            let refused = self.seat.aegis("instance start --name hands")?;
            ensure!(refused.code() != 0, "a start says that all is well");
            self.instance.act("stop")?;
        }
        self.instance.start_again().context("starting it again")?;
        ensure!(self.instance.exec_ok("echo back")? == "back");
        let whole = self.look()?;
        ensure!(whole.sockets == "listening" && whole.by_systemctl == "–");
        ensure!(
            self.seat
                .main_pid(&self.instance.daemon_unit("gateway"))?
                .is_some()
        );
        Ok(())
    }
}

/// Does rows and tells all that went wrong.
fn do_rows(seat: Seat<'_>, wanted: impl Fn(&Row) -> bool) -> Result<()> {
    let rows: Vec<Row> = table()?.into_iter().filter(wanted).collect();
    ensure!(!rows.is_empty(), "no row is wanted");
    let mut scene = Scene::new(seat)?;
    // Something else to do for aegisd.
    let other = Instance::start(seat, "hands-other", "")?;
    other.act("stop")?;
    let mut failures = Vec::new();
    for row in &rows {
        if let Err(error) = scene.run(row) {
            let info = scene.instance.info().unwrap_or_default();
            failures.push(format!("{row:?}: {error:#}\n{info}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// Rows that show each rule once, for the other generations and modes.
fn is_essential(row: &Row) -> bool {
    let shown = [
        ("VM", true, "stop"),
        ("VM", true, "kill"),
        ("VM", true, "kill -s KILL"),
        ("sockets", true, "stop"),
        ("sockets", false, "restart"),
        ("daemon", false, "stop"),
        ("daemon", false, "kill -s KILL"),
        ("slice", true, "stop"),
        ("slice", false, "stop, then start"),
        ("daemon", false, "stop, then daemon-reload"),
        ("daemon", false, "stop, then daemon-reexec"),
        ("slice", true, "stop without aegisd"),
    ];
    shown.contains(&(row.unit.as_str(), row.vm_runs, row.act.as_str()))
}

#[test]
fn every_row_of_the_table_comes_true() -> Result<()> {
    let machine = Machine::temporary("test-hands", Systemd::V257)?;
    do_rows(Seat::alice(&machine), |_| true)
}

#[test]
fn the_essential_rows_come_true_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-hands-252", Systemd::V252)?;
    do_rows(Seat::alice(&machine), is_essential)
}

#[test]
fn the_essential_rows_come_true_in_system_mode() -> Result<()> {
    let machine = Machine::temporary("test-hands-system", Systemd::V257)?;
    do_rows(Seat::root(&machine), is_essential)
}
