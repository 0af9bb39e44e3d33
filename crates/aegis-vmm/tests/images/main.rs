//! Images of many sorts in real guests: layers, roots that lack what a guest needs
//! or have something else there, roots that cannot be written to, and the end.
//!
//! Needs QEMU, squashfs-tools and the output of guest/build. Without them the tests fail,
//! unless `AEGIS_TEST_SKIP_VM` is set; then they say why they do nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of a test fails and speaks as the test does"
)]

mod layer;
mod vm;

use std::os::unix::fs::MetadataExt;

use aegis_core::vm_spec::Disk;
use layer::{Layer, bare, many};
use vm::Bench;

#[test]
fn forty_layers_lie_on_each_other_in_their_order() {
    let Some(bench) = Bench::ready() else { return };
    let layers = many(&bench.programs(), bench.dir.path(), 40);
    let odd = layers
        .iter()
        .filter(|path| path.metadata().unwrap().len() % 512 != 0);
    assert!(odd.count() > 20);
    let script = "cat /all; echo; cat /files/* | wc -c; ls /files /anew; \
                  stat -c '%t:%T %F' /files/3 2>/dev/null || echo hidden; tool; stat -c %a /";
    let mut spec = bench.spec(layers, script);
    // A kit's programs lie above the image and leave the root as it is.
    std::fs::write(bench.path("tool"), "#!/bin/sh\necho of a kit\n").unwrap();
    spec.inject = vec![bench.path("tool")];
    let seen = bench.run(&spec);
    let anew: Vec<String> = (20..40).map(|number| number.to_string()).collect();
    let expected = format!(
        "39\n{}\n/anew:\n{}\n\n/files:\n37\n38\n39\nhidden\nof a kit\n755",
        (37 + 38 + 39) * 37,
        anew.join("\n")
    );
    assert_eq!(seen, expected);
}

#[test]
fn as_many_layers_as_there_are_partitions_boot_and_no_more() {
    let Some(bench) = Bench::ready() else { return };
    let mut layers = many(&bench.programs(), bench.dir.path(), 128);
    let last = layers[1].clone();
    let script = "cat /all; echo; ls /files | tr '\\n' ' '; tail -n 1 /proc/partitions | tr -s ' '";
    let seen = bench.run(&bench.spec(layers.clone(), script));
    assert!(seen.starts_with("127\n125 126 127 "), "{seen}");
    assert!(seen.ends_with("vda128"), "{seen}");

    layers.push(last);
    let vm = bench.start(&bench.spec(layers, "true"));
    vm.until(|| vm.words().contains("129 layers").then_some(()));
    vm.stop();
}

#[test]
fn the_root_is_as_the_image_has_it_and_what_it_lacks_is_made() {
    let Some(bench) = Bench::ready() else { return };
    let passwd = b"root:x:0:0::/root:/bin/sh\napp:x:71:72::/srv/home:/bin/sh\n";
    let top = Layer::new()
        .file("etc/passwd", passwd)
        .file(
            "etc/group",
            b"root:x:0:\napp:x:72:\nextra:x:73:app\nother:x:74:root\n",
        )
        .file("etc/hosts", b"")
        .file("etc/resolv.conf", b"nameserver 192.0.2.1\n")
        .whiteout("etc/hostname")
        .whiteout("var/tmp")
        .directory("run/app/", 0o2770, 71)
        .file("run/app/seed", b"seed")
        .link("run/link", "app")
        .write(bench.path("top"));
    let script = "stat -c '%a %u:%g' /; stat -c '%a %u:%g' /run/app; cat /run/link/seed; echo; \
                  cat /etc/hostname; grep -c image /etc/hosts; cat /etc/resolv.conf; \
                  pwd; id -u; id -G; echo $HOME; ls -d /var/tmp; readlink /var/run; \
                  grep ' / ' /proc/mounts | cut -d' ' -f1,3";
    let root = bare(bench.path("root"), 0o751, 71);
    let mut spec = bench.spec(vec![bench.programs(), top, root], script);
    spec.workdir = Some("/srv/made/here".to_owned());
    spec.user = Some("app".to_owned());
    let expected = "751 71:71\n2770 71:71\nseed\nimage\n1\nnameserver 192.0.2.1\n\
                    /srv/made/here\n71\n72 73\n/srv/home\n\
                    ls: /var/tmp: No such file or directory\n../run\noverlay overlay";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&bench.run(&spec)), sorted(expected));
    spec.read_only_root = true;
    let expected = expected.replace("ls: /var/tmp: No such file or directory", "/var/tmp");
    assert_eq!(sorted(&bench.run(&spec)), sorted(&expected));
}

#[test]
fn a_root_that_is_read_only_is_so_for_everyone() {
    let Some(bench) = Bench::ready() else { return };
    let workspace = tempfile::tempdir().unwrap();
    let script = "for place in / /etc /usr/bin /var/lib /home; do \
                    touch $place/file 2>/dev/null && echo written $place; done; \
                  mount -o remount,rw / 2>/dev/null && echo remounted; \
                  touch /file 2>/dev/null && echo written /; \
                  for place in /run /tmp /var/tmp /dev/shm /workspace; do \
                    touch $place/file || echo not written $place; done; \
                  stat -c %a /tmp /var/tmp; cat /etc/hostname; grep -c image /etc/hosts; \
                  pwd; echo done";
    let mut spec = bench.spec(vec![bench.programs()], script);
    spec.read_only_root = true;
    spec.workspace = Some(workspace.path().to_owned());
    spec.workdir = Some("/made".to_owned());
    spec.disk = Some(Disk {
        path: bench.path("disk.img"),
        size: 64 << 20,
    });
    assert_eq!(bench.run(&spec), "1777\n1777\nimage\n1\n/made\ndone");
    assert!(workspace.path().join("file").exists());
    assert!(!bench.path("disk.img").exists());
}

