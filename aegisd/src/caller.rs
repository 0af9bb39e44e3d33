//! Who asks aegisd for something, and what there is for them.

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Unique name on the bus, by which an ephemeral instance is kept alive; `None`
    /// where there is no bus between.
    pub bus_name: Option<String>,
    /// User id, as the bus knows it.
    pub uid: Option<u32>,
    pub sees: Sees,
}

impl Caller {
    /// Whose the jobs are that they ask for.
    pub fn owner(&self) -> u32 {
        let own = || rustix::process::geteuid().as_raw();
        self.uid.unwrap_or_else(own)
    }
}

/// What there is for a caller. The system mode serves several users; what one of them
/// made is not there for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sees {
    /// Everything: in user mode the only user, in system mode root and administrators.
    #[default]
    All,
    /// What this user made, and what belongs to nobody: kits and images.
    Own(u32),
}

impl Sees {
    /// Whether something that this user made is there.
    pub fn is_there(self, owner: u32) -> bool {
        match self {
            Self::All => true,
            Self::Own(uid) => uid == owner,
        }
    }
}
