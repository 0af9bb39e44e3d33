//! What an import does, in order: images, secrets, instances with their messages.

use std::collections::{BTreeMap, BTreeSet};

use aegis_bus::dict::Dict;
use aegis_bus::manager::CreateOptions;
use aegis_bus::secrets::ImportSecretsOptions;
use aegis_core::handle::Handle;
use aegis_core::secret::SecretEnv;
use aegis_core::tether::Frame;
use zbus::Fd;
use zeroize::Zeroizing;

use super::here::Here;
use crate::client::Client;
use crate::environment::passed;
use crate::failure::Failure;
use crate::flags::RegistryFlags;
use crate::images;
use crate::job::JobWatch;
use crate::original::{Messages, Problem, Values, Wish};
use crate::ui::Progress;

/// Most bytes of messages that aegisd takes at once, if more than one is passed.
const MAX_BATCH: usize = 2 << 20;

/// What becomes of one thing of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Imported,
    /// A secret has the value from there in place of its own.
    Replaced,
    /// It is left as it is.
    Here,
}

/// Everything there is to do.
#[derive(Debug)]
pub(super) struct Steps {
    /// Images that are to be pulled, by name.
    pub(super) images: BTreeSet<String>,
    pub(super) secrets: Vec<(String, Fate)>,
    pub(super) instances: Vec<(Wish, Fate)>,
    /// Messages that are not here yet, by instance.
    pub(super) messages: BTreeMap<Handle, Vec<Frame>>,
    values: SecretEnv,
}

impl Steps {
    /// The steps from what is here to what is wished, and all that stands in their way.
    /// Without values, secrets are to be here already. Pure.
    pub(super) fn plan(
        wishes: Vec<Wish>,
        values: Option<Values>,
        messages: &Messages,
        here: &Here,
        replace: bool,
    ) -> (Self, Vec<Problem>) {
        let mut steps = Self {
            images: BTreeSet::new(),
            secrets: Vec::new(),
            instances: Vec::new(),
            messages: BTreeMap::new(),
            values: SecretEnv::new(),
        };
        let secrets_come = values.is_some();
        for (name, value) in values.unwrap_or_default() {
            let name = String::from(name);
            let fate = match here.secret(&name) {
                None => Fate::Imported,
                // A value that is lost is worth nothing.
                Some(secret) if replace || !secret.readable => Fate::Replaced,
                Some(_) => Fate::Here,
            };
            if fate != Fate::Here {
                steps.values.insert(name.clone(), value);
            }
            steps.secrets.push((name, fate));
        }
        let (mut problems, mut listening) = (Vec::new(), BTreeMap::new());
        for wish in wishes {
            let (is_here, found) = here.look(&wish, secrets_come, &mut listening);
            problems.extend(found);
            let fate = match is_here {
                true => Fate::Here,
                false => {
                    steps.images.extend(here.lacking_image(&wish));
                    Fate::Imported
                }
            };
            if let Some(frames) = messages.of.get(&wish.old_id) {
                let rest = rest(frames, here.newest.get(&wish.handle));
                if !rest.is_empty() {
                    steps.messages.insert(wish.handle.clone(), rest.to_vec());
                }
            }
            steps.instances.push((wish, fate));
        }
        (steps, problems)
    }

    /// The instances that are made.
    pub(super) fn made(&self) -> impl Iterator<Item = &Wish> {
        let instances = self.instances.iter();
        instances.filter_map(|(wish, fate)| (*fate == Fate::Imported).then_some(wish))
    }

    /// Whether everything is here already.
    pub(super) fn are_none(&self) -> bool {
        self.values.is_empty() && self.messages.is_empty() && self.made().next().is_none()
    }

    /// Takes them.
    ///
    /// # Errors
    /// The first step that failed, with those that are taken and those that are not.
    pub(super) async fn take(
        &self,
        client: &Client,
        registry: &RegistryFlags,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut done = Vec::new();
        let taken = self.take_each(client, registry, progress, &mut done).await;
        taken.map_err(|source| {
            let words = self.words();
            let left = words.into_iter().filter(|words| !done.contains(words));
            Failure::ImportStopped {
                left: left.collect(),
                done,
                source: Box::new(source),
            }
        })
    }

