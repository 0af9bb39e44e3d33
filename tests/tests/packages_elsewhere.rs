//! The packages for others than Debian, as far as they can be tried on it: rpm's, Arch
//! Linux's, Homebrew's, and the tarball. None of them is booted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_tests::cache;
use aegis_tests::install::{Package, Plan};
use aegis_tests::machine::{Root, Systemd};
use aegis_tests::packages::{deb, file, files_below, folder, run, sorted};
use anyhow::{Context, Result};
use tempfile::TempDir;

/// What a package is to hold: its list, which leaves the kernel of a distribution to
/// those who have not built ours.
fn listed(package: Package) -> Result<Vec<String>> {
    let plan = Plan::of(package, "/usr")?;
    let paths = plan.entries.into_iter().map(|entry| entry.destination);
    let mut paths: Vec<_> = paths.filter(|path| !path.contains("/fallback/")).collect();
    paths.sort();
    Ok(paths)
}

/// A copy of a Debian system, where scripts of packages find what they call.
fn system() -> Result<TempDir> {
    let root = Root::of(Systemd::V257)?;
    root.build()?;
    let copy = tempfile::tempdir().context("making a folder")?;
    let mut cp = Command::new("cp");
    cp.args(["-a", "--reflink=auto"]);
    run(cp.arg(root.path().join(".")).arg(copy.path()))?;
    Ok(copy)
}

/// All files in a system, and the folders of ours, but for what the package manager itself
/// writes and the account that stays. (Other folders belong to packages of the distribution.)
fn contents(system: &Path) -> Result<String> {
    let find = format!(
        "find '{}' \\( -path '*/root/.rpmdb' -o -path '*/var/lib/pacman' -o -path '*/var/cache' \
         -o -path '*/var/log' -o -path '*/etc/passwd*' -o -path '*/etc/group*' \
         -o -path '*/etc/shadow*' -o -path '*/etc/gshadow*' -o -name .pwd.lock \
         -o -name ld.so.cache \\) -prune -o \\( ! -type d -o -path '*/aegis*' \\) \
         -printf '/%P %u %m %l\\n' | sort",
        system.display()
    );
    run(Command::new("sh").args(["-ec", &find]))
}

/// What is there that was not there before.
fn left_in(system: &TempDir, before: &str) -> Result<String> {
    let before: BTreeSet<_> = before.lines().collect();
    let after = contents(system.path())?;
    let left: Vec<_> = after
        .lines()
        .filter(|line| !before.contains(line))
        .collect();
    Ok(left.join("\n"))
}

fn has_the_account(system: &Path) -> Result<bool> {
    let passwd = fs::read_to_string(system.join("etc/passwd")).context("reading passwd")?;
    Ok(passwd.lines().any(|line| line.starts_with("aegis:")))
}

#[test]
fn debian_packages_hold_what_is_listed() -> Result<()> {
    for package in Package::ALL {
        let tree = tempfile::tempdir().context("making a folder")?;
        let path = deb(package)?;
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(path)
            .arg(tree.path()))?;
        let own = |path: &String| {
            !path.starts_with("/usr/share/doc/") && !path.starts_with("/usr/share/lintian/")
        };
        let plain = |path: String| match path.strip_suffix(".gz") {
            Some(page) if path.starts_with("/usr/share/man/") => page.to_owned(),
            _ => path,
        };
        let files = files_below(tree.path())?.into_iter().filter(own).map(plain);
        assert_eq!(
            files.collect::<Vec<_>>(),
            listed(package)?,
            "{}",
            package.name()
        );
    }
    Ok(())
}

