//! Images made by umoci in OCI layouts on this host, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::cache;
use crate::seat::Seat;

/// Adds an archive as a layer, as it is.
const ADD: &str = "umoci raw add-layer --image layout:v1 layer.tar && rm layer.tar";

/// An OCI layout on this host, with one image made of layers.
#[derive(Debug)]
pub struct Layout {
    /// Holds the folder `layout`.
    folder: PathBuf,
    /// Goes with the value, unless the cache keeps it.
    _temporary: Option<TempDir>,
}

impl Layout {
    /// An image `layout:v1` whose lowest layer is busybox, with one layer more for each
    /// script, which runs in the root of the files so far, and with these settings of
    /// `umoci config`.
    ///
    /// # Errors
    /// umoci fails.
    pub fn make(scripts: &[&str], config: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let this = Self {
            folder: folder.path().to_owned(),
            _temporary: Some(folder),
        };
        this.begin()?;
        let base = "mkdir -p bin dev etc proc sys tmp && cp /bin/busybox bin/ && \
            for name in $(bin/busybox --list); do ln -s busybox bin/$name || true; done && \
            echo 'root:x:0:0::/root:/bin/sh' >etc/passwd";
        for script in [base].iter().chain(scripts) {
            this.add_by_script(script)?;
        }
        this.shell(&format!("umoci config --image layout:v1 {config}"))?;
        Ok(this)
    }

    /// The image that `fill` makes of an empty one, made once for each `recipe`, which
    /// says all that it depends on, and kept in the cache.
    ///
    /// # Errors
    /// The image cannot be made.
    fn cached(recipe: &[u8], fill: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let kept = cache::directory()?.join("images");
        let folder = kept.join(cache::key(recipe)?);
        let this = |folder| Self {
            folder,
            _temporary: None,
        };
        if folder.exists() {
            return Ok(this(folder));
        }
        fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
        let making = tempfile::tempdir_in(&kept).context("making a folder")?;
        let unfinished = this(making.path().to_owned());
        unfinished.begin()?;
        fill(&unfinished)?;
        // Whoever was faster made the same.
        match fs::rename(making.path(), &folder) {
            Err(_) if folder.exists() => {}
            renamed => renamed.with_context(|| format!("making {}", folder.display()))?,
        }
        Ok(this(folder))
    }

    fn begin(&self) -> Result<()> {
        self.shell("umoci init --layout layout && umoci new --image layout:v1")
    }

    fn add_by_script(&self, script: &str) -> Result<()> {
        self.shell(&format!(
            "umoci unpack --image layout:v1 bundle >/dev/null && \
             (cd bundle/rootfs && {script}) && \
             umoci repack --image layout:v1 bundle >/dev/null && rm -rf bundle"
        ))
    }

    /// Adds an archive as a layer, as it is.
    ///
    /// # Errors
    /// umoci fails.
    pub fn add(&self, archive: &[u8]) -> Result<()> {
        fs::write(self.folder.join("layer.tar"), archive).context("writing layer.tar")?;
        self.shell(ADD)
    }

    /// Debian 13 with Python, as mmdebstrap makes it.
    ///
    /// # Errors
    /// mmdebstrap or umoci fails.
    pub fn debian() -> Result<Self> {
        let sources = cache::repository().join("tests/roots/257/sources.list");
        let list = fs::read(&sources).with_context(|| sources.display().to_string())?;
        let make = "mmdebstrap --quiet --mode=root --variant=minbase \
                    --include=python3-minimal trixie layer.tar";
        let recipe = [make.as_bytes(), ADD.as_bytes(), &list].concat();
        Self::cached(&recipe, |layout| {
            layout.shell(&format!("{make} {}", sources.display()))?;
            layout.shell(ADD)
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("layout")
    }

    /// Copies it into a machine, as `name` in the seat's home.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn put(&self, seat: Seat<'_>, name: &str) -> Result<()> {
        let archive = Command::new("tar")
            .args(["-c", "-C"])
            .arg(self.path())
            .arg(".")
            .output()
            .context("running tar")?;
        let unpack = format!("mkdir -p '{name}' && tar -x --no-same-owner -C '{name}'");
        let machine = seat.machine();
        machine
            .run_with_input(seat.user(), &unpack, &archive.stdout)?
            .success()?;
        Ok(())
    }

    /// What umoci unpacks of it: the folder `rootfs` in this one.
    ///
    /// # Errors
    /// umoci fails.
    pub fn unpack(&self) -> Result<TempDir> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let layout = self.path();
        let unpack = format!(
            "umoci raw unpack --image {}:v1 rootfs >/dev/null",
            layout.display()
        );
        shell(folder.path(), &unpack)?;
        Ok(folder)
    }

    fn shell(&self, line: &str) -> Result<()> {
        shell(&self.folder, line)
    }
}

pub(crate) fn shell(folder: &Path, line: &str) -> Result<()> {
    let output = Command::new("sh")
        .args(["-ec", line])
        .current_dir(folder)
        .output()
        .context("running sh")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("`{line}` failed: {words}");
    }
    Ok(())
}
