//! The processes of the guest, read from /proc so that any image can be looked
//! into, also one without ps(1).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aegis_link::message::{MAX_PROCESS_COMMAND, MAX_PROCESSES, Process};
use nix::unistd::{SysconfVar, sysconf};

use crate::users;

/// Kernel threads, whose parent is kthreadd, are the kernel's business.
const KTHREADD: u32 = 2;

/// Every process but the kernel's own threads, by number; the first
/// [`MAX_PROCESSES`] of them. One that ends meanwhile is left out.
pub(crate) fn list(root: &Path, uptime_ms: u64) -> Vec<Process> {
    let users = users(&users::read(users::PASSWD).unwrap_or_default());
    let ticks = figure(SysconfVar::CLK_TCK, 100);
    let page_kib = figure(SysconfVar::PAGE_SIZE, 4096) / 1024;
    let mut pids: Vec<u32> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let read = |pid: u32| {
        let folder = root.join(pid.to_string());
        let uid = fs::metadata(&folder).ok()?.uid();
        let stat = Stat::parse(&fs::read_to_string(folder.join("stat")).ok()?)?;
        if pid == KTHREADD || stat.parent == KTHREADD {
            return None;
        }
        let words = fs::read(folder.join("cmdline")).ok()?;
        let started_ms = stat.start_ticks * 1000 / ticks;
        Some(Process {
            pid,
            parent: stat.parent,
            user: users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            state: stat.state,
            cpu_ms: stat.cpu_ticks * 1000 / ticks,
            memory_kib: stat.resident_pages * page_kib,
            age_ms: uptime_ms.saturating_sub(started_ms),
            command: command(&words).unwrap_or_else(|| format!("[{}]", stat.name)),
        })
    };
    pids.into_iter()
        .filter_map(read)
        .take(MAX_PROCESSES)
        .collect()
}

fn figure(variable: SysconfVar, default: u64) -> u64 {
    let value = sysconf(variable).ok().flatten();
    value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|&value| value > 0)
        .unwrap_or(default)
}

/// The words of /proc/PID/cmdline in one line; `None` where there are none.
fn command(words: &[u8]) -> Option<String> {
    let words = words.strip_suffix(b"\0").unwrap_or(words);
    let text = String::from_utf8_lossy(words).replace(|c: char| c.is_control(), " ");
    let line: String = text.chars().take(MAX_PROCESS_COMMAND).collect();
    (!line.is_empty()).then_some(line)
}

/// Names by number from the text of passwd(5); the first name of a number wins.
fn users(passwd: &str) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1))
            && let Ok(uid) = uid.parse()
        {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// What of proc_pid_stat(5) is shown.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: String,
    parent: u32,
    cpu_ticks: u64,
    start_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// The name may hold spaces and parentheses, so the fields begin behind the
    /// last one.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        // The man page counts from 1 and has two fields before these.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            state: (*fields.first()?).to_owned(),
            parent: u32::try_from(number(4)?).ok()?,
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            start_ticks: number(22)?,
            resident_pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a ) b) S 7 42 42 0 -1 4194560 100 0 0 0 3 4 0 0 20 0 1 0 99 1000 12 \
                    18446744073709551615 0 0";
        let stat = Stat::parse(text).unwrap();
        let expected = Stat {
            name: "a ) b".into(),
            state: "S".into(),
            parent: 7,
            cpu_ticks: 7,
            start_ticks: 99,
            resident_pages: 12,
        };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse("nonsense"), None);
        assert_eq!(Stat::parse("1 (x) S 1"), None);
    }

    #[test]
    fn command_lines_are_words_in_a_line() {
        assert_eq!(command(b"sleep\x0060\0").as_deref(), Some("sleep 60"));
        assert_eq!(command(b"a\nb\0").as_deref(), Some("a b"));
        assert_eq!(command(b""), None);
        let long = vec![b'x'; MAX_PROCESS_COMMAND + 1];
        assert_eq!(command(&long).unwrap().len(), MAX_PROCESS_COMMAND);
    }

    #[test]
    fn users_have_their_first_name() {
        let users = users("root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\n");
        assert_eq!(users.get(&0).map(String::as_str), Some("root"));
        assert_eq!(users.len(), 1);
    }

    #[test]
    fn this_process_is_among_those_of_this_machine() {
        let own = std::process::id();
        let found = list(Path::new("/proc"), u64::MAX);
        if found.len() < MAX_PROCESSES {
            let found = found.iter().find(|process| process.pid == own).unwrap();
            assert!(
                found.memory_kib > 0 && !found.command.is_empty(),
                "{found:?}"
            );
        }
    }
}
