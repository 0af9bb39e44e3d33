//! The Tether interface.

use std::sync::Arc;

use aegis_bus::dict::{Dict, DictReader};
use aegis_bus::error::BusFault;
use aegis_bus::tether::ReadOptions;
use zbus::OwnedFd;

use super::manager::{failed, refused};
use super::secrets::passed_document;
use crate::engine::Engine;
use crate::messages::MAX_ANSWER;
use crate::registry::MessageQuery;

/// The messages' object.
#[derive(Debug)]
pub struct TetherObject {
    engine: Arc<Engine>,
}

impl TetherObject {
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[zbus::interface(name = "org.aegisvm.Aegis1.Tether", introspection_docs = false)]
impl TetherObject {
    #[zbus(out_args("frames"))]
    async fn read(&self, instance: String, options: Dict) -> Result<Vec<String>, BusFault> {
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
        self.engine.messages(&instance, query).await.map_err(failed)
    }

    #[zbus(out_args("count"))]
    async fn import(
        &self,
        instance: String,
        frames: OwnedFd,
        options: Dict,
    ) -> Result<u32, BusFault> {
        DictReader::new("option", options)
            .finish()
            .map_err(refused)?;
        let lines = passed_document(frames.into()).await?;
        let added = self.engine.take_messages(&instance, lines.reveal()).await;
        Ok(u32::try_from(added.map_err(failed)?).unwrap_or(u32::MAX))
    }
}
