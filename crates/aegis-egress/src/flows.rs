//! Who the guest talks to by UDP. The passt of 2023 gives a guest whatever comes to the
//! port that it sends from, whoever sends it; here only answers pass.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an answer may take, or the next one (RFC 4787, REQ-5: two minutes at least).
const PATIENCE: Duration = Duration::from_secs(180);
/// Most of them at a time. The one that was quiet longest makes room.
const MOST: usize = 4096;

/// A port of the guest and whom it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub guest: u16,
    pub peer: IpAddr,
    pub port: u16,
}

/// The flows that there are.
#[derive(Debug, Default)]
pub struct Flows(HashMap<Flow, Instant>);

impl Flows {
    /// The guest sent something.
    pub fn note(&mut self, flow: Flow, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&flow) {
            self.0.retain(|_, at| now < *at + PATIENCE);
            if self.0.len() >= MOST
                && let Some(oldest) = self.0.iter().min_by_key(|(_, at)| **at)
            {
                let oldest = *oldest.0;
                self.0.remove(&oldest);
            }
        }
        self.0.insert(flow, now);
    }

    /// Whether something that came belongs to what the guest sent; it goes on then.
    pub fn answers(&mut self, flow: Flow, now: Instant) -> bool {
        match self.0.get_mut(&flow) {
            Some(at) if now < *at + PATIENCE => {
                *at = now;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(guest: u16, port: u16) -> Flow {
        Flow {
            guest,
            peer: IpAddr::from([1, 1, 1, 1]),
            port,
        }
    }

    #[test]
    fn only_who_was_spoken_to_answers_and_not_for_ever() {
        let mut flows = Flows::default();
        let now = Instant::now();
        assert!(!flows.answers(flow(1, 53), now));
        flows.note(flow(1, 53), now);
        assert!(flows.answers(flow(1, 53), now));
        assert!(!flows.answers(flow(1, 54), now));
        assert!(!flows.answers(flow(2, 53), now));
        let later = now + PATIENCE - Duration::from_secs(1);
        assert!(flows.answers(flow(1, 53), later));
        assert!(
            flows.answers(flow(1, 53), later + PATIENCE / 2),
            "it goes on"
        );
        assert!(!flows.answers(flow(1, 53), later + PATIENCE * 2));
    }

    #[test]
    fn the_quietest_makes_room() {
        let mut flows = Flows::default();
        let now = Instant::now();
        for port in 0..=u16::try_from(MOST).unwrap() {
            flows.note(flow(1, port), now + Duration::from_millis(port.into()));
        }
        assert_eq!(flows.0.len(), MOST);
        assert!(!flows.answers(flow(1, 0), now));
        assert!(flows.answers(flow(1, 1), now));
    }
}
