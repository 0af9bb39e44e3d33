//! Archives of files become images: from a file, from a pipe, and not at all.

use std::process::Command;

use aegis_tests::instance::DEADLINE;
use aegis_tests::layout::Layout;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::wait::wait_until;
use anyhow::Result;

/// Makes `root.tar`, which nobody else may read: what imports it has its descriptor.
const ROOT: &str = "umask 077 && mkdir -p root/bin root/etc && cp busybox root/bin/ && \
    for name in sh cat id; do ln -s busybox root/bin/$name; done && \
    echo mine >root/etc/name && echo 'www:x:33:33::/:/bin/sh' >root/etc/passwd && \
    chmod -R a+rX root && tar -c --owner=0 --group=0 -f root.tar -C root .";

fn make_root(seat: Seat<'_>) -> Result<()> {
    let busybox = std::fs::read("/bin/busybox")?;
    let machine = seat.machine();
    machine.write_file(seat.user(), "busybox", &busybox)?;
    seat.run(&format!("chmod 755 busybox && {ROOT}"))?
        .success()?;
    Ok(())
}

#[test]
fn an_archive_is_imported_from_a_file_and_a_pipe_and_runs() -> Result<()> {
    life(Systemd::V257, |machine| Seat::alice(machine), "alice")
}

#[test]
fn an_archive_is_imported_and_runs_in_system_mode_on_252() -> Result<()> {
    life(Systemd::V252, |machine| Seat::root(machine), "root")
}

fn life(systemd: Systemd, seat: impl Fn(&Machine) -> Seat<'_>, name: &str) -> Result<()> {
    let machine = Machine::temporary(&format!("import-{name}"), systemd)?;
    let seat = seat(&machine);
    make_root(seat)?;
    let said = seat.aegis_ok(
        "image import root.tar mine -c 'CMD [\"cat\", \"/etc/name\"]' -c 'ENV A=b PATH=/bin' \
         -c 'WORKDIR /data' -c 'USER www' -c LABEL=by=hand --message 'Made by hand'",
    )?;
    assert!(said.ends_with("  docker.io/library/mine:latest"), "{said}");
    assert_eq!(seat.aegis_ok("run --image mine")?, "mine");
    let told = seat.aegis_ok("run --image mine -- sh -c 'id; pwd; echo $A'")?;
    assert_eq!(told, "uid=33(www) gid=33 groups=33\n/data\nb");

    // Packed, through a pipe, without a name: another image of the same layer.
    let id = seat.run("gzip -c root.tar | aegisctl image import -")?;
    let id = id.success()?;
    let digits = id.strip_prefix("sha256:").unwrap_or_default();
    assert_eq!(digits.len(), 64, "{id}");
    let told = seat.aegis_ok(&format!("run --image {digits} -- /bin/cat /etc/name"))?;
    assert_eq!(told, "mine");
    let of = |image: &str, key: &str| {
        seat.aegis_ok(&format!(
            "image inspect {image} | jq --raw-output '.image.{key}'"
        ))
    };
    assert_eq!(of("mine", "layers")?, of(digits, "layers")?);
    assert_eq!(of("mine", "config.labels.by")?, "hand");
    assert_eq!(of(digits, "names")?, "[]");
    Ok(())
}

#[test]
fn what_is_no_archive_of_a_root_is_refused() -> Result<()> {
    let machine = Machine::temporary("import-bad", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    make_root(seat)?;
    let layout = Layout::make(&["echo two >etc/two"], "--config.cmd id")?;
    let archive = Command::new("tar")
        .args(["-c", "-C"])
        .arg(layout.path())
        .arg(".")
        .output()?;
    machine
        .run_with_input(seat.user(), "cat >oci.tar", &archive.stdout)?
        .success()?;
    for (line, symbol, words) in [
        (
            "image import busybox x",
            "ImageCorrupt",
            "no valid tar archive",
        ),
        (
            "image import - x </dev/null",
            "ImageCorrupt",
            "has no files",
        ),
        (
            "image import - x < <(head -c 100K root.tar)",
            "ImageCorrupt",
            "end within a file",
        ),
        (
            "image import oci.tar x",
            "ImageUnsupported",
            "--image oci-archive:FILE",
        ),
        (
            "image import root.tar oci:x",
            "ImageName",
            "cannot be the name of an import",
        ),
        (
            "image import root.tar x --platform linux/s390x",
            "ImagePlatform",
            "does not run in a guest",
        ),
    ] {
        let refused = seat.run(&format!("bash -c 'aegisctl {line}'"))?;
        assert_eq!(refused.code(), 1, "{refused:?}");
        let told = refused.error_text();
        assert!(told.contains(symbol) && told.contains(words), "{told}");
    }
    assert_eq!(seat.aegis_ok("image list --quiet")?, "");
    let told = seat.aegis_ok("run --image oci-archive:oci.tar -- cat /etc/two")?;
    assert_eq!(told, "two");
    Ok(())
}

#[test]
fn an_interrupt_ends_an_import() -> Result<()> {
    let machine = Machine::temporary("import-cancel", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    // A pipe that is never written to, and never ends by itself.
    seat.run(
        "mkfifo pipe && systemd-run --user --quiet --unit importing --working-directory=$HOME \
         sh -c 'exec 3<>pipe; exec aegisctl image import - slow <pipe'",
    )?
    .success()?;
    let imports = || seat.run("systemctl --user list-units --plain --no-legend 'aegis-import-*'");
    wait_until(DEADLINE, "the import to be under way", || {
        Ok(!imports()?.text().is_empty())
    })?;
    let told = seat.run("busctl --user tree --list org.aegisvm.Aegis1")?;
    assert!(told.text().contains("/job/"), "{told:?}");
    seat.systemctl("kill --signal=INT importing.service")?
        .success()?;
    wait_until(DEADLINE, "the import to end", || {
        Ok(imports()?.text().is_empty())
    })?;
    wait_until(DEADLINE, "the command to end", || {
        let code = seat.unit_property("importing.service", "ExecMainStatus")?;
        Ok(code == "130")
    })?;
    assert_eq!(seat.aegis_ok("image list --quiet")?, "");
    let left = seat.run("ls ~/.aegis/images/work ~/.aegis/images/layers")?;
    assert!(
        !left.text().contains("pull-") && !left.text().contains("squashfs"),
        "{left:?}"
    );
    Ok(())
}
