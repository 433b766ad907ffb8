//! A session: encrypt and decrypt, both staged (the protocol, §4.3).

use core::fmt;

use rand_core::CryptoRng;
use sprag_crypto::{
    Features, HandshakeSecret, Mode, RatchetKey, RatchetKeyPair, Salt, SessionId, TranscriptHash,
    hmac,
};
use sprag_wire::RatchetHeader;
use zeroize::Zeroizing;

use crate::error::{DecryptError, EncryptError, StartError};
use crate::join::prefix;
use crate::message_key::{MessageKey, body_aad};
use crate::skipped::{Limits, MessageSeed, SkippedChanges, SkippedIndex, SkippedKey, SkippedKeys};
use crate::state::{Role, State};

/// One end of a Double Ratchet session with encrypted headers (the protocol, §4).
///
/// It is a value: [`encrypt`](Self::encrypt) and [`decrypt`](Self::decrypt) leave it as it is and give the next one.
/// Use each session for one step only, and store the next one before anything leaves the library: two messages from
/// one state stand at one position of the chain, and the peer reads only the first.
#[derive(Clone)]
pub struct Session(pub(crate) Box<State>);

impl Session {
    /// Starts the initiator's end. Draws 32 bytes, the ratchet key.
    ///
    /// # Errors
    ///
    /// [`StartError::Unsupported`] if the post-quantum ratchet is in force; [`StartError::InvalidKey`] if the DH with
    /// the signed prekey is all-zero.
    pub fn initiate(
        secret: HandshakeSecret,
        their_signed_pre_key: &RatchetKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, StartError> {
        State::initiate(secret, their_signed_pre_key, rng).map(Self)
    }

    /// Starts the responder's end with the signed prekey that the initiator used. It cannot encrypt before it has
    /// decrypted.
    ///
    /// # Errors
    ///
    /// [`StartError::Unsupported`] if the post-quantum ratchet is in force.
    pub fn respond(
        secret: HandshakeSecret,
        signed_pre_key: RatchetKeyPair,
    ) -> Result<Self, StartError> {
        State::respond(secret, &signed_pre_key).map(Self)
    }

    /// `SID`: names the session.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.0.constants.session
    }

    /// `TH`: the session's associated data.
    #[must_use]
    pub fn transcript_hash(&self) -> TranscriptHash {
        self.0.constants.transcript
    }

