//! The Agent Kit whole: people write to a bot, an agent in a microVM answers. Telegram and
//! the models are stand-ins; everything between is real.

use std::rc::Rc;
use std::time::Duration;

use aegis_tests::cache;
use aegis_tests::instance::{DEADLINE, Instance};
use aegis_tests::kit;
use aegis_tests::layout::Layout;
use aegis_tests::machine::{Machine, Systemd};
use aegis_tests::registry::Registry;
use aegis_tests::seat::Seat;
use aegis_tests::stand_in::StandIn;
use aegis_tests::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The stand-in's own.
const TOKEN: &str = "123456:TEST-token_of-the-stand-in";

/// Where ollama listens.
const OLLAMA: u16 = 11434;

/// Longer than the gateway takes to record what Telegram took.
const RECORDED: Duration = Duration::from_secs(1);

/// A machine with the kit, its image in a registry that is the mirror of the usual one,
/// a model and a Telegram.
struct World<'a> {
    seat: Seat<'a>,
    telegram: StandIn<'a>,
    /// The variable with the bot's token.
    token: &'static str,
    model: StandIn<'a>,
    _registry: Rc<Registry<'a>>,
}

impl<'a> World<'a> {
    fn new(machine: &'a Machine) -> Result<Self> {
        let seat = Seat::alice(machine);
        kit::install_agent(machine)?;
        let layout = Layout::make(&["mkdir -p root tmp"], "--config.cmd sh")?;
        let registry = Registry::start(seat, 5099, &layout, &["library/python:3.12-alpine"])?;
        let mirror = format!(
            "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = '{}'\ninsecure = true\n",
            registry.host()
        );
        let conf = ".config/containers/registries.conf";
        machine.write_file(seat.user(), conf, mirror.as_bytes())?;
        let telegram = StandIn::start(seat, "telegram", 8099, "")?;
        let model = StandIn::start(seat, "llm", OLLAMA, "--no-auth")?;
        seat.set_secret("TELEGRAM_BOT_TOKEN", TOKEN)?;
        Ok(Self {
            seat,
            telegram,
            token: "TELEGRAM_BOT_TOKEN",
            model,
            _registry: Rc::new(registry),
        })
    }

    /// The same with another Telegram, and so another bot.
    fn with_other_bot(&self) -> Result<Self> {
        let token = "654321:other";
        let flags = format!("--token {token}");
        self.seat.set_secret("OTHER_BOT_TOKEN", token)?;
        Ok(Self {
            seat: self.seat,
            telegram: StandIn::start(self.seat, "telegram", 8100, &flags)?,
            token: "OTHER_BOT_TOKEN",
            model: self.model.clone(),
            _registry: Rc::clone(&self._registry),
        })
    }

    /// Writes the gateway's config.
    fn allow(&self, handle: &str, chats: &[&str]) -> Result<()> {
        let gateway = json!({"telegram": {
            "bot_token_env": self.token,
            "allowed_chats": chats,
            "api_base_url": format!("http://{}", self.telegram.address()),
        }});
        let path = format!("{}/{handle}/gateway.json", self.seat.kits());
        self.write(&path, &gateway)
    }

    /// An agent whose gateway and model are the stand-ins; both files are written before
    /// the instance is made, as docs/AGENT_KIT.md has it.
    fn agent(&self, handle: &str, flags: &str) -> Result<Instance<'a>> {
        let seat = self.seat;
        let instance = Instance::expected(seat, handle)?;
        self.allow(handle, &["*"])?;
        let agent = json!({"model": "host:ollama/test"});
        let workspace = format!("{}/workspaces/{handle}", seat.home());
        self.write(&format!("{workspace}/.aegis/agent.json"), &agent)?;
        seat.aegis_ok(&format!(
            "instance start --kit agent --name {handle} --env {} {flags}",
            self.token
        ))?;
        Ok(instance)
    }

    /// An agent without a workspace, which without KVM would keep its VM from hibernating,
    /// whose VM goes to sleep soon.
    fn sleepy_agent(&self, handle: &str) -> Result<Instance<'a>> {
        let seat = self.seat;
        let source = cache::repository().join("kits/agent/agent.json");
        let mut kit: Value = serde_json::from_slice(&std::fs::read(source)?)?;
        let fields = kit.as_object_mut().context("the manifest is an object")?;
        fields.remove("$schema");
        fields.remove("config");
        fields.insert("name".to_owned(), "sleepy".into());
        kit["defaults"]["env"] = json!({"AEGIS_MODEL": "host:ollama/test"});
        self.write(&format!("{}/sleepy.json", seat.kits()), &kit)?;
        let instance = Instance::expected(seat, handle)?;
        self.allow(handle, &["*"])?;
        seat.aegis_ok(&format!(
            "instance start --kit sleepy --name {handle} --env {} \
             --idle-pause 2s --idle-hibernate 2s",
            self.token
        ))?;
        Ok(instance)
    }

    fn write(&self, path: &str, content: &Value) -> Result<()> {
        let (machine, user) = (self.seat.machine(), self.seat.user());
        self.seat
            .run(&format!("mkdir -p $(dirname {path})"))?
            .success()?;
        machine.write_file(user, path, content.to_string().as_bytes())
    }

    /// Somebody writes to the bot.
    fn writes(&self, chat: i64, text: &str) -> Result<()> {
        let chat = json!({"id": chat, "type": "private", "first_name": "Ann"});
        self.telegram
            .order("update", &json!({"chat": chat, "text": text}))?;
        Ok(())
    }

    /// What the bot's messages in a chat say at last.
    fn said(&self, chat: i64) -> Result<Vec<String>> {
        let messages = self.telegram.tells(&format!("chat?id={chat}"))?;
        let messages = messages.as_array().context("messages")?.clone();
        let left = messages.iter().filter(|message| message["deleted"] != true);
        Ok(left
            .filter_map(|message| message["text"].as_str().map(str::to_owned))
            .collect())
    }

    /// Waits until the bot has said all of this, in this order, and nothing else.
    fn says(&self, chat: i64, expected: &[String], most: Duration) -> Result<()> {
        let mut said = Vec::new();
        let waited = wait_until(most, &format!("the answers in chat {chat}"), || {
            said = self.said(chat)?;
            Ok(said == expected)
        });
        waited.with_context(|| format!("it said {said:?}, not {expected:?}"))
    }

    /// No limit of Telegram was broken, and no rule of the models.
    fn is_blameless(&self) -> Result<()> {
        let state = self.telegram.tells("state")?;
        ensure!(state["violations"] == json!([]), "Telegram: {state}");
        let violations = self.model.tells("violations")?;
        ensure!(violations == json!([]), "the model: {violations}");
        Ok(())
    }
}

