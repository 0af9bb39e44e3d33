//! The states that the walk's operations begin and end in: how each is brought about, and
//! how it is seen.

use anyhow::{Context, Result};

use super::looks::{
    has_image, has_key, info_has, is_exposed, is_leased, is_limited, is_noted, is_pulling,
    is_shown, is_told, says,
};
use super::operations::{CREATE, FORGET, IMPORT, KEEP_SECRET, KIT, PULL};
use super::{HANDLE, enabled, until};
use crate::agreement::recorded;
use crate::machine::Output;
use crate::seat::Seat;

/// The states of the walk's instance that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    /// Sockets and daemon, no VM.
    Enabled,
    Disabled,
    /// Enabled with a VM that runs.
    Running,
    Paused,
    /// Kept awake.
    Leased,
    /// Enabled without a message.
    Untold,
    /// With the message of the walk, once, which a VM that listens to none runs for.
    Told,
    /// Enabled, with the daemon stopped by hand.
    DaemonStopped,
    /// Enabled with the kit's config, which the daemon has read.
    ConfigOfKit,
    /// Enabled with a changed config that the daemon has read.
    ConfigRead,
    /// The same of the daemon that is told by a signal.
    ConfigTold,
    /// Enabled with the limits that follow from the guest.
    Unlimited,
    /// Enabled with another limit and port, which the VM's units have.
    Limited,
    /// A kit that is not installed, without regard to the instance.
    KitAbsent,
    KitInstalled,
    /// The walk's image has no name here.
    ImageAbsent,
    /// It has one, and all that it is made of.
    ImageHere,
    /// The walk's archive is no image here.
    ArchiveAbsent,
    ArchiveHere,
    /// No registry, and no aegisd that would make one.
    NoRegistry,
    EmptyRegistry,
    /// No volume of the walk, without regard to the instance.
    VolumeAbsent,
    VolumeThere,
    /// A secret under a key that was noted.
    SecretKept,
    /// The same under another key, and nothing of the one that was noted.
    KeyRotated,
}