    /// Which side we are.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.constants.role
    }

    /// The mode of the handshake.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.constants.mode
    }

    /// `C`: the features in force.
    #[must_use]
    pub fn features(&self) -> Features {
        self.0.constants.features
    }

    /// How many skipped keys the caller stores for this session.
    #[must_use]
    pub fn skipped_count(&self) -> u32 {
        self.0.skipped
    }

    /// Encrypts one padded content `plaintext` (§6; 1 ..= 2^20 bytes, which the caller has checked).
    ///
    /// # Errors
    ///
    /// [`EncryptError::NoSendingChain`] for a responder that has read nothing yet; [`EncryptError::ChainExhausted`]
    /// after 2^32 − 1 messages on one chain.
    pub fn encrypt(
        &self,
        plaintext: &[u8],
        salt: SaltSource<'_>,
    ) -> Result<(Self, EncryptedMessage), EncryptError> {
        let mut next = self.clone();
        let state = &mut *next.0;
        let (Some(chain_index), Some(chain)) = (state.sending_index(), state.sending.as_mut())
        else {
            return Err(EncryptError::NoSendingChain);
        };
        let number = chain.next;
        chain.next = number.checked_add(1).ok_or(EncryptError::ChainExhausted)?;
        let seed = chain.key.advance();
        let salt = salt.draw(&seed, plaintext);

        let transcript = &state.constants.transcript;
        let header = RatchetHeader::new(state.own.public, state.previous_length, number);
        let header = chain.header_key.seal(&header, &salt, transcript);
        let body = MessageKey::derive(seed, salt.as_bytes())
            .seal(&body_aad(&salt, &header, transcript), plaintext);
        let message = EncryptedMessage {
            salt,
            header,
            body,
            chain_index,
            number,
        };
        Ok((next, message))
    }

    /// Decrypts one message whose origin has opened (§5). Draws 32 bytes, the next ratchet key, if the message begins
    /// a chain and its header opens (also if its body then does not).
    ///
    /// `skipped` is asked only for what is needed: one seed for a late message, the oldest places when the limit is
    /// passed, the places of a chain that is dropped.
    ///
    /// # Errors
    ///
    /// In the order of §4.3, where each variant of [`DecryptError`] is explained. Nothing has changed then.
    pub fn decrypt(
        &self,
        message: &ReceivedMessage<'_>,
        skipped: &dyn SkippedKeys,
        limits: Limits,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Decrypted, DecryptError> {
        // 1. Which chain, and so which header key.
        let state = &*self.0;
        let chain_index = message.chain_index;
        let back = state
            .received
            .checked_sub(chain_index)
            .ok_or(DecryptError::Desynchronised)?;
        let place = Place::of(back).ok_or(DecryptError::Duplicate)?;
        let header_key = match place {
            Place::Next => Some(&state.next_receiving_header),
            Place::Current => state.receiving.as_ref().map(|chain| &chain.header_key),
            Place::Old(back) => state.old.get(back),
        }
        .ok_or(DecryptError::Duplicate)?; // by the invariants of `State` there is one

        // 2. The header.
        let transcript = &state.constants.transcript;
        let header = header_key
            .open(message.header, &message.salt, transcript)
            .ok_or(DecryptError::Unreadable)?;
        let number = header.message_number;
        let at = SkippedIndex::new(chain_index, number);

        // 3. and 4. The seed, on a copy.
        let mut next = self.clone();
        let mut moved = Moved::default();
        let seed = match place {
            Place::Next => {
                moved.drain(&mut next.0, &header, limits)?;
                moved.dropped = next.0.step(&header.ratchet_key, rng)?;
                moved.ahead(&mut next.0, at, limits)?
            }
            Place::Current
                if state
                    .receiving
                    .as_ref()
                    .is_some_and(|chain| number >= chain.next) =>
            {
                moved.ahead(&mut next.0, at, limits)?
            }
            Place::Current | Place::Old(_) => moved.take(&next.0, at, skipped)?,
        };

        // 6. The body.
        let aad = body_aad(&message.salt, message.header, transcript);
        let plaintext = MessageKey::derive(seed, message.salt.as_bytes())
            .open(&aad, message.body)
            .map_err(|_| DecryptError::Unreadable)?;

        // 7. It is authentic: what becomes of the skipped keys.
        let changes = moved.settle(&mut next.0, skipped, limits)?;
        Ok(Decrypted {
            session: next,
            plaintext,
            skipped: changes,
            stepped: matches!(place, Place::Next),
            number,
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Where the salt of a message comes from (§4.3). It must never repeat by fork, clone or rollback.
#[non_exhaustive]
pub enum SaltSource<'a> {
    /// `HMAC(seed, x ‖ P)[0..16]` with 32 random bytes x: as good as the generator, and still different for different
    /// plaintexts if the generator repeats itself. Use this one.
    Hedged(&'a mut dyn CryptoRng),
    /// This salt. **Hazardous**: for published vectors only, which inject it below the hedge. Reusing a salt at a
    /// position of a chain reuses a key with its nonce.
    Injected(Salt),
}

impl SaltSource<'_> {
    fn draw(self, seed: &MessageSeed, plaintext: &[u8]) -> Salt {
        match self {
            Self::Injected(salt) => salt,
            Self::Hedged(rng) => {
                let mut x = Zeroizing::new([0; 32]);
                rng.fill_bytes(x.as_mut_slice());
                let mac = hmac(seed.as_bytes(), &[x.as_slice(), plaintext]);
                Salt::from_bytes(prefix(mac.as_slice()))
            }
        }
    }
}

impl fmt::Debug for SaltSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hedged(_) => "Hedged(..)",
            Self::Injected(_) => "Injected(..)",
        })
    }
}

