//! Files between this host and a guest.

use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use anyhow::Result;

#[test]
fn trees_keep_what_they_are_both_ways() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "copy-trees", "")?;
    seat.run(
        "rm -rf copy && mkdir -p copy/tree/sub/deep && cd copy/tree && echo one > one && \
         echo two > 'sub/two words' && ln -s ../one sub/link && ln one hard && \
         chmod 751 sub && chmod 640 one && truncate -s 64M sub/deep/sparse && \
         mkfifo sub/pipe && touch -d '2001-02-03 04:05:06.789' one sub",
    )?
    .success()?;

    seat.aegis_ok("cp copy/tree copy-trees:/srv-tree")?;
    assert_eq!(instance.exec_ok("cat '/srv-tree/sub/two words'")?, "two");
    assert_eq!(instance.exec_ok("readlink /srv-tree/sub/link")?, "../one");
    let stat = instance.exec_ok("stat -c '%a %u %Y' /srv-tree/one /srv-tree/sub")?;
    assert_eq!(stat, "640 0 981173106\n751 0 981173106");
    assert_eq!(
        instance.exec_ok("stat -c %h /srv-tree/hard")?,
        "2",
        "a hard link stays one"
    );
    // It exists now: the same copy goes into it, the content alone over it.
    seat.aegis_ok("cp copy/tree copy-trees:/srv-tree")?;
    instance.exec_ok("test -e /srv-tree/tree/one")?;
    seat.aegis_ok("cp copy/tree/. copy-trees:/srv-tree")?;

    seat.aegis_ok("cp copy-trees:/srv-tree copy/back")?;
    seat.run("rm -r copy/back/tree && diff -r --no-dereference -x pipe copy/tree copy/back")?
        .success()?;
    let stat = |path: &str| seat.run(&format!("stat -c '%a %.9Y %h' {path}"))?.success();
    for name in ["one", "sub"] {
        assert_eq!(
            stat(&format!("copy/back/{name}"))?,
            stat(&format!("copy/tree/{name}"))?
        );
    }
    let blocks = seat
        .run("stat -c %b copy/back/sub/deep/sparse")?
        .success()?;
    assert_eq!(blocks, "0", "holes stay holes");
    Ok(())
}

#[test]
fn single_files_and_tar_streams_follow_the_rules_of_docker_cp() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let instance = Instance::start(seat, "copy-files", "")?;
    seat.run("rm -rf copy2 && mkdir -p copy2/dir && echo here > copy2/file")?
        .success()?;
    seat.aegis_ok("cp copy2/file copy-files:/root/name")?;
    seat.aegis_ok("cp copy2/file copy-files:/root/")?;
    assert_eq!(instance.exec_ok("cat /root/name /root/file")?, "here\nhere");
    for (arguments, words) in [
        ("cp copy2/file copy-files:/no/such", "No such file"),
        ("cp copy2/file copy-files:/nowhere/", "no folder /nowhere/"),
        ("cp copy2/none copy-files:/root", "No such file"),
        ("cp copy-files:/none copy2", "No such file"),
        (
            "cp copy2/dir copy-files:/root/name",
            "cannot replace the file",
        ),
        ("cp copy2/file copy2/other", "neither side"),
        ("cp copy-files:/a copy-files:/b", "both sides"),
        ("cp copy2/file copy-none:/x", "NotFound"),
    ] {
        let refused = seat.aegis(arguments)?;
        assert_ne!(refused.code(), 0, "{arguments}");
        let text = refused.error_text();
        assert!(text.contains(words), "{arguments}: {text}");
    }
    // Through tar files, into another instance too.
    seat.run("aegisctl cp copy-files:/root/. - | tar -tvf - | grep -q ' root\\|0/0.*name'")?
        .success()?;
    seat.run("tar -C copy2 -cf - file dir | aegisctl cp - copy-files:/srv2")?;
    instance.exec_ok("mkdir /srv2")?;
    seat.run("tar -C copy2 -cf - file dir | aegisctl cp - copy-files:/srv2")?
        .success()?;
    assert_eq!(instance.exec_ok("ls /srv2")?, "dir\nfile");
    Ok(())
}
