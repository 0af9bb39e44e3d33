//! Images, as far as they concern instances.

use aegis_bus::image::{ImportOptions, PruneImagesOptions};
use aegis_image::document::Platform;
use aegis_image::import::Request;
use aegis_image::name::ImageName;

use super::Engine;
use crate::board::JobId;
use crate::caller::Caller;
use crate::images::{self, Archive, Given, ImageError, Removed, Users};
use crate::instance::InstanceError;
use crate::jobs::Outcome;

impl Engine {
    /// Begins to bring an image here.
    ///
    /// # Errors
    /// The name is none. What fails later is the job's to tell.
    pub fn pull_image(
        &self,
        caller: &Caller,
        name: &str,
        given: Given,
    ) -> Result<JobId, InstanceError> {
        self.usable()?;
        let name = image_name(name)?;
        let job = self.shared.jobs.begin("pull", None, caller.owner());
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

    /// Begins to make an image of an archive.
    ///
    /// # Errors
    /// The name or platform is none, or none for an import. What fails later is the
    /// job's to tell.
    pub fn import_image(
        &self,
        caller: &Caller,
        name: &str,
        options: ImportOptions,
    ) -> Result<JobId, InstanceError> {
        self.usable()?;
        let request = Request {
            origin: options.origin,
            name: match name {
                "" => None,
                name => Some(image_name(name)?),
            },
            config: images::config(options.config),
            message: options.message,
            platform: match options.platform {
                None => Platform::host(),
                Some(text) => text.parse().map_err(ImageError::Platform)?,
            },
        };
        let checked = request.check();
        checked.map_err(|error| ImageError::Failed(error.into()))?;
        let archive = Archive {
            source: options.source,
            insecure: options.insecure,
        };
        let job = self.shared.jobs.begin("import", None, caller.owner());
        let (id, shared) = (job.id(), self.shared.clone());
        tokio::spawn(async move {
            let imported = images::import(&shared, request, archive, &job.reporter()).await;
            job.end(
                imported
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

fn image_name(text: &str) -> Result<ImageName, ImageError> {
    text.parse().map_err(|source| ImageError::Name {
        name: text.to_owned(),
        source,
    })
}
