//! A network around a machine: a host beside it, in a network namespace of the machine's
//! own, that has one address of each class. Nothing of it leaves the machine.
//!
//! ```text
//!   machine  198.51.100.2 ─── 198.51.100.1  the outside: public and inner addresses
//!            2606:2800::2 ─── 2606:2800::1  with the same servers on all of them
//! ```

use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::{Machine, User};
use crate::wait::wait_until;

/// Public addresses of the outside.
pub const PUBLIC: [&str; 2] = ["93.184.215.14", "2606:2800:21f::14"];
/// Its addresses that are not public: a private, a link-local, a shared one, those where
/// clouds keep metadata, and the like of IPv6.
pub const INNER: [&str; 8] = [
    "10.9.9.9",
    "192.168.9.9",
    "169.254.169.254",
    "100.64.0.9",
    "168.63.129.16",
    "fd00:9::9",
    "fd00:ec2::254",
    "64:ff9b::808:808",
];
/// The machine's own addresses, the first two public to look at.
pub const OWN: [&str; 2] = ["93.184.215.1", "2606:2800::2"];

/// What comes before a command that runs there.
pub(crate) const PLACE: &str = "ip netns exec outside";
/// Where the servers write what came to UDP port 9.
const LOG: &str = "/run/outside.log";
const DEADLINE: Duration = Duration::from_secs(60);

/// The outside of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a>(&'a Machine);

impl<'a> Outside<'a> {
    /// Lays the network and starts its servers.
    ///
    /// # Errors
    /// Something of it cannot be made.
    pub fn lay(machine: &'a Machine) -> Result<Self> {
        let outside = Self(machine);
        let addresses = PUBLIC.iter().chain(&INNER).map(|address| {
            let bits = if address.contains(':') { 128 } else { 32 };
            format!(
                "ip netns exec outside ip addr add {address}/{bits} dev lo {}\n",
                nodad(address)
            )
        });
        let own = format!("ip addr add {}/32 dev lo\n", OWN[0]);
        let script = format!(
            "set -e
ip netns add outside
ip link add uplink type veth peer name inner netns outside
ip netns exec outside ip link set lo up
ip netns exec outside ip addr add 198.51.100.1/24 dev inner
ip netns exec outside ip addr add 2606:2800::1/64 dev inner nodad
ip netns exec outside ip link set inner up
{}{own}",
            addresses.collect::<String>()
        );
        outside.root(&script)?;
        outside.connect()?;
        let client = include_bytes!("../clients/outside.py");
        machine.write_file(User::Root, "/srv/outside.py", client)?;
        outside.server("outside", PLACE, &format!("serve {LOG}"))?;
        outside.server("inside", "", "serve /run/inside.log")?;
        wait_until(DEADLINE, "the outside to answer", || {
            let line = format!("curl -s --http0.9 --max-time 2 http://{}/", PUBLIC[0]);
            Ok(machine.run(User::Root, &line)?.text().contains("outside"))
        })?;
        Ok(outside)
    }

    /// The machine that it is around.
    #[must_use]
    pub fn machine(&self) -> &'a Machine {
        self.0
    }

    /// Gives it another public address of IPv4.
    ///
    /// # Errors
    /// It has it already.
    pub fn add_address(&self, address: &str) -> Result<()> {
        self.root(&format!("{PLACE} ip addr add {address}/32 dev lo"))
    }

    /// Gives the machine its way out.
    ///
    /// # Errors
    /// It cannot be given.
    pub fn connect(&self) -> Result<()> {
        self.root(
            "set -e
ip link set uplink up
ip addr replace 198.51.100.2/24 dev uplink
ip addr replace 2606:2800::2/64 dev uplink nodad
ip route replace default via 198.51.100.1
ip -6 route replace default via 2606:2800::1",
        )
    }

    /// Takes it away.
    ///
    /// # Errors
    /// It cannot be taken.
    pub fn disconnect(&self) -> Result<()> {
        self.root("ip route del default; ip -6 route del default; true")
    }

    /// Starts a name server at an address of the outside, or of the machine's loopback.
    ///
    /// # Errors
    /// It does not start.
    pub fn name_server(&self, address: &str, answer: &str) -> Result<()> {
        let place = match address.starts_with("127.") {
            true => "",
            false => PLACE,
        };
        let unit = format!("names-{}", address.replace('.', "-"));
        self.server(&unit, place, &format!("names {address} {answer}"))?;
        wait_until(DEADLINE, "the name server to listen", || {
            let listens = self.0.run(
                User::Root,
                &format!("{place} ss -Hltn | grep -q '{address}:53 '"),
            )?;
            Ok(listens.status.success())
        })
    }

    /// What came to the outside's UDP port 9.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn datagrams(&self) -> Result<String> {
        let log = self.0.run(User::Root, &format!("cat {LOG}"))?;
        log.success()
    }

    fn server(&self, unit: &str, place: &str, arguments: &str) -> Result<()> {
        self.root(&format!(
            "systemd-run --quiet --unit={unit} {place} python3 /srv/outside.py {arguments}"
        ))
    }

    fn root(&self, script: &str) -> Result<()> {
        let done = self.0.run(User::Root, script)?.success();
        done.map(drop).with_context(|| script.to_owned())
    }
}

fn nodad(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}
