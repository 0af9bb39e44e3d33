//! A process in the guest: an entry of the answer of `Processes`.

use crate::dict::{Dict, DictError, DictReader, put};

/// One process. Its words are the guest's and not to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestProcess {
    pub pid: u32,
    pub parent: u32,
    /// The user's name in the guest, or its number.
    pub user: String,
    /// One letter of proc_pid_stat(5), e.g. `S`.
    pub state: String,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Milliseconds since it was started.
    pub age_ms: u64,
    /// The command line, or the name in brackets where there is none; perhaps cut.
    pub command: String,
}

impl GuestProcess {
    /// The entry as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "pid", self.pid);
        put(&mut dict, "parent", self.parent);
        put(&mut dict, "user", self.user.as_str());
        put(&mut dict, "state", self.state.as_str());
        put(&mut dict, "cpu", self.cpu_ms);
        put(&mut dict, "memory", self.memory_kib);
        put(&mut dict, "age", self.age_ms);
        put(&mut dict, "command", self.command.as_str());
        dict
    }

    /// Reads an entry; what a newer version added is left alone.
    ///
    /// # Errors
    /// A value of a wrong type, or no pid.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("process", dict);
        Ok(Self {
            pid: reader.require("pid")?,
            parent: reader.take("parent")?.unwrap_or_default(),
            user: reader.take("user")?.unwrap_or_default(),
            state: reader.take("state")?.unwrap_or_default(),
            cpu_ms: reader.take("cpu")?.unwrap_or_default(),
            memory_kib: reader.take("memory")?.unwrap_or_default(),
            age_ms: reader.take("age")?.unwrap_or_default(),
            command: reader.take("command")?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_travels_whole() {
        let process = GuestProcess {
            pid: 7,
            parent: 1,
            user: "nobody".into(),
            state: "S".into(),
            cpu_ms: 20,
            memory_kib: 900,
            age_ms: 1000,
            command: "sleep 60".into(),
        };
        assert_eq!(GuestProcess::from_dict(process.to_dict()).unwrap(), process);
    }
}
