//! From text to a manifest. What is wrong is named with its key and its place in
//! the text; what is unknown is a warning, at every level.

use serde::Deserialize;
use serde_json::Value;

use super::{CheckedManifest, Manifest};

/// Why a manifest makes its kit broken.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is not valid JSON")]
    Syntax(#[source] serde_json::Error),
    #[error("{key} has a wrong value")]
    Value {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{key} is empty")]
    Empty { key: String },
    #[error("{key} is '{value}', which must be a file name without '/'")]
    FileName { key: String, value: String },
    #[error("{key} is '{value}', which must be a relative path that stays in its folder")]
    Path { key: String, value: String },
    #[error("{key} is '{value}', which must be 1 to 63 letters, digits, '.', '_' and '-'")]
    DaemonName { key: String, value: String },
    #[error("two instance daemons are named '{0}'; give one of them a \"name\"")]
    DuplicateDaemon(String),
    #[error("two instance daemons have the config file '{0}'")]
    DuplicateConfig(String),
    #[error("{key} is {value}, which must be a number from {least} to {most}")]
    Number {
        key: String,
        value: f64,
        least: f64,
        most: f64,
    },
    #[error("{key} is '{value}', which must be an absolute path, or one that begins with '~/'")]
    HostPath { key: String, value: String },
    #[error("{key} is '{value}', which no daemon may be given")]
    Protected { key: String, value: String },
    #[error("{key} must be an object")]
    Object { key: String },
    #[error("defaults.capabilities is not acceptable")]
    Capability(#[source] crate::capabilities::CapabilityError),
    #[error("{key} is not acceptable")]
    Spec {
        key: String,
        #[source]
        source: crate::spec::SpecError,
    },
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The first thing that makes it unusable, with the key it stands at.
    pub fn parse(text: &str) -> Result<CheckedManifest, ManifestError> {
        let (manifest, warnings) = read(text)?;
        check_objects(text)?;
        manifest.check()?;
        Ok(CheckedManifest { manifest, warnings })
    }
}

fn read(text: &str) -> Result<(Manifest, Vec<String>), ManifestError> {
    let mut track = serde_path_to_error::Track::new();
    let mut warnings = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        warnings.push(format!("the key \"{}\" is not known", key(&path)));
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let watched = serde_ignored::Deserializer::new(tracked, &mut note);
    let read = Manifest::deserialize(watched).and_then(|manifest| {
        json.end()?;
        Ok(manifest)
    });
    match read {
        Ok(manifest) => Ok((manifest, warnings)),
        Err(error) if error.is_syntax() || error.is_eof() => Err(ManifestError::Syntax(error)),
        Err(source) => Err(ManifestError::Value {
            key: match track.path().to_string().as_str() {
                "." => "the whole".to_owned(),
                path => path.to_owned(),
            },
            source,
        }),
    }
}

/// Refuses arrays in the place of objects, which serde takes for structs.
fn check_objects(text: &str) -> Result<(), ManifestError> {
    let whole: Value = serde_json::from_str(text).map_err(ManifestError::Syntax)?;
    let mut objects = vec![("the whole".to_owned(), &whole)];
    for name in ["image", "defaults"] {
        objects.extend(whole.get(name).map(|value| (name.to_owned(), value)));
    }
    for name in ["config", "instance_daemons"] {
        let items = whole.get(name).and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let key = format!("{name}[{index}]");
            for part in ["config", "limits", "sandbox"] {
                objects.extend(item.get(part).map(|value| (format!("{key}.{part}"), value)));
            }
            objects.push((key, item));
        }
    }
    match objects.into_iter().find(|(_, value)| value.is_array()) {
        Some((key, _)) => Err(ManifestError::Object { key }),
        None => Ok(()),
    }
}

/// A key as errors name it too, e.g. `instance_daemons[0].frob`.
fn key(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", key(parent)),
        Path::Map { parent, key: name } => match key(parent) {
            parent if parent.is_empty() => name.clone(),
            parent => format!("{parent}.{name}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => key(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::chain;

    const AGENT: &str = r#"{"name":"agent","version":"0.1.0","description":"…","usage":"…",
 "config":[{"path":".aegis/agent.json","label":"Agent","default":{}}],
 "instance_daemons":[{"binary":"aegis-gateway","config":{"path":"gateway.json","label":"Gateway","default":{}}}],
 "image":{"base":"python:3.12-alpine","inject":["aegis-agent"]},
 "defaults":{"command":["aegis-agent"],"capabilities":{"spawn":true,"spawn_depth":2,"max_children":5,"allowed_images":["*"],
   "max_memory_mb":1024,"max_vcpus":2,"max_expose_ports":5,"allowed_secrets":["*"]}}}"#;

    #[test]
    fn the_agent_kit_is_accepted_unchanged() {
        let checked = Manifest::parse(AGENT).unwrap();
        assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
        let daemon = &checked.manifest.instance_daemons[0];
        assert_eq!(
            (daemon.daemon_name(), daemon.label()),
            ("gateway", "Gateway")
        );
        assert_eq!(checked.manifest.defaults.command, ["aegis-agent"]);
    }

    #[test]
    fn an_empty_manifest_is_a_kit() {
        Manifest::parse("{}").unwrap();
    }

    #[test]
    fn unknown_keys_are_warnings_at_every_level() {
        let text = r#"{"needs":["X"],"config":[{"path":"a","example":1}],
            "instance_daemons":[{"binary":"b","frob":{},"config":{"path":"c","lable":""}}],
            "image":{"tag":"x"},"defaults":{"capabilities":{"anything":1},"cpu":1}}"#;
        let warnings = Manifest::parse(text).unwrap().warnings;
        let keys = [
            "needs",
            "config[0].example",
            "instance_daemons[0].frob",
            "instance_daemons[0].config.lable",
            "image.tag",
            "defaults.cpu",
        ];
        let expected = keys.map(|key| format!("the key \"{key}\" is not known"));
        assert_eq!(warnings, expected);
    }

    #[test]
    fn a_wrong_type_is_named_with_its_key_and_place() {
        for (text, words) in [
            (
                "{\n \"defaults\": {\"command\": \"sh\"}}",
                "defaults.command has a wrong value: invalid type: string \"sh\", expected a sequence at line 2 column",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a"},{"binary":7}]}"#,
                "instance_daemons[1].binary has a wrong value: invalid type: integer `7`, expected a string",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","config":[]}]}"#,
                "instance_daemons[0].config must be an object",
            ),
            (
                r#"{"instance_daemons":[{"binary":"a","restart":"often"}]}"#,
                "instance_daemons[0].restart has a wrong value: unknown variant `often`",
            ),
            (
                r#"{"defaults":{"expose":["80:"]}}"#,
                "defaults.expose[0] has a wrong value: the port '80:' holds '', which is not a number",
            ),
            ("[]", "the whole must be an object"),
            (
                "7",
                "the whole has a wrong value: invalid type: integer `7`, expected an object",
            ),
            ("{", "it is not valid JSON: EOF while parsing an object"),
            ("{} x", "it is not valid JSON: trailing characters"),
        ] {
            let error = chain(&Manifest::parse(text).unwrap_err());
            assert!(error.starts_with(words), "{text}: {error}");
        }
    }
}