    async fn take_each(
        &self,
        client: &Client,
        registry: &RegistryFlags,
        progress: &Progress,
        done: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for image in &self.images {
            images::pull(client, image, registry, None, false, progress).await?;
            done.push(image_words(image));
        }
        if !self.values.is_empty() {
            progress.say("Keeping the secrets");
            self.keep_secrets(client).await?;
            done.extend(self.values.keys().map(|name| secret_words(name)));
        }
        for (wish, fate) in &self.instances {
            if *fate == Fate::Imported {
                progress.say(&format!("Making '{}'", wish.handle));
                make(client, wish, progress).await?;
                done.push(instance_words(wish));
            }
            if let Some(frames) = self.messages.get(&wish.handle) {
                progress.say(&format!("Keeping the messages of '{}'", wish.handle));
                keep_messages(client, &wish.handle, frames).await?;
                done.push(messages_words(&wish.handle));
            }
        }
        Ok(())
    }

    /// Every step, in words.
    fn words(&self) -> Vec<String> {
        let images = self.images.iter().map(|image| image_words(image));
        let secrets = self.values.keys().map(|name| secret_words(name));
        let instances = self.made().map(instance_words);
        let messages = self.messages.keys().map(messages_words);
        let all = images.chain(secrets).chain(instances);
        all.chain(messages).collect()
    }

    async fn keep_secrets(&self, client: &Client) -> Result<(), Failure> {
        // All keys are strings, so this is JSON.
        let text = Zeroizing::new(serde_json::to_vec(&self.values).unwrap_or_default());
        let passed = passed(text)?;
        let mut fates = self.secrets.iter().map(|(_, fate)| *fate);
        let options = ImportSecretsOptions {
            replace: fates.any(|fate| fate == Fate::Replaced),
        };
        let secrets = client.secrets_proxy().await?;
        let imported = secrets.import(Fd::from(&passed), &options.to_dict()).await;
        imported
            .map(drop)
            .map_err(Failure::call("import the secrets"))
    }
}

async fn make(client: &Client, wish: &Wish, progress: &Progress) -> Result<(), Failure> {
    let what = format!("make the instance '{}'", wish.handle);
    let options = CreateOptions {
        start: false,
        disabled: !wish.enabled,
        ..CreateOptions::default()
    };
    let mut watch = JobWatch::start(client).await?;
    let manager = client.manager().await?;
    let (spec, options) = (wish.spec.to_dict(), options.to_dict());
    let created = manager.create_instance(wish.handle.as_str(), &spec, &options);
    let (_, job) = created.await.map_err(Failure::call(what.as_str()))?;
    watch.wait(&job, &what, progress).await.map(drop)
}

/// The messages that are not here yet. Nothing is, but for the first of them where an
/// import ended half way: the newest here is one of them then.
fn rest<'a>(frames: &'a [Frame], newest: Option<&Frame>) -> &'a [Frame] {
    let Some(newest) = newest else {
        return frames;
    };
    let at = frames.iter().position(|frame| frame == newest);
    at.map_or(&[], |at| &frames[at + 1..])
}

async fn keep_messages(client: &Client, handle: &Handle, frames: &[Frame]) -> Result<(), Failure> {
    let (tether, no_options) = (client.tether_proxy().await?, Dict::new());
    let mut lines = Zeroizing::new(Vec::new());
    let mut frames = frames.iter().map(Frame::to_text).peekable();
    while let Some(text) = frames.next() {
        lines.extend_from_slice(text.as_bytes());
        lines.push(b'\n');
        let fits = |next: &String| lines.len() + next.len() < MAX_BATCH;
        if frames.peek().is_some_and(fits) {
            continue;
        }
        let passed = passed(std::mem::take(&mut lines))?;
        let kept = tether.import(handle.as_str(), Fd::from(&passed), &no_options);
        kept.await
            .map_err(Failure::call(format!("keep the messages of '{handle}'")))?;
    }
    Ok(())
}

fn messages_words(handle: &Handle) -> String {
    format!("messages of {handle}")
}

fn image_words(name: &str) -> String {
    format!("image {name}")
}

fn secret_words(name: &str) -> String {
    format!("secret {name}")
}

fn instance_words(wish: &Wish) -> String {
    format!("instance {}", wish.handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_on_behind_the_newest_that_is_here() {
        let frame = |seq: u64, id: &str| {
            let text = format!(
                r#"{{"v":1,"type":"t","seq":{seq},"session":{{"channel":"a","id":"{id}"}}}}"#
            );
            Frame::parse(&text).unwrap()
        };
        let frames = [frame(1, "s"), frame(2, "s"), frame(5, "s")];
        assert_eq!(rest(&frames, None), frames);
        assert_eq!(rest(&frames, Some(&frame(2, "s"))), &frames[2..]);
        assert!(rest(&frames, Some(&frame(5, "s"))).is_empty());
        assert!(rest(&frames, Some(&frame(2, "other"))).is_empty());
    }
}
