//! The question to polkit
//! (<https://polkit.pages.freedesktop.org/polkit/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html>).

#![expect(
    clippy::disallowed_methods,
    reason = "a question, which changes nothing"
)]

use std::collections::HashMap;

use futures_util::{Stream, StreamExt};
use zbus::fdo;
use zbus::names::UniqueName;
use zbus::{Connection, Variant};

use super::actions::Action;

/// `AllowUserInteraction` of `CheckAuthorizationFlags`.
const ALLOW_INTERACTION: u32 = 1;
/// The detail that says that an authorization is kept for a while only.
const TEMPORARY: &str = "polkit.temporary_authorization_id";

/// What polkit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Unless it is lasting somebody gave a password a moment ago.
    Yes {
        lasting: bool,
    },
    /// Somebody would have to be asked, or was asked and did not answer well.
    Challenge,
    No,
    /// There is no polkit on this bus.
    Nobody,
}

#[zbus::proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority"
)]
trait Authority {
    fn check_authorization(
        &self,
        subject: &(&str, HashMap<&str, Variant<'_>>),
        action_id: &str,
        details: &HashMap<&str, &str>,
        flags: u32,
        cancellation_id: &str,
    ) -> zbus::Result<(bool, bool, HashMap<String, String>)>;

    #[zbus(signal)]
    fn changed(&self) -> zbus::Result<()>;
}

/// Asks whether the connection `sender` may do this. `details` are what rules can look
/// at. Where `may_ask`, the user may be asked for a password first, which takes as long
/// as they take: no cancellation id is given, since polkit ends the question by itself
/// when the connection leaves the bus.
///
/// # Errors
/// polkit is there and does not answer.
pub(super) async fn check(
    connection: &Connection,
    sender: &UniqueName<'_>,
    action: Action,
    details: &[(&str, &str)],
    may_ask: bool,
) -> zbus::Result<Answer> {
    let authority = authority(connection).await?;
    let name = HashMap::from([("name", Variant::from(sender.as_str()))]);
    let subject = ("system-bus-name", name);
    let flags = if may_ask { ALLOW_INTERACTION } else { 0 };
    let details = details.iter().copied().collect();
    let asked = authority
        .check_authorization(&subject, action.id(), &details, flags, "")
        .await;
    match asked {
        Ok((true, _, details)) => Ok(Answer::Yes {
            lasting: !details.contains_key(TEMPORARY),
        }),
        Ok((false, true, _)) => Ok(Answer::Challenge),
        Ok((false, false, _)) => Ok(Answer::No),
        Err(error) if is_absent(&error) => Ok(Answer::Nobody),
        Err(error) => Err(error),
    }
}

/// An item for each moment from which polkit may answer otherwise than before: it read
/// changed rules, or another polkit took over.
///
/// # Errors
/// The bus does not answer.
pub(super) async fn changes<'a>(
    connection: &'a Connection,
) -> zbus::Result<impl Stream<Item = ()> + use<'a>> {
    let authority = authority(connection).await?;
    let rules = authority.receive_changed().await?.map(|_| ());
    let owners = authority.inner().receive_owner_changed().await?;
    let taken_over = owners.filter_map(async |owner| owner.map(|_| ()));
    Ok(futures_util::stream::select(rules, Box::pin(taken_over)))
}

async fn authority(connection: &Connection) -> zbus::Result<AuthorityProxy<'_>> {
    let authority = AuthorityProxy::builder(connection);
    let authority = authority.cache_properties(zbus::proxy::CacheProperties::No);
    authority.build().await
}

/// Whether there is no such service, running or to be started, or the administrator
/// does not want it started.
fn is_absent(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::FDO(error) => matches!(
            **error,
            fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_)
        ),
        zbus::Error::MethodError(name, _, _) => {
            let name = name.as_str().strip_prefix("org.freedesktop.systemd1.");
            matches!(name, Some("NoSuchUnit" | "UnitMasked"))
        }
        _ => false,
    }
}