impl State {
    pub(super) fn bring_about(self, seat: Seat<'_>) -> Result<()> {
        let must = |line: &str| run(seat, line)?.success().context(line.to_owned());
        match self {
            Self::KitAbsent => return must("aegisctl kit remove walked").map(drop),
            Self::KitInstalled => {
                must(KIT)?;
                return must("aegisctl kit install ~/walk-kit").map(drop);
            }
            Self::ImageAbsent | Self::ArchiveAbsent => {
                return must("aegisctl image prune --all").map(drop);
            }
            // Alone, since layers are counted.
            Self::ImageHere => {
                return must(&format!("aegisctl image prune --all && {PULL}")).map(drop);
            }
            Self::ArchiveHere => return must(IMPORT).map(drop),
            Self::VolumeAbsent => return must("aegisctl volume remove walked").map(drop),
            Self::VolumeThere => return must("aegisctl volume create walked").map(drop),
            Self::SecretKept | Self::KeyRotated => return must(KEEP_SECRET).map(drop),
            Self::NoRegistry => return must(FORGET).map(drop),
            Self::EmptyRegistry => return must("aegisctl up").map(drop),
            _ => {}
        }
        if matches!(self, Self::Absent | Self::Untold) && enabled(seat)?.is_some() {
            must("aegisctl instance delete --purge {}")?;
        }
        if self == Self::Absent {
            return Ok(());
        }
        match enabled(seat)? {
            None => must(CREATE)?,
            Some(false) => must("aegisctl instance enable {}")?,
            Some(true) => String::new(),
        };
        let line = match self {
            Self::Absent
            | Self::KitAbsent
            | Self::KitInstalled
            | Self::ImageAbsent
            | Self::ImageHere
            | Self::ArchiveAbsent
            | Self::ArchiveHere
            | Self::NoRegistry
            | Self::EmptyRegistry
            | Self::VolumeAbsent
            | Self::VolumeThere
            | Self::SecretKept
            | Self::KeyRotated => "true",
            // A message is worth more than a stop before it.
            Self::Untold => "aegisctl instance stop {}",
            Self::Enabled => "aegisctl instance stop {} && aegisctl instance enable {}",
            Self::ConfigOfKit => {
                "aegisctl instance stop {} && aegisctl instance enable {} \
                 && echo '{\"greeting\": \"hello\"}' >$AEGIS_KITS/{}/gateway.json \
                 && echo '{\"greeting\": \"hello\"}' >$AEGIS_KITS/{}/told.json"
            }
            Self::Disabled => "aegisctl instance disable {}",
            Self::Running => {
                "aegisctl instance start --name {} && aegisctl instance keep-awake {} --end"
            }
            Self::Paused => {
                "aegisctl instance start --name {} && aegisctl instance keep-awake {} --end \
                 && aegisctl instance pause {}"
            }
            Self::Leased => "aegisctl instance keep-awake {} --for 10m",
            Self::Told => "aegisctl tether send --msg-id walk-message {} hello",
            Self::DaemonStopped => {
                "aegisctl instance stop {} && systemctl $AEGIS_SCOPE stop aegis-kit-{}:gateway.service"
            }
            Self::ConfigRead => {
                "aegisctl instance stop {} && echo '{\"greeting\": \"walk\"}' >$AEGIS_KITS/{}/gateway.json"
            }
            Self::ConfigTold => {
                "aegisctl instance stop {} && echo '{\"greeting\": \"walk\"}' >$AEGIS_KITS/{}/told.json"
            }
            Self::Unlimited => {
                "aegisctl instance stop {} && aegisctl instance enable {} \
                 && aegisctl instance update {} --cpu-quota 0 \
                 && { ! aegisctl instance info {} | grep -q :18141 || aegisctl instance unexpose {} 18141; } \
                 && { ! aegisctl instance info {} | grep -q :/more || aegisctl instance update {} --volume-remove /more; }"
            }
            Self::Limited => {
                "aegisctl instance update {} --cpu-quota 70 --expose 18141:80 --volume walk-more:/more"
            }
        };
        must(line).map(drop)
    }

    pub(super) fn wait_for(self, seat: Seat<'_>) -> Result<()> {
        until(&format!("{HANDLE} to be {self:?}"), || self.holds(seat))
            .with_context(|| describe(seat))
    }

