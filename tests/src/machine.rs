//! A machine: a real systemd as PID 1, in namespaces or with a kernel of its own,
//! side by side with others.
//!
//! `xtask` boots machines for `make shell` and `make test`; system tests take
//! the one they are given with [`Machine::shared`] or boot their own with
//! [`Machine::temporary`].
//!
//! ```text
//!            boot                      stop
//!  (nothing) ───► running ───────────────────► (nothing)
//!                  │  ▲ reboot: power off, then boot over the same files
//!                  └──┘
//! ```
//!
//! All of a machine is under `<cache>/machines/NAME` (its writable files, the
//! identity of its PID 1 or of its QEMU, its console). One in namespaces is in a
//! cgroup `aegisvm-NAME-...` too, and its mounts exist in its own mount namespace
//! only. A machine whose process is gone is taken for stopped, and what it left is
//! removed by the next boot.
//!
//! Namespaces boot in 2 s and lack only the controllers of control groups; a kernel
//! of its own ([`Machine::shared_with_own_kernel`]) takes ten times as long.

mod boot;
mod cgroup;
mod enter;
mod leader;
mod own_kernel;
mod root;
mod scratch;
mod software;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use enter::{Output, User, exit_code};
pub use root::Root;
pub use software::Changes;

use crate::cache;
use crate::install::Package;
use crate::wait::wait_until;
use cgroup::Cgroup;
use leader::Leader;
use own_kernel::Doors;

/// How long [`Machine::run`] lets a command take. Far above anything that
/// works, so that only a hang meets it.
const RUN_DEADLINE: Duration = Duration::from_secs(600);

/// How long services get to stop when the machine powers off, before its PID 1
/// is killed.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(30);

/// The supported generations of systemd, each with the Debian it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Systemd {
    /// systemd 252 in Debian 12.
    V252,
    /// systemd 257 in Debian 13.
    V257,
}

impl Systemd {
    /// The version as people write it.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::V252 => "252",
            Self::V257 => "257",
        }
    }

    /// The version called `number`.
    ///
    /// # Errors
    /// There is no root with that version.
    pub fn from_number(number: &str) -> Result<Self> {
        match number {
            "252" => Ok(Self::V252),
            "257" => Ok(Self::V257),
            other => bail!("no test machine has systemd {other}: use 257 or 252"),
        }
    }
}

/// A running machine. Dropping the value leaves the machine running.
#[derive(Debug)]
pub struct Machine {
    name: String,
    systemd: Systemd,
    directory: PathBuf,
    ground: Ground,
    leader: Leader,
}

/// What a machine stands on, and so how it is entered.
#[derive(Debug)]
enum Ground {
    /// Namespaces of the host's kernel; all its processes are in this group.
    Namespaces(Cgroup),
    /// A kernel of its own.
    OwnKernel(Doors),
}

impl Machine {
    /// The machine called `name` if it runs.
    ///
    /// # Errors
    /// The cache or the cgroup mount cannot be found.
    pub fn attach(name: &str) -> Result<Option<Self>> {
        let directory = directory_of(name)?;
        let Some(leader) = Leader::load(&directory.join("leader")) else {
            return Ok(None);
        };
        let number = fs::read_to_string(directory.join("systemd"))
            .with_context(|| format!("reading the systemd version of machine {name}"))?;
        let systemd = Systemd::from_number(number.trim())?;
        let ground = match Doors::of(&directory) {
            Some(doors) => Ground::OwnKernel(doors),
            None => Cgroup::of(&directory)?
                .map(Ground::Namespaces)
                .with_context(|| format!("machine {name} has no record of its cgroup"))?,
        };
        Ok(Some(Self {
            name: name.to_owned(),
            systemd,
            directory,
            ground,
            leader,
        }))
    }

    /// The machine called `name`, booted first if it does not run. Its root
    /// must be built ([`Root::build`]); AegisVM is installed in it as far as
    /// it is built.
    ///
    /// # Errors
    /// The machine does not come up, or one of that name has another systemd.
    pub fn ensure(name: &str, systemd: Systemd) -> Result<Self> {
        Self::ensure_over(name, &Root::of(systemd)?, boot::boot)
    }

    fn ensure_over(name: &str, root: &Root, boot: fn(&str, &Root) -> Result<Self>) -> Result<Self> {
        let systemd = root.systemd();
        let _lock = lock(name)?;
        match Self::attach(name)? {
            Some(machine) if machine.systemd == systemd => Ok(machine),
            Some(machine) => bail!(
                "machine {name} runs systemd {}, not {}; stop it first",
                machine.systemd.number(),
                systemd.number()
            ),
            None => {
                discard(name)?;
                boot(name, root)
            }
        }
    }

    /// The machine that `xtask test` booted for all system tests; if a test
    /// is run alone, a machine of the same kind that lives on.
    ///
    /// # Errors
    /// As [`Machine::ensure`], and a missing root cannot be built.
    pub fn shared(systemd: Systemd) -> Result<Self> {
        Self::shared_as("", systemd, boot::boot)
    }

