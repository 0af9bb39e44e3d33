//! Which accelerator: what was asked for, what a trial start proves, and the
//! memory of what it proved.
//!
//! ```text
//!  a guest of another platform ──────────────────────► tcg
//!  tcg ─────────────────────────────────────────────► tcg
//!  auto ─► device opens? ─no─────────────────────────► tcg
//!             │yes
//!             ▼
//!          remembered for this host? ─works──────────► kvm
//!             │no                    ─does not───────► tcg
//!             ▼
//!          trial start ─► remember ─► kvm or tcg
//!  kvm ─► the same; where auto says tcg it is an error, and what is remembered
//!         as not working is tried again, since somebody insists
//! ```
//!
//! The memory is one small file, and losing it costs one trial. It belongs to a
//! build of QEMU, a kernel and a processor; another of either is another host.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aegis_core::fault::chain;
use aegis_core::platform::Platform;
use aegis_core::spec::Accel;
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use super::LaunchError;
use super::binary::{Binary, BuildIdentity};
use super::probe::ProbeError;

/// The device of Linux's accelerator.
pub const KVM: &str = "/dev/kvm";

/// How long "does not work" is believed: a trial on a host that was too busy may
/// have failed by its deadline alone.
const FAILURE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The accelerator of this platform beside TCG.
const NATIVE: Accel = if cfg!(target_os = "macos") {
    Accel::Hvf
} else {
    Accel::Kvm
};

/// What a trial's answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    qemu: Option<BuildIdentity>,
    kernel: String,
    cpu: String,
}

impl Host {
    /// This host with a build of QEMU.
    pub fn with(binary: &Binary) -> Self {
        let kernel = uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        // Not there in every sandbox; the kernel's release then stands for both.
        let cpu = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                line.split_once(": ").map(|(_, name)| name.to_owned())
            })
            .unwrap_or_default();
        Self {
            qemu: binary.identity(),
            kernel,
            cpu,
        }
    }
}

/// What a trial proved, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    host: Host,
    accel: Accel,
    /// `None` if it works, else why not.
    failure: Option<String>,
    /// When, in seconds since 1970.
    at: u64,
}

/// Decides, with a memory.
#[derive(Clone, Debug)]
pub struct Chooser {
    memory: Option<PathBuf>,
}

impl Chooser {
    /// `memory` is the file to keep the answer in.
    pub fn new(memory: Option<PathBuf>) -> Self {
        Self { memory }
    }

    /// Decides. `trial` is run at most once. Blocks for a read of two small files.
    ///
    /// # Errors
    /// When an accelerator was asked for by name and does not work, or not for guests
    /// of this platform.
    pub async fn choose<F, T>(
        &self,
        wanted: Accel,
        platform: Platform,
        host: Host,
        trial: F,
    ) -> Result<Accel, LaunchError>
    where
        F: FnOnce(Accel) -> T,
        T: Future<Output = Result<(), ProbeError>>,
    {
        let must = match wanted {
            Accel::Tcg => return Ok(Accel::Tcg),
            Accel::Auto if !platform.is_host() => return Ok(Accel::Tcg),
            Accel::Kvm | Accel::Hvf if !platform.is_host() => {
                return Err(LaunchError::AccelForeign {
                    accel: wanted,
                    platform,
                });
            }
            Accel::Auto => false,
            Accel::Kvm | Accel::Hvf if wanted == NATIVE => true,
            Accel::Kvm | Accel::Hvf => return Err(LaunchError::AccelUnknownHere(wanted)),
        };
        match self.prove(must, host, trial).await {
            Ok(()) => Ok(NATIVE),
            Err(_) if !must => Ok(Accel::Tcg),
            Err(source) => Err(LaunchError::AccelUnusable {
                accel: NATIVE,
                source,
            }),
        }
    }

    async fn prove<F, T>(&self, must: bool, host: Host, trial: F) -> Result<(), ProbeError>
    where
        F: FnOnce(Accel) -> T,
        T: Future<Output = Result<(), ProbeError>>,
    {
        open_device()?;
        if let Some(remembered) = self.recall(&host) {
            match remembered.failure {
                None => return Ok(()),
                Some(failure) if !must => return Err(ProbeError::Remembered(failure)),
                Some(_) => {}
            }
        }
        let result = trial(NATIVE).await;
        let failure = match &result {
            Ok(()) => None,
            Err(error @ (ProbeError::Ended(_) | ProbeError::Silent { .. })) => Some(chain(error)),
            // The trial did not take place: nothing was learnt.
            Err(
                ProbeError::Device { .. }
                | ProbeError::Prepare(_)
                | ProbeError::Start(_)
                | ProbeError::Remembered(_),
            ) => return result,
        };
        self.remember(&Remembered {
            host,
            accel: NATIVE,
            failure,
            at: now(),
        });
        result
    }

    fn recall(&self, host: &Host) -> Option<Remembered> {
        let text = fs::read(self.memory.as_ref()?).ok()?;
        // What cannot be read is as good as nothing and is written anew.
        let remembered: Remembered = serde_json::from_slice(&text).ok()?;
        let age = now().saturating_sub(remembered.at);
        let believed = remembered.failure.is_none() || age < FAILURE_KEPT.as_secs();
        let fits = remembered.host == *host && remembered.accel == NATIVE;
        (believed && fits).then_some(remembered)
    }

