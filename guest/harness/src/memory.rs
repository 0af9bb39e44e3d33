//! What the kernel says about the guest's memory.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// Longest record of the kernel's log (Linux `CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8192;

/// A figure of /proc/meminfo in KiB (proc_meminfo(5)).
pub(crate) fn figure(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Processes that the kernel killed for want of memory, as far as its log still
/// knows. (The counter in /proc/vmstat is not in every kernel.)
pub(crate) fn oom_kills() -> u32 {
    let log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg");
    let Ok(mut log) = log else { return 0 };
    let mut kills = 0;
    let mut record = [0; RECORD];
    loop {
        // A record per read; EPIPE means that the oldest were overwritten meanwhile.
        match log.read(&mut record) {
            Ok(length) if length > 0 => kills += u32::from(is_kill(&record[..length])),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Ok(_) | Err(_) => return kills,
        }
    }
}

/// Whether a record of the kernel's log is the end of a process for want of
/// memory (Linux mm/oom_kill.c, `__oom_kill_process`).
fn is_kill(record: &[u8]) -> bool {
    let text = String::from_utf8_lossy(record);
    let message = text.split_once(';').map_or("", |(_, message)| message);
    let cause = message.split_once(": Killed process ");
    cause.is_some_and(|(cause, _)| cause.to_ascii_lowercase().ends_with("out of memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_kernel_s_text() {
        let text = "MemTotal:         244272 kB\nMemFree: 1 kB\nMemAvailable:     233524 kB\n";
        assert_eq!(figure(text, "MemTotal:"), 244_272);
        assert_eq!(figure(text, "MemAvailable:"), 233_524);
        assert_eq!(figure("", "MemTotal:"), 0);
    }

    #[test]
    fn kills_are_told_from_other_records() {
        let kill = b"3,512,9000,-;Out of memory: Killed process 42 (sh) total-vm:1kB\n";
        let of_group = b"3,512,9000,-;Memory cgroup out of memory: Killed process 42 (sh)\n";
        assert!(is_kill(kill) && is_kill(of_group));
        assert!(!is_kill(b"6,1,2,-;sh invoked oom-killer: gfp_mask=0x1\n"));
        assert!(!is_kill(b""));
    }
}
