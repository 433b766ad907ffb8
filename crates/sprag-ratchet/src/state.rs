//! The state of a session and the DH step that moves it (the protocol, §4.1 and §4.3 step 3).

use rand_core::CryptoRng;
use sprag_crypto::{
    Features, HandshakeParts, HandshakeSecret, Mode, PrivateKey, RatchetKey, RatchetKeyPair,
    SessionId, TranscriptHash,
};

use crate::chain::{ReceivingChain, SendingChain};
use crate::error::{DecryptError, StartError};
use crate::header_key::HeaderKey;
use crate::root_key::RootKey;

/// Older receiving chains whose header keys are kept (§10): with the current one as many late turns as a phone that
/// was off produces.
pub(crate) const OLD_CHAINS: usize = 5;

/// Which side of the handshake a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Opened the session.
    Initiator,
    /// Answered to it.
    Responder,
}

/// What never changes in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Constants {
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) features: Features,
    pub(crate) transcript: TranscriptHash,
    pub(crate) session: SessionId,
}

/// `DHs`. The public half is kept, not computed: a session is read and written with each message.
#[derive(Clone, Debug)]
pub(crate) struct OwnRatchetKey {
    pub(crate) private: PrivateKey,
    pub(crate) public: RatchetKey,
}

impl OwnRatchetKey {
    fn new(pair: &RatchetKeyPair) -> Self {
        Self {
            private: pair.private().clone(),
            public: *pair.public(),
        }
    }
}

/// `old`: the header keys of up to 5 earlier receiving chains, newest first. Their indices follow from `c`: the
/// newest is chain c − 2.
#[derive(Clone, Debug)]
pub(crate) struct OldChains {
    keys: [HeaderKey; OLD_CHAINS],
    len: usize,
}

