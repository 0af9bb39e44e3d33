//! What an instance uses of the host: the answer of `Stats`.

use crate::dict::{Dict, DictError, DictReader, put, put_some};

/// What one unit uses. A figure that the service manager does not account for is
/// absent, never 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitUsage {
    pub unit: String,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory it may use.
    pub memory_max: Option<u64>,
    /// Nanoseconds of CPU time since it was started.
    pub cpu_ns: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    pub tasks_max: Option<u64>,
}

/// What an instance uses, unit by unit: the VM's, if it runs, and the daemons'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it was read, in microseconds since 1970.
    pub at_us: u64,
    pub units: Vec<UnitUsage>,
}

impl UnitUsage {
    fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "unit", self.unit.as_str());
        put_some(&mut dict, "memory", self.memory);
        put_some(&mut dict, "memory-max", self.memory_max);
        put_some(&mut dict, "cpu", self.cpu_ns);
        put_some(&mut dict, "tasks", self.tasks);
        put_some(&mut dict, "tasks-max", self.tasks_max);
        dict
    }

    fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("unit's usage", dict);
        Ok(Self {
            unit: reader.require("unit")?,
            memory: reader.take("memory")?,
            memory_max: reader.take("memory-max")?,
            cpu_ns: reader.take("cpu")?,
            tasks: reader.take("tasks")?,
            tasks_max: reader.take("tasks-max")?,
        })
    }
}

impl Usage {
    /// The answer as it travels.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        put(&mut dict, "at", self.at_us);
        let units: Vec<Dict> = self.units.iter().map(UnitUsage::to_dict).collect();
        put(&mut dict, "units", units);
        dict
    }

    /// Reads the answer; what a newer version added is left alone.
    ///
    /// # Errors
    /// A value of a wrong type.
    pub fn from_dict(dict: Dict) -> Result<Self, DictError> {
        let mut reader = DictReader::new("usage", dict);
        let units: Vec<Dict> = reader.take("units")?.unwrap_or_default();
        Ok(Self {
            at_us: reader.take("at")?.unwrap_or_default(),
            units: units
                .into_iter()
                .map(UnitUsage::from_dict)
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_travels_whole_and_absent_figures_stay_absent() {
        let usage = Usage {
            at_us: 5,
            units: vec![
                UnitUsage {
                    unit: "aegis-vm-web.service".into(),
                    memory: Some(1),
                    memory_max: Some(2),
                    cpu_ns: Some(3),
                    tasks: Some(4),
                    tasks_max: Some(5),
                },
                UnitUsage {
                    unit: "aegis-kit-web:gateway.service".into(),
                    ..UnitUsage::default()
                },
            ],
        };
        assert_eq!(Usage::from_dict(usage.to_dict()).unwrap(), usage);
    }
}