/// An encrypted message, to be framed (§2.1) and sealed with the [`OriginKey`](crate::OriginKey).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct EncryptedMessage {
    /// 16 bytes.
    pub salt: Salt,
    /// The sealed header, 61 bytes.
    pub header: Vec<u8>,
    /// The sealed body, 16 bytes longer than the plaintext.
    pub body: Vec<u8>,
    /// Index of the sending chain, for the origin seal.
    pub chain_index: u32,
    /// Its number in that chain, for a log: it stands sealed in the header.
    pub number: u32,
}

/// A message as it arrived, its origin opened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ReceivedMessage<'a> {
    /// Index of the chain, from the origin seal.
    pub chain_index: u32,
    /// 16 bytes.
    pub salt: Salt,
    /// The sealed header.
    pub header: &'a [u8],
    /// The sealed body.
    pub body: &'a [u8],
}

impl<'a> ReceivedMessage<'a> {
    /// Puts the parts together.
    #[must_use]
    pub const fn new(chain_index: u32, salt: Salt, header: &'a [u8], body: &'a [u8]) -> Self {
        Self {
            chain_index,
            salt,
            header,
            body,
        }
    }
}

/// A message that opened. Store `session` and `skipped` in one batch, then use `plaintext`.
#[non_exhaustive]
#[must_use]
pub struct Decrypted {
    /// The next session.
    pub session: Session,
    /// The padded content.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// What changed among the skipped keys.
    pub skipped: SkippedChanges,
    /// Whether the message began a chain. Only then does the record of old chains change.
    pub stepped: bool,
    /// The message's number in its chain.
    pub number: u32,
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted").finish_non_exhaustive()
    }
}

/// Which receiving chain a message is on, seen from the current state.
#[derive(Clone, Copy)]
enum Place {
    Next,
    Current,
    /// So many places before the newest old chain.
    Old(usize),
}

impl Place {
    /// The chain with index c − `back`; `None` for chains given up long ago.
    const fn of(back: u32) -> Option<Self> {
        match back {
            0 => Some(Self::Next),
            1 => Some(Self::Current),
            2 => Some(Self::Old(0)),
            3 => Some(Self::Old(1)),
            4 => Some(Self::Old(2)),
            5 => Some(Self::Old(3)),
            6 => Some(Self::Old(4)),
            _ => None,
        }
    }
}

/// What one message moves among the skipped keys.
#[derive(Default)]
struct Moved {
    stored: Vec<SkippedKey>,
    taken: Option<SkippedIndex>,
    dropped: Option<u32>,
}

impl Moved {
    /// Skips the current chain up to PN. Leaves room for what the new chain will store: older keys would be the first
    /// to go.
    fn drain(
        &mut self,
        state: &mut State,
        header: &RatchetHeader,
        limits: Limits,
    ) -> Result<(), DecryptError> {
        let (Some(current), Some(index)) =
            (state.receiving.as_mut(), state.received.checked_sub(1))
        else {
            return Ok(()); // c = 0
        };
        let end = header.previous_chain_length;
        let gap = current.gap(end);
        if gap > limits.max_skip {
            return Err(DecryptError::TooFarAhead);
        }
        let ahead = count(header.message_number).min(limits.max_stored);
        let keep = limits.max_stored.saturating_sub(ahead);
        self.stored
            .reserve_exact(count(gap).min(keep).saturating_add(ahead));
        current.skip(index, end, keep, &mut self.stored);
        Ok(())
    }

    /// Skips the current chain up to the message and takes its seed.
    fn ahead(
        &mut self,
        state: &mut State,
        at: SkippedIndex,
        limits: Limits,
    ) -> Result<MessageSeed, DecryptError> {
        let chain = state.receiving.as_mut().ok_or(DecryptError::Unreadable)?;
        let gap = chain.gap(at.number);
        if gap > limits.max_skip {
            return Err(DecryptError::TooFarAhead);
        }
        self.stored.reserve_exact(count(gap).min(limits.max_stored));
        chain.skip(at.chain, at.number, limits.max_stored, &mut self.stored);
        chain.take_next().ok_or(DecryptError::Unreadable) // N = 2^32 − 1 is never sent
    }

