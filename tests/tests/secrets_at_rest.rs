//! How secrets are kept: the key that the host seals, a new one, a lost one, and the
//! record of uses.

use std::collections::BTreeSet;

use aegis_tests::instance::Instance;
use aegis_tests::machine::{Machine, Systemd, User};
use aegis_tests::seat::Seat;
use anyhow::{Context, Result};
use serde_json::Value;

/// Values that occur nowhere by chance.
const FIRST: &str = "zq8-first-hunter2-first";
const SECOND: &str = "zq8-second-correct-horse";

/// The key of the host that systemd-creds seals with.
const HOST_KEY: &str = "/var/lib/systemd/credential.secret";

fn json(seat: Seat<'_>, arguments: &str) -> Result<Value> {
    let text = seat.aegis_ok(&format!("{arguments} --json"))?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// A field of `secret status`.
fn status(seat: Seat<'_>, field: &str) -> Result<String> {
    let status = json(seat, "secret status")?;
    Ok(match &status[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// The names whose values can be read.
fn readable(seat: Seat<'_>) -> Result<BTreeSet<String>> {
    let listed = json(seat, "secret list")?;
    let secrets = listed["secrets"].as_array().context("a list")?;
    let readable = secrets.iter().filter(|secret| secret["readable"] == true);
    let names = readable.filter_map(|secret| secret["name"].as_str().map(str::to_owned));
    Ok(names.collect())
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The row of `doctor` about secrets.
fn checked(seat: Seat<'_>) -> Result<(String, String)> {
    let text = seat.aegis("doctor --json")?.text();
    let checks: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let rows = checks["checks"].as_array().context("checks")?;
    let row = rows.iter().find(|row| row["id"] == "secrets");
    let row = row.context("no row about secrets")?;
    let word = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    Ok((
        word("status"),
        format!("{} {}", word("summary"), word("hint")),
    ))
}

/// The files of keys.
fn keys(seat: Seat<'_>) -> Result<Vec<String>> {
    let line = format!("cd {} && ls secrets*", seat.home());
    let listed = seat.machine().run(User::Root, &line)?.text();
    Ok(listed.lines().map(str::to_owned).collect())
}

fn root(seat: Seat<'_>, line: &str) -> Result<String> {
    seat.machine().run(User::Root, line)?.success()
}

fn restart(seat: Seat<'_>) -> Result<()> {
    seat.systemctl("restart aegisd.service")?.success()?;
    seat.wait_for_aegisd()
}

fn the_host_seals_the_key(seat: Seat<'_>) -> Result<()> {
    assert_eq!(status(seat, "key_state")?, "missing");
    assert_eq!(status(seat, "sealer")?, "systemd-creds");
    seat.set_secret("FIRST", FIRST)?;
    assert_eq!(status(seat, "key_state")?, "sealed");
    assert_eq!(status(seat, "opens_with")?, "the host's key");
    assert_eq!(status(seat, "values")?, "1");
    let (state, words) = checked(seat)?;
    assert_eq!(state, "ok", "{words}");
    let file = format!("{}/secrets.key", seat.home());
    let mode = root(seat, &format!("stat -c %a {file}"))?;
    assert_eq!(mode.trim(), "600");
    let content: Value = serde_json::from_str(&root(seat, &format!("cat {file}"))?)?;
    assert_eq!(content["sealed_by"], "systemd-creds");
    restart(seat)?;
    assert_eq!(readable(seat)?, names(["FIRST"]));
    Ok(())
}

fn a_key_in_clear_goes_on_and_the_next_is_sealed(seat: Seat<'_>) -> Result<()> {
    seat.aegis_ok("secret delete FIRST")?;
    // As an older version made it.
    let file = format!("{}/secrets.key", seat.home());
    let (user, line) = (
        seat.user(),
        format!("umask 077; head -c 40 /dev/urandom >{file}"),
    );
    seat.machine().run(user, &line)?.success()?;
    seat.set_secret("FIRST", FIRST)?;
    assert_eq!(status(seat, "key_state")?, "clear");
    let (state, words) = checked(seat)?;
    assert_eq!(state, "warn");
    assert!(words.ends_with("aegisctl secret rotate-key"), "{words}");
    let before = status(seat, "key_id")?;
    restart(seat)?;
    assert_eq!(readable(seat)?, names(["FIRST"]));
    let rotated = json(seat, "secret rotate-key")?;
    assert_eq!(rotated["values"], 1);
    assert_eq!(rotated["sealed"], true);
    assert_eq!(status(seat, "key_state")?, "sealed");
    assert_ne!(status(seat, "key_id")?, before);
    assert_eq!(readable(seat)?, names(["FIRST"]));
    assert_eq!(keys(seat)?, ["secrets.key"]);
    Ok(())
}

fn a_host_that_lost_its_key_is_told_and_loses_nothing_more(seat: Seat<'_>) -> Result<()> {
    seat.set_secret("SECOND", SECOND)?;
    root(
        seat,
        &format!("mv {HOST_KEY} {HOST_KEY}.away && systemd-creds setup"),
    )?;
    restart(seat)?;
    assert_eq!(readable(seat)?, names([]));
    assert_eq!(status(seat, "key_state")?, "shut");
    assert_eq!(status(seat, "unreadable")?, "2");
    assert_eq!(checked(seat)?.0, "fail");
    let refused = seat.aegis("run --env FIRST -- true")?;
    let said = refused.error_text();
    assert!(said.contains("(SecretKeyLost)"), "{said}");
    assert!(said.contains("aegisctl secret set FIRST"), "{said}");
    // Nothing was touched until a value is set.
    assert_eq!(keys(seat)?, ["secrets.key"]);
    seat.set_secret("FIRST", FIRST)?;
    assert_eq!(readable(seat)?, names(["FIRST"]));
    assert_eq!(keys(seat)?.len(), 2);
    let rotated = json(seat, "secret rotate-key")?;
    assert_eq!(rotated["unreadable"], serde_json::json!(["SECOND"]));
    // With the host's key the value is back that nobody has set again.
    root(
        seat,
        &format!("mv {HOST_KEY} {HOST_KEY}.new && cp -p {HOST_KEY}.away {HOST_KEY}"),
    )?;
    restart(seat)?;
    assert_eq!(readable(seat)?, names(["SECOND"]));
    seat.set_secret("FIRST", FIRST)?;
    let rotated = json(seat, "secret rotate-key")?;
    assert_eq!(rotated["values"], 2);
    assert_eq!(keys(seat)?, ["secrets.key"]);
    assert_eq!(readable(seat)?, names(["FIRST", "SECOND"]));
    Ok(())
}

/// All or none, and no value in sight.
fn a_file_of_variables_is_imported(seat: Seat<'_>) -> Result<()> {
    let import = |line: &str, text: &str| {
        let machine = seat.machine();
        machine.run_with_input(seat.user(), line, text.as_bytes())
    };
    let text = format!("# two\nTHIRD={FIRST}\nFOURTH={SECOND}\n");
    let imported = import("aegisctl secret import -", &text)?;
    assert_eq!(imported.success()?, "FOURTH\nTHIRD");
    let text = format!("FIFTH={FIRST}\nTHIRD={SECOND}\n");
    let refused = import("aegisctl secret import -", &text)?;
    let said = refused.error_text();
    assert_eq!(refused.code(), 1, "{said}");
    assert!(said.contains("THIRD (AlreadyExists)"), "{said}");
    assert!(!readable(seat)?.contains("FIFTH"));
    let imported = import("aegisctl secret import --replace -", &text)?;
    assert_eq!(imported.success()?, "FIFTH\nTHIRD");
    for name in ["THIRD", "FOURTH", "FIFTH"] {
        seat.aegis_ok(&format!("secret delete {name}"))?;
    }
    Ok(())
}

fn every_use_is_recorded(seat: Seat<'_>) -> Result<()> {
    // aegisd says nothing else then.
    seat.systemctl("set-environment AEGIS_LOG=error")?
        .success()?;
    restart(seat)?;
    seat.set_secret("FIRST", FIRST)?;
    seat.set_secret("OTHER", SECOND)?;
    let instance = Instance::start(seat, "used", "--env V=secret.FIRST")?;
    assert_eq!(instance.exec_ok("echo $V")?, FIRST);
    let exec = instance.exec_with("--env W=secret.FIRST", "sh -c 'echo $W'")?;
    assert_eq!(exec.success()?.trim(), FIRST);
    // Whoever writes the same is not aegisd.
    let forge = "printf 'MESSAGE_ID=%s\\nAEGIS_SECRET=FIRST\\nAEGIS_INSTANCE=forged\\n\
                 AEGIS_UNIT=x\\nAEGIS_PURPOSE=exec\\nAEGIS_VARIABLE=X\\nMESSAGE=x\\n' \
                 $(journalctl $SCOPE -o json AEGIS_SECRET=FIRST | head -1 | \
                   sed 's/.*\"MESSAGE_ID\":\"\\([0-9a-f]*\\)\".*/\\1/') | logger --journald";
    seat.run(&format!("SCOPE={}; {forge}", seat.scope()))?
        .success()?;
    let log = json(seat, "secret log FIRST")?;
    let uses = log["uses"].as_array().context("uses")?;
    let of = |purpose: &str| {
        let of = uses.iter().filter(|one| one["for"] == purpose);
        of.map(|one| (&one["instance"], &one["unit"], &one["variable"]))
            .map(|(instance, unit, variable)| format!("{instance} {unit} {variable}"))
            .collect::<Vec<_>>()
    };
    let unit = instance.vm_unit();
    assert_eq!(of("start"), [format!("\"used\" \"{unit}\" \"V\"")], "{log}");
    assert_eq!(of("exec"), [format!("\"used\" \"{unit}\" \"W\"")], "{log}");
    let caller = match seat.user() {
        User::Root => "0",
        User::Alice => "1000",
    };
    let asked = uses.iter().find(|one| one["for"] == "exec");
    assert_eq!(asked.context("a use")?["caller_uid"].to_string(), caller);
    let shown = seat.aegis_ok("secret log FIRST --since 1h")?;
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert_eq!(
        json(seat, "secret log OTHER")?["uses"],
        serde_json::json!([])
    );
    let found = root(seat, "journalctl -o export | grep -ac '[z]q8-'; true")?;
    assert_eq!(found.trim(), "0");
    instance.delete()?;
    seat.systemctl("unset-environment AEGIS_LOG")?.success()?;
    restart(seat)
}

fn sealed(seat: Seat<'_>) -> Result<()> {
    the_host_seals_the_key(seat)?;
    a_key_in_clear_goes_on_and_the_next_is_sealed(seat)?;
    a_host_that_lost_its_key_is_told_and_loses_nothing_more(seat)?;
    a_file_of_variables_is_imported(seat)?;
    every_use_is_recorded(seat)
}

/// Where nothing seals for a user.
fn in_clear(seat: Seat<'_>) -> Result<()> {
    let (state, words) = checked(seat)?;
    assert_eq!(state, "warn", "{words}");
    seat.set_secret("FIRST", FIRST)?;
    assert_eq!(status(seat, "key_state")?, "clear");
    assert_eq!(status(seat, "sealer")?, "");
    assert_ne!(status(seat, "obstacle")?, "");
    let (state, words) = checked(seat)?;
    assert_eq!(state, "warn");
    assert!(words.contains("systemd 256"), "{words}");
    let file = format!("{}/secrets.key", seat.home());
    assert_eq!(
        root(seat, &format!("stat -c '%a %s' {file}"))?.trim(),
        "600 40"
    );
    let before = status(seat, "key_id")?;
    let rotated = seat.aegis("secret rotate-key")?;
    let said = rotated.error_text();
    rotated.success()?;
    assert!(said.contains("the new key is in clear in"), "{said}");
    assert_ne!(status(seat, "key_id")?, before);
    assert_eq!(readable(seat)?, names(["FIRST"]));
    a_file_of_variables_is_imported(seat)?;
    every_use_is_recorded(seat)
}

#[test]
fn the_key_of_a_user() -> Result<()> {
    let machine = Machine::temporary("test-secrets-rest", Systemd::V257)?;
    sealed(Seat::alice(&machine))
}

#[test]
fn the_key_of_the_system() -> Result<()> {
    let machine = Machine::temporary("test-secrets-rest-root", Systemd::V257)?;
    sealed(Seat::root(&machine))
}

#[test]
fn the_key_of_a_user_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-secrets-rest-252", Systemd::V252)?;
    in_clear(Seat::alice(&machine))
}

#[test]
fn the_key_of_the_system_on_systemd_252() -> Result<()> {
    let machine = Machine::temporary("test-secrets-rest-root-252", Systemd::V252)?;
    sealed(Seat::root(&machine))
}
