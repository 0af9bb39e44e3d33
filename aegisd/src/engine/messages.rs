//! Messages, and the instances that they are of.

use super::Engine;
use crate::instance::InstanceError;
use crate::messages::{KEPT, MAX_ANSWER, MAX_ANSWER_BYTES, MessageError, numbered};
use crate::registry::MessageQuery;

impl Engine {
    /// Messages of an instance in the order of their numbers, as JSON texts: no more
    /// than one answer holds, so the next question goes on behind the last of them.
    ///
    /// # Errors
    /// There is no such instance, or they cannot be read.
    pub async fn messages(
        &self,
        name: &str,
        query: MessageQuery,
    ) -> Result<Vec<String>, InstanceError> {
        let handle = self.get(name)?.handle().clone();
        let query = MessageQuery {
            limit: query.limit.min(MAX_ANSWER),
            bytes: MAX_ANSWER_BYTES,
            ..query
        };
        let read = self.shared.registry.messages(handle, query).await;
        Ok(read.map_err(MessageError::from)?)
    }

    /// Keeps messages under the numbers they have, a line each; those whose numbers
    /// there are already stay as they are. Returns how many came.
    ///
    /// # Errors
    /// There is no such instance, or a line is no numbered message: none is kept then.
    pub async fn take_messages(&self, name: &str, lines: &str) -> Result<usize, InstanceError> {
        let handle = self.get(name)?.handle().clone();
        let frames = numbered(lines)?;
        let added = self
            .shared
            .registry
            .add_messages(handle, frames, KEPT)
            .await;
        Ok(added.map_err(MessageError::from)?)
    }
}