    /// Takes a skipped key.
    fn take(
        &mut self,
        state: &State,
        at: SkippedIndex,
        skipped: &dyn SkippedKeys,
    ) -> Result<MessageSeed, DecryptError> {
        if state.skipped == 0 {
            return Err(DecryptError::Duplicate);
        }
        self.taken = Some(at);
        skipped.seed(at)?.ok_or(DecryptError::Duplicate)
    }

    /// What to store and to delete. Dropping the old chain first and the longest stored last gives what one-by-one
    /// storing gives, because the dropped chain holds the longest stored.
    fn settle(
        self,
        state: &mut State,
        skipped: &dyn SkippedKeys,
        limits: Limits,
    ) -> Result<SkippedChanges, DecryptError> {
        let mut held = count(state.skipped);
        let mut deleted: Vec<SkippedIndex> = self.taken.into_iter().collect();
        if let Some(chain) = self.dropped.filter(|_| held > 0) {
            deleted = skipped.of_chain(chain)?;
        }
        held = held
            .checked_sub(deleted.len())
            .ok_or(DecryptError::SkippedUnavailable)?;
        let all = held.saturating_add(self.stored.len());
        if !self.stored.is_empty() && all > limits.max_stored {
            let excess = all.saturating_sub(limits.max_stored).min(held);
            if excess > 0 {
                let wanted = deleted.len().saturating_add(excess);
                let oldest = skipped.oldest(wanted)?;
                if oldest.len() != wanted || !oldest.starts_with(&deleted) {
                    return Err(DecryptError::SkippedUnavailable);
                }
                deleted = oldest;
                held = held.saturating_sub(excess);
            }
        }
        held = held.saturating_add(self.stored.len());
        state.skipped = u32::try_from(held).map_err(|_| DecryptError::SkippedUnavailable)?;
        Ok(SkippedChanges {
            stored: self.stored,
            deleted,
        })
    }
}

