//! `docs/kit-manifest.schema.json` says what `Manifest::parse` does.
//!
//! The schema is checked by the small part of JSON Schema that it uses; a word
//! this file does not know fails the test.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

use aegis_core::kit::Manifest;
use serde_json::{Value, json};

const AGENT: &str = r#"{"name":"agent","version":"0.1.0","description":"…","usage":"…",
 "config":[{"path":".aegis/agent.json","label":"Agent","default":{}}],
 "instance_daemons":[{"binary":"aegis-gateway","config":{"path":"gateway.json","label":"Gateway","default":{}}}],
 "image":{"base":"python:3.12-alpine","inject":["aegis-agent"]},
 "defaults":{"command":["aegis-agent"],"capabilities":{"spawn":true,"spawn_depth":2,"max_children":5,"allowed_images":["*"],
   "max_memory_mb":1024,"max_vcpus":2,"max_expose_ports":5,"allowed_secrets":["*"]}}}"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn schema() -> Value {
    let path = repository().join("docs/kit-manifest.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The first thing of a value that a schema forbids.
fn breach(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        let found = match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                breach(root, root.pointer(pointer).expect(pointer), value, at)
            }
            "items" => value
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
                .find_map(|(index, item)| breach(root, rule, item, &format!("{at}[{index}]"))),
            "properties" => rule.as_object().unwrap().iter().find_map(|(name, rule)| {
                breach(root, rule, value.get(name)?, &format!("{at}.{name}"))
            }),
            // Only where there are no properties beside it.
            "additionalProperties" => value
                .as_object()
                .into_iter()
                .flatten()
                .find_map(|(name, value)| breach(root, rule, value, &format!("{at}.{name}"))),
            _ => (!holds(word, rule, value)).then(|| format!("{at}: {word} {rule}")),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether a value keeps a rule that is about itself alone.
fn holds(word: &str, rule: &Value, value: &Value) -> bool {
    let number = |compare: fn(f64, f64) -> bool| {
        value
            .as_f64()
            .is_none_or(|value| compare(value, rule.as_f64().unwrap()))
    };
    match word {
        "$schema" | "$defs" | "title" | "description" | "default" => true,
        "type" => match rule {
            Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
            kind => is_of(kind, value),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "minimum" => number(|value, least| value >= least),
        "maximum" => number(|value, most| value <= most),
        "minLength" => value
            .as_str()
            .is_none_or(|text| text.len() as u64 >= rule.as_u64().unwrap()),
        "pattern" => value
            .as_str()
            .is_none_or(|text| matches(rule.as_str().unwrap(), text)),
        "required" => {
            let mut names = rule.as_array().unwrap().iter().map(|n| n.as_str().unwrap());
            value
                .as_object()
                .is_none_or(|object| names.all(|name| object.contains_key(name)))
        }
        other => panic!("the word {other} is not known here"),
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("the type {other} is not known here"),
    }
}

/// The patterns of the schema, by hand: they are few, and no crate is worth them.
fn matches(pattern: &str, text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match pattern {
        "^/" => text.starts_with('/'),
        "^(.+:)?[0-9]+(/tcp)?$" => {
            let body = text.strip_suffix("/tcp").unwrap_or(text);
            let (host, guest) = body.rsplit_once(':').unwrap_or(("-", body));
            let digits = guest.bytes().all(|byte| byte.is_ascii_digit());
            !host.is_empty() && !guest.is_empty() && digits
        }
        "^[^=\\u0000]+$" => !text.is_empty() && !text.contains(['=', '\0']),
        "^(~/.|/)" => text.starts_with('/') || (text.starts_with("~/") && text.len() > 2),
        "^(?!\\.{1,2}$)[^/]+$" => {
            !text.is_empty() && !text.contains('/') && text != "." && text != ".."
        }
        "^[A-Za-z0-9._-]{1,63}$" => (1..=63).contains(&text.len()) && text.chars().all(word),
        "^(/|[A-Za-z0-9_-][A-Za-z0-9._-]*$)" => {
            text.starts_with('/')
                || (!text.is_empty() && !text.starts_with('.') && text.chars().all(word))
        }
        "^(?!/)(?!(.*/)?\\.\\.(/|$)).*[^/]$" => {
            let parts = || text.split('/');
            !text.starts_with('/') && !text.ends_with('/') && parts().all(|part| part != "..")
        }
        other => panic!("the pattern {other} is not known here"),
    }
}

fn accepted_by_schema(text: &str) -> Result<(), String> {
    let schema = schema();
    let value: Value = serde_json::from_str(text).unwrap();
    breach(&schema, &schema, &value, "manifest").map_or(Ok(()), Err)
}

#[test]
fn every_shipped_manifest_fits() {
    let mut found = 0;
    let mut folders = vec![
        repository().join("docs/examples"),
        repository().join("tests/kits"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "json") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.display();
                if let Err(breach) = accepted_by_schema(&text) {
                    panic!("{path}: {breach}");
                }
                let warnings = Manifest::parse(&text).unwrap().warnings;
                assert!(warnings.is_empty(), "{path}: {warnings:?}");
                found += 1;
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn the_manifest_of_the_agent_kit_fits() {
    accepted_by_schema(AGENT).unwrap();
    assert!(Manifest::parse(AGENT).unwrap().warnings.is_empty());
}

#[test]
fn both_refuse_the_same() {
    let daemon = |more: Value| {
        let mut daemon = json!({"binary": "a"});
        let object = daemon.as_object_mut().unwrap();
        object.extend(more.as_object().unwrap().clone());
        json!({"instance_daemons": [daemon]})
    };
    for (good, value) in [
        (true, json!({})),
        (true, json!({"tomorrow": 1})),
        (false, json!([])),
        (false, json!({"name": 1})),
        (false, json!({"config": [{}]})),
        (false, json!({"config": [{"path": "/etc/x"}]})),
        (false, json!({"config": [{"path": "a/../../x"}]})),
        (false, json!({"config": [{"path": "a/"}]})),
        (true, json!({"config": [{"path": "a/..b"}]})),
        (false, json!({"instance_daemons": {}})),
        (false, json!({"instance_daemons": [{}]})),
        (false, daemon(json!({"binary": "a/b"}))),
        (false, daemon(json!({"binary": ".."}))),
        (false, daemon(json!({"name": ""}))),
        (false, daemon(json!({"restart": "never"}))),
        (true, daemon(json!({"restart": "no"}))),
        (false, daemon(json!({"ready": true}))),
        (false, daemon(json!({"restart_max_delay": 0.01}))),
        (false, daemon(json!({"restart_reset_after": 0}))),
        (true, daemon(json!({"restart_reset_after": 30}))),
        (false, daemon(json!({"stop_timeout": "1s"}))),
        (false, daemon(json!({"env": {"A": 1}}))),
        (false, daemon(json!({"limits": {"cpus": 0}}))),
        (false, daemon(json!({"limits": {"memory_mb": 1.5}}))),
        (false, daemon(json!({"sandbox": {"read": ["x"]}}))),
        (true, daemon(json!({"sandbox": {"read": ["~/x", "/srv"]}}))),
        (
            false,
            daemon(json!({"config": {"path": "a", "reload": "no"}})),
        ),
        (
            true,
            daemon(json!({"config": {"path": "a", "reload": "self"}})),
        ),
        (false, json!({"image": {"inject": [""]}})),
        (false, json!({"defaults": {"command": "sh"}})),
        (false, json!({"defaults": {"capabilities": []}})),
        (false, json!({"defaults": {"capabilities": {"spawn": 1}}})),
        (
            false,
            json!({"defaults": {"capabilities": {"allowed_images": "*"}}}),
        ),
        (true, json!({"defaults": {"capabilities": {"later": 1}}})),
        (true, json!({"defaults": {"delivery": "guest"}})),
        (false, json!({"defaults": {"delivery": "proxy"}})),
        (false, json!({"defaults": {"memory_mb": 63}})),
        (false, json!({"defaults": {"vcpus": 65}})),
        (false, json!({"defaults": {"workspace": ".x"}})),
        (false, json!({"defaults": {"expose": ["80:"]}})),
        (false, json!({"defaults": {"expose": ["80/udp"]}})),
        (false, json!({"defaults": {"expose": [0]}})),
        (false, json!({"defaults": {"expose": [true]}})),
        (
            true,
            json!({"defaults": {"expose": ["8080:80", "81/tcp", "82", 83], "user": "1000"}}),
        ),
        (false, json!({"defaults": {"workdir": "tmp"}})),
    ] {
        let text = value.to_string();
        assert_eq!(accepted_by_schema(&text).is_ok(), good, "schema: {text}");
        assert_eq!(Manifest::parse(&text).is_ok(), good, "parser: {text}");
    }
}

#[test]
fn both_know_the_same_keys() {
    let schema = schema();
    let text =
        r#"{"config":[{"path":"a"}],"instance_daemons":[{"binary":"a","config":{"path":"b"}}]}"#;
    let manifest = serde_json::to_value(Manifest::parse(text).unwrap().manifest).unwrap();
    let sorted = |object: &Value| {
        let keys = object.as_object().unwrap().keys();
        let mut keys: Vec<String> = keys.filter(|key| *key != "$schema").cloned().collect();
        keys.sort();
        keys
    };
    for (here, there) in [
        ("", ""),
        ("/config/0", "/properties/config/items"),
        ("/image", "/properties/image"),
        ("/defaults", "/properties/defaults"),
        ("/instance_daemons/0", "/$defs/daemon"),
        (
            "/instance_daemons/0/config",
            "/$defs/daemon/properties/config",
        ),
        (
            "/instance_daemons/0/limits",
            "/$defs/daemon/properties/limits",
        ),
        (
            "/instance_daemons/0/sandbox",
            "/$defs/daemon/properties/sandbox",
        ),
    ] {
        let properties = &schema.pointer(there).expect(there)["properties"];
        let known = manifest.pointer(here).expect(here);
        assert_eq!(sorted(known), sorted(properties), "{there}");
    }
}
