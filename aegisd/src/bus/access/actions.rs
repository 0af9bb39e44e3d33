//! Which action of polkit each method and property needs
//! (`packaging/polkit/org.aegisvm.Aegis1.policy`).

/// What polkit is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bus) enum Action {
    /// Look at what is there: one's instances with their logs, kits, images.
    View,
    /// Work with an instance as it is: start and stop it, run commands in it, send it
    /// messages.
    Use,
    /// Make, change and delete instances, and what they are made of.
    Manage,
    /// What concerns everybody: kits, secrets, images that are removed, all instances.
    Administer,
}

impl Action {
    /// The action's name, as polkit knows it.
    pub(in crate::bus) fn id(self) -> &'static str {
        match self {
            Self::View => "org.aegisvm.Aegis1.view",
            Self::Use => "org.aegisvm.Aegis1.use",
            Self::Manage => "org.aegisvm.Aegis1.manage",
            Self::Administer => "org.aegisvm.Aegis1.administer",
        }
    }

    /// What to do for it.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Administer => {
                "an administrator may: run this with sudo, or on a terminal, where a password \
                 is asked for"
            }
            Self::View | Self::Use | Self::Manage => {
                "members of the group aegis may: sudo usermod --append --groups aegis USER, \
                 then log in anew; or do without root: leave --system out"
            }
        }
    }
}

/// The action that a method needs, or a property by the name of `Get`, `GetAll` or
/// `Set`. What is not in the table needs the greatest.
pub(super) fn needed(interface: &str, member: &str) -> Action {
    let interface = interface.rsplit('.').next().unwrap_or_default();
    match (interface, member) {
        (_, "Get" | "GetAll")
        | ("ObjectManager", "GetManagedObjects")
        | ("Manager", "GetInstance" | "Check" | "RescanKits" | "FindPrunable")
        | ("Instance", "Processes" | "Stats" | "Compare" | "OpenLogs" | "OpenConsole")
        | ("Secrets", "List" | "Stale" | "Status")
        | ("Volumes", "List") => Action::View,
        (
            "Instance",
            "Start" | "Stop" | "Restart" | "Kill" | "Pause" | "Resume" | "Hibernate" | "Wake"
            | "KeepAwake" | "LetSleep" | "Refresh" | "Exec" | "Attach",
        )
        | ("Job", "Cancel")
        | ("Tether", "Send" | "Follow" | "Read") => Action::Use,
        ("Manager", "CreateInstance" | "Prune" | "PullImage" | "ImportImage")
        | ("Instance", "Update" | "Enable" | "Disable" | "Delete")
        | ("Tether", "Import")
        | ("Volumes", "Create" | "Remove" | "Prune") => Action::Manage,
        _ => Action::Administer,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// `(interface, method)` of every interface as it is published.
    fn methods() -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/aegis-bus/interfaces");
        let mut methods = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let mut interface = String::new();
            for line in text.lines().map(str::trim) {
                let name = || line.split('"').nth(1).unwrap().to_owned();
                if line.starts_with("<interface") {
                    interface = name();
                } else if line.starts_with("<method") {
                    methods.push((interface.clone(), name()));
                }
            }
        }
        methods
    }

    #[test]
    fn each_method_has_the_action_that_is_meant() {
        let administer: Vec<String> = methods()
            .into_iter()
            .filter(|(interface, method)| needed(interface, method) == Action::Administer)
            .map(|(interface, method)| {
                let interface = interface.rsplit('.').next().unwrap().to_owned();
                format!("{interface}.{method}")
            })
            .collect();
        let mut administer = administer;
        administer.sort();
        assert_eq!(
            administer,
            [
                "Manager.InstallKit",
                "Manager.PruneImages",
                "Manager.RemoveImage",
                "Manager.RemoveKit",
                "Manager.StopAll",
                "Secrets.Delete",
                "Secrets.Import",
                "Secrets.RotateKey",
                "Secrets.Set",
            ],
            "a method that is new needs a place in the table"
        );
        assert_eq!(
            needed("org.aegisvm.Aegis1.Manager", "New"),
            Action::Administer
        );
        assert_eq!(needed("org.aegisvm.Aegis1.Kit", "Set"), Action::Administer);
    }

    #[test]
    fn the_actions_are_those_of_the_policy() {
        let policy = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../packaging/polkit/org.aegisvm.Aegis1.policy");
        let policy = fs::read_to_string(policy).unwrap();
        let ids: Vec<&str> = policy
            .lines()
            .filter_map(|line| line.trim().strip_prefix("<action id=\""))
            .filter_map(|line| line.split('"').next())
            .collect();
        let all = [
            Action::View,
            Action::Use,
            Action::Manage,
            Action::Administer,
        ];
        assert_eq!(ids, all.map(Action::id));
    }
}
