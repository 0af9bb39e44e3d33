//! Messages of instances.

use aegis_bus::tether::{ReadOptions, TetherProxy};
use aegis_core::tether::Frame;
use zbus::proxy::CacheProperties;

use super::{Client, read};
use crate::failure::Failure;

impl Client {
    pub(crate) async fn tether_proxy(&self) -> Result<TetherProxy<'static>, Failure> {
        TetherProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(Failure::call("talk to aegisd"))
    }

    /// All messages of an instance from [`ReadOptions::after`] on.
    pub(crate) async fn messages(
        &self,
        instance: &str,
        mut options: ReadOptions,
    ) -> Result<Vec<Frame>, Failure> {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            let more = self.some_messages(instance, &options).await?;
            let Some(last) = more.last() else {
                return Ok(frames);
            };
            options.after = last.seq();
            frames.extend(more);
        }
    }

    /// As many messages as one answer holds.
    pub(crate) async fn some_messages(
        &self,
        instance: &str,
        options: &ReadOptions,
    ) -> Result<Vec<Frame>, Failure> {
        let (tether, options) = (self.tether_proxy().await?, options.to_dict());
        let texts = read(async || tether.read(instance, &options).await).await;
        let texts = texts.map_err(Failure::call(format!("read the messages of '{instance}'")))?;
        // What aegisd keeps it has checked.
        Ok(texts
            .iter()
            .filter_map(|text| Frame::parse(text).ok())
            .collect())
    }
}
