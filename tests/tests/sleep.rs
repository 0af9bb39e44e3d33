//! Sleep: what nobody needs is paused, then hibernated; any use wakes it, and nothing
//! of the guest is lost.

use std::time::Duration;

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::outside::{INNER, Outside, PUBLIC};
use aegis_tests::seat::{Seat, quote};
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, ensure};

/// A command whose memory nobody can guess, which counts into a file on its disk that
/// it holds open, and a web server beside it.
const COUNTING: &str = "nonce=$(head -c 16 /dev/urandom | md5sum | cut -c 1-32)
mkdir -p /www /data && echo served >/www/index.html
httpd -p 127.0.0.1:80 -h /www
exec 3>>/data/count
while :; do
    count=$((count+1)); echo $count >&3; echo \"$nonce $count $$\" >/run/now.new
    mv /run/now.new /run/now; sleep 0.5
done";

fn counting<'a>(seat: Seat<'a>, handle: &str, flags: &str) -> Result<Instance<'a>> {
    let command = quote(COUNTING);
    Instance::start(seat, handle, &format!("{flags} -d -- sh -c {command}"))
}

/// What the command keeps in memory: its nonce and its process, and how far it is.
#[derive(Debug, PartialEq, Eq)]
struct Mind {
    nonce: String,
    pid: String,
    count: u64,
}

fn mind(instance: &Instance<'_>) -> Result<Mind> {
    let text = instance.exec_ok("until cat /run/now 2>/dev/null; do sleep 0.1; done")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let [nonce, count, pid] = words[..] else {
        anyhow::bail!("/run/now holds {text:?}");
    };
    Ok(Mind {
        nonce: nonce.to_owned(),
        pid: pid.to_owned(),
        count: count.parse()?,
    })
}

/// The command is the same, has gone on counting, and no number is lost or twice.
fn is_unharmed(instance: &Instance<'_>, before: &Mind) -> Result<Mind> {
    let now = mind(instance)?;
    ensure!(
        (&now.nonce, &now.pid) == (&before.nonce, &before.pid) && now.count >= before.count,
        "{before:?} became {now:?}"
    );
    let line = "awk 'NR != $1 { print NR, $1; exit 1 }' /data/count && sync && wc -l </data/count";
    let lines: u64 = instance.exec_ok(line)?.trim().parse()?;
    ensure!(lines >= now.count, "{lines} lines, {now:?}");
    Ok(now)
}

fn fetch(seat: Seat<'_>, port: u16) -> Result<String> {
    let url = format!("http://127.0.0.1:{port}/index.html");
    let curl = format!("curl --silent --show-error --max-time 100 {url}");
    seat.run(&curl)?.success()
}

fn is_gone(seat: Seat<'_>, instance: &Instance<'_>) -> Result<bool> {
    Ok(seat.processes(&instance.vm_unit())?.is_empty())
}