#[test]
fn rpms_hold_what_is_listed_and_come_and_go() -> Result<()> {
    let system = system()?;
    let before = contents(system.path())?;
    let rpm = |arguments: &[&str]| {
        let mut rpm = Command::new("rpm");
        run(rpm.arg("--root").arg(system.path()).args(arguments))
    };
    let mut files = Vec::new();
    for package in Package::ALL {
        let path = file(
            &format!("{}-{}", package.name(), env!("CARGO_PKG_VERSION")),
            ".rpm",
        )?;
        let query = "[%{FILEMODES:perms} %{FILENAMES}\\n]";
        let rows = run(Command::new("rpm").args(["-qp", "--qf", query]).arg(&path))?;
        let paths = rows.lines().filter(|row| !row.starts_with('d'));
        let paths: Vec<_> = paths
            .filter_map(|row| row.split_once(' '))
            .map(|row| row.1)
            .collect();
        assert_eq!(
            sorted(&paths.join("\n")),
            listed(package)?,
            "{}",
            package.name()
        );
        files.push(path.to_string_lossy().into_owned());
    }
    let files: Vec<_> = files.iter().map(String::as_str).collect();

    // A Debian system has nothing that rpm knows of.
    rpm(&[&["--install", "--nodeps"], &files[..]].concat())?;
    assert!(has_the_account(system.path())?);
    let names = Package::ALL.map(Package::name);
    rpm(&[&["--verify", "--nodeps"], &names[..]].concat())?;
    for path in Plan::read("/usr")?
        .entries
        .iter()
        .map(|entry| &entry.destination)
    {
        let path = system.path().join(path.trim_start_matches('/'));
        let fallback = path.to_string_lossy().contains("/fallback/");
        assert_eq!(
            path.symlink_metadata().is_ok(),
            !fallback,
            "{}",
            path.display()
        );
    }
    let enabled = "etc/systemd/user/sockets.target.wants/aegisd.socket";
    assert!(system.path().join(enabled).symlink_metadata().is_ok());
    let service = "etc/systemd/system/multi-user.target.wants/aegisd.service";
    assert!(system.path().join(service).symlink_metadata().is_err());

    rpm(&[&["--erase"], &names[..]].concat())?;
    assert_eq!(left_in(&system, &before)?, "");
    Ok(())
}

#[test]
fn the_pkgbuild_makes_packages_that_come_and_go() -> Result<()> {
    let system = system()?;
    let before = contents(system.path())?;
    let work = tempfile::tempdir().context("making a folder")?;
    let sources = [
        folder().join("arch/PKGBUILD"),
        folder().join("arch/aegisvm.install"),
        file("aegisvm-", ".tar.xz")?,
    ];
    for source in sources {
        let target = work.path().join(source.file_name().unwrap_or_default());
        fs::copy(&source, target).with_context(|| format!("copying {}", source.display()))?;
    }
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o777)).context("chmod")?;
    // makepkg refuses to be root.
    let make = "makepkg --nodeps --nocolor --noconfirm PKGEXT=.pkg.tar";
    let mut makepkg = Command::new("setpriv");
    makepkg.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-ec",
        make,
    ]);
    run(makepkg.current_dir(work.path()).env("HOME", work.path()))?;

    let mut packages = Vec::new();
    for package in Package::ALL {
        let name = format!(
            "{}-{}-1-{}.pkg.tar",
            package.name(),
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        );
        let path = work.path().join(name);
        let rows = run(Command::new("tar").arg("-tf").arg(&path))?;
        let rows = rows
            .lines()
            .filter(|row| row.starts_with("usr/") && !row.ends_with('/'));
        let rows: String = rows.map(|row| format!("/{row}\n")).collect();
        assert_eq!(sorted(&rows), listed(package)?, "{}", package.name());
        packages.push(path);
    }
    fs::create_dir_all(system.path().join("var/lib/pacman")).context("a database")?;
    let pacman = |flags: &[&str], what: &[PathBuf]| {
        let mut pacman = Command::new("pacman");
        pacman.arg("--root").arg(system.path());
        pacman.args(["--noconfirm", "--nodeps", "--nodeps"]);
        run(pacman.args(flags).args(what))
    };
    pacman(&["--upgrade"], &packages)?;
    assert!(system.path().join("usr/bin/aegis").is_symlink());
    let names = Package::ALL.map(|package| PathBuf::from(package.name()));
    pacman(&["--remove"], &names)?;
    assert_eq!(left_in(&system, &before)?, "");
    Ok(())
}

