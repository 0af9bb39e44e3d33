//! The operations that the walk goes through, and how each is seen to be done.

use anyhow::{Context, Result};

use super::looks::{
    has_image, has_key, info_has, is_exposed, is_leased, is_limited, is_noted, is_pulling,
    is_shown, says,
};
use super::{HANDLE, enabled, until};
use crate::agreement::recorded;
use crate::machine::Output;
use crate::seat::Seat;

/// Something a client asks for, or a user does.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// What must be so before.
    from: State,
    /// A shell line of the user's; `{}` stands for the handle.
    act: &'static str,
    /// What is so when it is done.
    to: State,
    /// It ends aegisd by itself.
    pub(super) restarts_aegisd: bool,
    /// It changes a file, so that its success says nothing of aegisd, which notices
    /// by itself.
    pub(super) is_unasked: bool,
    /// There is no other instance.
    pub(super) is_alone: bool,
}

/// The states of the walk's instance that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// Sockets and daemon, no VM.
    Enabled,
    Disabled,
    /// Enabled with a VM that runs.
    Running,
    Paused,
    /// Kept awake.
    Leased,
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

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    NotDone,
}

/// Makes an instance without a guest, which the client always starts. Its workspace
/// has a name that units cannot carry, so that it needs a plain one, and its volume is
/// made with it.
const CREATE: &str = "
    mkdir -p -m 777 '/var/tmp/My Project' || exit 1
    manager='org.aegisvm.Aegis1 /org/aegisvm/Aegis1 org.aegisvm.Aegis1.Manager'
    made=$(busctl $AEGIS_SCOPE call $manager CreateInstance 'sa{sv}a{sv}' \
        {} 5 idle-pause s never idle-hibernate s never kit s walk workspace s '/var/tmp/My Project' volumes as 1 walk-own:/own \
        1 start b false) || exit 1
    job=${made##* }; job=$(echo $job | tr -d '\"')
    while :; do
        state=$(busctl $AEGIS_SCOPE get-property org.aegisvm.Aegis1 $job \
            org.aegisvm.Aegis1.Job State) || exit 1
        case $state in
            *running*) sleep 0.05;;
            *done*) exit 0;;
            *) busctl $AEGIS_SCOPE get-property org.aegisvm.Aegis1 $job \
                org.aegisvm.Aegis1.Job ErrorMessage >&2; exit 1;;
        esac
    done";

pub(super) const ALL: [Operation; 29] = [
    Operation {
        name: "first start of aegisd",
        from: State::NoRegistry,
        act: "systemctl $AEGIS_SCOPE start aegisd.service",
        to: State::EmptyRegistry,
        restarts_aegisd: true,
        is_unasked: false,
        is_alone: true,
    },
    of("create", State::Absent, CREATE, State::Enabled),
    of(
        "disable",
        State::Enabled,
        "aegisctl instance disable {}",
        State::Disabled,
    ),
    of(
        "enable",
        State::Disabled,
        "aegisctl instance enable {}",
        State::Enabled,
    ),
    of(
        "delete",
        State::Enabled,
        "aegisctl instance delete {}",
        State::Absent,
    ),
    of(
        "delete --purge",
        State::Enabled,
        "aegisctl instance delete --purge {}",
        State::Absent,
    ),
    of(
        "systemctl stop of a daemon",
        State::Enabled,
        "systemctl $AEGIS_SCOPE stop aegis-kit-{}:gateway.service",
        State::DaemonStopped,
    ),
    of(
        "enable after systemctl stop",
        State::DaemonStopped,
        "aegisctl instance enable {}",
        State::Enabled,
    ),
    Operation {
        is_unasked: true,
        ..of(
            "a change of a daemon's config",
            State::ConfigOfKit,
            "echo '{\"greeting\": \"walk\"}' >$AEGIS_KITS/{}/gateway.json",
            State::ConfigRead,
        )
    },
    Operation {
        is_unasked: true,
        ..of(
            "a change of a config that a signal tells",
            State::ConfigOfKit,
            "echo '{\"greeting\": \"walk\"}' >$AEGIS_KITS/{}/told.json",
            State::ConfigTold,
        )
    },
    of(
        "update",
        State::Unlimited,
        "aegisctl instance update {} --cpu-quota 70 --expose 18141:80 --volume walk-more:/more",
        State::Limited,
    ),
    Operation {
        restarts_aegisd: true,
        ..of(
            "start of aegisd",
            State::Enabled,
            "systemctl $AEGIS_SCOPE restart aegisd.service",
            State::Enabled,
        )
    },
    of(
        "doctor",
        State::Enabled,
        "aegisctl doctor >/dev/null || test $? = 1",
        State::Enabled,
    ),
    of(
        "start",
        State::Enabled,
        "aegisctl instance start --name {}",
        State::Running,
    ),
    of(
        "pause",
        State::Running,
        "aegisctl instance pause {}",
        State::Paused,
    ),
    of(
        "resume",
        State::Paused,
        "aegisctl instance resume {}",
        State::Running,
    ),
    of(
        "keep-awake",
        State::Enabled,
        "aegisctl instance keep-awake {} --for 10m",
        State::Leased,
    ),
    of(
        "the end of a lease",
        State::Leased,
        "aegisctl instance keep-awake {} --end",
        State::Running,
    ),
    of(
        "exec",
        State::Running,
        "aegisctl exec {} -- true",
        State::Running,
    ),
    of(
        "stop",
        State::Running,
        "aegisctl instance stop {}",
        State::Enabled,
    ),
    of(
        "kit install",
        State::KitAbsent,
        "aegisctl kit install ~/walk-kit",
        State::KitInstalled,
    ),
    of(
        "kit remove",
        State::KitInstalled,
        "aegisctl kit remove walked",
        State::KitAbsent,
    ),
    of("image pull", State::ImageAbsent, PULL, State::ImageHere),
    of(
        "image remove",
        State::ImageHere,
        "aegisctl image remove oci:walk-image",
        State::ImageAbsent,
    ),
    of(
        "image prune",
        State::ImageHere,
        "aegisctl image prune --all",
        State::ImageAbsent,
    ),
    of(
        "image import",
        State::ArchiveAbsent,
        IMPORT,
        State::ArchiveHere,
    ),
    of(
        "volume create",
        State::VolumeAbsent,
        "aegisctl volume create walked",
        State::VolumeThere,
    ),
    of(
        "volume remove",
        State::VolumeThere,
        "aegisctl volume remove walked",
        State::VolumeAbsent,
    ),
    of(
        "secret rotate-key",
        State::SecretKept,
        "aegisctl secret rotate-key",
        State::KeyRotated,
    ),
];

