//! Guests of another platform than the host's: they live as all others do, translated.

use aegis_tests::install::Package;
use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::{Seat, quote};
use anyhow::{Result, ensure};

/// A command that counts in its memory, beside a web server.
const COUNTING: &str = "mkdir -p /www && echo served >/www/index.html
httpd -p 127.0.0.1:80 -h /www
while :; do count=$((count+1)); echo \"$$ $count\" >/run/now.new
    mv /run/now.new /run/now; sleep 0.5
done";

/// The process of the command, and how far it has counted.
fn counted(instance: &Instance<'_>) -> Result<(u32, u64)> {
    let text = instance.exec_ok("until cat /run/now 2>/dev/null; do sleep 0.1; done")?;
    let mut words = text.split_whitespace();
    let (process, count) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    Ok((process.parse()?, count.parse()?))
}

#[test]
fn an_arm64_guest_lives_as_any_other() -> Result<()> {
    let machine = Machine::temporary("test-platforms", Systemd::V257)?;
    machine.install(Package::ForeignGuest)?;
    let seat = Seat::alice(&machine);

    let told = seat.aegis_ok("run --platform linux/arm64 -- uname -m")?;
    assert_eq!(told, "aarch64");
    let ended = seat.aegis("run --platform linux/arm64 -- sh -c 'exit 7'")?;
    assert_eq!(ended.code(), 7, "{ended:?}");
    let refused = seat.aegis("run --platform linux/arm64 --accel kvm -- true")?;
    let words = refused.error_text();
    ensure!(
        words.contains("AccelUnusable") && words.contains("runs no guests of linux/arm64"),
        "{words}"
    );

    let flags = "--platform linux/arm64 --idle-pause never --idle-hibernate never \
                 --expose 18601:80";
    let command = format!("{flags} -d -- sh -c {}", quote(COUNTING));
    let instance = Instance::start(seat, "arm", &command)?;
    assert_eq!(instance.exec_ok("uname -m")?, "aarch64");
    let value = |name| instance.info_value(name);
    assert_eq!(value("Platform")?.as_deref(), Some("linux/arm64"));
    assert_eq!(value("Accelerator")?.as_deref(), Some("tcg"));
    let fetch = || {
        let url = "http://127.0.0.1:18601/index.html";
        seat.run(&format!("curl --silent --show-error --max-time 100 {url}"))?
            .success()
    };
    assert_eq!(fetch()?, "served");

    let (process, begun) = counted(&instance)?;
    let qemu = instance.qemu_pid()?;
    instance.act("pause")?;
    assert_eq!(instance.state()?, "paused");
    instance.act("resume")?;
    let (same, paused) = counted(&instance)?;
    ensure!(same == process && paused >= begun, "{same} {paused}");
    assert_eq!(instance.qemu_pid()?, qemu);

    let said = instance.act("hibernate")?;
    ensure!(said.contains("hibernated"), "{said}");
    assert_eq!(instance.qemu_pid()?, None);
    assert_eq!(fetch()?, "served", "a connection wakes it");
    let (same, woken) = counted(&instance)?;
    ensure!(same == process && woken >= paused, "{same} {woken}");

    // Written before an orderly end, and there after it.
    instance.exec_ok("echo kept >/kept")?;
    instance.act("restart")?;
    assert_eq!(instance.exec_ok("cat /kept")?, "kept");
    let (_, anew) = counted(&instance)?;
    ensure!(anew < woken, "it was booted: {anew}, {woken}");

    let refused = seat.aegis("instance start --name arm --platform linux/amd64")?;
    let words = refused.error_text();
    ensure!(words.contains("platform"), "{words}");
    instance.delete()
}

#[test]
fn an_image_runs_on_its_platform_alone() -> Result<()> {
    let machine = Machine::temporary("test-platforms-images", Systemd::V257)?;
    machine.install(Package::ForeignGuest)?;
    let seat = Seat::alice(&machine);
    let made = "run --platform linux/arm64 -- tar -c -f - -C / bin >arm.tar";
    seat.run(&format!("bash -c 'aegisctl {made}'"))?.success()?;
    seat.aegis_ok("image import --platform linux/arm64 arm.tar arm")?;

    let told = seat.aegis_ok("run --platform linux/arm64 --image arm -- uname -m")?;
    assert_eq!(told, "aarch64");
    let refused = seat.aegis("run --pull never --image arm -- uname -m")?;
    let words = refused.error_text();
    for part in [
        "ImagePlatform",
        "is for linux/arm64, not for linux/amd64",
        "--platform linux/amd64",
    ] {
        ensure!(words.contains(part), "{words}");
    }
    Ok(())
}

#[test]
fn what_another_platform_lacks_is_named_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-platforms-252", Systemd::V252)?;
    let seat = Seat::alice(&machine);
    let refused = |parts: &[&str]| -> Result<()> {
        let refused = seat.aegis("run --platform linux/arm64 -- true")?;
        let words = refused.error_text();
        ensure!(parts.iter().all(|part| words.contains(part)), "{words}");
        ensure!(refused.code() != 0, "{refused:?}");
        Ok(())
    };
    refused(&["KernelMissing", "linux/arm64", "aegisvm-guest-aarch64-"])?;
    machine.install(Package::ForeignGuest)?;
    refused(&["QemuMissing", "qemu-system-aarch64", "qemu-system-arm"])?;
    let doctor = seat.aegis("doctor")?;
    let said = doctor.text() + &doctor.error_text();
    ensure!(said.contains("qemu-system-arm"), "{said}");

    let refused = seat.aegis("run --platform linux/riscv64 -- true")?;
    let words = refused.error_text();
    ensure!(
        words.contains("known are linux/amd64 and linux/arm64"),
        "{words}"
    );
    assert_eq!(seat.aegis_ok("run -- uname -m")?, std::env::consts::ARCH);
    Ok(())
}