/// A conversation that goes on whatever happens to its parts.
fn a_conversation_goes_on(systemd: Systemd, name: &str) -> Result<()> {
    let machine = Machine::temporary(name, systemd)?;
    let world = World::new(&machine)?;
    let (seat, chat) = (world.seat, 42);
    let instance = world.agent("my-agent", "")?;
    let log = || seat.aegis_ok("logs my-agent --daemon gateway");
    wait_until(Duration::from_secs(20), "the gateway to run", || {
        Ok(instance.info()?.contains("Gateway:     running"))
    })
    .with_context(|| format!("its log: {:?}", log()))?;
    let mut expected = Vec::new();
    let mut talk = |text: &str, before: &dyn Fn() -> Result<()>| -> Result<()> {
        before()?;
        world.writes(chat, &format!("say:{text}"))?;
        expected.push(text.to_owned());
        world.says(chat, &expected, DEADLINE)
    };
    let quiet = || Ok(());
    talk("hello", &quiet)?;
    talk("paused", &|| instance.act("pause").map(drop))?;
    talk("stopped", &|| instance.act("stop").map(drop))?;
    talk("without aegisd", &|| seat.kill_aegisd())?;
    talk("without gateway", &|| {
        // What is sent and not yet on record may be said twice.
        std::thread::sleep(RECORDED);
        let pid = instance.daemon_pid("gateway")?;
        seat.run(&format!("kill -KILL {pid}"))?.success().map(drop)
    })?;
    talk("without agent", &|| {
        instance.exec("kill -KILL $(pidof aegis-agent)").map(drop)
    })?;
    talk("without VM", &|| {
        let qemu = instance.qemu_pid()?.context("QEMU runs")?;
        seat.run(&format!("kill -KILL {qemu}"))?.success().map(drop)
    })?;
    talk("after a failure", &|| {
        let failure = json!({"kind": "503", "count": 2});
        world.model.order("fail", &failure).map(drop)
    })?;
    talk("after a limit", &|| {
        let failure = json!({"method": "sendMessage", "kind": "429", "retry_after": 2, "times": 1});
        world.telegram.order("fail", &failure).map(drop)
    })?;
    // The sessions of before are there: the agent counts what it was told.
    world.writes(chat, "count")?;
    let told = wait_for(DEADLINE, "the number of messages", || {
        let said = world.said(chat)?;
        Ok(said.get(expected.len()).cloned())
    })?;
    ensure!(told.contains(&(expected.len() + 1).to_string()), "{told}");
    // A change of the config counts at once.
    world.allow("my-agent", &["42"])?;
    let reply = |text: &str| {
        wait_for(DEADLINE, "an answer in another chat", || {
            world.writes(43, text)?;
            std::thread::sleep(Duration::from_secs(2));
            Ok(world.said(43)?.last().cloned())
        })
    };
    wait_until(DEADLINE, "the other chat to be kept out", || {
        Ok(reply("say:let me in")?.contains("may not talk to this bot"))
    })?;
    world.allow("my-agent", &["42", "43"])?;
    wait_until(DEADLINE, "the other chat to be let in", || {
        Ok(reply("say:thanks")? == "thanks")
    })?;
    world.is_blameless()?;
    let token = seat.run(&format!(
        "journalctl --user --no-pager -o cat | grep -c '{TOKEN}'"
    ))?;
    ensure!(token.text() == "0", "the token is in the journal");
    instance.delete()
}

