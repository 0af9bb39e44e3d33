//! The licences of what is linked into the programs, one text for each package.
//!
//! ```text
//!  cargo metadata ─► crates linked into a package's programs ─► their licence files ┐
//!  packaging/licences/PACKAGE.txt: what is no crate, with @VERSION of PACKAGE@      ├─► target/licences/PACKAGE.txt
//!  /usr/share/common-licenses: the texts that one names                             ┘
//! ```
//!
//! Crates that only build or test something are left out: nothing of them is shipped.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use aegis_tests::cache;
use aegis_tests::install::Package;
use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::build::cargo;

/// How a crate calls the files that hold its licences.
const NAMES: [&str; 6] = [
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

/// Where Debian keeps the texts that many packages name.
const COMMON: &str = "/usr/share/common-licenses";

/// Writes the text of every package.
pub(crate) fn write() -> Result<()> {
    let folder = cache::repository().join("target/licences");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let graph = Graph::read()?;
    for package in Package::INSTALLED {
        let mut text = beside_crates(package)?;
        text += &of_crates(&graph.linked_into(programs(package)))?;
        let path = folder.join(format!("{}.txt", package.name()));
        // The same text keeps its time: what has it installed is up to date.
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

/// The crates whose programs a package ships.
fn programs(package: Package) -> &'static [&'static str] {
    match package {
        Package::Aegisvm => &[
            "aegisctl",
            "aegisd",
            "aegis-vmm",
            "aegis-shim",
            "aegis-egress",
            "aegis-image",
        ],
        Package::Guest => &["aegis-harness"],
        Package::AgentKit => &["aegis-gateway", "aegis-agent"],
        Package::ForeignGuest => &["aegis-harness", "aegis-agent"],
    }
}

/// What a package holds beside crates: its text under `packaging/licences`, with the
/// versions of Debian packages filled in and, after it, the common licences it names by
/// their paths.
fn beside_crates(package: Package) -> Result<String> {
    let name = format!("packaging/licences/{}.txt", package.name());
    let path = cache::repository().join(name);
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    while let Some((before, rest)) = text.split_once("@VERSION of ") {
        let (debian, after) = rest
            .split_once('@')
            .with_context(|| format!("{}: a @VERSION of without its end", path.display()))?;
        text = format!("{before}{}{after}", debian_version(debian)?);
    }
    let named: BTreeSet<String> = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(COMMON)?.strip_prefix('/'))
        .map(|name| name.trim_end_matches(['.', ',', ':', ';']).to_owned())
        .collect();
    for name in named {
        let licence = Path::new(COMMON).join(&name);
        let words = fs::read_to_string(&licence)
            .with_context(|| format!("reading {} (package base-files)", licence.display()))?;
        write!(text, "\n{}\n{name}\n\n{words}", "=".repeat(79))?;
    }
    Ok(text)
}

fn debian_version(package: &str) -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .output()
        .context("running dpkg-query")?;
    if !output.status.success() {
        bail!("the package {package} is not installed: run packaging/build-deps");
    }
    String::from_utf8(output.stdout).context("a version is text")
}

/// One crate that is linked in, as licences see it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Linked {
    name: String,
    version: String,
    expression: String,
    folder: String,
}

/// The texts of crates, each once with the names of all that have it.
fn of_crates(crates: &BTreeSet<Linked>) -> Result<String> {
    let mut index = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for linked in crates {
        let Linked {
            name,
            version,
            expression,
            folder,
        } = linked;
        writeln!(index, "{name} {version}: {expression}")?;
        let entries = fs::read_dir(folder).with_context(|| format!("reading {folder}"))?;
        for entry in entries {
            let path = entry.with_context(|| format!("reading {folder}"))?.path();
            if is_licence(&path) {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                let users = texts.entry(text.trim().replace('\r', "")).or_default();
                users.push(format!("{name} {version}"));
            }
        }
    }
    let mut text = format!("\nRust crates linked into the programs of this package:\n\n{index}");
    for (words, users) in texts {
        write!(
            text,
            "\n{}\n{}\n\n{words}\n",
            "=".repeat(79),
            users.join(", ")
        )?;
    }
    Ok(text)
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    path.is_file() && NAMES.iter().any(|start| name.starts_with(start))
}

/// The workspace's crates and what they depend on.
struct Graph {
    crates: HashMap<String, Value>,
    /// What each is linked with.
    links: HashMap<String, Vec<String>>,
}

impl Graph {
    fn read() -> Result<Self> {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = cargo()
            .args(["metadata", "--format-version=1", "--filter-platform"])
            .arg(target)
            .output()
            .context("running cargo metadata")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
        Self::parse(&metadata).context("cargo metadata has another form than expected")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut crates = HashMap::new();
        for package in metadata["packages"].as_array()? {
            crates.insert(text(&package["id"])?, package.clone());
        }
        let mut links = HashMap::new();
        for node in metadata["resolve"]["nodes"].as_array()? {
            let mut linked = Vec::new();
            for dependency in node["deps"].as_array()? {
                // A kind is null, "dev" or "build".
                let mut kinds = dependency["dep_kinds"].as_array()?.iter();
                if kinds.any(|kind| kind["kind"].is_null()) {
                    linked.push(text(&dependency["pkg"])?);
                }
            }
            links.insert(text(&node["id"])?, linked);
        }
        Some(Self { crates, links })
    }

    /// The crates of others that are linked into these of ours.
    fn linked_into(&self, programs: &[&str]) -> BTreeSet<Linked> {
        let is_program = |package: &Value| {
            package["source"].is_null() && programs.iter().any(|name| package["name"] == *name)
        };
        let mut waiting: Vec<&String> = self
            .crates
            .iter()
            .filter_map(|(id, package)| is_program(package).then_some(id))
            .collect();
        let mut seen = HashSet::new();
        let mut linked = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            waiting.extend(self.links.get(id).into_iter().flatten());
            let Some(package) = self.crates.get(id) else {
                continue;
            };
            if !package["source"].is_null() {
                let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
                let manifest = text("manifest_path");
                linked.insert(Linked {
                    name: text("name"),
                    version: text("version"),
                    expression: text("license"),
                    folder: manifest.trim_end_matches("/Cargo.toml").to_owned(),
                });
            }
        }
        linked
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_builds_or_tests_is_not_linked() {
        let of = |name: &str, source: Value| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT",
                   "source": source, "manifest_path": format!("/{name}/Cargo.toml")})
        };
        let on = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let registry = json!("registry");
        let metadata = json!({
            "packages": [of("ours", json!(null)), of("direct", registry.clone()),
                         of("deep", registry.clone()), of("build", registry.clone()),
                         of("dev", registry)],
            "resolve": {"nodes": [
                {"id": "ours", "deps": [on("direct", json!(null)), on("dev", json!("dev"))]},
                {"id": "direct", "deps": [on("deep", json!(null)), on("build", json!("build"))]},
                {"id": "deep", "deps": []}, {"id": "build", "deps": []}, {"id": "dev", "deps": []},
            ]},
        });
        let linked = Graph::parse(&metadata).unwrap().linked_into(&["ours"]);
        let names: Vec<_> = linked.iter().map(|linked| linked.name.as_str()).collect();
        assert_eq!(names, ["deep", "direct"]);
    }
}
