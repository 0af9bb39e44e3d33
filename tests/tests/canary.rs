//! A random value that instances and daemons use, through crashes, sleep and an upgrade:
//! it is where docs/SECRETS.md says and nowhere else.

use aegis_tests::canary::search;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::machine::{Machine, Output, Systemd, User};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::{Context, Result, ensure};

/// A value that has never been anywhere.
fn random() -> Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(format!("zq9-{}", uuid.trim()))
}

/// The values, and what was printed while they were used.
struct Canary<'a> {
    seat: Seat<'a>,
    named: String,
    own: String,
    printed: Vec<String>,
}

impl Canary<'_> {
    /// Keeps what a command printed.
    fn hear(&mut self, output: Output) -> Output {
        let text = format!("{}\n{}", output.text(), output.error_text());
        self.printed.push(text);
        output
    }

    fn aegis(&mut self, arguments: &str) -> Result<Output> {
        let output = self.seat.aegis(arguments)?;
        Ok(self.hear(output))
    }

    fn with_input(&mut self, line: &str, input: &str) -> Result<Output> {
        let (machine, user) = (self.seat.machine(), self.seat.user());
        let output = machine.run_with_input(user, line, input.as_bytes())?;
        Ok(self.hear(output))
    }

    /// Looks everywhere; returns the documented places of the named value.
    fn is_nowhere_else(&self, when: &str) -> Result<Vec<String>> {
        let mut documented = Vec::new();
        for value in [&self.own, &self.named] {
            let places = search(self.seat, value)?;
            let elsewhere = places.elsewhere;
            ensure!(elsewhere.is_empty(), "{when}: it is in {elsewhere:?}");
            let printed = self.printed.iter().find(|text| text.contains(value));
            ensure!(printed.is_none(), "{when}: it was printed: {printed:?}");
            documented = places.documented;
        }
        Ok(documented)
    }
}

/// Both buses are watched from here on.
fn watch(seat: Seat<'_>) -> Result<()> {
    let bus = seat.scope();
    seat.run(&format!(
        "busctl {bus} monitor --json=short >/var/tmp/bus.log 2>&1 & echo $! >/var/tmp/bus.pid; sleep 1"
    ))?;
    Ok(())
}

/// Refusals of what holds the value.
fn errors(canary: &mut Canary<'_>) -> Result<()> {
    let (named, own) = (canary.named.clone(), canary.own.clone());
    for (line, input) in [
        ("aegisctl secret set BAD", format!("{named}\0{own}")),
        ("aegisctl secret set BAD", named.repeat(2000)),
        ("aegisctl secret set -- -x", named.clone()),
        (
            "aegisctl secret import -",
            format!("A={named}\nnot a name={own}\n"),
        ),
        ("aegisctl secret import -", format!("CANARY={own}\n")),
    ] {
        let refused = canary.with_input(line, &input)?;
        ensure!(refused.code() != 0, "{line} went through");
    }
    for line in [
        "run --env CANARY --image never.invalid:1/x -- true",
        "run --env CANARY --memory 1 -- true",
        "run --env CANARY -- /no/such/program",
        "instance start --name used --env OTHER=secret.CANARY",
    ] {
        let refused = canary.aegis(line)?;
        ensure!(refused.code() != 0, "{line} went through");
    }
    Ok(())
}

/// Each process that has the values dies of what leaves a core where one is allowed.
fn crashes(canary: &mut Canary<'_>, instance: &Instance<'_>) -> Result<()> {
    let seat = canary.seat;
    let limits = |pid: u32| -> Result<()> {
        let line = format!("grep 'Max core file size *0 *0' /proc/{pid}/limits");
        seat.machine().run(User::Root, &line)?.success().map(drop)
    };
    let die = |pid: u32| seat.machine().run(User::Root, &format!("kill -ABRT {pid}"));
    let daemon = instance.daemon_pid("keeper")?;
    limits(daemon)?;
    die(daemon)?;
    wait_until(DEADLINE, "the daemon to run again", || {
        Ok(instance.daemon_pid("keeper").is_ok_and(|pid| pid != daemon))
    })?;
    for is_owner in [true, false] {
        let owner = seat.main_pid(&instance.vm_unit())?.context("no VM")?;
        let qemu = instance.qemu_pid()?.context("no QEMU")?;
        limits(owner)?;
        limits(qemu)?;
        match is_owner {
            true => die(owner)?,
            // The first process of a PID namespace, which no other signal from outside ends.
            false => seat
                .machine()
                .run(User::Root, &format!("kill -KILL {qemu}"))?,
        };
        instance.wait_for_state("failed")?;
        instance.start_again()?;
    }
    let aegisd = seat.main_pid("aegisd.service")?.context("no aegisd")?;
    limits(aegisd)?;
    die(aegisd)?;
    seat.wait_for_aegisd()?;
    // A client may be started where cores are allowed.
    let client = "cd /var/tmp && ulimit -c unlimited && { sleep 1; kill -ABRT $(pgrep -x aegisctl); } & \
                  cd /var/tmp && ulimit -c unlimited; { cat; sleep 3; } | aegisctl secret set DYING";
    let named = canary.named.clone();
    let died = canary.with_input(client, &named)?;
    ensure!(died.code() != 0, "the client lived on");
    Ok(())
}

