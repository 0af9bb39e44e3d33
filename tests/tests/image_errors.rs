//! What a user reads where an image cannot be had, and what becomes of those that can.

use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::registry::wait_for_port;
use aegis_tests::seat::Seat;
use anyhow::Result;

const PORT: u16 = 5200;
const HOST: &str = "127.0.0.1:5200";
const STAND_IN: &str = "/tmp/odd_registry.py";

/// Repository and tag, the symbol, and what must be said besides.
const REFUSED: [(&str, &str, &[&str]); 10] = [
    (
        "127.0.0.1:5200/wrong:v1",
        "ImageCorrupt",
        &["digest is sha256:", "pull it again"],
    ),
    ("127.0.0.1:5200/short:v1", "ImageCorrupt", &["ends after"]),
    ("127.0.0.1:5200/no-json:v1", "ImageCorrupt", &["manifest"]),
    (
        "127.0.0.1:5200/private:v1",
        "ImageUnauthorized",
        &["aegisctl login 127.0.0.1:5200"],
    ),
    (
        "127.0.0.1:5200/busy-late:v1",
        "RegistryBusy",
        &["in 3600 s", "try again later"],
    ),
    ("127.0.0.1:5200/app:v2", "ImageNotFound", &["app:v2"]),
    (
        "127.0.0.1:5200/only-others:v1",
        "ImagePlatform",
        &["linux/arm64, linux/s390x"],
    ),
    (
        "127.0.0.1:1/app:v1",
        "RegistryUnreachable",
        &["127.0.0.1:1"],
    ),
    (
        "no-such-host.invalid/app:v1",
        "RegistryUnreachable",
        &["no-such-host.invalid"],
    ),
    ("127.0.0.1:5200/App:v1", "ImageName", &["upper case"]),
];

#[test]
fn a_user_is_told_why_an_image_cannot_be_had() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    let program = include_bytes!("../clients/odd_registry.py");
    machine.write_file(seat.user(), STAND_IN, program)?;
    seat.systemctl("stop odd-registry.service")?;
    let serve = format!(
        "systemd-run --user --quiet --collect --unit odd-registry python3 {STAND_IN} {PORT}"
    );
    seat.run(&serve)?.success()?;
    wait_for_port(seat, PORT)?;

    for (name, symbol, words) in REFUSED {
        let registry = name.split('/').next().unwrap_or_default();
        let pull = format!("image pull {name} --insecure-registry {registry}");
        let told = seat.aegis(&pull)?;
        let said = told.error_text();
        println!("{said}\n");
        assert_eq!(told.code(), 1, "{name}: {said}");
        assert!(said.contains(&format!("({symbol})")), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: {word}: {said}");
        }
    }
    let listed = seat.aegis_ok("image list --quiet")?;
    assert!(!listed.contains(HOST), "{listed}");

    for (name, flags, platform) in [
        ("app", "", "linux/amd64"),
        ("both", "", "linux/amd64"),
        ("both", "--platform linux/arm64", "linux/arm64"),
        ("busy-soon", "", "linux/amd64"),
    ] {
        seat.aegis_ok(&format!(
            "image pull {HOST}/{name}:v1 --insecure-registry {HOST} {flags}"
        ))?;
        let inspect = format!("aegisctl image inspect {HOST}/{name}:v1 | jq -r .image.platform");
        assert_eq!(seat.run(&inspect)?.success()?, platform, "{name} {flags}");
        seat.aegis_ok(&format!("image remove {HOST}/{name}:v1"))?;
    }
    seat.systemctl("stop odd-registry.service")?.success()?;
    Ok(())
}