/// Falls asleep by itself, twice over, and is woken by all that may wake it.
fn sleeps_and_wakes(seat: Seat<'_>) -> Result<()> {
    let flags = "--idle-pause 2s --idle-hibernate 8s --expose 18501:80";
    let instance = counting(seat, "drowsy", flags)?;
    let begun = mind(&instance)?;
    instance.wait_for_state("paused")?;
    let sleeps = instance.info_value("Sleeps")?.unwrap_or_default();
    ensure!(sleeps.starts_with("hibernated in"), "{sleeps:?}");
    let qemu = instance.qemu_pid()?;
    ensure!(fetch(seat, 18501)? == "served");
    ensure!(instance.qemu_pid()? == qemu, "the same VM");
    instance.wait_for_state("paused")?;

    instance.wait_for_state("hibernated")?;
    wait_until(DEADLINE, "its processes to be gone", || {
        is_gone(seat, &instance)
    })?;
    let snapshot = format!("{}/snapshot", instance.folder());
    let mode = seat.run(&format!("stat -c %a {snapshot}"))?.success()?;
    ensure!(mode == "600", "{mode}");
    ensure!(fetch(seat, 18501)? == "served", "a connection wakes it");
    ensure!(instance.state()? == "running");
    ensure!(seat.run(&format!("test -e {snapshot}"))?.code() != 0);
    let then = is_unharmed(&instance, &begun)?;

    // With nobody but the service manager there.
    let said = instance.act("hibernate")?;
    ensure!(said.contains("hibernated; its next use wakes it"), "{said}");
    ensure!(instance.act("hibernate")?.contains("already"));
    let aegisd = "aegisd.socket aegisd-credentials.socket aegisd.service";
    seat.systemctl(&format!("stop {aegisd}"))?.success()?;
    ensure!(fetch(seat, 18501)? == "served");
    seat.systemctl("start aegisd.socket aegisd-credentials.socket")?
        .success()?;
    let then = is_unharmed(&instance, &then)?;

    for verb in ["wake", "resume", "keep-awake --for 1m"] {
        instance.act("hibernate")?;
        instance.act(verb).with_context(|| verb.to_owned())?;
        ensure!(instance.state()? == "running", "{verb}");
        instance.act("keep-awake --end")?;
    }
    instance.act("hibernate")?;
    let top = seat.aegis_ok("top drowsy")?;
    ensure!(top.contains("httpd"), "{top}");
    is_unharmed(&instance, &then)?;

    // A stop is one in order from there too, and the snapshot is no more.
    instance.act("hibernate")?;
    instance.act("stop")?;
    ensure!(instance.state()? == "stopped");
    ensure!(seat.run(&format!("test -e {snapshot}"))?.code() != 0);
    let fresh = mind(&instance)?;
    ensure!(fresh.nonce != then.nonce, "a new VM");
    instance.delete()
}

#[test]
fn an_idle_instance_falls_asleep_and_every_use_wakes_it() -> Result<()> {
    let machine = Machine::temporary("test-sleep", Systemd::V257)?;
    sleeps_and_wakes(Seat::alice(&machine))
}

#[test]
fn an_idle_instance_falls_asleep_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-sleep-252", Systemd::V252)?;
    sleeps_and_wakes(Seat::alice(&machine))
}

#[test]
fn an_idle_instance_falls_asleep_in_system_mode() -> Result<()> {
    let machine = Machine::temporary("test-sleep-system", Systemd::V257)?;
    sleeps_and_wakes(Seat::root(&machine))
}

#[test]
fn five_hibernations_in_a_row_lose_nothing() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = counting(
        seat,
        "five-times",
        "--idle-pause never --idle-hibernate never",
    )?;
    let sums = "head -c 3000000 /dev/urandom >/data/held && md5sum /data/held >/data/sums";
    let mut then = mind(&instance)?;
    instance.exec_ok(sums)?;
    for round in 0..5 {
        instance.act("hibernate")?;
        wait_until(DEADLINE, "its processes to be gone", || {
            is_gone(seat, &instance)
        })?;
        instance.exec_ok("md5sum -c /data/sums")?;
        let apart =
            seat.run("a=$(aegisctl exec five-times -- date +%s); b=$(date +%s); echo $((b - a))")?;
        let apart: i64 = apart.success()?.trim().parse()?;
        ensure!((0..=3).contains(&apart), "the clock is {apart} s behind");
        then = is_unharmed(&instance, &then).with_context(|| format!("round {round}"))?;
    }
    instance.delete()
}

#[test]
fn a_lease_keeps_an_instance_awake_and_survives_aegisd() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--idle-pause 1s --idle-hibernate never";
    let instance = counting(seat, "leased", flags)?;
    instance.wait_for_state("paused")?;
    instance.act("keep-awake --for 1h --reason backup")?;
    ensure!(instance.state()? == "running");
    let info = instance.info()?;
    ensure!(info.contains("awake: a lease: backup"), "{info}");
    ensure!(info.contains("Lease:"), "{info}");
    seat.systemctl("kill --signal=KILL aegisd.service")?
        .success()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(instance.state()? == "running");
    // The VM too may die: its next owner knows the lease.
    let owner = seat.main_pid(&instance.vm_unit())?.context("no owner")?;
    seat.run(&format!("kill -KILL {owner}"))?.success()?;
    instance.wait_for_state("failed")?;
    instance.start_again()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(instance.state()? == "running");
    let refused = instance.try_act("hibernate")?;
    ensure!(
        refused.error_text().contains("a lease: backup"),
        "{refused:?}"
    );
    let said = instance.act("keep-awake --end")?;
    ensure!(said.contains("may sleep again"), "{said}");
    instance.wait_for_state("paused")?;
    instance.delete()
}

