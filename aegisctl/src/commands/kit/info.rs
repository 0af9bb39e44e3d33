//! `kit info`: everything about one kit, a line per fact.

use aegis_bus::kit::{KitDaemon, KitView};
use aegis_core::fault::{Fault, Symbol};
use serde_json::json;

use super::{status_words, to_json, trouble};
use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::{Lines, Ui, shell_words, tone_of};

/// Show a kit: where it and its programs lie, and what its daemons may do
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kit
    name: String,
}

pub(crate) async fn execute(context: &Context, args: Args) -> Result<u8, Failure> {
    let name = &args.name;
    let progress = context.ui.progress("Asking aegisd");
    let list = async {
        let client = context.aegisd().await?;
        Ok::<_, Failure>((client.kits().await?, client.secrets().await?))
    };
    let (kits, secrets) = progress.during(list).await?;
    let secrets: Vec<&str> = secrets.iter().map(|secret| secret.name.as_str()).collect();
    let is_shown = |kit: &&KitView| kit.name == *name && kit.status != "shadowed";
    let Some(kit) = kits.iter().find(is_shown) else {
        let names: Vec<&str> = kits.iter().map(|kit| kit.name.as_str()).collect();
        let fault = Fault::new(Symbol::KitNotFound, format!("there is no kit '{name}'"));
        return Err(Failure::Said(fault.with_hint(match names.as_slice() {
            [] => "no kit is installed".to_owned(),
            names => format!("installed are: {}", names.join(", ")),
        })));
    };
    let others = kits
        .iter()
        .filter(|other| other.name == *name && other.path != kit.path);
    let shadows: Vec<&str> = others.map(|other| other.path.as_str()).collect();
    context.ui.data(
        || json!({"kit": to_json(kit), "shadows": shadows}),
        || render(context.ui, kit, &shadows, &secrets),
    )?;
    Ok(exit_code::OK)
}

fn render(ui: Ui, kit: &KitView, shadows: &[&str], secrets: &[&str]) -> String {
    let mut lines = Lines::default();
    lines.add("Kit", format!("{} {}", kit.name, kit.version).trim());
    lines.add_painted(
        "Status",
        &ui.paint(tone_of(&kit.status), &status_words(kit)),
    );
    lines.detail(trouble(kit).unwrap_or_default());
    lines.add("About", &kit.description);
    for line in kit.usage.lines() {
        lines.detail(line);
    }
    lines.add("Manifest", &kit.path);
    for shadow in shadows {
        lines.detail(&format!("shadows {shadow}"));
    }
    for warning in &kit.warnings {
        lines.detail(&format!("warning: {warning}"));
    }
    lines.add(
        "Image",
        match kit.image.as_str() {
            "" => "base (built in)",
            image => image,
        },
    );
    for program in &kit.inject {
        lines.detail(&format!("with {program}: {}", place(kit, program)));
    }
    lines.add("Command", &shell_words(&kit.command));
    lines.add("Files", &kit.files.join(", "));
    let mut variables = kit
        .variables
        .iter()
        .map(|name| variable_words(name, secrets));
    lines.add("Variables", &variables.next().unwrap_or_default());
    for words in variables {
        lines.detail(&words);
    }
    for daemon in &kit.daemons {
        add_daemon(&mut lines, kit, daemon);
    }
    lines.text()
}

fn add_daemon(lines: &mut Lines, kit: &KitView, daemon: &KitDaemon) {
    lines.add(&daemon.label, &format!("daemon '{}'", daemon.name));
    lines.detail(&format!("program: {}", place(kit, &daemon.binary)));
    if !daemon.config.is_empty() {
        lines.detail(&format!("config: {}", config_words(daemon)));
    }
    lines.detail(&restart_words(daemon));
    if daemon.ready == "notify" {
        lines.detail("counts as started when it says so (sd_notify)");
    }
    lines.detail(&limit_words(daemon));
    for words in sandbox_words(daemon) {
        lines.detail(&words);
    }
}

fn place<'a>(kit: &'a KitView, program: &str) -> &'a str {
    match kit.programs.get(program).map(String::as_str) {
        None | Some("") => "missing",
        Some(path) => path,
    }
}

