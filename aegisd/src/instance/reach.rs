//! What a daemon may see of the host beyond the operating system: its program's
//! folder and interpreter, its config folder, and what its kit asks for.
//!
//! A program is not always its file alone: it may be a script whose interpreter
//! lies in the home (a Python virtual environment), or a link. All of the home is
//! hidden otherwise, so each of these is bound back by name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::host::Host;

/// Trees that every unit sees.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt"];
/// The longest first line that the kernel reads (execve(2)).
const SHEBANG: u64 = 256;
/// Scripts whose interpreter is a script again (execve(2)).
const DEEPEST: usize = 4;

/// What a program needs to run, read-only: files and folders that would be hidden.
pub(super) fn program(path: &Path, host: &Host) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = Some(path.to_owned());
    for depth in 0..DEEPEST {
        let Some(path) = next.take() else { break };
        for place in [Some(path.clone()), path.canonicalize().ok()]
            .into_iter()
            .flatten()
        {
            add(&mut found, folder_of(&place, host));
            if let Some(folder) = environment_of(&place, host).filter(|_| depth > 0) {
                add(&mut found, folder);
            }
        }
        next = interpreter(&path);
    }
    found.retain(|path| !is_system(path, host));
    outermost(&found)
}

fn add(found: &mut Vec<PathBuf>, path: PathBuf) {
    if !found.contains(&path) {
        found.push(path);
    }
}

/// A program's folder, or the program alone where the folder holds more than what
/// belongs to it.
fn folder_of(program: &Path, host: &Host) -> PathBuf {
    let installed = host.layout.installed_kits();
    if let Ok(below) = program.strip_prefix(&installed)
        && let Some(kit) = below.components().next()
    {
        // All that was installed with it.
        return installed.join(kit);
    }
    match program.parent() {
        Some(folder) if !holds_others(folder, host) => folder.to_owned(),
        _ => program.to_owned(),
    }
}

/// Whether a folder is a home, one of our own, or above such a one.
fn holds_others(folder: &Path, host: &Host) -> bool {
    let layout = &host.layout;
    let local = host.home.as_ref().map(|home| home.join(".local/share"));
    let own = [
        Some(layout.kits()),
        Some(layout.instances()),
        Some(layout.runtime.clone()),
        host.home.clone(),
        local,
        Some("/root".into()),
    ];
    let mut own = own.into_iter().flatten();
    own.any(|own| own.starts_with(folder))
        || folder.starts_with(layout.instances())
        || folder.parent() == Some(Path::new("/home"))
}

/// The folder of a virtual environment or of an interpreter's own installation:
/// `PREFIX` of `PREFIX/bin/python3`.
fn environment_of(interpreter: &Path, host: &Host) -> Option<PathBuf> {
    let bin = interpreter.parent()?;
    let prefix = bin.parent()?;
    let named = bin.file_name().is_some_and(|name| name == "bin");
    let whole = prefix.join("pyvenv.cfg").exists() || prefix.join("lib").is_dir();
    (named && whole && !holds_others(prefix, host)).then(|| prefix.to_owned())
}

/// The interpreter that a script's first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    let file = File::open(script).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(SHEBANG).read_to_end(&mut start).ok()?;
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let words = std::str::from_utf8(line).ok()?;
    let path = Path::new(words.split_whitespace().next()?);
    path.is_absolute().then(|| path.to_owned())
}

/// Whether every unit sees a path: of the system, but for our own folder below /etc.
fn is_system(path: &Path, host: &Host) -> bool {
    let of_system = SYSTEM.iter().any(|tree| path.starts_with(tree));
    of_system && !path.starts_with(&host.layout.config)
}

