//! Images, as far as they concern instances.

use aegis_bus::image::PruneImagesOptions;
use aegis_image::name::ImageName;

use super::Engine;
use crate::board::JobId;
use crate::images::{self, Given, ImageError, Removed, Users};
use crate::instance::InstanceError;
use crate::jobs::Outcome;

impl Engine {
    /// Begins to bring an image here.
    ///
    /// # Errors
    /// The name is none. What fails later is the job's to tell.
    pub fn pull_image(&self, name: &str, given: Given) -> Result<JobId, InstanceError> {
        self.usable()?;
        let name: ImageName = name.parse().map_err(|source| ImageError::Name {
            name: name.to_owned(),
            source,
        })?;
        let job = self.shared.jobs.begin("pull", None);
        let (id, shared) = (job.id(), self.shared.clone());
        tokio::spawn(async move {
            let pulled = images::pull(&shared, &name, given, &job.reporter()).await;
            job.end(
                pulled
                    .map(|()| Outcome::Changed)
                    .map_err(|error| error.fault()),
            );
        });
        Ok(id)
    }

    /// Removes an image or one of its names.
    ///
    /// # Errors
    /// It is used, or there is none.
    pub async fn remove_image(&self, name: &str) -> Result<Removed, InstanceError> {
        self.usable()?;
        let removed = self.shared.images.remove(name, &self.image_users()).await;
        Ok(removed?)
    }

    /// Removes the images that nothing uses.
    ///
    /// # Errors
    /// What the store says. Where instances cannot be read nobody knows what they use.
    pub async fn prune_images(
        &self,
        options: PruneImagesOptions,
    ) -> Result<Removed, InstanceError> {
        self.usable()?;
        if !self.board().follow().borrow().quarantined.is_empty() {
            return Err(ImageError::UnknownUsers.into());
        }
        Ok(self
            .shared
            .images
            .prune(options, &self.image_users())
            .await?)
    }

    fn image_users(&self) -> Users {
        let mut users = Users::new();
        for instance in self.shared.directory.all() {
            if let Some(image) = instance.image_id() {
                users
                    .entry(image)
                    .or_default()
                    .push(instance.handle().to_string());
            }
        }
        users
    }
}
