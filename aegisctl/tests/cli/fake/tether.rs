//! The Tether interface of the fake.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aegis_bus::dict::Dict;
use aegis_bus::error::BusFault;
use aegis_bus::tether::{FollowOptions, ReadOptions};
use aegis_core::fault::{Fault, Symbol};
use aegis_core::tether::{DONE, Frame, USER_MESSAGE};
use serde_json::json;
use zbus::{OwnedFd, interface};

use super::Handles;

/// In one answer, so that clients have to ask again.
const MAX_ANSWER: usize = 2;

pub(super) struct Tether {
    pub(super) handles: Handles,
}

#[interface(name = "org.aegisvm.Aegis1.Tether")]
impl Tether {
    /// Keeps the message, and what a guest would say to it at once.
    #[zbus(out_args("msg_id", "seq"))]
    async fn send(
        &self,
        instance: String,
        frame: String,
        _options: Dict,
    ) -> Result<(String, u64), BusFault> {
        self.exists(&instance)?;
        let mut frame = Frame::parse(&frame).unwrap();
        frame.name_it(|| "host-1".to_owned());
        let name = frame.msg_id().unwrap().to_owned();
        let text = frame.payload().and_then(|payload| payload["text"].as_str());
        let text = text.unwrap_or_default().to_owned();
        let mut answer = Frame::new(
            DONE,
            frame.channel(),
            frame.session(),
            &json!({"text": format!("heard: {text}")}),
        )
        .unwrap()
        .into_value();
        answer["reply_to_msg_id"] = name.clone().into();
        let refusal = (text == "refuse").then_some("no");
        let acknowledged = frame.acknowledged(refusal);
        let mut told = vec![frame, acknowledged];
        let is_message = told[0].kind() == USER_MESSAGE;
        if is_message && refusal.is_none() && text != "say nothing" {
            told.push(Frame::parse(&answer.to_string()).unwrap());
        }
        let seq = self.handles.with(|state| {
            let kept = state.messages.entry(instance).or_default();
            let first = kept.last().and_then(Frame::seq).unwrap_or(0) + 1;
            for (frame, seq) in told.iter_mut().zip(first..) {
                frame.number(seq);
            }
            kept.extend(told);
            first
        });
        Ok((name, seq))
    }

    /// What is kept, and what comes within a second; then the stream ends, as at the end
    /// of an aegisd.
    #[zbus(out_args("frames"))]
    async fn follow(&self, instance: String, options: Dict) -> Result<OwnedFd, BusFault> {
        let options = FollowOptions::from_dict(options).map_err(Fault::from)?;
        self.exists(&instance)?;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let handles = self.handles.clone();
        std::thread::spawn(move || {
            let mut after = options.after.unwrap_or(0);
            for _ in 0..20 {
                let kept = handles.with(|state| state.messages.get(&instance).cloned());
                for frame in kept.unwrap_or_default() {
                    if frame.seq() > Some(after) {
                        after = frame.seq().unwrap();
                        drop(writeln!(ours, "{}", frame.to_text()));
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(std::os::fd::OwnedFd::from(theirs).into())
    }

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