/// Leaves out what lies below another of the paths.
fn outermost(paths: &[PathBuf]) -> Vec<PathBuf> {
    let inner = |path: &PathBuf| {
        let mut others = paths.iter();
        others.any(|other| other != path && path.starts_with(other))
    };
    let kept = paths.iter().filter(|path| !inner(path));
    kept.cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn world() -> (tempfile::TempDir, PathBuf, Host) {
        let root = tempfile::tempdir().unwrap();
        // As tests of paths need it: without links in it.
        let top = root.path().canonicalize().unwrap();
        let home = top.join("alice");
        fs::create_dir(&home).unwrap();
        let host = Host {
            home: Some(home.clone()),
            ..crate::testing::host(&home.join(".aegis"))
        };
        (root, home, host)
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_programs_folder_is_seen_and_the_home_is_not() {
        let (_root, home, host) = world();
        let tool = home.join("bin/gate");
        write(&tool, "");
        assert_eq!(program(&tool, &host), [home.join("bin")]);
        let bare = home.join("gate");
        write(&bare, "");
        assert_eq!(program(&bare, &host), [bare]);
        let beside = host.layout.kits().join("gate");
        write(&beside, "");
        assert_eq!(
            program(&beside, &host),
            [beside],
            "other instances' config lies beside it"
        );
        assert!(program(Path::new("/usr/bin/env"), &host).is_empty());
        let mut of_system = host;
        of_system.layout.config = "/etc/aegis".into();
        let beside = Path::new("/etc/aegis/kits/gate");
        assert_eq!(
            program(beside, &of_system),
            [beside],
            "hidden, though in /etc"
        );
        assert!(program(Path::new("/etc/init.d/gate"), &of_system).is_empty());
    }

    #[test]
    fn a_program_of_an_installed_kit_sees_all_of_its_kit() {
        let (_root, _, host) = world();
        let kit = host.layout.installed_kits().join("echo-000001");
        write(&kit.join("bin/gate"), "");
        let seen = program(&kit.join("bin/gate"), &host);
        assert_eq!(seen, std::slice::from_ref(&kit));
    }

    #[test]
    fn a_link_and_where_it_leads_are_seen() {
        let (_root, home, host) = world();
        let real = home.join("src/gate/gate");
        write(&real, "");
        fs::create_dir(home.join("bin")).unwrap();
        let link = home.join("bin/gate");
        symlink(&real, &link).unwrap();
        assert_eq!(
            program(&link, &host),
            [home.join("bin"), home.join("src/gate")]
        );
    }

    #[test]
    fn a_virtual_environment_is_seen_as_a_whole() {
        let (_root, home, host) = world();
        let venv = home.join("project/venv");
        write(&venv.join("pyvenv.cfg"), "home = /usr/bin\n");
        let gate = venv.join("bin/gate");
        let python = venv.join("bin/python3");
        write(&gate, &format!("#!{}\nprint()\n", python.display()));
        symlink("/usr/bin/python3", &python).unwrap();
        assert_eq!(program(&gate, &host), std::slice::from_ref(&venv));
        let script = home.join("bin/script");
        write(&script, &format!("#! {} -u\n", python.display()));
        assert_eq!(program(&script, &host), [home.join("bin"), venv]);
    }

    #[test]
    fn an_interpreter_installed_in_the_home_brings_its_own_folder_alone() {
        let (_root, home, host) = world();
        let python = home.join(".pyenv/versions/3.12/bin/python3");
        write(&python, "");
        write(&home.join(".pyenv/versions/3.12/lib/python3.12/os.py"), "");
        let script = home.join("bin/script");
        write(&script, &format!("#!{}\n", python.display()));
        let prefix = home.join(".pyenv/versions/3.12");
        assert_eq!(program(&script, &host), [home.join("bin"), prefix]);

        let local = home.join(".local/bin/run");
        write(&local, "");
        fs::create_dir_all(home.join(".local/lib")).unwrap();
        fs::create_dir_all(home.join(".local/share")).unwrap();
        write(&script, &format!("#!{}\n", local.display()));
        let folders = [home.join("bin"), home.join(".local/bin")];
        assert_eq!(program(&script, &host), folders, "not all of .local");
    }
}