/// A count of messages as a count of keys.
fn count(messages: u32) -> usize {
    usize::try_from(messages).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skipped::NoSkippedKeys;
    use crate::testing::{MemorySkipped, advance_sender, pair, received, rng, secret};
    use sprag_crypto::PublicKey;

    const LIMITS: Limits = Limits::ACCEPTED;

    fn send(session: &mut Session, text: &[u8], rng: &mut impl CryptoRng) -> EncryptedMessage {
        let (next, message) = session.encrypt(text, SaltSource::Hedged(rng)).unwrap();
        *session = next;
        message
    }

    fn read(
        session: &mut Session,
        skipped: &mut MemorySkipped,
        message: &EncryptedMessage,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, DecryptError> {
        let decrypted = session.decrypt(&received(message), skipped, LIMITS, rng)?;
        let plaintext = decrypted.plaintext.to_vec();
        skipped.commit(session, decrypted);
        Ok(plaintext)
    }

    #[test]
    fn messages_go_both_ways_and_each_turn_begins_a_chain() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        for turn in 0..20_u32 {
            let (from, to) = if turn % 2 == 0 {
                (&mut alice, &mut bob)
            } else {
                (&mut bob, &mut alice)
            };
            for n in 0..3 {
                let message = send(from, b"text", &mut rng);
                assert_eq!(message.chain_index, turn / 2);
                assert_eq!(message.header.len(), 61);
                assert_eq!(message.body.len(), 20);
                let decrypted = to
                    .decrypt(&received(&message), &NoSkippedKeys, LIMITS, &mut rng)
                    .unwrap();
                assert_eq!(decrypted.stepped, n == 0);
                assert!(decrypted.skipped.is_empty());
                assert_eq!(decrypted.plaintext.as_slice(), b"text");
                *to = decrypted.session;
            }
        }
    }

    #[test]
    fn a_responder_that_has_read_nothing_cannot_send() {
        let (_, bob) = pair(&mut rng(1));
        let result = bob.encrypt(b"text", SaltSource::Hedged(&mut rng(2)));
        assert_eq!(result.unwrap_err(), EncryptError::NoSendingChain);
    }

    #[test]
    fn the_last_number_of_a_chain_is_never_sent() {
        let (mut alice, _) = pair(&mut rng(1));
        alice.0.sending.as_mut().unwrap().next = u32::MAX - 1;
        let last = send(&mut alice, b"text", &mut rng(2));
        assert_eq!(last.chain_index, 0);
        let result = alice.encrypt(b"text", SaltSource::Hedged(&mut rng(2)));
        assert_eq!(result.unwrap_err(), EncryptError::ChainExhausted);
    }

    #[test]
    fn the_number_that_is_never_sent_is_unreadable() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let first = send(&mut alice, b"text", &mut rng);
        read(&mut bob, &mut skipped, &first, &mut rng).unwrap();
        bob.0.receiving.as_mut().unwrap().next = u32::MAX;
        let header = RatchetHeader::new(alice.0.own.public, 0, u32::MAX);
        let (salt, key) = (first.salt, &alice.0.sending.as_ref().unwrap().header_key);
        let forged = key.seal(&header, &salt, &alice.transcript_hash());
        let message = ReceivedMessage::new(0, salt, &forged, &first.body);
        let result = bob.decrypt(&message, &skipped, LIMITS, &mut rng);
        assert_eq!(result.unwrap_err(), DecryptError::Unreadable);
    }

    #[test]
    fn a_salt_is_another_one_for_another_plaintext_even_if_the_generator_repeats_itself() {
        let (alice, _) = pair(&mut rng(1));
        let salt = |text, seed| {
            let source = SaltSource::Hedged(&mut rng(seed));
            alice.encrypt(text, source).unwrap().1.salt
        };
        assert_eq!(salt(b"text", 7), salt(b"text", 7));
        assert_ne!(salt(b"text", 7), salt(b"tex7", 7));
        assert_ne!(salt(b"text", 7), salt(b"text", 8));
    }

    #[test]
    fn a_session_with_the_post_quantum_ratchet_is_refused() {
        let mut rng = rng(1);
        let signed = RatchetKeyPair::generate(&mut rng);
        let initiated = Session::initiate(secret(Features::PQ_RATCHET), signed.public(), &mut rng);
        assert_eq!(initiated.unwrap_err(), StartError::Unsupported);
        let responded = Session::respond(secret(Features::PQ_RATCHET), signed);
        assert_eq!(responded.unwrap_err(), StartError::Unsupported);
    }

    fn small_order() -> RatchetKey {
        let mut zero = [0; 33];
        zero[0] = 5;
        RatchetKey::from(PublicKey::from_bytes(&zero).unwrap())
    }

    #[test]
    fn a_signed_prekey_of_small_order_is_refused() {
        let secret = secret(Features::default());
        let result = Session::initiate(secret, &small_order(), &mut rng(1));
        assert_eq!(result.unwrap_err(), StartError::InvalidKey);
    }

    /// A generator that must not be asked.
    fn untouched(rng: &rand_chacha::ChaCha20Rng, seed: u64) -> bool {
        *rng == crate::testing::rng(seed)
    }

    #[test]
    fn a_ratchet_key_of_small_order_is_an_invalid_key_and_draws_nothing() {
        let (mut alice, bob) = pair(&mut rng(1));
        alice.0.own.public = small_order();
        let message = send(&mut alice, b"text", &mut rng(2));
        let mut draws = rng(3);
        let result = bob.decrypt(&received(&message), &NoSkippedKeys, LIMITS, &mut draws);
        assert_eq!(result.unwrap_err(), DecryptError::InvalidKey);
        assert!(untouched(&draws, 3));
    }

    #[test]
    fn the_ratchet_key_of_a_message_that_begins_no_chain_is_not_looked_at() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let first = send(&mut alice, b"text", &mut rng);
        read(&mut bob, &mut skipped, &first, &mut rng).unwrap();
        alice.0.own.public = small_order();
        let second = send(&mut alice, b"next", &mut rng);
        assert_eq!(
            read(&mut bob, &mut skipped, &second, &mut rng).unwrap(),
            b"next"
        );
    }

    #[test]
    fn a_step_whose_body_does_not_open_draws_its_key_and_changes_nothing() {
        let (mut alice, bob) = pair(&mut rng(1));
        let mut message = send(&mut alice, b"text", &mut rng(2));
        let good = message.clone();
        message.body[3] ^= 1;
        let before = bob.to_records();
        let mut draws = rng(3);
        let result = bob.decrypt(&received(&message), &NoSkippedKeys, LIMITS, &mut draws);
        assert_eq!(result.unwrap_err(), DecryptError::Unreadable);
        assert!(!untouched(&draws, 3));
        assert_eq!(before.hot, bob.to_records().hot);
        let opened = bob.decrypt(&received(&good), &NoSkippedKeys, LIMITS, &mut draws);
        assert_eq!(opened.unwrap().plaintext.as_slice(), b"text");
    }

    #[test]
    fn a_header_that_does_not_open_draws_nothing() {
        let (mut alice, bob) = pair(&mut rng(1));
        let mut message = send(&mut alice, b"text", &mut rng(2));
        message.header[3] ^= 1;
        let mut draws = rng(3);
        let result = bob.decrypt(&received(&message), &NoSkippedKeys, LIMITS, &mut draws);
        assert_eq!(result.unwrap_err(), DecryptError::Unreadable);
        assert!(untouched(&draws, 3));
    }

    #[test]
    fn the_wrong_chain_index_does_not_open() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let first = send(&mut alice, b"text", &mut rng);
        let claim = |bob: &Session, index| {
            let message = ReceivedMessage::new(index, first.salt, &first.header, &first.body);
            let mut draws = crate::testing::rng(3);
            bob.decrypt(&message, &NoSkippedKeys, LIMITS, &mut draws)
                .unwrap_err()
        };
        assert_eq!(claim(&bob, 1), DecryptError::Desynchronised);
        assert_eq!(claim(&bob, u32::MAX), DecryptError::Desynchronised);
        read(&mut bob, &mut skipped, &first, &mut rng).unwrap();
        assert_eq!(claim(&bob, 0), DecryptError::Duplicate);
        assert_eq!(claim(&bob, 1), DecryptError::Unreadable);
        assert_eq!(claim(&bob, 2), DecryptError::Desynchronised);
    }

    #[test]
    fn a_header_of_another_length_is_unreadable() {
        let (mut alice, bob) = pair(&mut rng(1));
        let message = send(&mut alice, b"text", &mut rng(2));
        for length in [0, 16, 60, 62, 115] {
            let mut header = message.header.clone();
            header.resize(length, 0);
            let message = ReceivedMessage::new(0, message.salt, &header, &message.body);
            let result = bob.decrypt(&message, &NoSkippedKeys, LIMITS, &mut rng(3));
            assert_eq!(result.unwrap_err(), DecryptError::Unreadable);
        }
    }

    #[test]
    fn a_late_message_opens_once_and_its_key_is_deleted() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let messages: Vec<_> = (0..5_u8)
            .map(|n| send(&mut alice, &[n], &mut rng))
            .collect();
        read(&mut bob, &mut skipped, &messages[4], &mut rng).unwrap();
        assert_eq!(bob.skipped_count(), 4);
        for n in [2_u8, 0, 3, 1] {
            let message = &messages[usize::from(n)];
            let plaintext = read(&mut bob, &mut skipped, message, &mut rng);
            assert_eq!(plaintext.unwrap(), [n]);
            let again = read(&mut bob, &mut skipped, message, &mut rng);
            assert_eq!(again, Err(DecryptError::Duplicate));
        }
        assert!(skipped.rows.is_empty());
    }

    #[test]
    fn a_late_message_that_does_not_open_keeps_its_key() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let late = send(&mut alice, b"late", &mut rng);
        let next = send(&mut alice, b"next", &mut rng);
        read(&mut bob, &mut skipped, &next, &mut rng).unwrap();
        let mut damaged = late.clone();
        damaged.body[0] ^= 1;
        let result = read(&mut bob, &mut skipped, &damaged, &mut rng);
        assert_eq!(result, Err(DecryptError::Unreadable));
        assert_eq!(
            read(&mut bob, &mut skipped, &late, &mut rng).unwrap(),
            b"late"
        );
    }

    #[test]
    fn a_store_that_cannot_tell_is_an_error_of_its_own_and_the_message_opens_later() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let late = send(&mut alice, b"late", &mut rng);
        let next = send(&mut alice, b"next", &mut rng);
        read(&mut bob, &mut skipped, &next, &mut rng).unwrap();
        skipped.broken = true;
        let result = read(&mut bob, &mut skipped, &late, &mut rng);
        assert_eq!(result, Err(DecryptError::SkippedUnavailable));
        skipped.broken = false;
        assert!(read(&mut bob, &mut skipped, &late, &mut rng).is_ok());
    }

    #[test]
    fn in_order_messages_do_not_ask_the_store() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let _lost = send(&mut alice, b"lost", &mut rng);
        let first = send(&mut alice, b"text", &mut rng);
        read(&mut bob, &mut skipped, &first, &mut rng).unwrap();
        skipped.broken = true;
        for _ in 0..5 {
            let message = send(&mut alice, b"text", &mut rng);
            read(&mut bob, &mut skipped, &message, &mut rng).unwrap();
        }
        let answer = send(&mut bob, b"text", &mut rng);
        let mut none = MemorySkipped {
            broken: true,
            ..MemorySkipped::default()
        };
        read(&mut alice, &mut none, &answer, &mut rng).unwrap();
    }

    #[test]
    fn a_jump_of_25_000_opens_and_one_more_is_too_far() {
        let mut rng = rng(1);
        let (mut alice, bob) = pair(&mut rng);
        advance_sender(&mut alice, 25_000);
        let far = send(&mut alice, b"far", &mut rng);
        let further = send(&mut alice, b"further", &mut rng);
        let mut draws = crate::testing::rng(3);
        let result = bob.decrypt(&received(&further), &NoSkippedKeys, LIMITS, &mut draws);
        assert_eq!(result.unwrap_err(), DecryptError::TooFarAhead);
        assert!(
            !untouched(&draws, 3),
            "the step draws before N is looked at"
        );
        let decrypted = bob
            .decrypt(&received(&far), &NoSkippedKeys, LIMITS, &mut rng)
            .unwrap();
        assert_eq!(decrypted.plaintext.as_slice(), b"far");
        let stored = &decrypted.skipped.stored;
        assert_eq!(stored.len(), 2_000);
        assert_eq!(stored.first().unwrap().number, 23_000);
        assert_eq!(stored.last().unwrap().number, 24_999);
        let next = decrypted.session;
        let opened = next.decrypt(&received(&further), &NoSkippedKeys, LIMITS, &mut rng);
        assert_eq!(opened.unwrap().plaintext.as_slice(), b"further");
    }

    #[test]
    fn a_stranger_jumps_256_and_no_further() {
        let mut rng = rng(1);
        let (mut alice, bob) = pair(&mut rng);
        advance_sender(&mut alice, 256);
        let far = send(&mut alice, b"far", &mut rng);
        let further = send(&mut alice, b"further", &mut rng);
        let decrypt = |message: &EncryptedMessage| {
            let mut draws = crate::testing::rng(3);
            bob.decrypt(
                &received(message),
                &NoSkippedKeys,
                Limits::STRANGER,
                &mut draws,
            )
        };
        assert_eq!(decrypt(&far).unwrap().skipped.stored.len(), 256);
        assert_eq!(decrypt(&further).unwrap_err(), DecryptError::TooFarAhead);
    }

    #[test]
    fn a_chain_that_was_too_long_is_too_far_ahead_and_draws_nothing() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let first = send(&mut alice, b"text", &mut rng);
        read(&mut bob, &mut skipped, &first, &mut rng).unwrap();
        advance_sender(&mut alice, 25_001);
        let answer = send(&mut bob, b"text", &mut rng);
        read(&mut alice, &mut MemorySkipped::default(), &answer, &mut rng).unwrap();
        let turn = send(&mut alice, b"text", &mut rng);
        let mut draws = crate::testing::rng(3);
        let result = bob.decrypt(&received(&turn), &skipped, LIMITS, &mut draws);
        assert_eq!(result.unwrap_err(), DecryptError::TooFarAhead);
        assert!(untouched(&draws, 3));
        // One fewer is the limit.
        alice.0.previous_length -= 1;
        let turn = send(&mut alice, b"text", &mut rng);
        assert!(read(&mut bob, &mut skipped, &turn, &mut rng).is_ok());
        assert_eq!(bob.skipped_count(), 2_000);
    }

    #[test]
    fn beyond_2_000_the_longest_stored_goes_first() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let mut skipped = MemorySkipped::default();
        let oldest = send(&mut alice, b"oldest", &mut rng);
        let second = send(&mut alice, b"second", &mut rng);
        advance_sender(&mut alice, 1_998);
        let message = send(&mut alice, b"text", &mut rng);
        read(&mut bob, &mut skipped, &message, &mut rng).unwrap();
        assert_eq!(bob.skipped_count(), 2_000);
        let lost = send(&mut alice, b"lost", &mut rng);
        let message = send(&mut alice, b"text", &mut rng);
        read(&mut bob, &mut skipped, &message, &mut rng).unwrap();
        assert_eq!(bob.skipped_count(), 2_000);
        let result = read(&mut bob, &mut skipped, &oldest, &mut rng);
        assert_eq!(result, Err(DecryptError::Duplicate));
        assert!(read(&mut bob, &mut skipped, &second, &mut rng).is_ok());
        assert!(read(&mut bob, &mut skipped, &lost, &mut rng).is_ok());
    }

    #[test]
    fn late_messages_of_five_old_chains_open_and_those_of_the_sixth_are_gone() {
        let mut rng = rng(1);
        let (mut alice, mut bob) = pair(&mut rng);
        let (mut at_alice, mut at_bob) = (MemorySkipped::default(), MemorySkipped::default());
        let mut late = Vec::new();
        for _ in 0..7 {
            late.push(send(&mut alice, b"late", &mut rng));
            let message = send(&mut alice, b"text", &mut rng);
            read(&mut bob, &mut at_bob, &message, &mut rng).unwrap();
            let answer = send(&mut bob, b"text", &mut rng);
            read(&mut alice, &mut at_alice, &answer, &mut rng).unwrap();
        }
        assert_eq!(bob.skipped_count(), 6, "the key of the first chain is gone");
        assert_eq!(bob.0.old.len(), 5);
        let result = read(&mut bob, &mut at_bob, &late[0], &mut rng);
        assert_eq!(result, Err(DecryptError::Duplicate));
        for message in &late[1..] {
            assert!(read(&mut bob, &mut at_bob, message, &mut rng).is_ok());
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let mut rng = rng(1);
        let (mut alice, bob) = pair(&mut rng);
        assert_eq!(format!("{alice:?}"), "Session { .. }");
        let message = send(&mut alice, b"text", &mut rng);
        let opened = bob.decrypt(&received(&message), &NoSkippedKeys, LIMITS, &mut rng);
        assert_eq!(format!("{:?}", opened.unwrap()), "Decrypted { .. }");
        assert_eq!(format!("{:?}", alice.to_records()), "SessionRecords { .. }");
        assert_eq!(format!("{:?}", alice.export()), "SessionState { .. }");
        let source = SaltSource::Injected(message.salt);
        assert_eq!(format!("{source:?}"), "Injected(..)");
    }
}
