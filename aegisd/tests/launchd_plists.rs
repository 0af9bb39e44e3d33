//! The property lists of jobs, as two independent programs read them: Python's plistlib
//! and plistutil of libplist. launchd's own rules are checked by the stand-in's reader,
//! `tests/stand_ins/launchd_plist.py`.

#![allow(clippy::disallowed_methods, reason = "tests make files as they like")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aegis_core::handle::Handle;
use aegis_core::restart::RestartPolicy;
use aegisd::supervisor::launchd::files::render;
use aegisd::supervisor::launchd::jobs::{self, JobFiles, JobMaker, UnitUser};
use aegisd::supervisor::plan::{Confinement, Limits, Listen, LogFields, Program};
use aegisd::supervisor::plan::{Readiness, Restarts};
use aegisd::supervisor::{DaemonPlan, DoorPlan, InstancePlan, UnitId};
use plist::Dictionary;

fn program(name: &str) -> Program {
    Program {
        path: Path::new("/opt/homebrew/libexec/aegisvm").join(name),
        arguments: vec!["--spec".into(), "/i/spec.json".into()],
    }
}

fn handle() -> Handle {
    "my-web.1".parse().expect("what the test is made of")
}

fn maker(user: Option<UnitUser>) -> JobMaker {
    JobMaker {
        domain: "gui/501".into(),
        launchctl: "/bin/launchctl".into(),
        shim: "/opt/homebrew/libexec/aegisvm/aegis-shim".into(),
        path: "/opt/homebrew/bin:/usr/bin & <ü>".into(),
        user,
    }
}

fn files() -> JobFiles {
    JobFiles {
        log: "/i/log/vm.log".into(),
        record: "/i/runs.json".into(),
        notify: "/r/notify/0011223344556677".into(),
    }
}

fn vm() -> InstancePlan {
    InstancePlan {
        handle: handle(),
        program: program("aegis-vmm"),
        listen: vec![
            Listen::Unix("/r/vm/web/control.sock".into()),
            Listen::Tcp("127.0.0.1:8080".parse().expect("what the test is made of")),
            Listen::Tcp("[::1]:8081".parse().expect("what the test is made of")),
        ],
        stop_timeout: Duration::from_secs(25),
        watchdog: Duration::from_secs(30),
        restart: RestartPolicy::No,
        credentials: None,
        limits: Limits::default(),
        confinement: Confinement::Waived,
        log: LogFields::default(),
    }
}

fn daemon(restarts: Restarts, readiness: Readiness) -> DaemonPlan {
    DaemonPlan {
        handle: handle(),
        daemon: "gateway".into(),
        label: "Gateway".into(),
        program: program("aegis-shim"),
        ended: program("aegis-shim"),
        back_off: "/i/back-off.json".into(),
        readiness,
        restarts,
        restart_max_delay: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(20),
        credentials: None,
        limits: Limits::default(),
        confinement: Confinement::Waived,
        log: LogFields::default(),
    }
}

fn door(listen: Listen, port: &str) -> DoorPlan {
    let port = port.parse().expect("what the test is made of");
    DoorPlan {
        socket: UnitId::port_socket(&handle(), port),
        door: UnitId::port_door(&handle(), port),
        label: "Port".into(),
        listen,
        program: program("aegis-shim"),
        confinement: Confinement::Waived,
    }
}

