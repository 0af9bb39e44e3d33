//! `instance info`: everything about one instance, a line per fact.

use aegis_bus::instance::{DaemonEntry, DaemonState, InstanceView, LastExit, StaleSecret};
use aegis_core::limits::ResourceLimits;
use serde_json::json;

use super::to_json;
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::{Lines, Ui, age, ahead, moment, shell_words, tone_of};

/// Show an instance
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance
    name: String,
}

pub(super) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress("Asking aegisd");
    let ask = async {
        let client = context.aegisd().await?;
        let instance = client.instance(name, &format!("show '{name}'")).await?;
        client.view(&instance).await
    };
    let view = progress.during(ask).await?;
    context.ui.data(
        || json!({"instance": to_json(&view)}),
        || render(context.ui, &view),
    )?;
    Ok(exit_code::OK)
}

/// A user by name, or by number where nobody has it.
fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn render(ui: Ui, view: &InstanceView) -> String {
    let mut lines = Lines::default();
    lines.add("Handle", &view.handle);
    lines.add_painted("State", &ui.paint(tone_of(&view.state), &view.state));
    lines.detail(&view.state_reason);
    lines.detail(&labelled("since ", &moment(view.state_since_us)));
    lines.detail(&labelled("booted, not restored: ", &view.not_restored));
    let pending = labelled("when the VM starts next: ", &view.pending.join(", "));
    lines.detail(&pending);
    add_stale(&mut lines, &view.stale);
    if view.owner != nix::unistd::geteuid().as_raw() {
        lines.add("Owner", &user_name(view.owner));
    }
    lines.add("Enabled", if view.enabled { "yes" } else { "no" });
    lines.add(
        "Image",
        match view.image.as_str() {
            "" => "base (built in)",
            image => image,
        },
    );
    if view.kit_installed {
        let kit = format!("{} {}", view.kit, view.kit_version);
        lines.add("Kit", kit.trim());
    } else {
        lines.add("Kit", &format!("{} (not installed)", view.kit));
        lines.detail(&labelled("made from version ", &view.kit_version));
    }
    for daemon in &view.daemons {
        add_daemon(ui, &mut lines, daemon);
    }
    lines.add("Command", &shell_words(&view.command));
    lines.detail(if view.terminal { "on a terminal" } else { "" });
    if view.restart_policy != "no" {
        lines.add("Restart", &view.restart_policy);
    }
    lines.add("Restarts", &count(view.restarts));
    lines.add("Next start", &moment(view.next_start_us));
    add_sleep(&mut lines, view);
    lines.add("Ports", &view.ports.join(", "));
    lines.add("Network", &view.network);
    lines.detail(&labelled("reaches too: ", &view.allowed_hosts.join(", ")));
    lines.detail(&labelled("not there: ", &view.network_problem));
    let labels = view.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    lines.add("Labels", &labels.join(", "));
    lines.add("Workspace", &view.workspace);
    lines.add("Volumes", view.volumes.first().map_or("", String::as_str));
    for volume in view.volumes.iter().skip(1) {
        lines.detail(volume);
    }
    lines.add("Memory", &format!("{} MiB", view.memory_mib));
    lines.add("CPUs", &view.cpus.to_string());
    lines.add("Limits", &limit_words(&view.limits));
    lines.add("Platform", &view.platform);
    lines.add("Accelerator", &view.accel);
    lines.add("Kernel", &view.kernel);
    lines.add("Sessions", &count(view.execs));
    lines.add("Attached", &count(view.attached));
    lines.add("QEMU", &labelled("pid ", &count(view.qemu_pid)));
    lines.add("Units", &view.unit);
    lines.detail(&view.socket_unit);
    lines.detail(&view.slice);
    for (unit, at) in &view.stopped_by_hand {
        lines.add("Stopped", &format!("{unit}, by systemctl"));
        lines.detail(&match at {
            0 => "while aegisd did not run".to_owned(),
            at => moment(*at),
        });
    }
    lines.add("Created", &moment(view.created_at_us));
    if let Some(exit) = &view.last_exit {
        lines.add("Last exit", &exit_words(exit));
        lines.detail(&moment(exit.at_us));
    }
    lines.text()
}

/// Secrets of which somebody has an older value than there is now.
fn add_stale(lines: &mut Lines, stale: &[StaleSecret]) {
    let mut words = stale.iter().map(stale_words);
    lines.add("Stale", &words.next().unwrap_or_default());
    for words in words {
        lines.detail(&words);
    }
}

/// `KEY in gateway, guest (set 2 minutes ago)`.
fn stale_words(stale: &StaleSecret) -> String {
    let guest = stale.guest.then_some("guest");
    let holders = stale.daemons.iter().map(String::as_str).chain(guest);
    let holders = holders.collect::<Vec<_>>().join(", ");
    let own = if stale.own { " (its own)" } else { "" };
    let since = match stale.set_at_us {
        0 => "removed".to_owned(),
        at => format!("set {}", age(at)),
    };
    format!("{}{own} in {holders} ({since})", stale.name)
}

