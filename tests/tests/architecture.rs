//! What ARCHITECTURE.md says of the source, held by a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_tests::cache;
use anyhow::{Context, Result, bail};

/// The longest a file may be: one subject, read in one go.
const LONGEST_FILE: usize = 600;

/// Who of ours may depend on whom. What both ends of a wire share knows nothing
/// of either end, and programs do not know each other.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("aegis-agent", &[]),
    ("aegis-gateway", &["aegis-core", "aegis-os"]),
    ("aegis-archive", &["aegis-os"]),
    ("aegis-core", &[]),
    ("aegis-egress", &["aegis-core"]),
    ("aegis-fault-points", &[]),
    (
        "aegis-image",
        &["aegis-core", "aegis-fault-points", "aegis-os"],
    ),
    ("aegis-link", &["aegis-core"]),
    ("aegis-os", &[]),
    ("aegis-bus", &["aegis-core"]),
    (
        "aegisd",
        &[
            "aegis-core",
            "aegis-bus",
            "aegis-fault-points",
            "aegis-image",
            "aegis-os",
        ],
    ),
    (
        "aegisctl",
        &[
            "aegis-archive",
            "aegis-core",
            "aegis-bus",
            "aegis-image",
            "aegis-os",
        ],
    ),
    (
        "aegis-vmm",
        &["aegis-core", "aegis-link", "aegis-fault-points", "aegis-os"],
    ),
    ("aegis-shim", &["aegis-core", "aegis-os"]),
    (
        "aegis-harness",
        &["aegis-archive", "aegis-core", "aegis-link"],
    ),
    ("aegis-tests", &["aegis-fault-points"]),
    ("aegis-bench", &["aegis-bus", "aegis-core", "aegis-tests"]),
    ("xtask", &["aegis-tests"]),
];

/// Where unsafe code may be.
const MAY_BE_UNSAFE: [&str; 3] = ["crates/aegis-vmm", "crates/aegis-shim", "guest/harness"];

/// The layers inside aegisd, upper ones first. A module uses modules of its own
/// layer and of lower ones; from [`LOWEST`] on those of a layer do not know each other.
const AEGISD_LAYERS: [&[&str]; 5] = [
    &["daemon"],
    &["api", "bus", "credentials"],
    &[
        "board",
        "caller",
        "checks",
        "engine",
        "images",
        "instance",
        "jobs",
        "kits",
        "messages",
        "peer",
        "reconcile",
        "secrets",
        "vm",
        "volumes",
    ],
    &[
        "registry",
        "supervisor",
        "homes",
        "host",
        "ports",
        "sockets",
    ],
    &["effects"],
];

/// The first of the layers that only look outside.
const LOWEST: usize = 3;

/// Every Rust file of ours, with its path below the repository.
fn sources() -> Result<BTreeMap<PathBuf, String>> {
    let repository = cache::repository();
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ])
        .current_dir(&repository)
        .output()
        .context("running git")?;
    let listed = String::from_utf8(listed.stdout).context("the names of files")?;
    if listed.is_empty() {
        bail!("git lists no Rust file");
    }
    listed
        .lines()
        .filter(|path| repository.join(path).exists())
        .map(|path| {
            let text =
                fs::read_to_string(repository.join(path)).with_context(|| path.to_owned())?;
            Ok((PathBuf::from(path), text))
        })
        .collect()
}

/// The packages of ours that each package of ours depends on, other than for
/// its tests.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(cache::repository())
        .output()
        .context("running cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let name = |package: &serde_json::Value| package["name"].as_str().map(str::to_owned);
    let ours: BTreeSet<String> = packages.iter().filter_map(name).collect();
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"]
                .as_array()
                .context("dependencies")?
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .filter_map(name)
                .filter(|dependency| ours.contains(dependency))
                .collect();
            Ok((name(package).context("a package's name")?, used))
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into();
    for (package, used) in dependencies()? {
        let allowed = allowed
            .get(package.as_str())
            .with_context(|| format!("{package} is in no rule"))?;
        for dependency in used {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not depend on {dependency}"
            );
        }
    }
    Ok(())
}

#[test]
fn layers_of_aegisd_use_only_what_is_below_them() -> Result<()> {
    let layer_of = |module: &str| {
        AEGISD_LAYERS
            .iter()
            .position(|layer| layer.contains(&module))
    };
    for (path, text) in sources()? {
        let Ok(inside) = path.strip_prefix("aegisd/src") else {
            continue;
        };
        let module = first_part(inside);
        let Some(own) = layer_of(&module) else {
            let outside = ["lib", "main", "testing"];
            assert!(
                outside.contains(&module.as_str()),
                "{module} is in no layer"
            );
            continue;
        };
        for used in text.lines().flat_map(used_modules) {
            if let Some(layer) = layer_of(used) {
                let is_lowest = own >= LOWEST;
                assert!(
                    layer > own || (layer == own && !is_lowest) || used == module,
                    "{} uses crate::{used}, which is not below {module}",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// `bus` of `bus.rs` and of `bus/manager.rs`.
fn first_part(path: &Path) -> String {
    let first = path.iter().next().unwrap_or_default().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// `registry` for each `crate::registry` in a line's code.
fn used_modules(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    let ends = |c: char| !c.is_alphanumeric() && c != '_';
    code.split("crate::")
        .skip(1)
        .filter_map(move |rest| rest.split(ends).next())
}

#[test]
fn unsafe_code_is_only_where_it_may_be() -> Result<()> {
    for (path, text) in sources()? {
        let allowed = MAY_BE_UNSAFE.iter().any(|folder| path.starts_with(folder));
        let lifted = text.contains(concat!("allow(", "unsafe_code"));
        assert!(allowed || !lifted, "{} has unsafe code", path.display());
    }
    Ok(())
}

#[test]
fn files_are_short() -> Result<()> {
    let long: Vec<String> = sources()?
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {LONGEST_FILE} lines: {long:#?}");
    Ok(())
}

#[test]
fn words_that_do_not_belong_into_the_source_are_absent() -> Result<()> {
    // Put together, so that this file does not hold them.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("mod", ".rs"),
    ];
    let mut found = Vec::new();
    for (path, text) in sources()? {
        for (number, line) in text.lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    found.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
        if path.ends_with(concat!("mod", ".rs")) {
            found.push(path.display().to_string());
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}
