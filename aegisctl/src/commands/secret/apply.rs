//! Who has older values of secrets, and bringing the new ones to them.

use aegis_bus::instance::RefreshOptions;
use aegis_bus::secrets::StaleUser;
use aegis_core::fault::Symbol;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::client::Client;
use crate::failure::Failure;
use crate::job;
use crate::ui::{Progress, Ui};

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Who had older values.
    stale: Vec<StaleUser>,
    /// Those of them that were started anew.
    applied: Vec<String>,
    failures: Vec<Failure>,
    /// Nobody asked for it to be applied.
    only_told: bool,
}

/// Looks who has older values of these secrets; with `apply` lists them and then starts
/// them anew.
///
/// # Errors
/// aegisd cannot tell. What could not be started anew is in the outcome.
pub(super) async fn apply(
    context: &Context,
    client: &Client,
    names: &[String],
    apply: bool,
) -> Result<Outcome, Failure> {
    // To aegisd none means all.
    if names.is_empty() {
        return Ok(Outcome::default());
    }
    let mut outcome = Outcome {
        stale: client.stale(names).await?,
        only_told: !apply,
        ..Outcome::default()
    };
    if !apply {
        return Ok(outcome);
    }
    list(context.ui, &outcome.stale);
    let progress = context.ui.progress("Starting anew");
    let each = async {
        for user in outcome.stale.iter().filter(|user| !user.ephemeral) {
            match refresh(client, &user.instance, names, &progress).await {
                Ok(()) => outcome.applied.push(user.instance.clone()),
                // It is gone, and its old value with it.
                Err(failure) if failure.is(Symbol::NotFound) => {}
                Err(failure) => outcome.failures.push(failure),
            }
        }
    };
    progress.during(each).await;
    Ok(outcome)
}

async fn refresh(
    client: &Client,
    handle: &str,
    names: &[String],
    progress: &Progress,
) -> Result<(), Failure> {
    let what = format!("start '{handle}' anew");
    progress.say(&format!("Starting '{handle}' anew"));
    let instance = client.instance(handle, &what).await?;
    let options = RefreshOptions {
        secrets: names.to_vec(),
    };
    let options = options.to_dict();
    let call = async || instance.refresh(&options).await;
    job::perform(client, &what, progress, call).await.map(drop)
}

fn list(ui: Ui, users: &[StaleUser]) {
    if users.is_empty() {
        ui.note("note: nobody has an older value");
        return;
    }
    ui.note("starting anew what has an older value:");
    for user in users {
        ui.note(&format!("  {}", line(user)));
    }
}

/// `web: gateway, guest`, and what is special about it.
fn line(user: &StaleUser) -> String {
    let words = format!("{}: {}", user.instance, holders(user));
    match (user.ephemeral, user.hibernated) {
        (true, _) => format!("{words} (lives for one command, left as it is)"),
        (false, true) => format!("{words} (hibernated: stopped, boots at its next use)"),
        (false, false) => words,
    }
}

/// The daemons, and the guest last.
fn holders(user: &StaleUser) -> String {
    let mut holders: Vec<&str> = Vec::new();
    for secret in &user.secrets {
        holders.extend(secret.daemons.iter().map(String::as_str));
    }
    holders.sort_unstable();
    holders.dedup();
    if user.secrets.iter().any(|secret| secret.guest) {
        holders.push("guest");
    }
    holders.join(", ")
}

impl Outcome {
    /// Says what is left to know; `how` is the command that applies it.
    pub(super) fn tell(&self, ui: Ui, how: &str) {
        if !self.applied.is_empty() {
            ui.note(&format!("note: in use by {}", self.applied.join(", ")));
        }
        if self.only_told && !self.stale.is_empty() {
            let users = self.stale.iter();
            let words = users.map(|user| format!("{} ({})", user.instance, holders(user)));
            let words = words.collect::<Vec<_>>().join(", ");
            ui.note(&format!(
                "note: stale until the next start in {words}; at once: {how}"
            ));
        }
    }

    /// Whether somebody has an older value.
    pub(super) fn is_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Adds itself to what is printed for programs.
    pub(super) fn add_to(&self, mut value: Value) -> Value {
        let user = |user: &StaleUser| {
            let secrets = user.secrets.iter();
            json!({
                "instance": user.instance,
                "hibernated": user.hibernated,
                "ephemeral": user.ephemeral,
                "secrets": secrets.map(crate::commands::instance::stale_to_json).collect::<Vec<_>>(),
            })
        };
        value["stale"] = self.stale.iter().map(user).collect();
        value["applied"] = json!(self.applied);
        value
    }

    /// What could not be started anew.
    pub(super) fn into_result(self) -> Result<(), Failure> {
        match self.failures.is_empty() {
            true => Ok(()),
            false => Err(Failure::NotApplied(self.failures)),
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_bus::instance::StaleSecret;

    use super::*;

    fn user() -> StaleUser {
        let secret = |daemons: &[&str], guest| StaleSecret {
            daemons: daemons.iter().map(|&name| name.to_owned()).collect(),
            guest,
            ..StaleSecret::default()
        };
        StaleUser {
            instance: "web".into(),
            secrets: vec![secret(&["b", "a"], true), secret(&["a"], false)],
            ..StaleUser::default()
        }
    }

    #[test]
    fn each_user_has_a_line() {
        let mut user = user();
        assert_eq!(line(&user), "web: a, b, guest");
        user.hibernated = true;
        let hibernated = "web: a, b, guest (hibernated: stopped, boots at its next use)";
        assert_eq!(line(&user), hibernated);
        user.ephemeral = true;
        let ephemeral = "web: a, b, guest (lives for one command, left as it is)";
        assert_eq!(line(&user), ephemeral);
    }
}