impl OldChains {
    pub(crate) fn new() -> Self {
        Self {
            keys: core::array::from_fn(|_| HeaderKey::from_bytes(&[0; 32])),
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The header key of the chain `back` places before the newest old one.
    pub(crate) fn get(&self, back: usize) -> Option<&HeaderKey> {
        self.keys.get(..self.len)?.get(back)
    }

    /// Puts a chain in front; the oldest falls out if there are 5.
    pub(crate) fn push(&mut self, key: HeaderKey) {
        self.keys.rotate_right(1);
        if let Some(front) = self.keys.first_mut() {
            *front = key; // what was there, the oldest or zeros, is wiped
        }
        self.len = self.len.saturating_add(1).min(OLD_CHAINS);
    }
}

/// All that a session knows. Invariants, which records are checked against: there is a sending chain unless we are
/// the responder and `received` is 0; there is a receiving chain unless `received` is 0; `old` holds
/// min(5, received − 1) chains.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) constants: Constants,
    pub(crate) root: RootKey,
    pub(crate) own: OwnRatchetKey,
    pub(crate) sending: Option<SendingChain>,
    pub(crate) previous_length: u32,
    pub(crate) receiving: Option<ReceivingChain>,
    pub(crate) next_sending_header: HeaderKey,
    pub(crate) next_receiving_header: HeaderKey,
    /// `c`: how many receiving chains there were.
    pub(crate) received: u32,
    pub(crate) old: OldChains,
    /// How many skipped keys the caller stores.
    pub(crate) skipped: u32,
}

impl State {
    pub(crate) fn initiate(
        secret: HandshakeSecret,
        signed_pre_key: &RatchetKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Box<Self>, StartError> {
        let (constants, parts) = begin(Role::Initiator, secret)?;
        let pair = RatchetKeyPair::generate(rng);
        let shared = pair.agree(signed_pre_key.as_public_key())?;
        let (root, key, next_sending_header) = RootKey::from_bytes(&parts.sk).step(&shared);
        Ok(Box::new(Self {
            constants,
            root,
            own: OwnRatchetKey::new(&pair),
            sending: Some(SendingChain {
                key,
                next: 0,
                header_key: HeaderKey::from_bytes(&parts.hk_i),
            }),
            previous_length: 0,
            receiving: None,
            next_sending_header,
            next_receiving_header: HeaderKey::from_bytes(&parts.hk_r),
            received: 0,
            old: OldChains::new(),
            skipped: 0,
        }))
    }

    pub(crate) fn respond(
        secret: HandshakeSecret,
        signed_pre_key: &RatchetKeyPair,
    ) -> Result<Box<Self>, StartError> {
        let (constants, parts) = begin(Role::Responder, secret)?;
        Ok(Box::new(Self {
            constants,
            root: RootKey::from_bytes(&parts.sk),
            own: OwnRatchetKey::new(signed_pre_key),
            sending: None,
            previous_length: 0,
            receiving: None,
            next_sending_header: HeaderKey::from_bytes(&parts.hk_r),
            next_receiving_header: HeaderKey::from_bytes(&parts.hk_i),
            received: 0,
            old: OldChains::new(),
            skipped: 0,
        }))
    }

    /// `i_s`: the index of the sending chain. The initiator's first chain precedes all steps, the responder's comes
    /// with the first; each step makes one.
    pub(crate) fn sending_index(&self) -> Option<u32> {
        match self.constants.role {
            Role::Initiator => Some(self.received),
            Role::Responder => self.received.checked_sub(1),
        }
    }

    /// The DH step: `theirs` begins their next chain, a fresh key of ours the answer. Gives the index of the chain
    /// that fell out of `old`.
    pub(crate) fn step(
        &mut self,
        theirs: &RatchetKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Option<u32>, DecryptError> {
        let received = self
            .received
            .checked_add(1)
            .ok_or(DecryptError::Desynchronised)?;
        let shared = self.own.private.agree(theirs.as_public_key())?;

        let mut dropped = None;
        if let Some(current) = self.receiving.take() {
            if self.old.len() == OLD_CHAINS {
                dropped = self.received.checked_sub(6); // the current one is c − 1, the oldest c − 6
            }
            self.old.push(current.header_key);
        }
        let (root, key, next_header) = self.root.step(&shared);
        let header_key = core::mem::replace(&mut self.next_receiving_header, next_header);
        self.receiving = Some(ReceivingChain {
            key,
            next: 0,
            header_key,
        });
        self.received = received;

        self.previous_length = self.sending.as_ref().map_or(0, |chain| chain.next);
        let pair = RatchetKeyPair::generate(rng);
        let shared = pair.agree(theirs.as_public_key())?;
        let (root, key, next_header) = root.step(&shared);
        let header_key = core::mem::replace(&mut self.next_sending_header, next_header);
        self.sending = Some(SendingChain {
            key,
            next: 0,
            header_key,
        });
        self.root = root;
        self.own = OwnRatchetKey::new(&pair);
        Ok(dropped)
    }
}

fn begin(
    role: Role,
    secret: HandshakeSecret,
) -> Result<(Constants, Box<HandshakeParts>), StartError> {
    let parts = secret.into_parts();
    if parts.features.contains(Features::PQ_RATCHET) {
        return Err(StartError::Unsupported);
    }
    let constants = Constants {
        role,
        mode: parts.mode,
        features: parts.features,
        transcript: parts.transcript_hash,
        session: parts.session_id,
    };
    Ok((constants, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_chains_are_five_newest_first() {
        let mut old = OldChains::new();
        assert!(old.get(0).is_none());
        for n in 0..7 {
            old.push(HeaderKey::from_bytes(&[n; 32]));
        }
        assert_eq!(old.len(), 5);
        for (back, n) in [6, 5, 4, 3, 2].into_iter().enumerate() {
            assert_eq!(old.get(back).unwrap().as_bytes(), &[n; 32]);
        }
        assert!(old.get(5).is_none());
    }
}
