//! The Tether interface of the fake.

use std::io::Read;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::tether::ReadOptions;
use aegis_core::fault::{Fault, Symbol};
use aegis_core::tether::Frame;
use zbus::{OwnedFd, interface};

use super::Handles;

/// In one answer, so that clients have to ask again.
const MAX_ANSWER: usize = 2;

pub(super) struct Tether {
    pub(super) handles: Handles,
}

#[interface(name = "org.aegisvm.Aegis1.Tether")]
impl Tether {
    #[zbus(out_args("frames"))]
    async fn read(&self, instance: String, options: Dict) -> Result<Vec<String>, BusFault> {
        let options = ReadOptions::from_dict(options).map_err(Fault::from)?;
        self.exists(&instance)?;
        let kept = self.handles.with(|state| {
            let kept = state.messages.get(&instance);
            kept.cloned().unwrap_or_default()
        });
        let seq = |frame: &&Frame| frame.seq().unwrap();
        let channel = options.channel.as_deref();
        let mut frames: Vec<String> = kept
            .iter()
            .filter(|frame| seq(frame) > options.after.unwrap_or(0))
            .filter(|frame| options.before.is_none_or(|before| seq(frame) < before))
            .filter(|frame| channel.is_none_or(|channel| frame.channel() == channel))
            .map(Frame::to_text)
            .collect();
        let limit = options.limit.map_or(MAX_ANSWER, |limit| limit as usize);
        let limit = limit.min(MAX_ANSWER);
        match options.newest {
            true => drop(frames.drain(..frames.len().saturating_sub(limit))),
            false => frames.truncate(limit),
        }
        Ok(frames)
    }

    #[zbus(out_args("count"))]
    async fn import(
        &self,
        instance: String,
        frames: OwnedFd,
        _options: Dict,
    ) -> Result<u32, BusFault> {
        self.exists(&instance)?;
        let mut lines = String::new();
        let mut file = std::fs::File::from(std::os::fd::OwnedFd::from(frames));
        file.read_to_string(&mut lines).unwrap();
        let frames: Vec<Frame> = lines
            .lines()
            .map(|line| Frame::parse(line).unwrap())
            .collect();
        let count = u32::try_from(frames.len()).unwrap();
        self.handles
            .with(|state| state.messages.entry(instance).or_default().extend(frames));
        Ok(count)
    }
}

impl Tether {
    fn exists(&self, instance: &str) -> Result<(), BusFault> {
        match self
            .handles
            .with(|state| state.instances.contains_key(instance))
        {
            true => Ok(()),
            false => {
                let words = format!("there is no instance '{instance}'");
                Err(Fault::new(Symbol::NotFound, words).into())
            }
        }
    }
}