    /// The like with a kernel of its own, whose control groups have all controllers.
    /// Commands in it get their input when there is all of it, and give their output
    /// when they have ended. It cannot be rebooted, and it is powered off as by a
    /// power cut.
    ///
    /// # Errors
    /// As [`Machine::shared`], and the guest kernel is not built.
    pub fn shared_with_own_kernel(systemd: Systemd) -> Result<Self> {
        Self::shared_as("KERNEL_", systemd, own_kernel::boot)
    }

    fn shared_as(
        kind: &str,
        systemd: Systemd,
        boot: fn(&str, &Root) -> Result<Self>,
    ) -> Result<Self> {
        let number = systemd.number();
        let name = std::env::var(format!("AEGIS_MACHINE_{kind}{number}"));
        let default = || format!("test-{}{number}", kind.to_lowercase().replace('_', "-"));
        let name = name.unwrap_or_else(|_| default());
        let root = Root::of(systemd)?;
        root.build()?;
        let machine = Self::ensure_over(&name, &root, boot)?;
        machine.update_software()?;
        Ok(machine)
    }

    /// A machine for one test, stopped when the value is dropped.
    ///
    /// # Errors
    /// As [`Machine::shared`].
    pub fn temporary(name: &str, systemd: Systemd) -> Result<Temporary> {
        Self::temporary_over(name, &Root::of(systemd)?)
    }

    /// The same over a root of the caller's choice. It cannot be rebooted.
    ///
    /// # Errors
    /// As [`Machine::shared`].
    pub fn temporary_over(name: &str, root: &Root) -> Result<Temporary> {
        Self::temporary_by(name, root, boot::boot)
    }

    /// The same as Debian is: without AegisVM, for the tests of its packages.
    ///
    /// # Errors
    /// As [`Machine::shared`].
    pub fn temporary_bare(name: &str, systemd: Systemd) -> Result<Temporary> {
        Self::temporary_by(name, &Root::of(systemd)?, boot::boot_bare)
    }

    fn temporary_by(
        name: &str,
        root: &Root,
        boot: fn(&str, &Root) -> Result<Self>,
    ) -> Result<Temporary> {
        root.build()?;
        if let Some(old) = Self::attach(name)? {
            old.stop()?;
        }
        Ok(Temporary(Some(Self::ensure_over(name, root, boot)?)))
    }

    /// The machine's name, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The systemd it runs.
    #[must_use]
    pub fn systemd(&self) -> Systemd {
        self.systemd
    }

    /// The pid on the host of its PID 1, or of its QEMU.
    #[must_use]
    pub fn leader_pid(&self) -> u32 {
        self.leader.pid()
    }

    /// The command that runs `line` by `sh -c` as `user` in the user's home
    /// directory. The caller sets its standard streams and starts it; killing
    /// it kills the shell in the machine.
    #[must_use]
    pub fn command(&self, user: User, line: &str) -> Command {
        self.command_with(user, &[], "sh", line)
    }

    /// As [`Machine::command`] with another shell and more environment.
    #[must_use]
    pub fn command_with(
        &self,
        user: User,
        extra: &[(&str, &str)],
        shell: &str,
        line: &str,
    ) -> Command {
        let argv = enter::argv(user, extra, shell, line);
        match &self.ground {
            Ground::Namespaces(cgroup) => enter::command(self.leader, &cgroup.enter_file(), &argv),
            Ground::OwnKernel(doors) => doors.command(self.leader, &argv),
        }
    }

    /// Runs `line` by `sh -c` to its end, without standard input.
    ///
    /// # Errors
    /// The command cannot be started or hangs. Its own failure is no error:
    /// see [`Output::success`].
    pub fn run(&self, user: User, line: &str) -> Result<Output> {
        self.run_with_input(user, line, &[])
    }

