//! An instance of the original, from the columns of its row. Pure.
//!
//! Columns hold JSON as Go writes it: what is empty may be `null`.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Problem;

/// A row of the table `instances` as it is; what a database of an older version lacks has
/// the default that the original gives it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) command: String,
    pub(crate) expose_ports: String,
    pub(crate) handle: String,
    pub(crate) image_ref: String,
    pub(crate) workspace: String,
    pub(crate) env: String,
    pub(crate) secret_keys: String,
    pub(crate) public_ports: String,
    pub(crate) enabled: bool,
    pub(crate) memory_mb: i64,
    pub(crate) vcpus: i64,
    pub(crate) parent_id: String,
    pub(crate) capabilities: String,
    pub(crate) kit: String,
    pub(crate) auto_workspace: bool,
}

/// An instance of the original.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OldInstance {
    pub(crate) id: String,
    /// Empty of none.
    pub(crate) handle: String,
    pub(crate) command: Vec<String>,
    pub(crate) image: String,
    pub(crate) workspace: String,
    /// The workspace was made for it.
    pub(crate) own_workspace: bool,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) secrets: WantedSecrets,
    /// By the port in the guest; 0 where none of the host is noted.
    pub(crate) ports: BTreeMap<i64, i64>,
    pub(crate) enabled: bool,
    pub(crate) memory_mb: i64,
    pub(crate) vcpus: i64,
    /// The identity of the instance whose guest made it, or empty.
    pub(crate) parent: String,
    pub(crate) capabilities: Map<String, Value>,
    pub(crate) kit: String,
}

/// Which secrets an instance is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WantedSecrets {
    All,
    Named(Vec<String>),
}

impl Default for WantedSecrets {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl OldInstance {
    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        match self.handle.as_str() {
            "" => &self.id,
            handle => handle,
        }
    }
}

impl TryFrom<Row> for OldInstance {
    type Error = Problem;

    fn try_from(row: Row) -> Result<Self, Problem> {
        let name = match row.handle.as_str() {
            "" => &row.id,
            handle => handle,
        };
        let read = Columns { name };
        let exposed: Vec<i64> = read.json("expose_ports", &row.expose_ports)?;
        // A port that was opened later is noted with its number on the host alone.
        let mut ports: BTreeMap<i64, i64> = exposed.into_iter().map(|guest| (guest, 0)).collect();
        ports.extend(read.json::<BTreeMap<i64, i64>>("public_ports", &row.public_ports)?);
        let keys: Vec<String> = read.json("secret_keys", &row.secret_keys)?;
        Ok(Self {
            command: read.json("command", &row.command)?,
            env: read.json("env", &row.env)?,
            capabilities: read.json("capabilities", &row.capabilities)?,
            // As the original takes it: a star among names is a name.
            secrets: match keys.as_slice() {
                [key] if key == "*" => WantedSecrets::All,
                _ => WantedSecrets::Named(keys),
            },
            ports,
            handle: row.handle.clone(),
            id: row.id.clone(),
            image: row.image_ref,
            workspace: row.workspace,
            own_workspace: row.auto_workspace,
            enabled: row.enabled,
            memory_mb: row.memory_mb,
            vcpus: row.vcpus,
            parent: row.parent_id,
            kit: row.kit,
        })
    }
}

/// Columns of one instance.
struct Columns<'a> {
    name: &'a str,
}

impl Columns<'_> {
    /// What a column holds; nothing and `null` are the default.
    fn json<T: DeserializeOwned + Default>(
        &self,
        column: &'static str,
        text: &str,
    ) -> Result<T, Problem> {
        if text.is_empty() {
            return Ok(T::default());
        }
        let value: Option<T> = serde_json::from_str(text).map_err(|_| Problem::Column {
            name: self.name.to_owned(),
            column,
        })?;
        Ok(value.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Row {
        Row {
            id: "inst-1".into(),
            command: r#"["sh","-c","true"]"#.into(),
            expose_ports: "null".into(),
            env: "null".into(),
            secret_keys: "null".into(),
            public_ports: "{}".into(),
            enabled: true,
            ..Row::default()
        }
    }

    #[test]
    fn what_go_leaves_empty_is_empty() {
        let instance = OldInstance::try_from(row()).unwrap();
        assert_eq!(instance.name(), "inst-1");
        assert_eq!(instance.command, ["sh", "-c", "true"]);
        assert_eq!(instance.secrets, WantedSecrets::Named(Vec::new()));
        assert!(instance.ports.is_empty() && instance.env.is_empty());
        assert!(instance.capabilities.is_empty() && instance.enabled);
    }

    #[test]
    fn every_column_arrives() {
        let instance = OldInstance::try_from(Row {
            handle: "web".into(),
            expose_ports: "[80,443]".into(),
            public_ports: r#"{"80":8080,"22":2222}"#.into(),
            env: r#"{"A":"b"}"#.into(),
            secret_keys: r#"["*"]"#.into(),
            capabilities: r#"{"sub":"","spawn":true,"allowed_images":["*"]}"#.into(),
            memory_mb: 1024,
            vcpus: 2,
            auto_workspace: true,
            ..row()
        });
        let instance = instance.unwrap();
        assert_eq!(instance.name(), "web");
        assert_eq!(instance.ports, [(22, 2222), (80, 8080), (443, 0)].into());
        assert_eq!(instance.env["A"], "b");
        assert_eq!(instance.secrets, WantedSecrets::All);
        assert_eq!(instance.capabilities["allowed_images"], json!(["*"]));
        assert!(instance.own_workspace);
    }

    #[test]
    fn a_column_that_cannot_be_read_is_named_without_its_content() {
        let odd = |change: fn(&mut Row)| {
            let mut row = row();
            change(&mut row);
            OldInstance::try_from(row).unwrap_err().words()
        };
        for (words, column) in [
            (odd(|row| row.command = "sh".into()), "command"),
            (odd(|row| row.env = r#"{"KEY":777}"#.into()), "env"),
            (odd(|row| row.public_ports = "[1]".into()), "public_ports"),
            (odd(|row| row.secret_keys = "[1]".into()), "secret_keys"),
        ] {
            let expected = format!(
                "the column {column} of the instance inst-1 does not hold what belongs there"
            );
            assert_eq!(words, expected);
        }
    }
}
