//! Who may do what: the gate that every call on the bus passes.
//!
//! ```text
//!  call ──► Guarded ──► Gate::admit ──► is it theirs? ──► polkit: action? ──► the object
//!              │                            no │                no │
//!              └── user mode: straight on      ▼                   ▼
//!                                        UnknownObject      PermissionDenied
//! ```
//!
//! In user mode the bus belongs to one user, who may do everything. In system mode
//! root may; others need an action of polkit for each verb ([`actions`]), and see the
//! instances and jobs that they made. Whoever polkit lets `administer` without asking
//! sees all. Without polkit members of the group `aegis` may do everything but
//! `administer`.
//!
//! | module | what it owns |
//! |---|---|
//! | [`actions`] | which action each method and property needs |
//! | [`guard`] | the gate before an object |
//! | [`listeners`] | who is told of changes, and of whose |
//! | [`polkit`] | the question to polkit |

mod actions;
mod guard;
mod listeners;
mod polkit;

use std::sync::Arc;

use aegis_bus::error::BusFault;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::layout::Mode;
use futures_util::StreamExt;
use nix::unistd::Group;
use zbus::message::{Flags, Header};
use zbus::object_server::SignalEmitter;
use zbus::{BoxDBusError, Connection, fdo};

use super::peer;
use crate::caller::{Caller, Sees};

use actions::Action;
pub(super) use guard::{Guarded, Owned};
use listeners::{Listener, Listeners};
use polkit::Answer;

/// The group whose members use the system mode (packaging/sysusers.d, packaging/polkit).
const GROUP: &str = "aegis";

/// Decides who may call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Option<Arc<Listeners>>);

