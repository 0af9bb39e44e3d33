//! `volume`, and `--volume`.

use crate::harness::Bench;

#[test]
fn volumes_are_made_listed_and_removed() {
    let bench = Bench::new();
    for name in ["used", "free", "old"] {
        bench
            .run(&["volume", "create", name])
            .expect(0, &format!("Volume created: {name}\n"), "");
    }
    bench
        .run(&["volume", "create", "free"])
        .expect(0, "Volume free is there already\n", "");
    bench.run(&["volume", "list"]).expect(
        0,
        "NAME  CREATED  USED BY\n\
         free  -        -\n\
         old   -        -\n\
         used  -        web\n",
        "",
    );
    bench
        .run(&["volume", "ls", "-q"])
        .expect(0, "free\nold\nused\n", "");
    bench.run(&["volume", "remove", "used"]).expect(
        1,
        "",
        "error: cannot remove the volume 'used': the volume 'used' is used by web (VolumeInUse)\n\
         hint: delete the instances first\n",
    );
    bench
        .run(&["volume", "rm", "old"])
        .expect(0, "Volume removed: old\n", "");
    bench.run(&["volume", "inspect", "free", "old"]).expect(
        1,
        "",
        "error: there is no volume 'old' (VolumeNotFound)\n\
         hint: 'aegisctl volume list' shows all of them\n",
    );
    let shown = bench.run(&["volume", "inspect", "used"]);
    assert!(shown.stdout.contains("/volumes/used"), "{shown:?}");
}

#[test]
fn nothing_is_pruned_that_nobody_confirmed() {
    let bench = Bench::new();
    for name in ["used", "free"] {
        bench.run(&["volume", "create", name]);
    }
    bench
        .run(&["volume", "prune", "--dry-run"])
        .expect(0, "Would remove 1 volume: free\n", "");
    let unasked = bench.run(&["volume", "prune"]);
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    bench
        .run(&["volume", "prune", "--force"])
        .expect(0, "Removed 1 volume: free\n", "");
    bench
        .run(&["volume", "prune"])
        .expect(0, "Nothing to remove\n", "");
}

#[test]
fn an_instance_is_given_volumes_and_shows_them() {
    let bench = Bench::new();
    let words = [
        &["instance", "start", "--name", "new"][..],
        &["-v", "./site:/www:ro", "--volume", "cache:/var//cache/"],
    ];
    let started = bench.run(&words.concat());
    assert_eq!(started.code, Some(0), "{started:?}");
    let here = std::env::current_dir().unwrap().join("site");
    let shown = bench.run(&["instance", "info", "new"]);
    for volume in [
        format!("{}:/www:ro", here.display()),
        "cache:/var/cache".into(),
    ] {
        assert!(shown.stdout.contains(&volume), "{volume}: {shown:?}");
    }
    for (volume, words) in [
        ("/data", "not SOURCE:TARGET"),
        ("/srv:/proc/x", "belongs to the guest's system"),
        ("/srv:/x:z", "known are ro and rw"),
        ("/:/host", "whole root of the host"),
    ] {
        let refused = bench.run(&["run", "--volume", volume, "--", "true"]);
        assert!(refused.stderr.contains(words), "{volume}: {refused:?}");
        assert!(refused.stderr.contains("(InvalidArgument)"), "{refused:?}");
    }
}
