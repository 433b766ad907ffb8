//! Two sessions and a network that loses, doubles, reorders and damages, against a model that follows the text of
//! §4.3 one step at a time.

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;

use super::{MemorySkipped, pair, received, rng};
use crate::{DecryptError, EncryptError, EncryptedMessage, Limits, SaltSource, Session};

#[derive(Debug, Clone)]
enum Op {
    Send(usize),
    /// Delivers one of the messages in flight; it stays in flight and may come again.
    Deliver(usize),
    Lose(usize),
    Damage(usize, usize),
    Restart(usize),
}

struct Message {
    from: usize,
    sealed: EncryptedMessage,
    plaintext: Vec<u8>,
    previous: u32,
    number: u32,
    opened: bool,
}

/// What §4.3 says about the receiver's counters, with all seeds stored and dropped one by one.
#[derive(Clone, Default)]
struct Model {
    chains: u32,
    next: u32,
    old: Vec<u32>,
    /// In the order stored.
    skipped: Vec<(u32, u32)>,
}

impl Model {
    fn receive(&mut self, message: &Message, limits: Limits) -> Result<(), DecryptError> {
        let (index, number) = (message.sealed.chain_index, message.number);
        if index > self.chains {
            return Err(DecryptError::Desynchronised);
        }
        if i64::from(index) < i64::from(self.chains) - 6 {
            return Err(DecryptError::Duplicate);
        }
        if index == self.chains {
            if self.chains > 0 {
                self.skip(message.previous, limits)?;
                self.old.push(self.chains - 1);
                if self.old.len() > 5 {
                    let lowest = self.old.remove(0);
                    self.skipped.retain(|(chain, _)| *chain != lowest);
                }
            }
            self.chains += 1;
            self.next = 0;
        }
        if index == self.chains - 1 && number >= self.next {
            self.skip(number, limits)?;
            self.next = number + 1;
            return Ok(());
        }
        let place = (index, number);
        let at = self.skipped.iter().position(|stored| *stored == place);
        self.skipped.remove(at.ok_or(DecryptError::Duplicate)?);
        Ok(())
    }

    fn skip(&mut self, number: u32, limits: Limits) -> Result<(), DecryptError> {
        if number <= self.next {
            return Ok(());
        }
        if number - self.next > limits.max_skip {
            return Err(DecryptError::TooFarAhead);
        }
        for number in self.next..number {
            self.skipped.push((self.chains - 1, number));
            while self.skipped.len() > limits.max_stored {
                self.skipped.remove(0);
            }
        }
        self.next = number;
        Ok(())
    }
}

struct World {
    rng: ChaCha20Rng,
    limits: Limits,
    ends: [Session; 2],
    skipped: [MemorySkipped; 2],
    models: [Model; 2],
    /// Per end: the chain it sends on, its length so far, the length of the one before.
    sending: [(Option<u32>, u32, u32); 2],
    network: Vec<Message>,
}

impl World {
    fn new(seed: u64, limits: Limits) -> Self {
        let mut rng = rng(seed);
        let (initiator, responder) = pair(&mut rng);
        Self {
            rng,
            limits,
            ends: [initiator, responder],
            skipped: Default::default(),
            models: Default::default(),
            sending: [(Some(0), 0, 0), (None, 0, 0)],
            network: Vec::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Send(from) => self.send(from),
            Op::Deliver(pick) => self.deliver(pick),
            Op::Lose(pick) if !self.network.is_empty() => {
                let pick = pick % self.network.len();
                self.network.swap_remove(pick);
            }
            Op::Damage(pick, at) => self.damage(pick, at),
            Op::Restart(end) => {
                let records = self.ends[end].to_records();
                self.ends[end] =
                    Session::from_records(&records.constants, &records.hot, &records.old_chains)
                        .unwrap();
            }
            Op::Lose(_) => {}
        }
    }