#[test]
fn work_in_the_guest_keeps_it_awake_and_noise_does_not() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let busy = "timeout 12 sh -c \"while :; do :; done\"; sleep 1000";
    let flags = format!(
        "--idle-pause 4s --idle-hibernate never -d -- sh -c {}",
        quote(busy)
    );
    let instance = Instance::start(seat, "toiler", &flags)?;
    std::thread::sleep(Duration::from_secs(7));
    let info = instance.info()?;
    ensure!(instance.state()? == "running", "{info}");
    ensure!(info.contains("awake: the guest computes"), "{info}");
    // The sleep that follows, its kernel's ticks and its journal are no work.
    instance.wait_for_state("paused")?;
    instance.delete()
}

/// Flips a byte of a file.
fn damage(seat: Seat<'_>, file: &str) -> Result<()> {
    let line = format!(
        "python3 -c 'f = open(\"{file}\", \"r+b\"); f.seek(100000); b = f.read(1); \
         f.seek(100000); f.write(bytes([b[0] ^ 1]))'"
    );
    seat.run(&line)?.success().map(drop)
}

#[test]
fn a_snapshot_that_is_damaged_or_does_not_fit_is_never_resumed() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--idle-pause never --idle-hibernate never";
    let instance = counting(seat, "damaged", flags)?;
    let before = mind(&instance)?;
    let snapshot = format!("{}/snapshot", instance.folder());
    let hurts: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("damaged", &|| damage(seat, &snapshot)),
        ("cut off", &|| {
            seat.run(&format!("truncate -s -5000 {snapshot}"))?
                .success()
                .map(drop)
        }),
        ("memory", &|| {
            seat.aegis_ok("instance update damaged --memory 300")
                .map(drop)
        }),
    ];
    let told = || -> Result<usize> {
        let journal = seat.journal(&instance.vm_unit(), "cat")?;
        Ok(journal.matches("booted instead of restored").count())
    };
    for (what, hurt) in hurts {
        let before_it = told()?;
        instance.act("hibernate")?;
        hurt()?;
        instance.act("wake").with_context(|| what.to_owned())?;
        let info = instance.info()?;
        ensure!(info.contains("booted, not restored: "), "{what}: {info}");
        ensure!(mind(&instance)?.nonce != before.nonce, "{what}");
        ensure!(seat.run(&format!("test -e {snapshot}"))?.code() != 0);
        ensure!(told()? == before_it + 1, "{what} is not in the journal");
        // What had been written before is there: the guest writes it before it sleeps.
        instance.exec_ok("test -s /data/count")?;
    }
    instance.delete()
}

#[test]
fn a_shared_folder_is_paused_with_and_not_hibernated() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--workspace sleepy --idle-pause 1s --idle-hibernate 3s";
    let instance = counting(seat, "sharing", flags)?;
    let refused = instance.try_act("hibernate")?;
    let text = refused.error_text();
    ensure!(text.contains("9p"), "{text}");
    instance.wait_for_state("paused")?;
    std::thread::sleep(Duration::from_secs(5));
    ensure!(instance.state()? == "paused");
    let info = instance.info()?;
    ensure!(info.contains("cannot be hibernated: "), "{info}");
    instance.delete()
}