    /// Keeps the answer. Where that is not possible the next start tries again.
    fn remember(&self, answer: &Remembered) {
        if let Some(path) = &self.memory
            && let Ok(text) = serde_json::to_vec_pretty(answer)
        {
            // Without a memory nothing but time is lost.
            replace(path, &text).ok();
        }
    }
}

/// Writes a file at once or not at all.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::write(&new, content).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // It may not even have been made.
        fs::remove_file(&new).ok();
    }
    written
}

fn open_device() -> Result<(), ProbeError> {
    if NATIVE != Accel::Kvm {
        return Ok(());
    }
    fs::File::options()
        .read(true)
        .write(true)
        .open(KVM)
        .map(drop)
        .map_err(|source| ProbeError::Device { path: KVM, source })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn host(kernel: &str) -> Host {
        Host {
            qemu: None,
            kernel: kernel.to_owned(),
            cpu: "cpu".to_owned(),
        }
    }

    /// A chooser with an empty memory, and a count of its trials.
    struct Bench {
        dir: tempfile::TempDir,
        trials: AtomicUsize,
    }

    impl Bench {
        /// `None` where the host has no device: then no trial ever takes place.
        fn new() -> Option<Self> {
            if let Err(error) = open_device() {
                println!("skipped: {}", chain(&error));
                return None;
            }
            Some(Self {
                dir: tempfile::tempdir().unwrap(),
                trials: AtomicUsize::new(0),
            })
        }

        async fn choose(&self, wanted: Accel, on: &str, works: bool) -> Result<Accel, LaunchError> {
            let chooser = Chooser::new(Some(self.dir.path().join("accel.json")));
            let trial = async |_| {
                self.trials.fetch_add(1, Ordering::Relaxed);
                if works {
                    Ok(())
                } else {
                    Err(ProbeError::Silent {
                        after: Duration::ZERO,
                    })
                }
            };
            chooser
                .choose(wanted, Platform::HOST, host(on), trial)
                .await
        }

        fn trials(&self) -> usize {
            self.trials.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_device_that_opens_and_hangs_ends_as_tcg_and_is_tried_once() {
        let Some(bench) = Bench::new() else { return };
        for _ in 0..2 {
            assert_eq!(
                bench.choose(Accel::Auto, "a", false).await.unwrap(),
                Accel::Tcg
            );
        }
        assert_eq!(bench.trials(), 1);
        // Another kernel is another host.
        assert_eq!(bench.choose(Accel::Auto, "b", true).await.unwrap(), NATIVE);
        assert_eq!(bench.trials(), 2);
    }

    #[tokio::test]
    async fn an_accelerator_asked_for_by_name_is_tried_again_and_never_replaced() {
        let Some(bench) = Bench::new() else { return };
        for trials in 1..=2 {
            let error = bench.choose(NATIVE, "a", false).await.unwrap_err();
            assert!(
                matches!(error, LaunchError::AccelUnusable { .. }),
                "{error}"
            );
            assert_eq!(bench.trials(), trials);
        }
        assert_eq!(bench.choose(NATIVE, "a", true).await.unwrap(), NATIVE);
        assert_eq!(bench.choose(Accel::Auto, "a", true).await.unwrap(), NATIVE);
        assert_eq!(bench.trials(), 3);
    }

    #[tokio::test]
    async fn translation_asks_nobody_and_is_all_there_is_for_other_platforms() {
        let chooser = Chooser::new(None);
        let trial = async |_| panic!("no trial is needed");
        let choose = |wanted, platform| chooser.choose(wanted, platform, host("a"), trial);
        for platform in Platform::ALL {
            let chosen = choose(Accel::Tcg, platform).await.unwrap();
            assert_eq!(chosen, Accel::Tcg);
        }
        let others = Platform::ALL.into_iter().filter(|other| !other.is_host());
        for foreign in others {
            let chosen = choose(Accel::Auto, foreign).await.unwrap();
            assert_eq!(chosen, Accel::Tcg);
            let error = choose(NATIVE, foreign).await.unwrap_err();
            assert!(matches!(error, LaunchError::AccelForeign { .. }), "{error}");
        }
    }

    #[test]
    fn an_old_failure_is_forgotten_and_a_broken_memory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accel.json");
        let chooser = Chooser::new(Some(path.clone()));
        let mut answer = Remembered {
            host: host("a"),
            accel: NATIVE,
            failure: Some("silent".to_owned()),
            at: now(),
        };
        chooser.remember(&answer);
        assert_eq!(chooser.recall(&host("a")), Some(answer.clone()));
        answer.at = now() - FAILURE_KEPT.as_secs() - 1;
        chooser.remember(&answer);
        assert_eq!(chooser.recall(&host("a")), None);
        fs::write(&path, b"{").unwrap();
        assert_eq!(chooser.recall(&host("a")), None);
    }
}
