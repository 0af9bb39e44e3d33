//! Why a socket cannot listen.

use std::net::TcpListener;

use super::plan::Listen;
use super::{SupervisorError, UnitId};

/// The address that keeps a socket from listening. Service managers report only
/// that it failed, so this tries the same: the first refusal is the reason.
pub(super) fn bind_error<'a>(
    unit: &UnitId,
    listen: impl IntoIterator<Item = &'a Listen>,
) -> Option<SupervisorError> {
    listen.into_iter().find_map(|listen| {
        let Listen::Tcp(address) = listen else {
            return None;
        };
        let source = TcpListener::bind(address).err()?;
        Some(SupervisorError::Bind {
            unit: unit.name(),
            address: address.to_string(),
            source,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let unit = UnitId::sockets(&"web".parse().unwrap());
        let error = bind_error(&unit, &[Listen::Unix("/x".into()), Listen::Tcp(address)]);
        let Some(SupervisorError::Bind {
            address: named,
            source,
            ..
        }) = error
        else {
            panic!("not a bind error: {error:?}");
        };
        assert_eq!(named, address.to_string());
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    }
}