/// Every kind of job there is.
fn all_jobs() -> Vec<Dictionary> {
    let mut all = vec![jobs::session_job(&jobs::session_label(
        1_700_000_000_000_000,
    ))];
    let user = UnitUser {
        name: "root".into(),
        uid: 0,
    };
    for user in [None, Some(user)] {
        let maker = maker(user);
        all.push(maker.vm(&vm(), &files()));
        for restarts in [Restarts::OnFailure, Restarts::Always, Restarts::Never] {
            for readiness in [Readiness::Started, Readiness::Notify] {
                all.push(maker.daemon(&daemon(restarts, readiness), &files()));
            }
        }
        for port in ["8080:80", "[::1]:8080:80"] {
            let listen = Listen::Tcp("[::1]:8080".parse().expect("what the test is made of"));
            let plan = door(listen, port);
            let label = jobs::label(&plan.door).expect("what the test is made of");
            all.push(maker.door(&plan, &label, Path::new("/i/log/doors.log")));
        }
        let plan = door(Listen::Unix("/r/api/web/api.sock".into()), "1:2");
        let label = jobs::label(&UnitId::door(&handle())).expect("what the test is made of");
        all.push(maker.door(&plan, &label, Path::new("/i/log/doors.log")));
    }
    all
}

/// Writes a job as aegisd does.
fn write(folder: &Path, job: &Dictionary) -> PathBuf {
    let label = job["Label"].as_string().expect("what the test is made of");
    let path = folder.join(format!("{label}.plist"));
    std::fs::write(&path, render(job).expect("what the test is made of"))
        .expect("what the test is made of");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))
        .expect("what the test is made of");
    path
}

/// Reads a list as JSON with sorted keys, by this and by that program.
fn python(code: &str, file: &Path) -> String {
    let stand_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/stand_ins");
    let output = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(code)
        .arg(file)
        .env("PYTHONPATH", stand_ins)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("what the test is made of");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", file.display());
    String::from_utf8(output.stdout).expect("what the test is made of")
}

const PLISTLIB: &str = "import json, plistlib, sys
print(json.dumps(plistlib.load(open(sys.argv[1], 'rb')), sort_keys=True))";
const RULES: &str = "import json, launchd_plist, os, sys
print(json.dumps(launchd_plist.read(sys.argv[1], os.getuid()), sort_keys=True))";

#[test]
fn every_list_is_read_alike_by_plistlib_and_libplist_and_keeps_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    for job in all_jobs() {
        let path = write(folder.path(), &job);
        let expected = python(PLISTLIB, &path);
        assert_eq!(python(RULES, &path), expected);
        let binary = path.with_extension("bin");
        let again = path.with_extension("xml");
        // To another form and back: what libplist did not understand would be lost.
        for (from, to, form) in [(&path, &binary, "bin"), (&binary, &again, "xml")] {
            let status = Command::new("plistutil")
                .arg("-i")
                .arg(from)
                .arg("-o")
                .arg(to)
                .args(["-f", form])
                .status()
                .expect("plistutil is in packaging/build-deps.txt");
            assert!(status.success(), "{}", path.display());
        }
        assert_eq!(python(PLISTLIB, &again), expected, "{}", path.display());
    }
}

#[test]
fn the_agent_of_aegisd_is_a_list_that_keeps_the_rules() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launchd/org.aegisvm.aegisd.plist");
    let text = std::fs::read_to_string(source).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("org.aegisvm.aegisd.plist");
    std::fs::write(&path, text.replace("@PREFIX@", "/opt/homebrew")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let read = python(RULES, &path);
    assert!(read.contains("\"KeepAlive\": true"), "{read}");
    assert!(
        read.contains("/opt/homebrew/libexec/aegisvm/aegisd"),
        "{read}"
    );
}

#[test]
fn labels_are_read_back() {
    let handle = handle();
    let port = "[::1]:8080:80".parse().unwrap();
    for unit in [
        UnitId::vm(&handle),
        UnitId::daemon(&handle, "gate.way"),
        UnitId::door(&handle),
        UnitId::port_door(&handle, port),
    ] {
        let label = jobs::label(&unit).unwrap();
        assert_eq!(jobs::unit(&label), Some(unit), "{label}");
    }
    assert_eq!(jobs::label(&UnitId::group(&handle)), None);
    for foreign in [
        "org.aegisvm.aegisd",
        "org.aegisvm.session:1",
        "com.apple.x",
        "",
    ] {
        assert_eq!(jobs::unit(foreign), None, "{foreign}");
    }
}