    fn send(&mut self, from: usize) {
        let mut plaintext = vec![0; 1 + self.network.len() % 40];
        self.rng_fill(&mut plaintext);
        let result = self.ends[from].encrypt(&plaintext, SaltSource::Hedged(&mut self.rng));
        let (chain, number, previous) = &mut self.sending[from];
        let Some(index) = *chain else {
            assert_eq!(result.unwrap_err(), EncryptError::NoSendingChain);
            return;
        };
        let (next, sealed) = result.unwrap();
        assert_eq!(sealed.chain_index, index);
        self.ends[from] = next;
        self.network.push(Message {
            from,
            sealed,
            plaintext,
            previous: *previous,
            number: *number,
            opened: false,
        });
        *number += 1;
    }

    fn deliver(&mut self, pick: usize) {
        if self.network.is_empty() {
            return;
        }
        let pick = pick % self.network.len();
        let message = &mut self.network[pick];
        let to = 1 - message.from;
        let mut model = self.models[to].clone();
        let expected = model.receive(message, self.limits);
        let before = self.ends[to].to_records();
        let result = self.ends[to].decrypt(
            &received(&message.sealed),
            &self.skipped[to],
            self.limits,
            &mut self.rng,
        );
        match (result, expected) {
            (Ok(decrypted), Ok(())) => {
                assert!(!message.opened, "opened twice");
                assert_eq!(*decrypted.plaintext, message.plaintext);
                message.opened = true;
                let stepped = model.chains > self.models[to].chains;
                assert_eq!(decrypted.stepped, stepped);
                if stepped {
                    let (chain, length, previous) = &mut self.sending[to];
                    *chain = Some(chain.map_or(0, |index| index + 1));
                    *previous = core::mem::take(length);
                } else {
                    let old = decrypted.session.to_records().old_chains;
                    assert_eq!(before.old_chains, old);
                }
                self.skipped[to].commit(&mut self.ends[to], decrypted);
                self.models[to] = model;
                let stored = self.skipped[to].rows.keys().map(|at| (at.chain, at.number));
                assert!(stored.eq(self.models[to].skipped.iter().copied()));
            }
            (Err(error), Err(expected)) => {
                assert_eq!(error, expected);
                let after = self.ends[to].to_records();
                assert_eq!(before.hot, after.hot);
                assert_eq!(before.old_chains, after.old_chains);
            }
            (result, expected) => panic!("{:?} instead of {expected:?}", result.err()),
        }
    }

    /// Delivers a copy with one bit changed.
    fn damage(&mut self, pick: usize, at: usize) {
        if self.network.is_empty() {
            return;
        }
        let message = &self.network[pick % self.network.len()];
        let to = 1 - message.from;
        let mut sealed = message.sealed.clone();
        let mut salt = *sealed.salt.as_bytes();
        let (header, body) = (sealed.header.len(), sealed.body.len());
        match at % (16 + header + body) {
            at if at < 16 => salt[at] ^= 1,
            at if at < 16 + header => sealed.header[at - 16] ^= 1,
            at => sealed.body[at - 16 - header] ^= 1,
        }
        sealed.salt = sprag_crypto::Salt::from_bytes(salt);
        let expected = self.models[to].clone().receive(message, self.limits);
        let result = self.ends[to].decrypt(
            &received(&sealed),
            &self.skipped[to],
            self.limits,
            &mut self.rng,
        );
        let error = result.unwrap_err();
        assert!(error == DecryptError::Unreadable || Err(error) == expected);
    }

    fn rng_fill(&mut self, bytes: &mut [u8]) {
        use rand_chacha::rand_core::Rng;
        self.rng.fill_bytes(bytes);
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..2_usize).prop_map(Op::Send),
        6 => any::<usize>().prop_map(Op::Deliver),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(pick, at)| Op::Damage(pick, at)),
        1 => (0..2_usize).prop_map(Op::Restart),
    ]
}

fn run(seed: u64, limits: Limits, ops: &[Op]) {
    let mut world = World::new(seed, limits);
    for op in ops {
        world.apply(op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_message_opens_at_most_once_and_a_refused_one_changes_nothing(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        run(seed, Limits::ACCEPTED, &ops);
    }

    #[test]
    fn tight_limits_give_what_storing_one_by_one_gives(
        seed in any::<u64>(),
        max_skip in 1..12_u32,
        max_stored in 1..12_usize,
        ops in prop::collection::vec(op(), 1..250),
    ) {
        run(seed, Limits { max_skip, max_stored }, &ops);
    }
}
