//! Images in Debian's docker-registry, in a machine.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::instance::DEADLINE;
use crate::layout::{Layout, shell};
use crate::machine::User;
use crate::seat::Seat;
use crate::wait::wait_until;

/// Its program, which needs nothing but the C library.
const PROGRAM: &str = "/usr/bin/docker-registry";

/// A registry in a machine, as a unit of the seat's user.
#[derive(Debug)]
pub struct Registry<'a> {
    seat: Seat<'a>,
    port: u16,
}

impl<'a> Registry<'a> {
    /// A registry that has a layout's image under each of these names.
    ///
    /// # Errors
    /// It cannot be filled or does not start.
    pub fn start(seat: Seat<'a>, port: u16, layout: &Layout, names: &[&str]) -> Result<Self> {
        let files = Self::fill(layout, names)?;
        let this = Self { seat, port };
        let archive = Command::new("tar")
            .args(["-c", "-C"])
            .arg(files.path())
            .arg(".")
            .output()
            .context("running tar")?;
        let unpack = format!(
            "mkdir -p {0} && tar -x -C {0} --no-same-owner",
            this.folder()
        );
        let machine = seat.machine();
        machine
            .run_with_input(seat.user(), &unpack, &archive.stdout)?
            .success()?;
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}/store}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            this.folder()
        );
        let path = format!("{}/config.yml", this.folder());
        machine.write_file(seat.user(), &path, config.as_bytes())?;
        this.resume()?;
        Ok(this)
    }

    /// What comes before the name of an image of it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&self) -> Result<()> {
        let folder = self.folder();
        let line = format!(
            "systemd-run --user --quiet --collect --unit registry-{} {folder}/docker-registry serve {folder}/config.yml",
            self.port
        );
        self.seat.run(&line)?.success()?;
        wait_for_port(self.seat, self.port)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<()> {
        let unit = format!("stop registry-{}.service", self.port);
        self.seat.systemctl(&unit)?.success()?;
        Ok(())
    }

    fn folder(&self) -> String {
        let home = match self.seat.user() {
            User::Root => "/var/tmp",
            _ => self.seat.home(),
        };
        format!("{home}/registry-{}", self.port)
    }

    /// The files of a registry that has the image: filled on this host, by a registry
    /// that listens on a port that the kernel chooses.
    fn fill(layout: &Layout, names: &[&str]) -> Result<TempDir> {
        let folder = tempfile::tempdir().context("making a folder")?;
        fs::copy(PROGRAM, folder.path().join("docker-registry"))
            .with_context(|| format!("copying {PROGRAM}"))?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context("finding a free port")?
            .port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/store}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("config.yml"), config).context("writing config.yml")?;
        let mut server = Command::new(PROGRAM)
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            // It tells of each request.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("running docker-registry")?;
        let from = layout.path();
        let copied = names.iter().try_for_each(|name| {
            let copy = format!(
                "skopeo copy --quiet --retry-times 5 --dest-tls-verify=false \
                 oci:{}:v1 docker://127.0.0.1:{port}/{name}",
                from.display()
            );
            shell(folder.path(), &copy)
        });
        server.kill().context("ending the registry")?;
        server.wait().context("waiting for the registry")?;
        copied.map(|()| folder)
    }
}

/// A slow connection to a registry, as a unit of the seat's user.
#[derive(Debug)]
pub struct SlowRegistry<'a> {
    seat: Seat<'a>,
    port: u16,
    behind: u16,
    rate: u32,
}

impl<'a> SlowRegistry<'a> {
    /// Bytes a second of each connection to a registry, by way of another port.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(registry: &Registry<'a>, port: u16, rate: u32) -> Result<Self> {
        let this = Self {
            seat: registry.seat,
            port,
            behind: registry.port,
            rate,
        };
        let proxy = include_bytes!("../clients/slow_proxy.py");
        let machine = this.seat.machine();
        machine.write_file(this.seat.user(), SLOW_PROXY, proxy)?;
        this.resume()?;
        Ok(this)
    }

    /// What comes before the name of an image of it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Lets it be reached again.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&self) -> Result<()> {
        let Self {
            port, behind, rate, ..
        } = self;
        let line = format!(
            "systemd-run --user --quiet --collect --unit slow-{port} \
             python3 {SLOW_PROXY} {port} {behind} {rate}"
        );
        self.seat.run(&line)?.success()?;
        wait_for_port(self.seat, self.port)
    }

    /// Cuts all connections, and lets nobody connect.
    ///
    /// # Errors
    /// It does not end.
    pub fn cut(&self) -> Result<()> {
        let line = format!("kill --signal=KILL slow-{0}.service", self.port);
        self.seat.systemctl(&line)?.success()?;
        let unit = format!("slow-{}.service", self.port);
        wait_until(DEADLINE, "the connection to be cut", || {
            Ok(self.seat.active_state(&unit)? == "inactive")
        })
    }

    /// The paths that were asked for, in order.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn requests(&self) -> Result<Vec<String>> {
        let said = self
            .seat
            .journal(&format!("slow-{}.service", self.port), "cat")?;
        let path = |line: &str| Some(line.strip_prefix("GET ")?.split(' ').next()?.to_owned());
        Ok(said.lines().filter_map(path).collect())
    }
}

/// Where its program is in a machine.
const SLOW_PROXY: &str = "/tmp/slow_proxy.py";

/// Waits until somebody listens at a port of loopback.
///
/// # Errors
/// Nobody does.
pub fn wait_for_port(seat: Seat<'_>, port: u16) -> Result<()> {
    let asks =
        format!("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))'");
    wait_until(DEADLINE, "a port to listen", || {
        Ok(seat.run(&asks)?.code() == 0)
    })
}
