//! The operations that the walk goes through, and how each is seen to be done.

use anyhow::{Context, Result};

use super::looks::is_told;
use super::states::{State, describe, run};
use super::{enabled, until};
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

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    NotDone,
}

/// Makes an instance without a guest, which the client always starts. Its workspace
/// has a name that units cannot carry, so that it needs a plain one, and its volume is
/// made with it.
pub(super) const CREATE: &str = "
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

pub(super) const ALL: [Operation; 30] = [
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
        "tether send",
        State::Untold,
        "aegisctl tether send --msg-id walk-message {} hello",
        State::Told,
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
pub(super) const PULL: &str = "aegisctl image pull oci:walk-image";

/// An archive of a file in a folder, through a pipe; the same each time, since a layer
/// of an import that was interrupted is kept.
pub(super) const IMPORT: &str = "mkdir -p ~/walk-root/etc && echo walk >~/walk-root/etc/name \
    && tar -c --mtime=@0 -C ~/walk-root . | aegisctl image import - walk-archive";

/// A kit's folder with a file, a folder and a link.
pub(super) const KIT: &str = "mkdir -p ~/walk-kit/bin && cd ~/walk-kit
    printf '{\"instance_daemons\": [{\"binary\": \"gate\"}]}' >walked.json
    printf '#!/bin/sh\nsleep infinity\n' >bin/gate && chmod 755 bin/gate && ln -sf bin/gate link";

/// Keeps a secret and notes its key.
pub(super) const KEEP_SECRET: &str = "echo walk | aegisctl secret set WALK \
    && aegisctl secret status | grep '^Key id:' >~/walk-key";

/// Stops aegisd, which its sockets would start again, and forgets all it knows.
pub(super) const FORGET: &str = "
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
        // A message that waits would wake the VM as soon as its instance is enabled.
        if !self.is_alone && enabled(seat)?.is_some() && is_told(seat)? {
            run(seat, "aegisctl instance delete --purge {}")?.success()?;
        }
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