/// As a package does: other files in the place of those that run.
fn upgrade(seat: Seat<'_>) -> Result<()> {
    let replace = "for f in $(dirname $(find /usr /opt -name aegisd -type f | head -1))/*; do
                       [ -f $f ] && cp -p $f $f.new && mv $f.new $f
                   done; true";
    seat.machine().run(User::Root, replace)?.success()?;
    seat.systemctl("restart aegisd.service")?.success()?;
    seat.wait_for_aegisd()
}

fn is_where_it_is_used_and_nowhere_else(seat: Seat<'_>) -> Result<()> {
    kit::install(seat, "secret", &["secret-daemon"])?;
    watch(seat)?;
    let mut canary = Canary {
        seat,
        named: random()?,
        own: random()?,
        printed: Vec::new(),
    };
    seat.set_secret("CANARY", &canary.named)?;
    let (own, named) = (canary.own.clone(), canary.named.clone());
    let imported = canary.with_input("aegisctl secret import -", &format!("SPARE={own}\n"))?;
    imported.success()?;
    let instance = Instance::expected(seat, "used")?;
    let start = format!(
        "OWN={own} aegisctl instance start --name used --kit secret --idle-pause never \
         --idle-hibernate never --env CANARY --env OWN"
    );
    let started = canary.hear(seat.run(&start)?);
    started.success()?;
    let exec = instance.exec_with("--env AGAIN=secret.CANARY", "sh -c 'echo $AGAIN'")?;
    ensure!(exec.success()?.trim() == named);
    let ran = seat.aegis("run --env CANARY -- sh -c 'echo $CANARY'")?;
    ensure!(ran.success()?.trim() == named);
    errors(&mut canary)?;
    let documented = canary.is_nowhere_else("in use")?;
    // The search sees what is there.
    for kind in ["file /run/", "environ "] {
        let seen = documented.iter().any(|place| place.starts_with(kind));
        ensure!(seen, "no {kind} among {documented:?}");
    }
    crashes(&mut canary, &instance)?;
    canary.is_nowhere_else("after crashes")?;
    instance.act("hibernate")?;
    instance.wait_for_state("hibernated")?;
    canary.is_nowhere_else("while it is hibernated")?;
    upgrade(seat)?;
    ensure!(instance.exec_ok("echo $CANARY")? == named);
    canary.aegis("secret rotate-key")?.success()?;
    for arguments in [
        "secret list",
        "secret log CANARY",
        "instance inspect used",
        "instance info used",
        "logs used",
        "doctor",
    ] {
        canary.aegis(arguments)?;
    }
    canary.is_nowhere_else("after an upgrade and with a new key")?;
    seat.run("kill $(cat /var/tmp/bus.pid)")?;
    let watched = seat
        .run("grep -c org.aegisvm.Aegis1 /var/tmp/bus.log")?
        .text();
    ensure!(
        watched.trim().parse::<u32>()? > 10,
        "the bus was not watched"
    );
    instance.delete()?;
    canary.aegis("secret delete CANARY")?.success()?;
    canary.aegis("secret delete SPARE")?.success()?;
    let documented = canary.is_nowhere_else("once all is deleted")?;
    ensure!(documented.is_empty(), "it stays in {documented:?}");
    Ok(())
}

#[test]
fn a_value_of_a_user_is_nowhere_else() -> Result<()> {
    let machine = Machine::temporary("test-canary", Systemd::V257)?;
    is_where_it_is_used_and_nowhere_else(Seat::alice(&machine))
}

#[test]
fn a_value_of_a_user_is_nowhere_else_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-canary-252", Systemd::V252)?;
    is_where_it_is_used_and_nowhere_else(Seat::alice(&machine))
}

#[test]
fn a_value_of_the_system_is_nowhere_else() -> Result<()> {
    let machine = Machine::temporary("test-canary-system", Systemd::V257)?;
    is_where_it_is_used_and_nowhere_else(Seat::root(&machine))
}