#[test]
fn idle_times_change_at_once_and_are_checked() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = counting(seat, "times", "--idle-pause never --idle-hibernate never")?;
    ensure!(instance.info_value("Idle")?.as_deref() == Some("paused never, hibernated never"));
    instance.act("update --idle-pause 1s")?;
    instance.wait_for_state("paused")?;
    ensure!(instance.info_value("Idle")?.as_deref() == Some("paused after 1s, hibernated never"));
    instance.act("update --idle-hibernate 2s")?;
    instance.wait_for_state("hibernated")?;
    instance.act("update --idle-pause never --idle-hibernate 1h")?;
    instance.act("wake")?;
    ensure!(instance.info_value("Idle")?.as_deref() == Some("paused never, hibernated after 1h"));
    let refused = seat.aegis("instance start --idle-pause 0s")?;
    ensure!(
        refused.error_text().contains("is no idle time"),
        "{refused:?}"
    );
    instance.delete()
}

/// Processor time of a process in clock ticks.
fn ticks(seat: Seat<'_>, pid: u32) -> Result<u64> {
    let line = format!("awk '{{ print $14 + $15 }}' /proc/{pid}/stat");
    let text = seat.machine().run(User::Root, &line)?.success()?;
    Ok(text.trim().parse()?)
}

#[test]
fn a_paused_guest_uses_no_processor() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--idle-pause never --idle-hibernate never -d -- sh -c 'while :; do :; done'";
    let instance = Instance::start(seat, "still", flags)?;
    let qemu = instance.qemu_pid()?.context("no QEMU")?;
    instance.act("pause")?;
    let before = ticks(seat, qemu)?;
    std::thread::sleep(Duration::from_secs(5));
    let used = ticks(seat, qemu)? - before;
    ensure!(used <= 2, "{used} ticks in five seconds");
    instance.delete()
}

#[test]
fn one_whose_qemu_was_replaced_is_paused_and_not_hibernated() -> Result<()> {
    let machine = Machine::temporary("test-sleep-qemu", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let flags = "--idle-pause never --idle-hibernate 4s";
    let instance = counting(seat, "upgraded", flags)?;
    // As a package does: another file in the place of the one that runs.
    let replace =
        "f=$(readlink -f $(command -v qemu-system-x86_64)); cp -p $f $f.new && mv $f.new $f";
    machine.run(User::Root, replace)?.success()?;
    let refused = instance.try_act("hibernate")?.error_text();
    ensure!(refused.contains("QEMU"), "{refused}");
    instance.wait_for_state("paused")?;
    let info = instance.info()?;
    ensure!(info.contains("cannot be hibernated: "), "{info}");
    // The next start is of the new one, which can be saved.
    instance.act("restart")?;
    instance.wait_for_state("hibernated")?;
    instance.delete()
}

#[test]
fn the_network_comes_back_with_the_machine_and_old_flows_end() -> Result<()> {
    let machine = Machine::temporary("test-sleep-network", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let _outside = Outside::lay(&machine)?;
    let instance = counting(seat, "roaming", "--idle-pause never --idle-hibernate never")?;
    let reaches = |address: &str| -> Result<bool> {
        let line = format!("echo | nc -w 20 {address} 80");
        Ok(instance.exec(&line)?.text().contains("outside"))
    };
    wait_until(DEADLINE, "the guest to have its network", || {
        reaches(PUBLIC[0])
    })?;
    let flow = format!(
        "mkfifo /run/in; sleep 1000 >/run/in 2>/dev/null & \
         (nc {} 81 </run/in; echo over >/run/flow) >/dev/null 2>&1 &",
        PUBLIC[0]
    );
    instance.exec_ok(&flow)?;
    // An established connection to that port (proc(5), net/tcp).
    let held = "grep -q ':0051 01 ' /proc/net/tcp";
    wait_until(DEADLINE, "the flow to be there", || {
        Ok(instance.exec(held)?.code() == 0)
    })?;
    let before = mind(&instance)?;
    instance.act("hibernate")?;
    instance.act("wake")?;
    is_unharmed(&instance, &before)?;
    wait_until(DEADLINE, "the old flow to end", || {
        Ok(instance.exec("test -e /run/flow")?.code() == 0)
    })?;
    wait_until(DEADLINE, "the network to come back", || reaches(PUBLIC[0]))?;
    ensure!(!reaches(INNER[0])?, "the policy is that of the first start");
    instance.delete()
}
