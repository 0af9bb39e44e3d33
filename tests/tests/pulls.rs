//! Pulls that are ended, cut off and starved half way, and what they leave.

use std::process::{Child, Stdio};

use aegis_fault_points::{ORDER, SWITCH};
use aegis_tests::instance::DEADLINE;
use aegis_tests::layout::Layout;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::registry::{Registry, SlowRegistry};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, ensure};

/// Where connections are slow enough for a pull to be met half way.
const SLOW_PORT: u16 = 5100;
/// Of each connection, in bytes a second: a pull takes two seconds.
const RATE: u32 = 6_000_000;

/// Two layers above the base that no program packs smaller.
fn large() -> Result<Layout> {
    let layers = [
        "head -c 12000000 /dev/urandom >data",
        "head -c 6000000 /dev/urandom >more",
    ];
    Layout::make(&layers, "--config.cmd id")
}

/// A pull by the client, which goes on beside the test.
struct Pull(Child);

impl Pull {
    fn begin(seat: Seat<'_>, slow: &SlowRegistry<'_>, tag: &str) -> Result<Self> {
        let host = slow.host();
        let line = format!("exec aegisctl image pull {host}/{tag} --insecure-registry {host}");
        let mut command = seat.machine().command(seat.user(), &line);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.stderr(Stdio::piped()).spawn();
        child.map(Self).context("starting a pull")
    }

    /// Begins one and waits until it has a part of a layer.
    fn half_way(seat: Seat<'_>, slow: &SlowRegistry<'_>, tag: &str) -> Result<Self> {
        let pull = Self::begin(seat, slow, tag)?;
        let part = format!("find {}/images/work -name '*.blob' -size +1M", seat.home());
        wait_until(DEADLINE, "a part of a layer", || {
            let found = seat.machine().run(User::Root, &part)?;
            Ok(!found.text().is_empty())
        })?;
        Ok(pull)
    }

    /// Whether the client was content, and its words.
    fn end(self) -> Result<(bool, String)> {
        let ended = self.0.wait_with_output().context("waiting for a pull")?;
        let words = String::from_utf8_lossy(&ended.stderr).into_owned();
        Ok((ended.status.success(), words))
    }

    fn succeed(self) -> Result<()> {
        let (succeeded, words) = self.end()?;
        ensure!(succeeded, "{words}");
        Ok(())
    }

    fn fail(self, symbol: &str) -> Result<()> {
        let (succeeded, words) = self.end()?;
        ensure!(!succeeded && words.contains(symbol), "{words}");
        Ok(())
    }
}

/// Nothing runs, nothing is under way, and no image is shown.
fn assert_nothing_came(seat: Seat<'_>) -> Result<()> {
    let pulls = "list-units --plain --no-legend 'aegis-pull-*'";
    wait_until(DEADLINE, "the pull to end", || {
        Ok(seat.systemctl(pulls)?.text().is_empty())
    })?;
    let left = format!("ls -A {}/images/work", seat.home());
    assert_eq!(seat.run(&left)?.success()?, "");
    assert_eq!(seat.aegis_ok("image list --quiet")?, "");
    Ok(())
}

fn wait_for_image(seat: Seat<'_>) -> Result<()> {
    wait_until(DEADLINE, "the image to be listed", || {
        Ok(!seat.aegis_ok("image list --quiet")?.is_empty())
    })
}

/// Blobs were asked for once each, but for those that the store had.
fn assert_each_once(slow: &SlowRegistry<'_>, before: usize) -> Result<()> {
    let requests = slow.requests()?.split_off(before);
    let layers = requests.iter().filter(|path| path.contains("/blobs/"));
    let mut layers: Vec<&String> = layers.collect();
    layers.sort();
    let all = layers.len();
    layers.dedup();
    // The configuration comes with each look at the manifest.
    assert!(all - layers.len() <= 1, "{requests:#?}");
    assert_eq!(layers.len(), 4, "{requests:#?}");
    Ok(())
}

fn forget(seat: Seat<'_>) -> Result<()> {
    seat.aegis_ok("image prune --all")?;
    assert_nothing_came(seat)
}

#[test]
fn a_pull_may_end_half_way() -> Result<()> {
    half_way(Systemd::V257, |machine| Seat::alice(machine))
}

#[test]
fn a_pull_may_end_half_way_in_system_mode_on_252() -> Result<()> {
    half_way(Systemd::V252, |machine| Seat::root(machine))
}

