//! Messages, and the instances that they are of.

use aegis_core::tether::{Direction, Frame};

use super::Engine;
use crate::instance::{Instance, InstanceError};
use crate::messages::line::Follower;
use crate::messages::{MessageError, Taken};
use crate::registry::{Kept, MessageQuery, RegistryError};

impl Engine {
    /// Takes a message for the guest of an instance. It is kept when this returns, and
    /// brought to the guest then, which is woken for it.
    ///
    /// # Errors
    /// The instance is disabled, the message is none for a guest, or too many wait.
    pub async fn send_message(
        &self,
        instance: &Instance,
        frame: Frame,
    ) -> Result<Kept, InstanceError> {
        instance.check_usable()?;
        let messages = &self.shared.messages;
        let way = Direction::ToGuest;
        match messages.take(instance.handle(), frame, way).await? {
            Taken::Kept(kept) => {
                messages.deliver(&self.shared, instance);
                Ok(kept)
            }
            // Nothing that goes to a guest is passing.
            Taken::Passed => Err(RegistryError::Closed.into()),
        }
    }

    /// Takes a message of the guest of an instance.
    ///
    /// # Errors
    /// It is none for the host, or cannot be kept.
    pub async fn hear_message(
        &self,
        instance: &Instance,
        frame: Frame,
    ) -> Result<Taken, InstanceError> {
        let messages = &self.shared.messages;
        let way = Direction::ToHost;
        Ok(messages.take(instance.handle(), frame, way).await?)
    }

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
        Ok(self.shared.messages.read(&handle, query).await?)
    }

    /// Follows the messages of an instance: those behind a number and then those that
    /// come, or those that come alone.
    ///
    /// # Errors
    /// There is no such instance, or they cannot be read.
    pub async fn follow_messages(
        &self,
        name: &str,
        after: Option<u64>,
        channel: Option<String>,
    ) -> Result<Follower, InstanceError> {
        let handle = self.get(name)?.handle().clone();
        Ok(self.shared.messages.follow(&handle, after, channel).await?)
    }

    /// Keeps messages under the numbers they have, a line each; those whose numbers
    /// there are already stay as they are. Returns how many came.
    ///
    /// # Errors
    /// There is no such instance, or a line is no numbered message: none is kept then.
    pub async fn take_messages(&self, name: &str, lines: &str) -> Result<usize, InstanceError> {
        let handle = self.get(name)?.handle().clone();
        Ok(self.shared.messages.import(&handle, lines).await?)
    }

    /// Goes on with what waited for guests when the last aegisd ended.
    pub(super) async fn deliver_what_waits(&self) {
        let awaited = match self.shared.registry.awaited().await {
            Ok(awaited) => awaited,
            Err(error) => {
                let fault = MessageError::from(error).fault();
                tracing::error!("messages that wait are not delivered: {fault}, ignoring");
                return;
            }
        };
        for (handle, came_at) in awaited {
            if let Some(instance) = self.shared.directory.find(&handle) {
                let messages = &self.shared.messages;
                messages.go_on_delivering(&self.shared, &instance, came_at);
            }
        }
    }
}
