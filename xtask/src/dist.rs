//! `make dist`: packages of every kind, from the lists that `make install` follows too.
//!
//! ```text
//!  packaging/files, guest, agent-kit ─► Plan ─┬─► deb         a tree each, dpkg-gencontrol, dpkg-deb, lintian
//!                                             └─► tarball ─┬─► rpm          rpmbuild runs its `install`
//!                                                          ├─► PKGBUILD     and so does makepkg
//!                                                          └─► formulae     and so does brew
//!  packaging/guest-aarch64 ─► Plan ─► tarball ──────────────────┤              a resource
//!  git archive ─────────────────────► tarball ──────────────────┘              on macOS
//! ```
//!
//! | in target/dist | |
//! |---|---|
//! | `*.deb` | aegisvm, aegisvm-guest, aegisvm-agent-kit |
//! | `*.rpm` | the same |
//! | `aegisvm-VERSION-linux-ARCH.tar.xz` | all of it for any prefix, with `install` |
//! | `aegisvm-guest-aarch64-VERSION.tar.gz` | guests of arm64 for hosts of other architectures |
//! | `aegisvm-VERSION-source.tar.gz` | the sources, which the formula builds on macOS |
//! | `arch/` | PKGBUILD and what it needs beside that tarball |
//! | `homebrew-aegisvm/` | the tap: what its repository has to hold |
//! | `work/` | the trees on the way there |
//!
//! Two builds of one commit by the same compiler give the same files: all times are the
//! commit's.

mod arch;
mod brew;
mod deb;
mod guest;
mod release;
mod rpm;
mod source;
mod tarball;
mod tree;

use anyhow::Result;

use crate::build;
use release::Release;

/// Builds all programs, then all packages.
pub(crate) fn run() -> Result<()> {
    build::programs()?;
    build::guests()?;
    build::kernels()?;
    packages()
}

/// Packs what is built.
pub(crate) fn packages() -> Result<()> {
    let release = Release::begin()?;
    let tarball = tarball::make(&release)?;
    deb::make(&release)?;
    rpm::make(&release, &tarball)?;
    arch::make(&release, &tarball)?;
    let guest = guest::make(&release)?;
    let sources = source::make(&release)?;
    brew::make(&release, &tarball, &sources, &guest)?;
    println!("{}", release.folder.display());
    Ok(())
}