/// Why a call does not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It belongs to somebody else: the same answer as where there is nothing.
    #[error("Unknown object '{0}'")]
    NotThere(String),
    #[error("this needs the authorization '{}'", .0.id())]
    Denied(Action),
    /// Nobody was asked: the caller did not allow that.
    #[error("this needs the authorization '{}', for which somebody must be asked", .0.id())]
    NotAsked(Action),
    #[error("the bus does not tell whose call this is")]
    Nameless(#[source] zbus::Error),
    #[error("polkit does not answer")]
    Polkit(#[source] zbus::Error),
}

impl Refusal {
    fn fault(&self) -> Fault {
        let fault = |symbol| Fault::from_error(symbol, self);
        match self {
            Self::NotThere(_) => fault(Symbol::NotFound),
            Self::Denied(action) | Self::NotAsked(action) => {
                fault(Symbol::PermissionDenied).with_hint(action.hint())
            }
            Self::Polkit(_) => {
                fault(Symbol::Internal).with_hint("'systemctl status polkit' shows it")
            }
            Self::Nameless(_) => fault(Symbol::Internal),
        }
    }

    fn into_dbus(self) -> BoxDBusError {
        match self {
            Self::NotThere(_) => Box::new(fdo::Error::UnknownObject(self.to_string())),
            refusal => Box::new(BusFault::from(refusal.fault())),
        }
    }

    fn into_fdo(self) -> fdo::Error {
        match self {
            Self::NotThere(_) => fdo::Error::UnknownObject(self.to_string()),
            Self::Denied(_) => fdo::Error::AccessDenied(self.to_string()),
            Self::NotAsked(_) => fdo::Error::InteractiveAuthorizationRequired(self.to_string()),
            refusal => fdo::Error::Failed(refusal.fault().to_string()),
        }
    }
}

impl Gate {
    /// The gate of a mode.
    pub fn of(mode: Mode) -> Self {
        Self((mode == Mode::System).then(Arc::default))
    }

    /// A gate that admits every call: nobody else comes as far as to it.
    pub(super) fn open() -> Self {
        Self(None)
    }

    /// Who calls, and what there is for them.
    ///
    /// # Errors
    /// The bus or polkit does not answer, or the kernel where there is no bus between.
    pub(super) async fn caller(
        &self,
        connection: &Connection,
        header: &Header<'_>,
    ) -> Result<Caller, BusFault> {
        if !connection.is_bus() {
            let caller = peer::caller(connection).await;
            return caller.map_err(|error| Refusal::Nameless(error).fault().into());
        }
        let Some(sender) = header.sender() else {
            return Ok(Caller::default());
        };
        let bus_name = Some(sender.to_string());
        let found = match &self.0 {
            None => {
                let uid = user_of(connection, sender).await;
                uid.map(|uid| (uid, Sees::All)).map_err(Refusal::Nameless)
            }
            Some(listeners) => Self::known(listeners, connection, sender)
                .await
                .map(|listener| (listener.uid, listener.sees)),
        };
        let (uid, sees) = found.map_err(|refusal| BusFault::from(refusal.fault()))?;
        Ok(Caller {
            bus_name,
            uid: Some(uid),
            sees,
        })
    }

    /// Lets a call pass that names `member` of `interface`, on an object of the user
    /// `owner`, or of nobody.
    async fn admit(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        interface: &str,
        member: &str,
        owner: Option<u32>,
    ) -> Result<(), Refusal> {
        let (Some(listeners), Some(sender)) = (&self.0, header.sender()) else {
            return Ok(());
        };
        let listener = Self::known(listeners, connection, sender).await?;
        if owner.is_some_and(|owner| !listener.sees.is_there(owner)) {
            let path = header.path().map(ToString::to_string);
            return Err(Refusal::NotThere(path.unwrap_or_default()));
        }
        if listener.uid == 0 {
            listeners.tell(sender);
            return Ok(());
        }
        let action = actions::needed(interface, member);
        let details = [("interface", interface), ("member", member)];
        let may_ask = header
            .primary()
            .flags()
            .contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let answer = polkit::check(connection, sender, action, &details, may_ask).await;
        match answer.map_err(Refusal::Polkit)? {
            Answer::Yes { .. } => {}
            Answer::Nobody if listener.is_member && action != Action::Administer => {}
            Answer::Challenge if !may_ask => return Err(Refusal::NotAsked(action)),
            Answer::No | Answer::Challenge | Answer::Nobody => {
                return Err(Refusal::Denied(action));
            }
        }
        listeners.tell(sender);
        Ok(())
    }

    /// What is known of a connection.
    async fn known(
        listeners: &Listeners,
        connection: &Connection,
        sender: &zbus::names::UniqueName<'_>,
    ) -> Result<Listener, Refusal> {
        if let Some(known) = listeners.get(sender) {
            return Ok(known);
        }
        let coming = listeners.expect(sender);
        let bus = fdo::DBusProxy::new(connection).await;
        let bus = bus.map_err(Refusal::Nameless)?;
        let credentials = bus.get_connection_credentials(sender.clone().into()).await;
        let credentials = credentials.map_err(|error| Refusal::Nameless(error.into()))?;
        let uid = credentials.unix_user_id();
        let uid = uid.ok_or_else(|| Refusal::Nameless(zbus::Error::MissingField))?;
        let group = Group::from_name(GROUP).ok().flatten();
        let is_member = group.is_some_and(|group| {
            let groups = credentials.unix_group_ids();
            groups.is_some_and(|ids| ids.contains(&group.gid.as_raw()))
        });
        let sees = match uid {
            0 => Sees::All,
            _ => seen(connection, sender, uid).await?,
        };
        let listener = Listener {
            uid,
            is_member,
            sees,
            is_told: false,
        };
        coming.arrived(listener);
        Ok(listener)
    }

    /// Forgets who leaves the bus, and asks again what there is for each when polkit
    /// tells of a change, until the connection ends.
    ///
    /// # Errors
    /// The bus does not answer.
    pub(super) async fn watch(&self, connection: &Connection) -> zbus::Result<()> {
        let Some(listeners) = &self.0 else {
            return Ok(());
        };
        let look_again = async {
            let mut changes = polkit::changes(connection).await?;
            while changes.next().await.is_some() {
                for (name, uid) in listeners.users() {
                    // Without an answer nobody sees more than is theirs.
                    let sees = seen(connection, &name, uid).await;
                    listeners.sees(&name, sees.unwrap_or(Sees::Own(uid)));
                }
            }
            Ok(())
        };
        tokio::try_join!(listeners.watch(connection), look_again).map(|_| ())
    }

    /// The ways by which a signal about something of the user `owner`, or of nobody,
    /// reaches those who may know: one to all, or one to each.
    pub(super) fn ways<'a>(
        &self,
        emitter: SignalEmitter<'a>,
        owner: Option<u32>,
    ) -> Vec<SignalEmitter<'a>> {
        match &self.0 {
            None => vec![emitter],
            Some(listeners) => listeners
                .who_sees(owner)
                .into_iter()
                .map(|name| emitter.clone().set_destination(name.into()))
                .collect(),
        }
    }
}

/// What there is for the connection `sender` of a user other than root.
async fn seen(
    connection: &Connection,
    sender: &zbus::names::UniqueName<'_>,
    uid: u32,
) -> Result<Sees, Refusal> {
    let all = polkit::check(connection, sender, Action::Administer, &[], false).await;
    match all.map_err(Refusal::Polkit)? {
        Answer::Yes { lasting: true } => Ok(Sees::All),
        _ => Ok(Sees::Own(uid)),
    }
}

async fn user_of(
    connection: &Connection,
    sender: &zbus::names::UniqueName<'_>,
) -> zbus::Result<u32> {
    let bus = fdo::DBusProxy::new(connection).await?;
    Ok(bus.get_connection_unix_user(sender.clone().into()).await?)
}
