//! The Tether interface.

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::tether::{FollowOptions, ReadOptions};
use aegis_core::tether::Frame;
use zbus::message::Header;
use zbus::{Connection, OwnedFd};

use super::Service;
use super::access::Owned;
use super::manager::{failed, refused};
use super::secrets::passed_document;
use crate::instance::Instance;
use crate::messages::{MAX_ANSWER, MessageError, follow};
use crate::registry::MessageQuery;
use crate::vm::VmError;

/// The messages' object.
#[derive(Debug)]
pub struct TetherObject {
    service: Service,
}

impl Owned for TetherObject {}

impl TetherObject {
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// The instance of this name, if it is there for who calls.
    async fn found(
        &self,
        handle: &str,
        connection: &Connection,
        header: &Header<'_>,
    ) -> Result<Instance, BusFault> {
        let caller = self.service.gate.caller(connection, header).await?;
        self.service.engine.find(&caller, handle).map_err(failed)
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Tether", introspection_docs = false)]
impl TetherObject {
    #[zbus(out_args("msg_id", "seq"))]
    async fn send(
        &self,
        instance: String,
        frame: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, u64), BusFault> {
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let frame = Frame::parse(&frame);
        let frame = frame.map_err(|error| failed(MessageError::from(error).into()))?;
        let instance = self.found(&instance, connection, &header).await?;
        let kept = self
            .service
            .engine
            .send_message(&instance, frame)
            .await
            .map_err(failed)?;
        let msg_id = kept.frame.msg_id().unwrap_or_default().to_owned();
        Ok((msg_id, kept.seq))
    }

    #[zbus(out_args("frames"))]
    async fn follow(
        &self,
        instance: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd, BusFault> {
        self.found(&instance, connection, &header).await?;
        let FollowOptions { after, channel } =
            FollowOptions::from_dict(options).map_err(refused)?;
        let followed = self
            .service
            .engine
            .follow_messages(&instance, after, channel)
            .await;
        let follower = followed.map_err(failed)?;
        let stream = follow::into_stream(follower)
            .map_err(|source| failed(VmError::Stream(source).into()))?;
        Ok(stream.into())
    }

    #[zbus(out_args("frames"))]
    async fn read(
        &self,
        instance: String,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, BusFault> {
        self.found(&instance, connection, &header).await?;
        let options = ReadOptions::from_dict(options).map_err(refused)?;
        let query = MessageQuery {
            channel: options.channel,
            session: options.session,
            types: options.types,
            after: options.after.unwrap_or(0),
            before: options.before,
            newest: options.newest,
            limit: options.limit.unwrap_or(MAX_ANSWER),
            ..MessageQuery::default()
        };
        self.service
            .engine
            .messages(&instance, query)
            .await
            .map_err(failed)
    }

    #[zbus(out_args("count"))]
    async fn import(
        &self,
        instance: String,
        frames: OwnedFd,
        options: Dict,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u32, BusFault> {
        self.found(&instance, connection, &header).await?;
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let lines = passed_document(frames.into()).await?;
        let added = self
            .service
            .engine
            .take_messages(&instance, lines.reveal())
            .await;
        Ok(u32::try_from(added.map_err(failed)?).unwrap_or(u32::MAX))
    }
}