/// A variable that the kit's config names, and whether a secret is there for it.
fn variable_words(name: &str, secrets: &[&str]) -> String {
    match secrets.contains(&name) {
        true => format!("{name}: a secret; give it with --env {name}"),
        false => format!("{name}: not set; aegisctl secret set {name}"),
    }
}

fn config_words(daemon: &KitDaemon) -> String {
    let how = match daemon.reload.as_str() {
        "signal" => "a change is told by SIGHUP",
        "self" => "it watches for changes itself",
        _ => "a change restarts it",
    };
    format!("{} ({how})", daemon.config)
}

fn restart_words(daemon: &KitDaemon) -> String {
    let when = match daemon.restart.as_str() {
        "no" => return "never restarted".to_owned(),
        "always" => "after every end",
        _ => "when it fails",
    };
    let longest = daemon.restart_max_delay_ms;
    let longest = match longest % 1000 {
        0 => format!("{} s", longest / 1000),
        _ => format!("{longest} ms"),
    };
    format!("restarted {when}, after 0.1 s at first and {longest} at most")
}

fn limit_words(daemon: &KitDaemon) -> String {
    let memory = daemon.memory_mib.map(|mib| format!("{mib} MiB of memory"));
    let cpus = daemon.cpu_percent.map(|percent| {
        let (whole, part) = (percent / 100, percent % 100);
        format!("{whole}.{part:02} CPUs")
    });
    let tasks = Some(format!("{} processes and threads", daemon.tasks));
    let limits: Vec<String> = [memory, cpus, tasks].into_iter().flatten().collect();
    format!("at most {}", limits.join(", "))
}

/// What the daemon may do, one sentence each.
fn sandbox_words(daemon: &KitDaemon) -> Vec<String> {
    let mut words = vec![match daemon.network {
        true => "may use the network".to_owned(),
        false => "may not use the network".to_owned(),
    }];
    for (verb, paths) in [("read", &daemon.read), ("write", &daemon.write)] {
        words.extend(paths.iter().map(|path| format!("may {verb} {path}")));
    }
    words.push("sees its program, its config folder and its socket".to_owned());
    words.push("sees nothing else of your home".to_owned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kit_may_do_is_said_in_words() {
        let daemon = KitDaemon {
            name: "gateway".into(),
            label: "Gateway".into(),
            binary: "gate".into(),
            config: "gateway.json".into(),
            reload: "signal".into(),
            restart: "always".into(),
            restart_max_delay_ms: 1500,
            ready: "notify".into(),
            memory_mib: Some(64),
            cpu_percent: Some(50),
            tasks: 512,
            network: false,
            read: vec!["~/Documents".into()],
            write: vec!["/srv/data".into()],
        };
        let kit = KitView {
            name: "echo".into(),
            version: "1.0".into(),
            status: "broken".into(),
            status_reason: "missing: tool".into(),
            path: "/home/a/.aegis/kits/echo.json".into(),
            warnings: vec!["the key \"x\" is not known".into()],
            inject: vec!["tool".into()],
            variables: vec!["BOT_TOKEN".into(), "KEY".into()],
            programs: [
                ("gate".to_owned(), "/home/a/bin/gate".to_owned()),
                ("tool".to_owned(), String::new()),
            ]
            .into(),
            daemons: vec![daemon],
            ..KitView::default()
        };
        let expected = "\
Kit:         echo 1.0
Status:      broken (missing: tool)
Manifest:    /home/a/.aegis/kits/echo.json
             shadows /usr/share/aegisvm/kits/echo.json
             warning: the key \"x\" is not known
Image:       base (built in)
             with tool: missing
Variables:   BOT_TOKEN: not set; aegisctl secret set BOT_TOKEN
             KEY: a secret; give it with --env KEY
Gateway:     daemon 'gateway'
             program: /home/a/bin/gate
             config: gateway.json (a change is told by SIGHUP)
             restarted after every end, after 0.1 s at first and 1500 ms at most
             counts as started when it says so (sd_notify)
             at most 64 MiB of memory, 0.50 CPUs, 512 processes and threads
             may not use the network
             may read ~/Documents
             may write /srv/data
             sees its program, its config folder and its socket
             sees nothing else of your home
";
        let shadows = ["/usr/share/aegisvm/kits/echo.json"];
        let text = render(Ui::new(false, false), &kit, &shadows, &["KEY"]);
        assert_eq!(text, expected);
    }
}
