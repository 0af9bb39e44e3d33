//! Completions and man pages are made from the definition of the commands and
//! committed, so that the program that is shipped does not carry their generators.
//!
//! After a change of a command:
//! `AEGIS_WRITE_GENERATED=1 cargo nextest run --release -p aegisctl generated`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

use crate::cli::command_named_after;

/// The names the program has.
const NAMES: [&str; 2] = ["aegisctl", "aegis"];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn writes() -> bool {
    std::env::var_os("AEGIS_WRITE_GENERATED").is_some()
}

/// A line of packaging/files.
fn entry(path: &str, installed: &str) -> String {
    format!("0644 packaging/{path} {installed}\n")
}

/// Has packaging/files name these files and no others of their folders.
fn write_list(files: &BTreeMap<String, (String, Vec<u8>)>) {
    let list = fs::read_to_string(packaging().join("files")).unwrap();
    let ours = ["0644 packaging/completions/", "0644 packaging/man/"];
    let others = list
        .lines()
        .filter(|line| !ours.iter().any(|begin| line.starts_with(begin)))
        .map(|line| format!("{line}\n"));
    let lines = files
        .iter()
        .map(|(path, (installed, _))| entry(path, installed));
    let text: String = others.chain(lines).collect();
    fs::write(packaging().join("files"), text).unwrap();
}

/// Every file by its path below packaging/, with where it is installed.
fn files() -> BTreeMap<String, (String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let mut files = BTreeMap::new();
    let take = |path: &Path| fs::read(path).unwrap();
    for name in NAMES {
        let program = OsString::from(name);
        for (shell, installed) in [
            (
                Shell::Bash,
                format!("share/bash-completion/completions/{name}"),
            ),
            (Shell::Zsh, format!("share/zsh/site-functions/_{name}")),
            (
                Shell::Fish,
                format!("share/fish/vendor_completions.d/{name}.fish"),
            ),
        ] {
            let mut command = command_named_after(Some(&program));
            let made =
                clap_complete::generate_to(shell, &mut command, name, folder.path()).unwrap();
            let file = made.file_name().unwrap().to_str().unwrap();
            files.insert(format!("completions/{file}"), (installed, take(&made)));
        }
    }
    clap_mangen::generate_to(command_named_after(None), folder.path()).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "1") {
            let file = path.file_name().unwrap().to_str().unwrap();
            let installed = format!("share/man/man1/{file}");
            files.insert(format!("man/{file}"), (installed, take(&path)));
        }
    }
    let short = (
        "share/man/man1/aegis.1".to_owned(),
        b".so man1/aegisctl.1\n".to_vec(),
    );
    files.insert("man/aegis.1".to_owned(), short);
    files
}

#[test]
fn completions_and_man_pages_are_as_committed() {
    let files = files();
    if writes() {
        for folder in ["completions", "man"] {
            // What no command makes any more goes.
            fs::remove_dir_all(packaging().join(folder)).ok();
            fs::create_dir_all(packaging().join(folder)).unwrap();
        }
        for (path, (_, content)) in &files {
            fs::write(packaging().join(path), content).unwrap();
        }
    }
    if writes() {
        write_list(&files);
    }
    let mut committed = Vec::new();
    for folder in ["completions", "man"] {
        for entry in fs::read_dir(packaging().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            committed.push(format!("{folder}/{name}"));
        }
    }
    committed.sort();
    assert_eq!(files.keys().cloned().collect::<Vec<_>>(), committed);
    for (path, (_, content)) in &files {
        let found = fs::read(packaging().join(path)).unwrap();
        assert!(found == *content, "packaging/{path} is out of date");
    }
}

#[test]
fn completions_and_man_pages_are_installed() {
    let list = fs::read_to_string(packaging().join("files")).unwrap();
    let missing: String = files()
        .iter()
        .map(|(path, (installed, _))| entry(path, installed))
        .filter(|line| !list.contains(line.as_str()))
        .collect();
    assert!(missing.is_empty(), "packaging/files lacks:\n{missing}");
}