#[test]
fn a_conversation_goes_on_in_user_mode() -> Result<()> {
    a_conversation_goes_on(Systemd::V257, "test-agent-kit")
}

#[test]
fn a_conversation_goes_on_on_systemd_252() -> Result<()> {
    a_conversation_goes_on(Systemd::V252, "test-agent-kit-252")
}

/// Between two messages the VM goes to sleep by itself, and nobody notices. Then somebody
/// talks on a terminal.
#[test]
fn a_conversation_goes_on_over_hibernation_and_on_a_terminal() -> Result<()> {
    let machine = Machine::temporary("test-agent-sleep", Systemd::V257)?;
    let world = World::new(&machine)?;
    let (seat, chat) = (world.seat, 42);
    let instance = world.sleepy_agent("sleepy")?;
    let asleep = || {
        wait_until(DEADLINE, "the VM to hibernate", || {
            Ok(instance.state()? == "hibernated")
        })
        .with_context(|| instance.info().unwrap_or_default())
    };
    let mut expected = Vec::new();
    for word in ["one", "two", "three"] {
        world.writes(chat, &format!("say:{word}"))?;
        expected.push(word.to_owned());
        world.says(chat, &expected, DEADLINE)?;
        asleep()?;
    }
    world.writes(chat, "count")?;
    let told = wait_for(DEADLINE, "the number of messages", || {
        Ok(world.said(chat)?.get(3).cloned())
    })?;
    ensure!(told.contains('4'), "the agent has heard of {told}");
    asleep()?;
    seat.run(
        "cd && mkfifo keys && { timeout 120 script -qfec 'aegisctl chat sleepy' screen <keys >/dev/null & }
         exec 3>keys
         until grep -qs 'Ctrl-D leaves' screen; do sleep 0.2; done
         printf 'say:typed by hand\\r' >&3
         until grep -q '^typed by hand' screen; do sleep 0.2; kill -0 $! || exit 1; done
         printf '\\004' >&3; wait $!",
    )?
    .success()
    .with_context(|| format!("{:?}", seat.run("cat ~/screen").map(|screen| screen.text())))?;
    world.is_blameless()?;
    instance.delete()
}

/// Many write at once, and the gateway is killed meanwhile: nobody's message is lost, and
/// each chat is answered in order.
#[test]
fn two_hundred_messages_in_twenty_chats_are_all_answered() -> Result<()> {
    let machine = Machine::temporary("test-agent-storm", Systemd::V257)?;
    let world = World::new(&machine)?;
    let instance = world.agent("storm", "")?;
    let chats = 1..=20;
    for number in 0..10 {
        for chat in chats.clone() {
            world.writes(chat, &format!("say:{chat}-{number}"))?;
        }
    }
    let pid = instance.daemon_pid("gateway")?;
    world.seat.run(&format!("kill -KILL {pid}"))?.success()?;
    let mut repeats = 0;
    for chat in chats {
        let expected: Vec<String> = (0..10).map(|number| format!("{chat}-{number}")).collect();
        let most = Duration::from_secs(300);
        let (mut said, mut all) = (Vec::new(), 0);
        let waited = wait_until(most, &format!("the answers in chat {chat}"), || {
            said = world.said(chat)?;
            all = said.len();
            said.dedup();
            Ok(said == expected)
        });
        waited.with_context(|| format!("it said {said:?}"))?;
        repeats += all - said.len();
    }
    ensure!(repeats <= 1, "one kill has cost {repeats} repeats");
    world.is_blameless()?;
    instance.delete()
}

/// Two agents at once share nothing: not their chats, though those have one number, nor
/// their sessions.
#[test]
fn two_agents_share_nothing() -> Result<()> {
    let machine = Machine::temporary("test-agent-two", Systemd::V257)?;
    let world = World::new(&machine)?;
    let other = world.with_other_bot()?;
    let first = world.agent("first", "")?;
    let second = other.agent("second", "")?;
    for (world, text) in [(&world, "one"), (&other, "two")] {
        world.writes(42, &format!("say:{text}"))?;
    }
    world.says(42, &["one".to_owned()], DEADLINE)?;
    other.says(42, &["two".to_owned()], DEADLINE)?;
    for world in [&world, &other] {
        world.writes(42, "count")?;
        let told = wait_for(DEADLINE, "the number of messages", || {
            Ok(world.said(42)?.get(1).cloned())
        })?;
        ensure!(told.contains('2'), "{told}");
        world.is_blameless()?;
    }
    for (instance, other) in [(&first, "second"), (&second, "first")] {
        let read = world
            .seat
            .aegis_ok(&format!("tether read {}", instance.handle()))?;
        ensure!(!read.contains(other), "{read}");
    }
    first.delete()?;
    second.delete()
}
