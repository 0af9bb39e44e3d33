//! What a guest sees of an image, file by file, beside what umoci unpacks of it.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use aegis_tests::compile::compile;
use aegis_tests::layout::Layout;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::odd_image;
use aegis_tests::seat::Seat;
use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What belongs to the guest and not to the image.
const OF_THE_GUEST: &str = "dev etc/hostname etc/hosts etc/resolv.conf proc run sys tmp";

/// Differences that a failure shows.
const SHOWN: usize = 40;

/// The program that tells what is in a tree.
struct Teller {
    program: Vec<u8>,
    folder: TempDir,
}

impl Teller {
    fn make() -> Result<Self> {
        let program = compile("clients/tree_facts.c")?;
        let folder = tempfile::tempdir().context("making a folder")?;
        let path = folder.path().join("tree_facts");
        fs::write(&path, &program).context("writing tree_facts")?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).context("chmod")?;
        Ok(Self { program, folder })
    }

    /// What is in a folder of this host.
    fn tell(&self, root: &Path) -> Result<String> {
        let told = Command::new(self.folder.path().join("tree_facts"))
            .arg(root)
            .args(OF_THE_GUEST.split(' '))
            .output()
            .context("running tree_facts")?;
        let errors = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "{errors}");
        Ok(String::from_utf8(told.stdout)?)
    }

    /// What a guest of the image in a folder says of its root, then what it says to a
    /// shell line.
    fn hear(&self, seat: Seat<'_>, layout: &str, line: &str) -> Result<String> {
        let script = format!(
            "cat >/tmp/tree_facts && chmod 700 /tmp/tree_facts && \
             /tmp/tree_facts / {OF_THE_GUEST} && {line}"
        );
        let run = format!("aegisctl run --interactive --image oci:{layout} -- sh -c '{script}'");
        let machine = seat.machine();
        let told = machine.run_with_input(seat.user(), &run, &self.program)?;
        told.success()
    }
}

/// Fails with the first lines that differ.
fn assert_same(expected: &str, seen: &str) {
    let only = |lines: &str, others: &str, mark: &str| -> Vec<String> {
        let others: HashSet<&str> = others.lines().collect();
        // The guest writes into this folder.
        let lines = lines.lines().filter(|line| !line.starts_with("etc dir "));
        let differing = lines.filter(|line| !others.contains(line));
        differing.map(|line| format!("{mark} {line}")).collect()
    };
    let mut differing = only(expected, seen, "-");
    differing.extend(only(seen, expected, "+"));
    differing.truncate(SHOWN);
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn a_guest_sees_of_sixty_odd_layers_what_umoci_unpacks() -> Result<()> {
    let teller = Teller::make()?;
    // With the base, and a layer of which umoci would make 8 GiB.
    let layout = Layout::make(&[], "--config.cmd sh")?;
    for layer in odd_image::layers(58)? {
        layout.add(&layer)?;
    }
    let mut truth = teller.tell(&layout.unpack()?.path().join("rootfs"))?;
    layout.add(&odd_image::sparse_layer()?)?;
    truth += &sparse(&teller)?;

    let machine = Machine::temporary("images-odd", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    layout.put(seat, "odd")?;
    assert_same(&truth, &teller.hear(seat, "odd", "true")?);
    let layers = seat.run("aegisctl image inspect oci:odd | jq '.image.layers | length'")?;
    // With the one that says again what is said of folders that others pass through.
    assert_eq!(layers.success()?, "61");
    Ok(())
}

/// What is told of the file of the sparse layer, made by the file system itself.
fn sparse(teller: &Teller) -> Result<String> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let file = File::create(folder.path().join("sparse")).context("making a file")?;
    file.set_len(odd_image::SPARSE_SIZE)?;
    let [begin, end] = odd_image::SPARSE_ENDS;
    file.write_all_at(&begin, 0)?;
    file.write_all_at(&end, odd_image::SPARSE_SIZE - end.len() as u64)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(odd_image::TIME))?;
    teller.tell(folder.path())
}

#[test]
fn a_guest_sees_of_debian_what_umoci_unpacks_and_runs_python() -> Result<()> {
    let teller = Teller::make()?;
    let layout = Layout::debian()?;
    let truth = teller.tell(&layout.unpack()?.path().join("rootfs"))?;
    let machine = Machine::temporary("images-debian", Systemd::V257)?;
    let seat = Seat::alice(&machine);
    layout.put(seat, "debian")?;
    let told = teller.hear(seat, "debian", "python3 -c \"print(6*7)\"")?;
    let (seen, answer) = told.rsplit_once('\n').context("an answer")?;
    assert_eq!(answer, "42");
    assert_same(&truth, seen);
    Ok(())
}