fn add_sleep(lines: &mut Lines, view: &InstanceView) {
    if let Some(sleeps) = &view.sleeps {
        lines.add("Sleeps", &format!("{} {}", sleeps.to, ahead(sleeps.at_us)));
    }
    for (reason, until) in &view.leases {
        lines.add("Lease", &format!("{reason}, until {}", moment(*until)));
    }
    if view.idle_pause.is_empty() || view.ephemeral {
        return;
    }
    let words = format!(
        "paused after {}, hibernated after {}",
        view.idle_pause, view.idle_hibernate
    );
    lines.add("Idle", &words.replace("after never", "never"));
    lines.detail(&labelled("cannot be hibernated: ", &view.cannot_hibernate));
}

fn limit_words(limits: &ResourceLimits) -> String {
    let words = [
        limits.memory_max_mib.map(|mib| format!("{mib} MiB")),
        limits
            .cpu_quota
            .map(|percent| format!("{percent} % of a CPU")),
        limits.tasks_max.map(|tasks| format!("{tasks} tasks")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn add_daemon(ui: Ui, lines: &mut Lines, daemon: &DaemonEntry) {
    let tone = tone_of(daemon.state.as_str());
    lines.add_painted(&daemon.label, &ui.paint(tone, &state_words(daemon)));
    if daemon.restarts > 0 {
        lines.detail(&format!("restarts: {}", daemon.restarts));
    }
    lines.detail(&labelled("last exit: ", &daemon.last_exit));
    lines.detail(&labelled("since ", &age(daemon.since_us)));
    if let Some(config) = &daemon.config {
        lines.detail(&format!("config: {}", config.path));
        if !config.hash.is_empty() {
            let hash = config.hash.get(..SHORT_HASH).unwrap_or(&config.hash);
            let when = moment(config.applied_us);
            lines.detail(&format!("config applied: {when}, sha256 {hash}"));
        }
        lines.detail(&labelled("config not applied: ", &config.problem));
    }
    if !daemon.reads.is_empty() || !daemon.writes.is_empty() {
        lines.detail("sees no other files of the home than:");
        for (verb, paths) in [("read", &daemon.reads), ("write", &daemon.writes)] {
            for path in paths {
                lines.detail(&format!("  {path} ({verb})"));
            }
        }
    }
    lines.detail(&daemon.unit);
}

/// Digits of a hash that tell contents apart for people.
const SHORT_HASH: usize = 12;

/// `running`, `restarting in 4s`, `exited`, `failed`, `waiting for config`, ...
fn state_words(daemon: &DaemonEntry) -> String {
    match daemon.state {
        DaemonState::Restarting if daemon.next_restart_in_us > 0 => {
            let seconds = daemon.next_restart_in_us.div_ceil(1_000_000);
            format!("restarting in {seconds}s")
        }
        state => state.as_str().replace('-', " "),
    }
}

fn exit_words(exit: &LastExit) -> String {
    let how = match (exit.signal, exit.code) {
        _ if !exit.failure.is_empty() => exit.failure.clone(),
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("code {code}"),
        (None, None) => "unknown".to_owned(),
    };
    let mut notes = Vec::new();
    if exit.oom {
        notes.push("the guest ran out of memory");
    }
    if exit.gave_up {
        notes.push("not started again: it failed as often as it may");
    }
    match notes.is_empty() {
        true => how,
        false => format!("{how} ({})", notes.join("; ")),
    }
}

fn count(number: u32) -> String {
    match number {
        0 => String::new(),
        number => number.to_string(),
    }
}

/// The text with a label, or nothing.
fn labelled(label: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("{label}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aegis_bus::dict::{Dict, put};
    use aegis_bus::instance::ConfigEntry;

    fn view() -> InstanceView {
        let daemon = DaemonEntry {
            name: "gateway".into(),
            label: "Gateway".into(),
            unit: "aegis-kit-my-agent:gateway.service".into(),
            state: DaemonState::Running,
            restarts: 2,
            next_restart_in_us: 0,
            last_exit: "code 1".into(),
            oom: false,
            since_us: 0,
            pid: 7,
            config: Some(ConfigEntry {
                path: "/home/a/.aegis/kits/my-agent/gateway.json".into(),
                hash: "0123456789abcdef".into(),
                applied_us: 0,
                problem: "it is not valid JSON".into(),
            }),
            reads: vec!["/home/a/bin".into()],
            writes: vec!["/home/a/.aegis/kits/my-agent".into()],
        };
        let exit = LastExit {
            code: None,
            signal: Some(9),
            failure: String::new(),
            at_us: 0,
            oom: true,
            oom_host: false,
            gave_up: false,
        };
        let mut dict = Dict::new();
        put(&mut dict, "Handle", "my-agent");
        put(&mut dict, "State", "running");
        put(&mut dict, "Enabled", true);
        put(&mut dict, "Kit", "agent");
        put(&mut dict, "KitVersion", "1.0");
        put(&mut dict, "Command", vec!["sh", "-c", "a b"]);
        put(&mut dict, "IdlePause", "1m");
        put(&mut dict, "IdleHibernate", "never");
        put(&mut dict, "Ports", vec!["127.0.0.1:8080:80"]);
        put(&mut dict, "Memory", 256u32);
        put(&mut dict, "Cpus", 1u32);
        put(&mut dict, "Accel", "kvm");
        put(&mut dict, "Kernel", "own");
        put(&mut dict, "Unit", "aegis-vm-my-agent.service");
        put(&mut dict, "SocketUnit", "aegis-vm-my-agent.socket");
        put(&mut dict, "Slice", r"aegis-my\x2dagent.slice");
        put(&mut dict, "Daemons", vec![daemon.to_dict()]);
        put(&mut dict, "LastExit", exit.to_dict());
        InstanceView::from_properties(dict).unwrap()
    }

    #[test]
    fn every_fact_has_its_line() {
        let expected = r"Handle:      my-agent
State:       running
Enabled:     yes
Image:       base (built in)
Kit:         agent 1.0
Gateway:     running
             restarts: 2
             last exit: code 1
             config: /home/a/.aegis/kits/my-agent/gateway.json
             config applied: , sha256 0123456789ab
             config not applied: it is not valid JSON
             sees no other files of the home than:
               /home/a/bin (read)
               /home/a/.aegis/kits/my-agent (write)
             aegis-kit-my-agent:gateway.service
Command:     sh -c 'a b'
Idle:        paused after 1m, hibernated never
Ports:       127.0.0.1:8080:80
Memory:      256 MiB
CPUs:        1
Accelerator: kvm
Kernel:      own
Units:       aegis-vm-my-agent.service
             aegis-vm-my-agent.socket
             aegis-my\x2dagent.slice
Last exit:   killed by signal 9 (the guest ran out of memory)
";
        assert_eq!(render(Ui::new(false, false), &view()), expected);
    }

    #[test]
    fn what_systemctl_stopped_is_shown() {
        let mut view = view();
        view.stopped_by_hand = [("aegis-vm-my-agent.socket".to_owned(), 0)].into();
        let text = render(Ui::new(false, false), &view);
        let shown = "Stopped:     aegis-vm-my-agent.socket, by systemctl\n             while aegisd did not run\n";
        assert!(text.contains(shown), "{text}");
    }

    #[test]
    fn who_has_an_older_secret_is_shown() {
        let mut view = view();
        let mut stale = StaleSecret {
            name: "KEY".into(),
            daemons: vec!["gateway".into()],
            guest: true,
            ..StaleSecret::default()
        };
        view.stale.push(stale.clone());
        stale.own = true;
        stale.daemons.clear();
        stale.set_at_us = 1;
        view.stale.push(stale);
        let text = render(Ui::new(false, false), &view);
        let shown = "Stale:       KEY in gateway, guest (removed)\n             KEY (its own) in guest (set ";
        assert!(text.contains(shown), "{text}");
    }

    #[test]
    fn states_of_daemons_are_words() {
        let mut daemon = view().daemons.remove(0);
        let mut words = |state, next_restart_in_us| {
            daemon.state = state;
            daemon.next_restart_in_us = next_restart_in_us;
            state_words(&daemon)
        };
        assert_eq!(words(DaemonState::Running, 0), "running");
        assert_eq!(
            words(DaemonState::Restarting, 3_200_000),
            "restarting in 4s"
        );
        assert_eq!(words(DaemonState::Restarting, 0), "restarting");
        assert_eq!(
            words(DaemonState::WaitingForConfig, 0),
            "waiting for config"
        );
    }

    #[test]
    fn a_kit_that_is_gone_is_said() {
        let mut view = view();
        view.kit_installed = false;
        let text = render(Ui::new(false, false), &view);
        assert!(
            text.contains("\nKit:         agent (not installed)\n"),
            "{text}"
        );
    }

    #[test]
    fn a_long_label_stays_apart_from_its_value() {
        let mut view = view();
        view.daemons[0].label = "python-daemon".into();
        let text = render(Ui::new(false, false), &view);
        assert!(text.contains("\npython-daemon: running\n"), "{text}");
    }

    #[test]
    fn a_label_of_a_kit_cannot_drive_the_terminal() {
        let mut view = view();
        view.daemons[0].label = "Gate\x1b[2Jway".into();
        assert!(!render(Ui::new(false, false), &view).contains('\x1b'));
    }
}
