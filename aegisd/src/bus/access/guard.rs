//! The gate before an object: zbus takes it for the object.

use std::collections::HashMap;
use std::fmt::Write;

use zbus::fdo;
use zbus::message::{Header, Message};
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::{BoxDBusError, Connection, ObjectServer, OwnedVariant, Variant};

use super::{Gate, Refusal};

/// Whose an object is.
pub(in crate::bus) trait Owned {
    /// The user who made it; `None` where it belongs to nobody.
    fn owner(&self) -> Option<u32> {
        None
    }
}

/// An object of which every method and property passes the gate.
#[derive(Debug)]
pub(in crate::bus) struct Guarded<I> {
    object: I,
    gate: Gate,
}

impl<I> Guarded<I> {
    pub(in crate::bus) fn new(object: I, gate: Gate) -> Self {
        Self { object, gate }
    }

    pub(in crate::bus) fn object(&self) -> &I {
        &self.object
    }
}

impl<I: Interface + Owned> Guarded<I> {
    async fn admit(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        member: &str,
    ) -> Result<(), Refusal> {
        let owner = self.object.owner();
        let interface = I::name();
        self.gate
            .admit(connection, header, &interface, member, owner)
            .await
    }
}

#[async_trait::async_trait]
impl<I: Interface + Owned> Interface for Guarded<I> {
    fn name() -> InterfaceName<'static> {
        I::name()
    }

    async fn get(
        &self,
        property_name: &str,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<Result<OwnedVariant, BoxDBusError>> {
        // Without one it is aegisd itself that reads.
        if let Some(header) = header
            && let Err(refusal) = self.admit(connection, header, "Get").await
        {
            return Some(Err(refusal.into_dbus()));
        }
        self.object
            .get(property_name, server, connection, header, emitter)
            .await
    }

    async fn get_all(
        &self,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> fdo::Result<HashMap<String, OwnedVariant>> {
        if let Some(header) = header {
            let admitted = self.admit(connection, header, "GetAll").await;
            admitted.map_err(Refusal::into_fdo)?;
        }
        self.object
            .get_all(server, connection, header, emitter)
            .await
    }

    async fn set_mut(
        &mut self,
        property_name: &str,
        value: &Variant<'_>,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<Result<(), BoxDBusError>> {
        if let Some(header) = header
            && let Err(refusal) = self.admit(connection, header, "Set").await
        {
            return Some(Err(refusal.into_dbus()));
        }
        self.object
            .set_mut(property_name, value, server, connection, header, emitter)
            .await
    }

    fn call<'call>(
        &'call self,
        server: &'call ObjectServer,
        connection: &'call Connection,
        msg: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        match self.object.call(server, connection, msg, name.clone()) {
            DispatchResult::Async(answer) => DispatchResult::Async(Box::pin(async move {
                let header = msg.header();
                let admitted = self.admit(connection, &header, &name).await;
                admitted.map_err(Refusal::into_dbus)?;
                answer.await
            })),
            // No object of ours has a method that needs it alone.
            DispatchResult::RequiresMut | DispatchResult::NotFound => DispatchResult::NotFound,
        }
    }

    fn call_mut<'call>(
        &'call mut self,
        _: &'call ObjectServer,
        _: &'call Connection,
        _: &'call Message,
        _: MemberName<'call>,
    ) -> DispatchResult<'call> {
        DispatchResult::NotFound
    }

    fn introspect_to_writer(&self, writer: &mut dyn Write, level: usize) {
        self.object.introspect_to_writer(writer, level);
    }
}
