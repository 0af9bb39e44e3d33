//! The command over a hibernation: its terminal, and its end.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use aegis_link::message::{CommandEnd, ProcessEnd, TtySize};
use aegis_vmm::doorway::Doorway;
use aegis_vmm::owner::up::SaveError;

use crate::vm::{Bench, Vm};

/// A client on the terminal.
struct Client {
    keys: File,
    screen: Arc<std::sync::Mutex<String>>,
    /// Held open, or the client would be gone.
    _rest: Vec<std::os::fd::OwnedFd>,
}

impl Client {
    fn attach(vm: &Vm, doorway: &Arc<Doorway>) -> Self {
        let size = TtySize { rows: 30, cols: 90 };
        let visit = doorway.enter_terminal();
        let mut ends = vm.up.terminal().unwrap().join(Some(size), visit).unwrap();
        let rest = ends.split_off(2);
        let mut output = File::from(ends.pop().unwrap());
        let keys = File::from(ends.pop().unwrap());
        let screen = Arc::new(std::sync::Mutex::new(String::new()));
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                seen.lock().unwrap().push_str(&text);
            }
        });
        Self {
            keys,
            screen,
            _rest: rest,
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    async fn sees(&self, vm: &mut Vm, text: &str) {
        let screen = Arc::clone(&self.screen);
        vm.until(&format!("{text:?} is not shown"), || {
            screen.lock().unwrap().contains(text)
        })
        .await;
    }
}

async fn leave(client: Client, vm: &mut Vm, doorway: &Doorway) {
    drop(client);
    vm.until("the client stays", || doorway.visits().nobody())
        .await;
}

/// Waits until the end of the command was told, and a while for more.
async fn ends(vm: &mut Vm) -> &[CommandEnd] {
    for _ in 0..500 {
        if !vm.ends.is_empty() {
            break;
        }
        vm.during(tokio::time::sleep(Duration::from_millis(20)))
            .await;
    }
    vm.during(tokio::time::sleep(Duration::from_millis(200)))
        .await;
    &vm.ends
}

#[tokio::test]
async fn a_terminal_goes_on_where_it_was() {
    let Some(bench) = Bench::ready() else { return };
    let mut spec = bench.spec(
        "nonce=$(head -c 16 /dev/urandom | sha256sum | head -c 8)
         trap 'echo hung up' HUP
         stty -echo; echo ready
         while read line; do echo \"$nonce got $line\"; printf 'half-'; done; echo read is over",
    );
    spec.terminal = true;
    let doorway = Doorway::new();
    let mut vm = Vm::begin(&spec).await;
    let mut client = Client::attach(&vm, &doorway);
    client.sees(&mut vm, "ready").await;
    client.type_in("zero\n");
    client.sees(&mut vm, "got zero\r\nhalf-").await;
    for word in ["one", "two", "three"] {
        leave(client, &mut vm, &doorway).await;
        vm.save(true).await.unwrap();
        vm.unsuspend().await;
        vm.hibernate().await;
        vm = Vm::begin(&spec).await;
        assert!(vm.is_restored(), "{:?}", vm.up.beginning);
        client = Client::attach(&vm, &doorway);
        client.sees(&mut vm, "got zero").await;
        client.type_in(&format!("{word}\n"));
        client.sees(&mut vm, &format!("got {word}\r\nhalf-")).await;
        assert_eq!(vm.run("stty size </dev/pts/0").await, "30 90");
    }
    let lines: Vec<String> = bench.lines().into_iter().map(|(_, line)| line).collect();
    let nonce = lines[1].split(' ').next().unwrap().to_owned();
    let expected = [
        "ready".to_owned(),
        format!("{nonce} got zero"),
        format!("half-{nonce} got one"),
        format!("half-{nonce} got two"),
        format!("half-{nonce} got three"),
    ];
    assert_eq!(lines, expected);
    client.type_in("\x04");
    client.sees(&mut vm, "half-read is over").await;
    let exited = CommandEnd::Ended(ProcessEnd::Exited { code: 0 });
    assert_eq!(ends(&mut vm).await, [exited]);
    vm.stop().await;
}

#[tokio::test]
async fn the_end_of_a_command_is_told_once_whenever_it_comes() {
    let Some(bench) = Bench::ready() else { return };
    let mut spec =
        bench.spec("echo begun; until [ -e /run/go ]; do usleep 5000; done; echo over; exit 7");
    let mut saved = 0;
    for (number, delay) in (0..16).map(|number| (number, 40 + number * 10)) {
        spec.terminal = number % 2 == 1;
        let before = bench.lines().len();
        let mut vm = Vm::begin(&spec).await;
        vm.until("nothing is written", || bench.lines().len() > before)
            .await;
        let seconds = f64::from(delay) / 1000.0;
        vm.run(&format!(
            "(setsid sh -c 'sleep {seconds}; touch /run/go' >/dev/null 2>&1 &)"
        ))
        .await;
        match vm.save(true).await {
            Ok(_) => {
                saved += 1;
                let ends = vm.ends.clone();
                vm.end().await;
                vm = Vm::begin(&spec).await;
                vm.ends = ends;
                assert!(vm.is_restored(), "{:?}", vm.up.beginning);
            }
            Err(error) => {
                assert!(matches!(error, SaveError::Command), "{error}");
                vm.unsuspend().await;
            }
        }
        let exited = CommandEnd::Ended(ProcessEnd::Exited { code: 7 });
        assert_eq!(ends(&mut vm).await, [exited], "{number}");
        let lines: Vec<String> = bench.lines().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines[before..], ["begun", "over"], "{number}");
        vm.stop().await;
    }
    println!("saved {saved} of 16");
}