    pub(super) fn holds(self, seat: Seat<'_>) -> Result<bool> {
        if matches!(self, Self::KitAbsent | Self::KitInstalled) {
            seat.run(KIT)?.success()?;
            let list = seat.aegis_ok("kit list --json")?;
            return Ok(list.contains("\"walked\"") == (self == Self::KitInstalled));
        }
        match self {
            Self::ImageAbsent | Self::ImageHere => {
                // With the one that has the folder.
                let is_here = has_image(seat, "walk-image", 3)?;
                return Ok(!is_pulling(seat)? && is_here == (self == Self::ImageHere));
            }
            Self::ArchiveAbsent | Self::ArchiveHere => {
                let is_here = has_image(seat, "walk-archive", 1)?;
                return Ok(!is_pulling(seat)? && is_here == (self == Self::ArchiveHere));
            }
            Self::VolumeAbsent | Self::VolumeThere => {
                let list = seat.aegis_ok("volume list --quiet")?;
                let is_there = list.lines().any(|name| name == "walked");
                return Ok(is_there == (self == Self::VolumeThere));
            }
            Self::SecretKept => return has_key(seat, true),
            Self::KeyRotated => return has_key(seat, false),
            Self::NoRegistry => {
                let line = format!("test -e '{}/registry.db'", seat.home());
                return Ok(seat.run(&line)?.code() != 0);
            }
            Self::EmptyRegistry => return Ok(recorded(seat)?.is_empty()),
            _ => {}
        }
        let is_enabled = match (enabled(seat)?, self) {
            (None, Self::Absent) => return Ok(true),
            (None, _) | (_, Self::Absent) => return Ok(false),
            (Some(enabled), _) => enabled,
        };
        let units = format!(
            "aegis-vm-{HANDLE}.socket aegis-kit-{HANDLE}:gateway.service aegis-vm-{HANDLE}.service"
        );
        let states = seat
            .systemctl(&format!("show --property=ActiveState --value {units}"))?
            .success()?;
        let mut states = states.split_whitespace().map(|state| state == "active");
        let mut next = || states.next().unwrap_or(false);
        let (socket, daemon, vm) = (next(), next(), next());
        Ok(match self {
            Self::Absent
            | Self::KitAbsent
            | Self::KitInstalled
            | Self::ImageAbsent
            | Self::ImageHere
            | Self::ArchiveAbsent
            | Self::ArchiveHere
            | Self::NoRegistry
            | Self::EmptyRegistry
            | Self::VolumeAbsent
            | Self::VolumeThere
            | Self::SecretKept
            | Self::KeyRotated => false,
            Self::Disabled => !is_enabled && !socket && !daemon && !vm,
            Self::Enabled => is_enabled && socket && daemon && !vm,
            Self::Unlimited => {
                is_enabled
                    && socket
                    && daemon
                    && !vm
                    && !is_limited(seat)?
                    && !is_exposed(seat)?
                    && !is_shown(seat)?
            }
            Self::Limited => {
                is_enabled
                    && socket
                    && daemon
                    && !vm
                    && is_limited(seat)?
                    && is_exposed(seat)?
                    && is_shown(seat)?
            }
            Self::ConfigOfKit => {
                let unchanged = says(seat, "gateway", "hello")? && says(seat, "told", "hello")?;
                is_enabled && socket && daemon && !vm && unchanged
            }
            Self::ConfigRead => {
                is_enabled && socket && daemon && !vm && says(seat, "gateway", "walk")?
            }
            Self::ConfigTold => {
                is_enabled && socket && daemon && !vm && says(seat, "told", "walk")?
            }
            Self::DaemonStopped => {
                is_enabled && socket && !daemon && !vm && is_noted(seat, "gateway")?
            }
            Self::Running => {
                is_enabled && socket && vm && info_has(seat, "running")? && !is_leased(seat)?
            }
            Self::Leased => is_enabled && socket && vm && is_leased(seat)?,
            Self::Untold => is_enabled && socket && daemon && !vm && !is_told(seat)?,
            Self::Told => is_enabled && socket && daemon && vm && is_told(seat)?,
            Self::Paused => {
                is_enabled && socket && vm && info_has(seat, "paused")? && !is_leased(seat)?
            }
        })
    }
}

/// How many lines of the journal a failure shows: some operations' worth.
const JOURNAL: u32 = 300;

pub(super) fn run(seat: Seat<'_>, line: &str) -> Result<Output> {
    let line = line.replace("{}", HANDLE);
    seat.run(&format!(
        "AEGIS_SCOPE={} AEGIS_HOME={} AEGIS_KITS={}; {line}",
        seat.scope(),
        seat.home(),
        seat.kits()
    ))
}

/// What is so and how it came about, for the text of a failure.
pub(super) fn describe(seat: Seat<'_>) -> String {
    let info = seat.aegis(&format!("instance info {HANDLE}"));
    let units = seat.units();
    let info = info.map(|info| info.text()).unwrap_or_default();
    let scope = seat.scope();
    let line = format!("journalctl {scope} --quiet --output=short-precise --lines={JOURNAL}");
    let journal = seat.run(&line).map(|lines| lines.text());
    format!(
        "units {:?}\n{info}\n{}",
        units.unwrap_or_default(),
        journal.unwrap_or_default()
    )
}
