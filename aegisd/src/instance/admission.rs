//! What becomes of a request while another operation is under way. Pure.

/// The operations of an instance, without their details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Start,
    Restart,
    /// A start of one that is enabled.
    Wake,
    Hibernate,
    /// Let it sleep before a lease has ended.
    LetSleep,
    /// Bring new values of secrets to who has older ones.
    Refresh,
    Update,
    Prune,
    Stop,
    Enable,
    Disable,
    Delete,
    /// Stop everything without a change of intent.
    Rest,
    /// Reconciliation.
    Correct,
    /// A daemon's config changed.
    Configure,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nothing is under way: do it.
    Begin,
    /// Do it after what is under way.
    Wait,
    /// Give up what is under way and do it.
    Overtake,
}

impl Kind {
    /// The operation's name for people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Wake => "wake",
            Self::Hibernate => "hibernate",
            Self::LetSleep => "let sleep",
            Self::Refresh => "refresh",
            Self::Update => "update",
            Self::Prune => "prune",
            Self::Stop | Self::Rest => "stop",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Delete => "delete",
            Self::Correct => "correct",
            Self::Configure => "configure",
        }
    }
}

/// Only what waits for a guest may be overtaken, and only by what ends the VM:
/// everything else ends soon by itself.
pub(super) fn admit(under_way: Option<Kind>, asked: Kind) -> Admission {
    use Kind::{Create, Delete, Disable, Refresh, Rest, Restart, Start, Stop, Wake};
    match (under_way, asked) {
        (None, _) => Admission::Begin,
        (Some(Start | Restart | Refresh | Wake), Stop | Disable | Delete | Rest) => {
            Admission::Overtake
        }
        // Half of an instance can be deleted but not stopped or disabled.
        (Some(Create), Delete) => Admission::Overtake,
        (Some(_), _) => Admission::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_does_not_stand_in_the_way_of_its_end() {
        for asked in [Kind::Stop, Kind::Disable, Kind::Delete, Kind::Rest] {
            assert_eq!(admit(Some(Kind::Start), asked), Admission::Overtake);
            assert_eq!(admit(Some(Kind::Restart), asked), Admission::Overtake);
        }
        assert_eq!(admit(Some(Kind::Create), Kind::Delete), Admission::Overtake);
        assert_eq!(admit(Some(Kind::Create), Kind::Stop), Admission::Wait);
        assert_eq!(admit(Some(Kind::Delete), Kind::Start), Admission::Wait);
        assert_eq!(admit(None, Kind::Stop), Admission::Begin);
    }
}
