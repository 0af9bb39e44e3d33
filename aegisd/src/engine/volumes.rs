//! Named volumes, as far as they concern instances.

use super::Engine;
use crate::caller::Caller;
use crate::instance::{InstanceError, blocking};
use crate::volumes::{self, Listed, Users, VolumeError};

impl Engine {
    /// Every named volume of the caller, with the instances that use it.
    ///
    /// # Errors
    /// Their folder cannot be read.
    pub async fn volumes(&self, caller: &Caller) -> Result<Vec<Listed>, InstanceError> {
        self.usable()?;
        let keeper = self.keeper(caller);
        let (shared, users) = (self.shared.clone(), self.volume_users(keeper));
        Ok(blocking(move || volumes::list(&shared.host, keeper, &users)).await?)
    }

    /// Makes a named volume; returns whether there was none of that name.
    ///
    /// # Errors
    /// The name is none, or the folder cannot be made.
    pub async fn make_volume(&self, caller: &Caller, name: &str) -> Result<bool, InstanceError> {
        self.usable()?;
        let _all = self.shared.volumes_stay.read().await;
        let keeper = self.keeper(caller);
        let (shared, name) = (self.shared.clone(), name.to_owned());
        Ok(blocking(move || volumes::make(&shared.host, keeper, &name)).await?)
    }

    /// Removes a named volume that no instance uses.
    ///
    /// # Errors
    /// It is used, or there is none. Where instances cannot be read nobody knows what
    /// they use.
    pub async fn remove_volume(&self, caller: &Caller, name: &str) -> Result<(), InstanceError> {
        let keeper = self.keeper(caller);
        self.all_users_known()?;
        let _all = self.shared.volumes_stay.write().await;
        let (shared, users) = (self.shared.clone(), self.volume_users(keeper));
        let name = name.to_owned();
        Ok(blocking(move || volumes::remove(&shared.host, keeper, &name, &users)).await?)
    }

    /// Removes the named volumes that no instance uses, or only names them.
    ///
    /// # Errors
    /// As for [`Engine::remove_volume`].
    pub async fn prune_volumes(
        &self,
        caller: &Caller,
        dry_run: bool,
    ) -> Result<Vec<String>, InstanceError> {
        let keeper = self.keeper(caller);
        self.all_users_known()?;
        let _all = self.shared.volumes_stay.write().await;
        let (shared, users) = (self.shared.clone(), self.volume_users(keeper));
        Ok(blocking(move || volumes::prune(&shared.host, keeper, &users, dry_run)).await?)
    }

    fn all_users_known(&self) -> Result<(), InstanceError> {
        self.usable()?;
        match self.board().follow().borrow().quarantined.is_empty() {
            true => Ok(()),
            false => Err(VolumeError::UnknownUsers.into()),
        }
    }

    fn volume_users(&self, keeper: Option<u32>) -> Users {
        let root = |keeper: Option<u32>| keeper.unwrap_or(0);
        let mut users = Users::new();
        for instance in self.shared.directory.all() {
            if root(instance.record().creator) != root(keeper) {
                continue;
            }
            for name in instance.named_volumes() {
                let users = users.entry(name).or_default();
                users.push(instance.handle().to_string());
            }
        }
        users
    }
}
