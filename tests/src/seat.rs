//! A user's seat at a machine: the client, the service manager and the files of
//! one user, so that a test body runs unchanged in user and in system mode.

use anyhow::{Context, Result, bail};

use crate::instance::DEADLINE;
use crate::machine::{Machine, Output, User};
use crate::wait::wait_until;

/// One user of one machine. Alice's seat means user mode, root's system mode.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    machine: &'a Machine,
    user: User,
}

/// A process of a unit, with its id in the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command name, at most 15 bytes (comm of proc_pid_stat(5)).
    pub name: String,
}

impl<'a> Seat<'a> {
    /// Alice's seat: user mode.
    #[must_use]
    pub fn alice(machine: &'a Machine) -> Self {
        Self {
            machine,
            user: User::Alice,
        }
    }

    /// Root's seat: system mode.
    #[must_use]
    pub fn root(machine: &'a Machine) -> Self {
        Self {
            machine,
            user: User::Root,
        }
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &'a Machine {
        self.machine
    }

    /// Who sits here.
    #[must_use]
    pub fn user(&self) -> User {
        self.user
    }

    /// Registry, instances and workspaces.
    #[must_use]
    pub fn home(&self) -> &'static str {
        match self.user {
            User::Alice => "/home/alice/.aegis",
            User::Root => "/var/lib/aegis",
        }
    }

    /// Kit manifests and the config of daemons.
    #[must_use]
    pub fn kits(&self) -> &'static str {
        match self.user {
            User::Alice => "/home/alice/.aegis/kits",
            User::Root => "/etc/aegis/kits",
        }
    }

    /// Sockets.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        match self.user {
            User::Alice => "/run/user/1000/aegis",
            User::Root => "/run/aegis",
        }
    }

    /// The option of `systemctl`, `busctl` and `journalctl` that means this
    /// user's service manager.
    #[must_use]
    pub fn scope(&self) -> &'static str {
        match self.user {
            User::Alice => "--user",
            User::Root => "--system",
        }
    }

    /// Runs a shell line.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run(&self, line: &str) -> Result<Output> {
        self.machine.run(self.user, line)
    }

    /// Runs the client; `arguments` is a part of a shell line.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn aegis(&self, arguments: &str) -> Result<Output> {
        self.run(&format!("aegisctl {arguments}"))
    }

    /// Runs the client, which must succeed, and gives its standard output.
    ///
    /// # Errors
    /// The client cannot be run or fails.
    pub fn aegis_ok(&self, arguments: &str) -> Result<String> {
        self.aegis(arguments)?
            .success()
            .with_context(|| format!("aegisctl {arguments}"))
    }

    /// Runs `systemctl` for this user's service manager.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn systemctl(&self, arguments: &str) -> Result<Output> {
        self.run(&format!("systemctl {} {arguments}", self.scope()))
    }

    /// A property of a unit as `systemctl show` prints it.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub fn unit_property(&self, unit: &str, property: &str) -> Result<String> {
        self.systemctl(&format!("show --property={property} --value '{unit}'"))?
            .success()
    }

    /// The `ActiveState` of a unit; `inactive` if there is none of that name.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub fn active_state(&self, unit: &str) -> Result<String> {
        self.unit_property(unit, "ActiveState")
    }

    /// The pid of a unit's main process, `None` while it has none.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub fn main_pid(&self, unit: &str) -> Result<Option<u32>> {
        let text = self.unit_property(unit, "MainPID")?;
        Ok(text.parse().ok().filter(|&pid| pid != 0))
    }

    /// Every process below a unit's control group.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub fn processes(&self, unit: &str) -> Result<Vec<Process>> {
        let group = self.unit_property(unit, "ControlGroup")?;
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let line = format!(
            "for pid in $(find '/sys/fs/cgroup{group}' -name cgroup.procs -exec cat {{}} + 2>/dev/null)
             do name=$(cat /proc/$pid/comm 2>/dev/null) && echo $pid $name; done; true"
        );
        let text = self.machine.run(User::Root, &line)?.success()?;
        let mut processes = text
            .lines()
            .map(|line| {
                let (pid, name) = line.split_once(' ').context("a pid and a name")?;
                Ok(Process {
                    pid: pid.parse().context("a pid")?,
                    name: name.to_owned(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        processes.sort();
        Ok(processes)
    }

    /// The names of our loaded units but for aegisd's own, in order.
    ///
    /// # Errors
    /// The service manager does not answer.
    pub fn units(&self) -> Result<Vec<String>> {
        let listed = self
            .systemctl("list-units --all --no-legend --plain 'aegis-*'")?
            .success()?;
        let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
        Ok(listed.lines().filter_map(name).collect())
    }

    /// What a unit wrote to the journal, as `format` of journalctl(1), of which
    /// `cat` is one message a line.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn journal(&self, unit: &str, format: &str) -> Result<String> {
        let option = match self.user {
            User::Alice => "--user-unit",
            User::Root => "--unit",
        };
        self.run(&format!(
            "journalctl --quiet --output={format} {option}='{unit}'"
        ))?
        .success()
    }

    /// Ends aegisd the hard way.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_aegisd(&self) -> Result<()> {
        let Some(pid) = self.main_pid("aegisd.service")? else {
            bail!("aegisd does not run");
        };
        self.run(&format!("kill -KILL {pid}"))?.success()?;
        Ok(())
    }

    /// Keeps a secret.
    ///
    /// # Errors
    /// The client refuses it.
    pub fn set_secret(&self, name: &str, value: &str) -> Result<()> {
        let line = format!("aegisctl secret set {name}");
        let machine = self.machine();
        let set = machine.run_with_input(self.user(), &line, value.as_bytes())?;
        set.success().map(drop)
    }

    /// Waits until aegisd answers; calling it starts it if it does not run.
    ///
    /// # Errors
    /// It does not answer.
    pub fn wait_for_aegisd(&self) -> Result<()> {
        // A bus call to an activatable name waits for its owner by itself, but one
        // may still reach an aegisd that was killed a moment ago.
        let ping = "org.aegisvm.Aegis1 /org/aegisvm/Aegis1 org.freedesktop.DBus.Peer Ping";
        let line = format!("busctl {} call {ping}", self.scope());
        wait_until(DEADLINE, "aegisd to answer", || {
            Ok(self.run(&line)?.code() == 0)
        })
    }

    /// Calls a method of the manager object with `busctl` and gives what it prints.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn call_manager(&self, method_and_arguments: &str) -> Result<Output> {
        self.run(&format!(
            "busctl {} -- call org.aegisvm.Aegis1 /org/aegisvm/Aegis1 \
             org.aegisvm.Aegis1.Manager {method_and_arguments}",
            self.scope()
        ))
    }
}

/// `text` as one word of a shell line.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
