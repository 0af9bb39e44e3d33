//! `kit validate`: checks a kit that need not be installed, without aegisd.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aegis_core::fault::{Fault, Symbol, chain};
use aegis_core::kit::{CheckedManifest, MAX_MANIFEST, Manifest, bundle};
use serde_json::json;

use crate::cli::Context;
use crate::exit_code;
use crate::failure::Failure;
use crate::ui::clean;

/// Check a kit's folder, or one manifest, without installing it
///
/// A folder must also have the programs that its manifest names, in itself or in its
/// bin.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with NAME.json, or the manifest itself
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// The kit's name, where the folder has several manifests
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn execute(context: &Context, args: &Args) -> Result<u8, Failure> {
    let (path, checked) = check(&args.path, args.name.as_deref()).map_err(Failure::Said)?;
    let path = path.display();
    context.ui.data(
        || json!({"path": path.to_string(), "status": "ok", "warnings": checked.warnings}),
        || format!("{path} is a valid kit\n"),
    )?;
    for warning in &checked.warnings {
        context
            .ui
            .note(&format!("warning: {path}: {}", clean(warning)));
    }
    Ok(exit_code::OK)
}

/// The manifest's file and what it holds.
fn check(path: &Path, name: Option<&str>) -> Result<(PathBuf, CheckedManifest), Fault> {
    let unreadable = |path: &Path, error: std::io::Error| {
        Fault::new(
            Symbol::InvalidArgument,
            format!("cannot read {}: {error}", path.display()),
        )
    };
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if !metadata.is_dir() {
        return Ok((path.to_owned(), read(path)?));
    }
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, error))?;
    let names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let name = bundle::kit_name(names.iter().map(String::as_str), name).map_err(|error| {
        Fault::from_error(Symbol::InvalidArgument, &error)
            .with_hint("a kit is a folder with NAME.json and the programs it names")
    })?;
    let manifest = path.join(format!("{name}.json"));
    let checked = read(&manifest)?;
    let missing = bundle::missing(&checked.manifest, |program| is_program(&path.join(program)));
    if missing.is_empty() {
        return Ok((manifest, checked));
    }
    let (folder, missing) = (path.display(), missing.join(", "));
    let fault = Fault::new(
        Symbol::KitBroken,
        format!("{folder} lacks programs: {missing}"),
    );
    Err(fault.with_hint("put them beside the manifest or into its bin, executable"))
}

fn read(path: &Path) -> Result<CheckedManifest, Fault> {
    let broken = |why: String| {
        let path = path.display();
        Fault::new(Symbol::KitBroken, format!("{path}: {why}"))
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MANIFEST + 1).read_to_string(&mut text))
        .map_err(|error| broken(format!("it cannot be read: {error}")))?;
    if text.len() as u64 > MAX_MANIFEST {
        return Err(broken(format!("it is larger than {MAX_MANIFEST} bytes")));
    }
    Manifest::parse(&text).map_err(|error| broken(chain(&error)))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_needs_its_programs_and_a_manifest_alone_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("echo.json");
        fs::write(
            &manifest,
            r#"{"instance_daemons":[{"binary":"gate"}],"x":1}"#,
        )
        .unwrap();
        let fault = check(folder.path(), None).unwrap_err();
        assert!(fault.message.ends_with("lacks programs: gate"), "{fault}");
        let (path, checked) = check(&manifest, None).unwrap();
        assert_eq!(path, manifest);
        assert_eq!(checked.warnings.len(), 1);
        fs::write(folder.path().join("gate"), "").unwrap();
        assert!(check(folder.path(), None).is_err(), "not executable");
        let gate = folder.path().join("gate");
        fs::set_permissions(gate, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(check(folder.path(), None).unwrap().0, manifest);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_key_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("echo.json");
        fs::write(&manifest, r#"{"image":{"inject":["a/b"]}}"#).unwrap();
        let fault = check(folder.path(), None).unwrap_err();
        assert_eq!(fault.symbol, Symbol::KitBroken);
        let words = format!(
            "{}: image.inject[0] is 'a/b', which must be a file name without '/'",
            manifest.display()
        );
        assert_eq!(fault.message, words);
        let fault = check(&folder.path().join("none"), None).unwrap_err();
        assert_eq!(fault.symbol, Symbol::InvalidArgument);
    }
}
