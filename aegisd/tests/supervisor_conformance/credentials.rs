//! The credential of a unit: asked for at each start, from a socket.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use aegis_core::units;
use aegisd::supervisor::plan::Program;
use aegisd::supervisor::state::RunResult;
use aegisd::supervisor::{SupervisorError, UnitId};

use crate::world::{PATIENCE, World};

/// A socket that answers each request with its number. Who asked is received.
fn answer(world: &World) -> (PathBuf, Receiver<String>) {
    let path = world.dir.join("credentials.sock");
    let listener = UnixListener::bind(&path).expect("listen");
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for (number, stream) in (1..).zip(listener.incoming()) {
            let mut stream = stream.expect("accept");
            let address = stream.peer_addr().expect("the peer's address");
            let name = address.as_abstract_name().unwrap_or_default().to_vec();
            writeln!(stream, "{number}").expect("answer");
            if sender
                .send(String::from_utf8_lossy(&name).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    (path, asked)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_unit_asks_for_its_credential_at_each_start() {
    let world = World::new("c-creds").await;
    let (socket, asked) = answer(&world);
    let mut plan = world.daemon("asks", "");
    let script = world.write(
        "asks.sh",
        &format!(
            "cat \"$CREDENTIALS_DIRECTORY/aegis\" >>{0}/seen; exec sleep infinity",
            world.dir.display()
        ),
    );
    plan.program = Program {
        path: "/bin/sh".into(),
        arguments: vec![script.display().to_string()],
    };
    plan.credentials = Some(socket);
    world.supervisor.launch(&plan).await.unwrap();
    assert_eq!(world.wait_for_lines("seen", 1).await, ["1"]);
    let unit = UnitId::daemon(&world.handle, "asks");
    world.supervisor.restart(&unit).await.unwrap();
    assert_eq!(world.wait_for_lines("seen", 2).await, ["1", "2"]);
    // A restart by the manager itself asks too.
    world.supervisor.signal(&unit, 9).await.unwrap();
    assert_eq!(world.wait_for_lines("seen", 3).await, ["1", "2", "3"]);
    let end = format!("/unit/{}/aegis", units::daemon(&world.handle, "asks"));
    for _ in 0..3 {
        let address = asked.recv_timeout(PATIENCE).unwrap();
        assert!(address.ends_with(&end), "{address}");
    }
    world.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside the test machine"]
async fn a_socket_that_does_not_answer_makes_a_start_fail_in_time() {
    let world = World::new("c-silent").await;
    let socket = world.dir.join("credentials.sock");
    let _silent = UnixListener::bind(&socket).expect("listen");
    let mut plan = world.instance(&[]);
    plan.credentials = Some(socket);
    let control = world.layout.control_socket(&world.handle);
    world.make_folder(control.parent().expect("it has a folder"));
    world.supervisor.open(&plan).await.unwrap();
    let began = Instant::now();
    let failed = world.supervisor.start(&UnitId::vm(&world.handle)).await;
    let Err(SupervisorError::Job { result, .. }) = failed else {
        panic!("not a failed job: {failed:?}");
    };
    assert_eq!(result, Some(RunResult::Timeout));
    assert!(
        began.elapsed() < Duration::from_secs(100),
        "{:?}",
        began.elapsed()
    );
    world.clean().await;
}
