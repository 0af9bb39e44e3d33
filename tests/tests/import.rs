//! What the original AegisVM keeps, taken over from a folder that is only read.

use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::seat::Seat;
use aegis_tests::session::Session;
use aegis_tests::wait::wait_for;
use anyhow::{Context, Result};
use serde_json::Value;

/// Makes the folder of an original, and plays its daemon.
const ORIGINAL: &[u8] = include_bytes!("../clients/original.py");
/// Occurs nowhere by chance.
const VALUE: &str = "zq9-imported-hunter2";
const SECRET: &str = "IMPORTED_KEY";
const PORT: u16 = 18_431;
/// Has no handle.
const OTHER: &str = "inst-1772000000000000001";

/// What of its folder is its own: it may be ours too.
const ITS_OWN: [&str; 3] = ["master.key", "aegisd.sock", "data"];

/// The folder of an original; what is in it goes at the end.
struct Old<'a> {
    seat: Seat<'a>,
    folder: String,
    script: String,
}

impl<'a> Old<'a> {
    fn make(seat: Seat<'a>, folder: &str) -> Result<Self> {
        let old = Self {
            seat,
            folder: folder.to_owned(),
            script: format!("/var/tmp/original-{}.py", seat.user().name()),
        };
        old.remove()?;
        let machine = seat.machine();
        machine.write_file(seat.user(), &old.script, ORIGINAL)?;
        let make = format!("python3 {} make {} {VALUE} {PORT}", old.script, old.folder);
        seat.run(&make)?.success()?;
        Ok(old)
    }

    fn its_own(&self) -> String {
        ITS_OWN
            .map(|name| format!("{}/{name}", self.folder))
            .join(" ")
    }

    fn remove(&self) -> Result<()> {
        let line = format!("rm -rf {} {}", self.its_own(), self.script);
        self.seat.run(&line)?.success().map(drop)
    }

    /// Everything in it, with times and contents.
    fn files(&self) -> Result<String> {
        let own = self.its_own();
        self.seat
            .run(&format!(
                "find {own} -printf '%p %y %m %u %s %T@\\n' | sort; \
                 find {own} -type f -print0 | sort -z | xargs -0 sha256sum"
            ))?
            .success()
    }

    fn import(&self, flags: &str) -> Result<aegis_tests::machine::Output> {
        let imported = self
            .seat
            .aegis(&format!("import --from {} {flags}", self.folder))?;
        for text in [imported.text(), imported.error_text()] {
            assert!(!text.contains(VALUE), "{text}");
        }
        Ok(imported)
    }

    /// An import that succeeds, as JSON.
    fn imported(&self, flags: &str) -> Result<Value> {
        let imported = self.import(&format!("--json {flags}"))?.success()?;
        serde_json::from_str(&imported).context("the report of an import")
    }
}

impl Drop for Old<'_> {
    fn drop(&mut self) {
        // What is left of a failed test is in nobody's way.
        drop(self.seat.aegis(&format!("secret delete --force {SECRET}")));
        drop(self.remove());
    }
}

