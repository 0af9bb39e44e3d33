//! What docs/KITS.md promises, statement by statement, each with the tests that show
//! it. The list is printed with what is not yet true.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use aegis_tests::cache;
use anyhow::{Context, Result};

/// What shows a statement to be true.
enum Shown {
    /// These tests, as `FILE::NAME`.
    By(&'static [&'static str]),
    /// Nothing yet: what is missing for it.
    NotYet(&'static str),
}

use Shown::{By, NotYet};

const STATEMENTS: [(&str, Shown); 34] = [
    (
        "The core runs without any kit",
        By(&["lifecycle::every_verb_works_and_is_idempotent"]),
    ),
    (
        "A kit comes with `brew install` from a tap",
        NotYet("a tap that is published; a stand-in for Homebrew runs the formulae"),
    ),
    (
        "`aegis kit list` lists the installed kits",
        By(&["kits::kits_are_listed_with_what_is_wrong_with_them"]),
    ),
    (
        "`--kit` supplies the default command",
        By(&[
            "kits::explicit_flags_win_over_a_kit_that_adds_programs_files_and_reach",
            "expand::a_kit_supplies_what_the_user_did_not",
        ]),
    ),
    (
        "`--kit` supplies the image, the built-in one where it names none",
        By(&["main_job::starting_an_instance_of_a_kit_starts_its_daemon"]),
    ),
    (
        "`--kit` supplies an image that is pulled",
        By(&["documents::documents_can_be_followed_from_installation_to_removal"]),
    ),
    (
        "`--kit` supplies the capabilities",
        By(&["expand::a_kit_supplies_what_the_user_did_not"]),
    ),
    (
        "Explicit flags override what the kit says",
        By(&[
            "kits::explicit_flags_win_over_a_kit_that_adds_programs_files_and_reach",
            "expand::the_users_own_values_win_one_by_one",
        ]),
    ),
    (
        "`aegis instance start --kit KIT --name NAME` makes an instance with the kit's defaults",
        By(&["main_job::starting_an_instance_of_a_kit_starts_its_daemon"]),
    ),
    (
        "`-- COMMAND` overrides the kit's command",
        By(&[
            "kits::another_command_for_a_kits_instance_is_a_shell_on_a_real_terminal",
            "expand::the_users_own_values_win_one_by_one",
        ]),
    ),
    (
        "`aegis instance start --name NAME` starts a stopped instance of a kit again",
        By(&["main_job::pausing_and_stopping_the_vm_keeps_the_daemons_process"]),
    ),
    (
        "An instance keeps its settings: the kit may change or go",
        By(&["kits::a_kit_is_validated_installed_replaced_and_removed"]),
    ),
    (
        "A manifest declares programs that are added to the image",
        By(&["kits::explicit_flags_win_over_a_kit_that_adds_programs_files_and_reach"]),
    ),
    (
        "A manifest declares defaults: command and capabilities",
        By(&["read::the_agent_kit_is_accepted_unchanged"]),
    ),
    (
        "A manifest declares processes of the host beside each instance",
        By(&["main_job::a_daemon_gets_its_arguments_environment_and_config"]),
    ),
    (
        "Manifests lie in ~/.aegis/kits",
        By(&["main_job::starting_an_instance_of_a_kit_starts_its_daemon"]),
    ),
    (
        "Manifests are found in the Homebrew prefix",
        By(&[
            "kits::a_kit_and_its_program_are_found_in_the_homebrew_prefix",
            "host::manifests_are_the_users_own_first",
        ]),
    ),
    (
        "A daemon starts when its instance is created",
        By(&["main_job::starting_an_instance_of_a_kit_starts_its_daemon"]),
    ),
    (
        "A daemon starts when its instance is enabled again",
        By(&["main_job::disable_stops_the_daemon_enable_starts_it_and_delete_removes_it"]),
    ),
    (
        "A daemon stops when its instance is disabled",
        By(&[
            "main_job::disable_stops_the_daemon_enable_starts_it_and_delete_removes_it",
            "kit_daemons::a_daemon_that_will_not_stop_is_killed_with_all_its_children",
        ]),
    ),
    (
        "A daemon stops when its instance is deleted",
        By(&["main_job::disable_stops_the_daemon_enable_starts_it_and_delete_removes_it"]),
    ),
    (
        "A daemon survives the pause of the VM",
        By(&["main_job::pausing_and_stopping_the_vm_keeps_the_daemons_process"]),
    ),
    (
        "A daemon survives the stop of the VM",
        By(&["main_job::pausing_and_stopping_the_vm_keeps_the_daemons_process"]),
    ),
    (
        "A daemon can wake its instance for a message",
        By(&["agent_kit::a_conversation_goes_on_in_user_mode"]),
    ),
    (
        "A daemon is restarted when it crashes",
        By(&["main_job::a_killed_daemon_is_restarted_with_growing_delay"]),
    ),
    (
        "Its restarts come after a delay that grows",
        By(&[
            "main_job::a_daemon_that_never_comes_up_is_retried_ever_more_slowly",
            "main_job::a_daemon_that_never_comes_up_is_retried_ever_more_slowly_by_systemd_252",
            "kill_storm::delays_grow_to_the_longest_and_begin_anew_after_a_healthy_run",
        ]),
    ),
    (
        "The daemons of all enabled instances are restored on boot",
        By(&[
            "main_job::the_daemons_of_enabled_instances_come_back_after_a_reboot",
            "kill_storm::after_a_storm_of_kills_and_a_reboot_everything_is_as_wanted",
        ]),
    ),
    (
        "Each instance has a daemon process of its own, independent of others",
        By(&["main_job::daemons_of_two_instances_are_independent"]),
    ),
    (
        "A daemon reads its config from ~/.aegis/kits/HANDLE/",
        By(&["main_job::a_daemon_gets_its_arguments_environment_and_config"]),
    ),
    (
        "The config folder's name is the instance's handle",
        By(&["kit_daemons::a_config_is_applied_within_a_second_and_never_when_it_is_not_valid"]),
    ),
    (
        "In system mode a daemon's config may lie in the home of who made its instance",
        By(&["config_at_home::config_in_the_home_of_who_made_the_instance_counts_in_system_mode"]),
    ),
    (
        "Changes of config are picked up by themselves",
        By(&[
            "kit_daemons::a_config_is_applied_within_a_second_and_never_when_it_is_not_valid",
            "kit_daemons::a_config_is_applied_by_a_signal_where_the_kit_says_so",
        ]),
    ),
    (
        "`aegis instance info` prints `Gateway:     running`",
        By(&["main_job::starting_an_instance_of_a_kit_starts_its_daemon"]),
    ),
    (
        "The Agent Kit answers on Telegram",
        By(&[
            "agent_kit::a_conversation_goes_on_in_user_mode",
            "documents::documents_can_be_followed_from_installation_to_removal",
        ]),
    ),
];

/// The names of all tests, as `FILE::NAME`.
fn tests() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut folders: Vec<PathBuf> = ["tests/tests", "aegisd/src", "crates/aegis-core/src"]
        .map(|folder| cache::repository().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(file) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let after = text.split("#[test]").skip(1);
            let functions = after.filter_map(|rest| rest.split("fn ").nth(1)?.split('(').next());
            names.extend(functions.map(|name| format!("{file}::{name}")));
        }
    }
    Ok(names)
}

#[test]
fn every_statement_is_shown_or_said_to_be_missing() -> Result<()> {
    let tests = tests()?;
    let mut missing = 0;
    for (index, (statement, shown)) in STATEMENTS.iter().enumerate() {
        let number = index + 1;
        match shown {
            By(names) => {
                for name in *names {
                    assert!(
                        tests.contains(*name),
                        "{number}. {statement}: no test {name}"
                    );
                }
                println!("{number:>2}. {statement}\n      {}", names.join("\n      "));
            }
            NotYet(what) => {
                missing += 1;
                println!("{number:>2}. {statement}\n      NOT YET: {what}");
            }
        }
    }
    println!(
        "{missing} of {} statements are not yet true",
        STATEMENTS.len()
    );
    Ok(())
}