#[test]
fn formulae_install_into_a_homebrew_prefix() -> Result<()> {
    let brew = tempfile::tempdir().context("making a folder")?;
    let tarball = file("aegisvm-", ".tar.xz")?;
    let stand_in = cache::repository().join("tests/stand_ins/homebrew.rb");
    let mut said = String::new();
    for formula in ["aegisvm", "aegisvm-agent-kit"] {
        let path = folder().join(format!("homebrew-aegisvm/Formula/{formula}.rb"));
        run(Command::new("ruby").args(["-W", "-c"]).arg(&path))?;
        let mut install = Command::new("ruby");
        install.arg("-W").arg(&stand_in).arg("linux");
        install.arg(&path).arg(&tarball);
        install.arg(brew.path());
        if formula == "aegisvm" {
            install.arg(file("aegisvm-guest-aarch64-", ".tar.gz")?);
        }
        said += &run(&mut install)?;
    }
    let opt = brew.path().join("opt/aegisvm");
    let shown = opt.display().to_string();
    assert!(
        said.contains(&format!("{shown}/lib/systemd/user/aegisd.socket")),
        "{said}"
    );
    let unit = fs::read_to_string(opt.join("aegisd.service")).context("reading the unit")?;
    assert!(
        unit.contains(&format!("ExecStart={shown}/libexec/aegisvm/aegisd --user")),
        "{unit}"
    );
    let version = run(Command::new(brew.path().join("bin/aegis")).arg("--version"))?;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    for path in [
        "share/aegisvm/kits/agent.json",
        "bin/aegis-gateway",
        "bin/aegis-agent",
    ] {
        assert!(brew.path().join(path).metadata().is_ok(), "{path}");
    }
    for path in ["vmlinux", "aarch64/Image", "aarch64/base.squashfs"] {
        let path = opt.join("lib/aegisvm/guest").join(path);
        assert!(path.is_file(), "{}", path.display());
    }
    Ok(())
}