fn an_original_is_taken_over(seat: Seat<'_>, folder: &str) -> Result<()> {
    let (teller, other) = (
        Instance::expected(seat, "teller")?,
        Instance::expected(seat, OTHER)?,
    );
    let old = Old::make(seat, folder)?;
    a_daemon_that_runs_is_left_alone(seat, &old)?;
    let before = old.files()?;
    let planned = old.imported("--dry-run")?;
    assert_eq!(planned["outcome"], "planned", "{planned}");
    assert!(is_nothing_here(seat)?);

    let done = old.imported("")?;
    assert_eq!(done["outcome"], "imported", "{done}");
    assert_eq!(done["instances"][0]["messages"], 3, "{done}");
    assert_eq!(done["messages_left"], 1);
    messages_are_kept(seat)?;
    let notes = done["notes"].to_string();
    for words in [
        "table tether_frames",
        "data/overlays",
        "by the guest of 'teller'",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
    assert_eq!(old.files()?, before);
    let (view, view_of_other) = (view(seat, "teller")?, view(seat, OTHER)?);
    assert_eq!(view["state"], "stopped");
    assert_eq!(view["ports"][0], format!("127.0.0.1:{PORT}:80"), "{view}");
    assert_eq!(view["memory_mib"], 192);
    assert_eq!(view_of_other["state"], "disabled");

    // What it says is of its secret, its workspace, its variables.
    seat.aegis_ok("instance start --name teller")?;
    let hash = seat.run(&format!("printf %s {VALUE} | sha256sum | cut -c1-64"))?;
    let hash = hash.success()?;
    let expected = format!(
        "hash {}\ngreetings from the workspace\nuser 0 in /, plain",
        hash.trim()
    );
    let said = wait_for(DEADLINE, "what the instance says", || {
        let said = seat.aegis_ok("logs teller")?;
        Ok(said.contains("user ").then_some(said))
    })?;
    assert_eq!(said, expected);

    let again = old.imported("")?;
    assert_eq!(again["outcome"], "unchanged", "{again}");
    assert_eq!(again["instances"][0]["outcome"], "here");
    teller.wait_for_state("running")?;
    assert_eq!(old.files()?, before);
    messages_are_kept(seat)?;
    teller.delete()?;
    other.delete()?;
    assert_eq!(old.files()?, before);
    Ok(())
}

fn messages_are_kept(seat: Seat<'_>) -> Result<()> {
    let read = |flags: &str| -> Result<Vec<String>> {
        let read = seat.aegis_ok(&format!("--json tether read teller {flags}"))?;
        let document: Value = serde_json::from_str(&read).context("messages")?;
        let frames = document["frames"].as_array().context("frames")?;
        let text = |frame: &Value| format!("{} {}", frame["seq"], frame["payload"]["text"]);
        Ok(frames.iter().map(text).collect())
    };
    let all = ["1 \"message 1\"", "2 \"message 2\"", "3 \"message 3\""];
    assert_eq!(read("")?, all);
    assert_eq!(read("--channel ui --type user.message --tail 2")?, all[1..]);
    assert_eq!(read("--session other")?, [] as [&str; 0]);
    Ok(())
}

fn a_daemon_that_runs_is_left_alone(seat: Seat<'_>, old: &Old<'_>) -> Result<()> {
    let line = format!("python3 {} serve {}", old.script, old.folder);
    let mut daemon = Session::start(seat, &line)?;
    daemon.wait_for_line("listening")?;
    let before = old.files()?;
    let refused = old.import("")?;
    let said = refused.error_text();
    assert_eq!(refused.code(), 1, "{said}");
    assert!(said.contains("its aegisd runs: it answers at"), "{said}");
    assert_eq!(old.files()?, before);
    assert!(is_nothing_here(seat)?);
    daemon.signal("TERM")?;
    daemon.wait().map(drop)
}

/// Whether nothing of the original is here.
fn is_nothing_here(seat: Seat<'_>) -> Result<bool> {
    let names = seat.aegis_ok("instance list --quiet")?;
    let secrets = seat.aegis_ok("secret list")?;
    let has_one = names.lines().any(|name| name == "teller" || name == OTHER);
    Ok(!has_one && !secrets.contains(SECRET))
}

fn view(seat: Seat<'_>, name: &str) -> Result<Value> {
    let text = seat.aegis_ok(&format!("--json instance info {name}"))?;
    let document: Value = serde_json::from_str(&text).context("an instance")?;
    Ok(document["instance"].clone())
}

/// Both have the same folder, as they do where nobody chose another one.
#[test]
fn an_original_is_taken_over_by_a_user() -> Result<()> {
    let machine = Machine::shared(Systemd::V257)?;
    let seat = Seat::alice(&machine);
    an_original_is_taken_over(seat, seat.home())
}

#[test]
fn an_original_is_taken_over_by_the_system() -> Result<()> {
    let machine = Machine::shared(Systemd::V252)?;
    an_original_is_taken_over(Seat::root(&machine), "/var/tmp/original")
}