fn half_way(systemd: Systemd, seat: impl Fn(&Machine) -> Seat<'_>) -> Result<()> {
    let machine = Machine::temporary(&format!("pulls-{}", systemd.number()), systemd)?;
    let seat = seat(&machine);
    let registry = Registry::start(Seat::alice(&machine), 5000, &large()?, &["app:v1"])?;
    let slow = SlowRegistry::start(&registry, SLOW_PORT, RATE)?;
    let tag = "app:v1";

    // Cancelled on D-Bus.
    let pull = Pull::half_way(seat, &slow, tag)?;
    let scope = seat.scope();
    let cancel = format!(
        "job=$(busctl {scope} tree --list org.aegisvm.Aegis1 | grep /job/ | tail -n 1) && \
         busctl {scope} call org.aegisvm.Aegis1 $job org.aegisvm.Aegis1.Job Cancel"
    );
    seat.run(&cancel)?.success()?;
    pull.fail("Cancelled")?;
    assert_nothing_came(seat)?;

    // Killed.
    let pull = Pull::half_way(seat, &slow, tag)?;
    seat.systemctl("kill --signal=KILL 'aegis-pull-*.service'")?
        .success()?;
    pull.fail("journalctl")?;
    assert_nothing_came(seat)?;

    // The client is interrupted, which ends no pull.
    let mut pull = Pull::half_way(seat, &slow, tag)?;
    seat.run("pkill --exact --signal INT aegisctl")?.success()?;
    pull.0.wait().context("waiting for the client")?;
    wait_for_image(seat)?;
    forget(seat)?;

    // aegisd is killed, which ends none either: the client asks anew, and what comes
    // then waits for the layers that are under way.
    let before = slow.requests()?.len();
    let pull = Pull::half_way(seat, &slow, tag)?;
    seat.kill_aegisd()?;
    pull.succeed()?;
    wait_for_image(seat)?;
    assert_each_once(&slow, before)?;
    forget(seat)?;

    // Two at once.
    let before = slow.requests()?.len();
    let pulls = [
        Pull::half_way(seat, &slow, tag)?,
        Pull::begin(seat, &slow, tag)?,
    ];
    for pull in pulls {
        pull.succeed()?;
    }
    assert_each_once(&slow, before)?;
    forget(seat)?;

    // The registry goes and comes back.
    let pull = Pull::half_way(seat, &slow, tag)?;
    slow.cut()?;
    slow.resume()?;
    pull.succeed()?;
    let run = format!("run --image {}/{tag} -- stat -c %s /data", slow.host());
    assert_eq!(seat.aegis_ok(&run)?, "12000000");
    Ok(())
}

#[test]
fn a_pull_may_find_the_disk_full() -> Result<()> {
    let machine = Machine::temporary("pulls-full", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let registry = Registry::start(seat, 5000, &large()?, &["app:v1"])?;
    let slow = SlowRegistry::start(&registry, SLOW_PORT, RATE)?;
    let tag = "app:v1";
    seat.aegis_ok("image list")?;
    let images = format!("{}/images", seat.home());
    let mount = |size: &str| -> Result<()> {
        seat.systemctl("stop aegisd.service")?.success()?;
        let line = format!(
            "umount -q '{images}'; mount -t tmpfs -o uid=1000,mode=700,size={size} full '{images}'"
        );
        machine.run(User::Root, &line)?.success()?;
        Ok(())
    };

    // There is too little to begin with.
    mount("24M")?;
    let pull = Pull::begin(seat, &slow, tag)?;
    pull.fail("NoSpace")?;
    assert_nothing_came(seat)?;

    // Somebody else takes it half way.
    mount("64M")?;
    let pull = Pull::half_way(seat, &slow, tag)?;
    let fill = format!("head -c 100M /dev/zero >'{images}/filler'");
    seat.run(&fill)?;
    pull.fail("NoSpace")?;
    assert_nothing_came(seat)?;
    seat.run(&format!("rm '{images}/filler'"))?.success()?;
    let pull = Pull::begin(seat, &slow, tag)?;
    pull.succeed()?;
    seat.aegis_ok(&format!("run --image {}/{tag} -- true", slow.host()))?;
    Ok(())
}

#[test]
fn a_pull_is_seen_by_the_aegisd_after_the_one_that_began_it() -> Result<()> {
    let machine = Machine::temporary("pulls-seen", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    Layout::make(&[], "--config.cmd id")?.put(seat, "small")?;
    seat.systemctl(&format!("set-environment {SWITCH}=1"))?
        .success()?;
    seat.aegis_ok("image list")?;
    // Before it has made anything by which it could be found.
    let order = format!("{}/images/{ORDER}", seat.home());
    machine.write_file(seat.user(), &order, b"hold store.work before 1")?;
    seat.run("systemd-run --user --quiet --unit puller aegisctl image pull oci:small")?
        .success()?;
    wait_until(DEADLINE, "the pull to hold", || {
        Ok(seat.run(&format!("test -e '{order}'"))?.code() != 0)
    })?;
    seat.systemctl("kill --signal=KILL puller.service")?
        .success()?;
    seat.kill_aegisd()?;
    assert_eq!(seat.aegis_ok("image list --quiet")?, "");
    seat.systemctl("kill --signal=CONT 'aegis-pull-*.service'")?
        .success()?;
    wait_for_image(seat)?;
    Ok(())
}