#[test]
fn an_image_that_has_something_else_everywhere_boots() {
    let Some(bench) = Bench::ready() else { return };
    let names = ["dev", "proc", "sys", "run", "tmp", "etc", "var"];
    let away = names
        .iter()
        .fold(Layer::new(), |layer, name| layer.whiteout(name))
        .write(bench.path("away"));
    let below = |name: &str, layer: Layer| {
        vec![
            bench.programs(),
            away.clone(),
            layer.write(bench.path(name)),
        ]
    };
    let empty = vec![bench.programs(), away.clone()];
    let files = names
        .iter()
        .fold(Layer::new(), |layer, name| layer.file(name, b"a file"));
    let loops = names
        .iter()
        .fold(Layer::new(), |layer, name| layer.link(name, name));
    let tops = names
        .iter()
        .fold(Layer::new(), |layer, name| layer.link(name, "/"));
    let crossed = Layer::new()
        .link("dev", "/etc")
        .link("proc", "usr")
        .link("sys", "/dev")
        .link("etc", "/proc")
        .link("run", "/var/run")
        .link("tmp", "/../../tmp/../var/none")
        .directory("var/", 0o755, 0)
        .link("var/run", "/run");
    let names_are_traps = Layer::new()
        .directory("etc/", 0o755, 0)
        .link("etc/hostname", "/proc/sysrq-trigger")
        .link("etc/hosts", "/dev/vda")
        .device("etc/resolv.conf", 1, 5)
        .device("etc/passwd", 1, 5)
        .directory("etc/group/", 0o755, 0);
    let script = "test -c /dev/null && test -d /proc/1 && test -d /sys/block && \
                  touch /run/file /tmp/file /dev/shm/file && echo usable; \
                  cat /etc/hostname; grep -c localhost /etc/hosts; true";
    let named = "usable\nimage\n2";
    // Where /etc is /proc nobody sees what is written to it before.
    let nameless = "usable\ncat: can't open '/etc/hostname': No such file or directory\n\
                    grep: /etc/hosts: No such file or directory";
    for (name, layers, expected) in [
        ("empty", empty, named),
        ("files", below("files", files), named),
        ("loops", below("loops", loops), named),
        ("tops", below("tops", tops), named),
        ("crossed", below("crossed", crossed), nameless),
        ("traps", below("traps", names_are_traps), named),
    ] {
        for read_only_root in [false, true] {
            let mut spec = bench.spec(layers.clone(), script);
            spec.read_only_root = read_only_root;
            let mut seen: Vec<String> = bench.run(&spec).lines().map(str::to_owned).collect();
            let mut expected: Vec<&str> = expected.lines().collect();
            // Lines of both outputs, in an order of their own.
            seen.sort();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{name} {read_only_root}");
        }
    }
}

#[test]
fn what_a_guest_deletes_is_given_back_to_the_host() {
    let Some(bench) = Bench::ready() else { return };
    let script = "dd if=/dev/urandom of=/big bs=1M count=48 2>/dev/null; sync; echo written; \
                  while [ ! -e /run/go ] && [ ! -e /workspace/go ]; do sleep 0.1; done; \
                  rm /big; sync; echo deleted; sleep 1000";
    let workspace = tempfile::tempdir().unwrap();
    let mut spec = bench.spec(vec![bench.programs()], script);
    let path = bench.path("disk.img");
    spec.workspace = Some(workspace.path().to_owned());
    spec.disk = Some(Disk {
        path: path.clone(),
        size: 256 << 20,
    });
    spec.grace_secs = 1;
    let used = || path.metadata().map_or(0, |disk| disk.blocks() * 512);
    let vm = bench.start(&spec);
    vm.until(|| vm.lines().contains("written").then_some(()));
    let full = vm.until(|| Some(used()).filter(|used| *used > 48 << 20));
    std::fs::write(workspace.path().join("go"), "").unwrap();
    let after = vm.until(|| Some(used()).filter(|used| *used < full - (40 << 20)));
    println!("{full} bytes of the disk were used, and {after} are");
    vm.stop();
}

#[test]
fn the_command_is_asked_to_end_by_the_signal_of_its_image() {
    let Some(bench) = Bench::ready() else { return };
    // The command's child is one of the others.
    let script = "sh -c 'trap \"echo child TERM; exit\" TERM; trap \"echo child QUIT\" QUIT; \
                    echo child set; while :; do sleep 0.1; done' & \
                  trap 'wait; echo QUIT; exit 0' QUIT; trap 'echo TERM' TERM; \
                  echo ready; while :; do sleep 0.1; done";
    let mut spec = bench.spec(vec![bench.programs()], script);
    spec.stop_signal = Some(3);
    let vm = bench.start(&spec);
    let are_set = |lines: &str| lines.contains("ready") && lines.contains("child set");
    vm.until(|| are_set(&vm.lines()).then_some(()));
    let lines = vm.stop();
    let mut heard: Vec<&str> = lines.lines().filter(|line| *line != "Terminated").collect();
    heard.sort_unstable();
    assert_eq!(heard, ["QUIT", "child TERM", "child set", "ready"]);
}

#[test]
fn a_layer_that_is_damaged_is_a_failure_to_boot() {
    let Some(bench) = Bench::ready() else { return };
    let bad = bench.path("bad");
    std::fs::write(&bad, vec![7; 9000]).unwrap();
    let vm = bench.start(&bench.spec(vec![bench.programs(), bad], "true"));
    let told = "Cannot mount /dev/vda2 at /layers/1";
    vm.until(|| vm.words().contains(told).then_some(()));
    vm.stop();
}
