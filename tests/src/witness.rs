//! Sees to it that no two messages were ever sealed under one key and nonce, from the outside: it is shown envelopes, of
//! however many processes, copies and restored states, and needs no key.
//!
//! A frame holds three seals, and their nonces all come from its salt, which stands in it in clear (the protocol, §4.3
//! and §5):
//!
//! | seal | key | nonce |
//! | --- | --- | --- |
//! | origin | one for all frames from a device to another | `salt[0..12]` |
//! | header | one for all frames of a chain | `salt[0..12]` |
//! | body | `HKDF(salt, seed)`, first 32 bytes | `HKDF(salt, seed)`, last 12 |
//!
//! So two different frames with different `salt[0..12]` share no pair of key and nonce in any of the three, whatever
//! state their senders were in; and two with the same share that of the origin seal at least, if one device sent both to
//! the same other. The witness therefore keeps the first frame of each `salt[0..12]`, and fails on another one.
//!
//! ```
//! use sprag_tests::witness::Witness;
//! use sprag_tests::world::World;
//!
//! let mut world = World::new(7);
//! let (alice, _) = (world.join("alice"), world.join("bob"));
//! world.send(alice, "bob", b"hello");
//! world.settle();
//! let mut witness = Witness::default();
//! for envelope in world.envelopes().values() {
//!     witness.see(envelope);
//!     witness.see(envelope); // the same bytes again are no second message
//! }
//! assert_eq!(witness.frames(), world.envelopes().len());
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use sprag_wire::{Envelope, MessageFrame};

/// Every frame that was ever seen, by the nonce of its seals.
#[derive(Debug, Default)]
pub struct Witness {
    frames: BTreeMap<[u8; 12], Vec<u8>>,
}

impl Witness {
    /// Looks at an envelope that some state of some device handed out.
    ///
    /// # Panics
    /// If another message was sealed under the same nonce, or this is no envelope.
    pub fn see(&mut self, envelope: &[u8]) {
        if let Err(why) = self.judge(envelope) {
            panic!("{why}");
        }
    }

    fn judge(&mut self, envelope: &[u8]) -> Result<(), &'static str> {
        let envelope = Envelope::decode(envelope).map_err(|_| "no envelope")?;
        let frame = envelope.payload();
        let salt = MessageFrame::parse(frame).map_err(|_| "no frame")?.salt();
        let nonce = *salt.as_bytes().first_chunk().ok_or("no salt")?;
        let first = self.frames.entry(nonce).or_insert_with(|| frame.to_vec());
        if first == frame {
            Ok(())
        } else {
            Err("two messages under one key and nonce")
        }
    }

    /// How many different messages it saw.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn another_message_under_a_salt_that_was_seen_is_noticed() {
        let mut world = World::new(1);
        let alice = world.join("alice");
        world.join("bob");
        world.send(alice, "bob", b"one");
        world.settle();
        let mut witness = Witness::default();
        let envelope = world.envelopes().values().next().unwrap();
        witness.see(envelope);
        let envelope = Envelope::decode(envelope).unwrap();
        let mut frame = envelope.payload().to_vec();
        *frame.last_mut().unwrap() ^= 1;
        let other = Envelope::new(
            envelope.from().clone(),
            envelope.to().clone(),
            *envelope.id(),
            frame,
        );
        assert!(witness.judge(&other.encode()).is_err());
        assert!(witness.judge(b"nothing").is_err());
    }
}