    /// As [`Machine::run`], with `input` as standard input.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_with_input(&self, user: User, line: &str, input: &[u8]) -> Result<Output> {
        let inner = self.command(user, line);
        let mut command = Command::new("timeout");
        command.arg(RUN_DEADLINE.as_secs().to_string());
        command.arg(inner.get_program()).args(inner.get_args());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("running timeout (coreutils)")?;
        let stdin = child.stdin.take();
        // A command that ends without reading all of its input is no error.
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
            child.wait_with_output()
        })
        .with_context(|| format!("waiting for `{line}`"))?;
        let output = Output {
            status: output.status,
            stdout: output.stdout,
            stderr: output.stderr,
        };
        if output.code() == 124 {
            bail!("`{line}` did not end within {} s", RUN_DEADLINE.as_secs());
        }
        Ok(output)
    }

    /// Writes a file as `user`, making the directories above it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_file(&self, user: User, path: &str, content: &[u8]) -> Result<()> {
        let line = format!("mkdir -p \"$(dirname '{path}')\" && cat >'{path}'");
        self.run_with_input(user, &line, content)?
            .success()
            .with_context(|| format!("writing {path} in machine {}", self.name))?;
        Ok(())
    }

    /// Reads a file with root's rights.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.run(User::Root, &format!("cat '{path}'"))?;
        output
            .success()
            .with_context(|| format!("reading {path} in machine {}", self.name))?;
        Ok(output.stdout)
    }

    /// Brings the installed AegisVM up to date with what is built, and restarts
    /// an aegisd that became old. Does nothing if nothing changed.
    ///
    /// # Errors
    /// A file cannot be put into the machine.
    pub fn update_software(&self) -> Result<Changes> {
        let _lock = lock(&self.name)?;
        software::update(self)
    }

    /// Installs a package that machines do not have from the beginning.
    ///
    /// # Errors
    /// It is not built, or a file cannot be put into the machine.
    pub fn install(&self, package: Package) -> Result<()> {
        let _lock = lock(&self.name)?;
        software::add(self, package)
    }

    /// Powers the machine off in order and boots it again over its files.
    ///
    /// # Errors
    /// It does not come up again.
    pub fn reboot(&mut self) -> Result<()> {
        let _lock = lock(&self.name)?;
        if let Ground::OwnKernel(_) = self.ground {
            bail!("machine {} keeps nothing of its disk", self.name);
        }
        self.power_off()?;
        *self = boot::boot(&self.name, &Root::of(self.systemd)?)?;
        Ok(())
    }

    /// Powers the machine off in order and removes all of it.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub fn stop(self) -> Result<()> {
        let _lock = lock(&self.name)?;
        self.power_off()?;
        discard(&self.name)
    }

    fn power_off(&self) -> Result<()> {
        let Ground::Namespaces(cgroup) = &self.ground else {
            return self.kill();
        };
        cgroup.kill_entered()?;
        // Its answer may be lost with the machine, so only the end counts.
        let asked = self
            .command(User::Root, "systemctl poweroff --no-block")
            .output();
        let gone = || Ok(!self.leader.alive());
        if asked.is_err()
            || wait_until(POWER_OFF_DEADLINE, "the machine to power off", gone).is_err()
        {
            cgroup.kill_entered()?;
            self.kill()?;
        }
        cgroup.remove()
    }

    /// Ends the machine at once, as a power cut would. The kernel ends every
    /// process of its pid namespace with its PID 1.
    fn kill(&self) -> Result<()> {
        let pid = i32::try_from(self.leader.pid()).context("a pid is at most 4194304")?;
        if self.leader.alive() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .with_context(|| format!("killing the process of machine {}", self.name))?;
        }
        wait_until(Duration::from_secs(10), "the killed machine to end", || {
            Ok(!self.leader.alive())
        })
    }
}

/// A machine that is stopped when this is dropped.
#[derive(Debug)]
pub struct Temporary(Option<Machine>);

impl Temporary {
    /// Stops the machine and says whether that worked; dropping cannot.
    ///
    /// # Errors
    /// As [`Machine::stop`].
    pub fn stop(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), Machine::stop)
    }
}

impl std::ops::Deref for Temporary {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        self.0.as_ref().expect("only stop and drop take it")
    }
}

impl std::ops::DerefMut for Temporary {
    fn deref_mut(&mut self) -> &mut Machine {
        self.0.as_mut().expect("only stop and drop take it")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(machine) = self.0.take()
            && let Err(error) = machine.stop()
        {
            // A drop has nobody to return it to; the next boot of this name cleans up.
            drop(error);
        }
    }
}

/// The names of all machines that run, in order.
///
/// # Errors
/// The cache directory cannot be read.
pub fn running() -> Result<Vec<String>> {
    let machines = cache::directory()?.join("machines");
    let mut names = Vec::new();
    if let Ok(entries) = fs::read_dir(&machines) {
        for entry in entries {
            let name = entry.with_context(|| format!("reading {}", machines.display()))?;
            if let Ok(name) = name.file_name().into_string()
                && Leader::load(&machines.join(&name).join("leader")).is_some()
            {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

fn directory_of(name: &str) -> Result<PathBuf> {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
        bail!("a machine's name is 1 to 40 letters, digits and '-', not {name:?}");
    }
    Ok(cache::directory()?.join("machines").join(name))
}

/// Holds the machine's state for one caller until the file is dropped.
fn lock(name: &str) -> Result<fs::File> {
    let directory = directory_of(name)?;
    let parent = directory.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let path = parent.join(format!("{name}.lock"));
    let file = fs::File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Removes what a stopped or dead machine left.
fn discard(name: &str) -> Result<()> {
    let directory = directory_of(name)?;
    if let Some(cgroup) = Cgroup::of(&directory)? {
        cgroup.remove()?;
    }
    root::remove_tree(&directory)
}