#[test]
fn the_formula_of_macos_builds_the_sources_and_has_launchd_run_them() -> Result<()> {
    let brew = tempfile::tempdir().context("making a folder")?;
    let tools = tempfile::tempdir().context("making a folder")?;
    let stand_ins = cache::repository().join("tests/stand_ins");
    std::os::unix::fs::symlink(stand_ins.join("cargo.py"), tools.path().join("cargo"))
        .context("making a link")?;
    let path = std::env::var("PATH").context("reading PATH")?;
    let mut install = Command::new("ruby");
    install
        .env("PATH", format!("{}:{path}", tools.path().display()))
        .arg("-W")
        .arg(stand_ins.join("homebrew.rb"))
        .arg("macos")
        .arg(folder().join("homebrew-aegisvm/Formula/aegisvm.rb"))
        .arg(file("aegisvm-", "-source.tar.gz")?)
        .arg(brew.path())
        .arg(file("aegisvm-guest-aarch64-", ".tar.gz")?);
    let said = run(&mut install)?;
    assert!(said.contains("ever run on a Mac"), "{said}");

    let opt = brew.path().join("opt/aegisvm");
    let plist = opt.join("org.aegisvm.aegisd.plist");
    let read =
        "import plistlib, sys; print(*plistlib.load(open(sys.argv[1], 'rb'))['ProgramArguments'])";
    let arguments = run(Command::new("python3").args(["-c", read]).arg(&plist))?;
    let aegisd = opt.join("libexec/aegisvm/aegisd");
    assert_eq!(arguments.trim(), format!("{} --user", aegisd.display()));
    assert!(aegisd.is_file());
    for path in [
        "bin/aegisctl",
        "bin/aegis",
        "libexec/aegisvm/aegis-vmm",
        "libexec/aegisvm/aegis-shim",
        "libexec/aegisvm/aegis-image",
        "lib/aegisvm/guest/Image",
        "lib/aegisvm/guest/initramfs",
        "lib/aegisvm/guest/base.squashfs",
        "share/man/man1/aegisctl.1",
        "share/aegisvm/kits/schemas/kit-manifest.schema.json",
    ] {
        assert!(opt.join(path).metadata().is_ok(), "{path}");
    }
    // Nothing of what only Linux has.
    let all = files_below(&opt.canonicalize().context("finding the keg")?)?;
    let of_linux = ["systemd", "dbus-1", "polkit", "sysusers", "aegis-egress"];
    let found: Vec<_> = all
        .iter()
        .filter(|path| of_linux.iter().any(|word| path.contains(word)))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn the_tarball_installs_into_any_prefix_and_a_home_and_removes_only_its_own() -> Result<()> {
    let work = tempfile::tempdir().context("making a folder")?;
    let tarball = file("aegisvm-", ".tar.xz")?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(&tarball)
        .arg("-C")
        .arg(work.path()))?;
    let name = tarball.file_name().unwrap_or_default().to_string_lossy();
    let install = work
        .path()
        .join(name.trim_end_matches(".tar.xz"))
        .join("install");
    let home = work.path().join("home");
    let root = work.path().join("root");
    let call = |arguments: &str| {
        let line = format!(
            "HOME='{}' '{}' {arguments}",
            home.display(),
            install.display()
        );
        Command::new("sh")
            .args(["-ec", &line])
            .output()
            .context("running install")
    };

    let other = root.join("usr/local/bin/other");
    fs::create_dir_all(other.parent().unwrap_or(&root)).context("making a folder")?;
    fs::write(&other, "").context("writing a file")?;
    let local = format!("--destdir '{}'", root.display());
    assert!(call(&local)?.status.success());
    let mut wanted = Vec::new();
    for package in Package::ALL {
        wanted.extend(listed(package)?);
    }
    let mut wanted: Vec<_> = wanted
        .iter()
        .map(|path| path.replacen("/usr", "/usr/local", 1))
        .collect();
    wanted.push("/usr/local/bin/other".to_owned());
    wanted.sort();
    assert_eq!(files_below(&root)?, wanted);
    let unit = root.join("usr/local/lib/systemd/system/aegisd.service");
    let unit = fs::read_to_string(unit).context("reading a unit")?;
    assert!(
        unit.contains("ExecStart=/usr/local/libexec/aegisvm/aegisd"),
        "{unit}"
    );
    assert!(call(&format!("{local} --remove"))?.status.success());
    assert_eq!(files_below(&root)?, ["/usr/local/bin/other"]);

    let prefix = format!("--prefix '{}/.local'", home.display());
    assert!(call(&prefix)?.status.success());
    let in_home = files_below(&home)?;
    let has = |path: &str| in_home.iter().any(|file| file == path);
    assert!(
        has("/.local/share/systemd/user/aegisd.service"),
        "{in_home:?}"
    );
    assert!(
        !in_home.iter().any(|path| path.contains("system-services")),
        "{in_home:?}"
    );
    assert!(call(&format!("{prefix} --remove"))?.status.success());
    assert_eq!(files_below(&home)?, Vec::<String>::new());

    for (wrong, words) in [
        ("--prefix usr", "--prefix needs an absolute path, not usr"),
        ("--prefix", "--prefix needs a folder"),
        ("--nowhere", "there is no option --nowhere"),
        ("aegisvm-extra", "there is no package aegisvm-extra here"),
    ] {
        let refused = call(wrong)?;
        assert_eq!(refused.status.code(), Some(64), "{wrong}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains(words),
            "{wrong}"
        );
    }
    Ok(())
}
