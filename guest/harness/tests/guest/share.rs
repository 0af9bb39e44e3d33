//! What the host shares, at its places.

use aegis_link::message::SharePlace;
use aegis_tests::skip::skip;
use anyhow::{Result, ensure};

use crate::printed;
use crate::qemu::{Guest, Hardware, Machine, missing};

async fn shared_folder(machine: Machine) -> Result<()> {
    if let Some(reason) = missing(machine) {
        return skip(&reason);
    }
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("from-host"), "host\n")?;
    let hardware = Hardware {
        folder: Some(folder.path().to_owned()),
        places: vec![place("", "/workspace", false)],
        ..Hardware::default()
    };
    let guest = Guest::booted(machine, &hardware, None).await?;
    let seen = printed(
        &guest,
        "cat /workspace/from-host; echo guest >/workspace/from-guest",
    )
    .await?;
    assert_eq!(seen, "host");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("from-guest"))?,
        "guest\n"
    );
    ensure!(guest.stop().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_folder_is_shared_by_9p() -> Result<()> {
    shared_folder(Machine::Own).await
}

#[tokio::test]
async fn a_folder_is_shared_by_9p_with_the_fallback_kernel() -> Result<()> {
    shared_folder(Machine::Fallback).await
}

fn place(name: &str, target: &str, read_only: bool) -> SharePlace {
    SharePlace {
        name: name.to_owned(),
        target: target.to_owned(),
        read_only,
        filled: false,
    }
}

/// Folders and a file, one below another and below what is memory.
#[tokio::test]
async fn parts_of_a_device_are_seen_at_their_places_and_nowhere_else() -> Result<()> {
    if let Some(reason) = missing(Machine::Own) {
        return skip(&reason);
    }
    let folder = tempfile::tempdir()?;
    for name in ["0", "1", "2", "4"] {
        std::fs::create_dir(folder.path().join(name))?;
        std::fs::write(folder.path().join(name).join("name"), format!("{name}\n"))?;
    }
    std::fs::write(folder.path().join("3"), "3\n")?;
    std::fs::create_dir(folder.path().join("5"))?;
    let filled = SharePlace {
        filled: true,
        ..place("5", "/usr/sbin", false)
    };
    let hardware = Hardware {
        folder: Some(folder.path().to_owned()),
        places: vec![
            place("0", "/data", false),
            place("1", "/data/sub/deep", true),
            place("3", "/etc/app/file", true),
            place("2", "/run/app", false),
            place("4", "/tmp", false),
            filled,
        ],
        ..Hardware::default()
    };
    let guest = Guest::booted(Machine::Own, &hardware, None).await?;
    let seen = printed(
        &guest,
        "cat /data/name /data/sub/deep/name /run/app/name /etc/app/file /tmp/name; \
         ls /data /share 2>&1; ls /data/sub/deep/..; grep -c ' /share ' /proc/mounts; \
         touch /data/new /data/sub/deep/new /etc/app/file 2>&1 | wc -l",
    )
    .await?;
    assert_eq!(
        seen,
        "0\n1\n2\n3\n4\nls: /share: No such file or directory\n/data:\nname\nsub\ndeep\n0\n2"
    );
    assert!(folder.path().join("0/new").exists());
    assert!(!folder.path().join("1/new").exists());
    assert!(folder.path().join("5/chroot").is_symlink(), "of the image");
    ensure!(guest.stop().await?.success());
    Ok(())
}