/// An image of two layers, of which the second passes through a folder of the first.
const PULL: &str = "aegisctl image pull oci:walk-image";

/// An archive of a file in a folder, through a pipe; the same each time, since a layer
/// of an import that was interrupted is kept.
const IMPORT: &str = "mkdir -p ~/walk-root/etc && echo walk >~/walk-root/etc/name \
    && tar -c --mtime=@0 -C ~/walk-root . | aegisctl image import - walk-archive";

/// A kit's folder with a file, a folder and a link.
const KIT: &str = "mkdir -p ~/walk-kit/bin && cd ~/walk-kit
    printf '{\"instance_daemons\": [{\"binary\": \"gate\"}]}' >walked.json
    printf '#!/bin/sh\nsleep infinity\n' >bin/gate && chmod 755 bin/gate && ln -sf bin/gate link";

/// Keeps a secret and notes its key.
const KEEP_SECRET: &str = "echo walk | aegisctl secret set WALK \
    && aegisctl secret status | grep '^Key id:' >~/walk-key";

/// Stops aegisd, which its sockets would start again, and forgets all it knows.
const FORGET: &str = "
    sockets=$(systemctl $AEGIS_SCOPE list-units --plain --no-legend 'aegisd*.socket' | cut -d' ' -f1)
    systemctl $AEGIS_SCOPE stop $sockets aegisd.service || exit 1
    rm -f $AEGIS_HOME/registry.db*
    systemctl $AEGIS_SCOPE start $sockets";

const fn of(name: &'static str, from: State, act: &'static str, to: State) -> Operation {
    Operation {
        name,
        from,
        act,
        to,
        restarts_aegisd: false,
        is_unasked: false,
        is_alone: false,
    }
}

impl Operation {
    /// Brings about what must be so before.
    pub(super) fn prepare(&self, seat: Seat<'_>) -> Result<()> {
        // Layers of a pull that ended half way are kept, and the next would have less
        // to do.
        let has_more = matches!(self.from, State::ImageAbsent | State::ArchiveAbsent);
        if !has_more && self.from.holds(seat)? {
            return Ok(());
        }
        self.from.bring_about(seat)?;
        self.from.wait_for(seat)
    }

    /// Does it as a user would.
    pub(super) fn act(&self, seat: Seat<'_>) -> Result<Output> {
        run(seat, self.act)
    }

    /// Whether it was done or not, once everything has settled.
    pub(super) fn fate(&self, seat: Seat<'_>) -> Result<Fate> {
        let mut fate = Fate::NotDone;
        until("the operation to be done or not", || {
            if self.to.holds(seat)? {
                fate = Fate::Done;
                return Ok(true);
            }
            fate = Fate::NotDone;
            self.from.holds(seat)
        })
        .with_context(|| describe(seat))?;
        Ok(fate)
    }

    /// Waits until it is done.
    pub(super) fn wait_for(&self, seat: Seat<'_>, fate: Fate) -> Result<()> {
        match fate {
            Fate::Done => self.to.wait_for(seat),
            Fate::NotDone => self.from.wait_for(seat),
        }
    }
}

fn run(seat: Seat<'_>, line: &str) -> Result<Output> {
    let line = line.replace("{}", HANDLE);
    seat.run(&format!(
        "AEGIS_SCOPE={} AEGIS_HOME={} AEGIS_KITS={}; {line}",
        seat.scope(),
        seat.home(),
        seat.kits()
    ))
}

/// What is so, for the text of a failure.
fn describe(seat: Seat<'_>) -> String {
    let info = seat.aegis(&format!("instance info {HANDLE}"));
    let units = seat.units();
    let info = info.map(|info| info.text()).unwrap_or_default();
    format!("units {:?}\n{info}", units.unwrap_or_default())
}

impl State {
    fn bring_about(self, seat: Seat<'_>) -> Result<()> {
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
        if self == Self::Absent {
            return must("aegisctl instance delete --purge {}").map(drop);
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
                "aegisctl instance stop {} && aegisctl instance update {} --cpu-quota 0 \
                 && { ! aegisctl instance info {} | grep -q :18141 || aegisctl instance unexpose {} 18141; } \
                 && { ! aegisctl instance info {} | grep -q :/more || aegisctl instance update {} --volume-remove /more; }"
            }
            Self::Limited => {
                "aegisctl instance update {} --cpu-quota 70 --expose 18141:80 --volume walk-more:/more"
            }
        };
        must(line).map(drop)
    }

    fn wait_for(self, seat: Seat<'_>) -> Result<()> {
        until(&format!("{HANDLE} to be {self:?}"), || self.holds(seat))
            .with_context(|| describe(seat))
    }

    fn holds(self, seat: Seat<'_>) -> Result<bool> {
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
            Self::Paused => {
                is_enabled && socket && vm && info_has(seat, "paused")? && !is_leased(seat)?
            }
        })
    }
}
