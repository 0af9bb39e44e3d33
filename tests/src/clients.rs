//! Published clients of Telegram and of the providers of models (`tests/stand_ins/clients.txt`),
//! in an environment of Python's that is made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache;

/// The Python that has the clients. The packages come from PyPI, once for each list.
///
/// # Errors
/// The environment cannot be made, e.g. since PyPI does not answer.
pub fn python() -> Result<PathBuf> {
    let list = cache::repository().join("tests/stand_ins/clients.txt");
    let content = fs::read(&list).with_context(|| format!("reading {}", list.display()))?;
    let folder = cache::directory()?;
    let place = folder.join(format!("clients-{}", cache::key(&content)?));
    let python = place.join("bin/python");
    if !python.exists() {
        fs::create_dir_all(&folder).context("making the cache")?;
        // Made aside, since another test may be making it too.
        let aside = tempfile::tempdir_in(&folder).context("making a folder in the cache")?;
        let made = aside.path().join("made");
        run(Command::new("python3").args(["-m", "venv"]).arg(&made))?;
        let install = ["-m", "pip", "install", "--quiet", "--requirement"];
        run(Command::new(made.join("bin/python"))
            .args(install)
            .arg(&list))?;
        let moved = fs::rename(&made, &place);
        if !python.exists() {
            moved.with_context(|| format!("moving it to {}", place.display()))?;
        }
    }
    Ok(python)
}

/// Runs `tests/stand_ins/NAME.py` with that Python; what it says where it succeeds.
///
/// # Errors
/// It fails.
pub fn check(name: &str) -> Result<String> {
    let program = cache::repository().join(format!("tests/stand_ins/{name}.py"));
    run(Command::new(python()?).arg("-B").arg(Path::new(&program)))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?} failed: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}
