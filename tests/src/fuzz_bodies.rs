//! The bodies of the fuzz targets: what must hold for any bytes at all.
//!
//! `fuzz/fuzz_targets/` hands them bytes from libFuzzer; the tests below replay the corpus, and whatever the published
//! vectors contain, whole and mutilated. None may panic.

use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::{Attachment, Client, RecoveryKey, Report};
use sprag_crypto::{
    Features, HandshakeSecret, IdentityKey, KemPublicKey, Mode, RatchetKeyPair, Salt, SessionId,
    TranscriptHash, sha256,
};
use sprag_directory::{Directory, MemoryStorage, ServerEpoch};
use sprag_keys::{Key, KeyId, KeyRing, KeyVersion, RingSeal};
use sprag_ratchet::{
    DecryptError, EncryptedMessage, Limits, NoSkippedKeys, ReceivedMessage, SaltSource, Session,
};
use sprag_session::BackupRecord;
use sprag_wire::relay::{BundleQuery, BundleReply, ListQuery, ListReply, Lists, PreKeyUpload};
use sprag_wire::{
    Content, DeviceAddress, Envelope, FrameKind, Handshake, LinkRequest, MessageFrame,
    RatchetHeader, UnverifiedDeviceList, UnverifiedPreKeyBundle, UserId, unpad,
};
use sprag_x3dh::{DeviceList, KemPreKeyPair, OneTimePreKeyPair, PreKeyBundle, SignedPreKeyPair};

use crate::{memory_bodies, search_bodies, vault_bodies};

/// A body with its name, which is that of its target and of its corpus.
pub type Body = (&'static str, fn(&[u8]));

/// All of them.
pub const BODIES: &[Body] = &[
    ("decode_frame", decode_frame),
    ("decode_part", decode_part),
    ("decode_content", decode_content),
    ("decode_record", decode_record),
    ("decode_text", decode_text),
    ("backup", backup),
    ("serve", serve),
    ("verify", verify),
    ("receive", receive),
    ("converse", crate::model::converse),
    ("key_ring", key_ring),
    ("key_log", memory_bodies::key_log),
    ("vault_header", vault_bodies::vault_header),
    ("vault_open", vault_bodies::vault_open),
    ("vault_stream", vault_bodies::vault_stream),
    ("vault_legacy", vault_bodies::vault_legacy),
    ("vault_metadata", vault_bodies::vault_metadata),
    ("search_stored", search_bodies::search_stored),
    ("search_index", search_bodies::search_index),
    ("redact", search_bodies::redact),
];

/// A frame that decodes is the only encoding of what it says (The protocol, §2.2).
pub fn decode_frame(data: &[u8]) {
    let Ok(kind) = FrameKind::of(data) else {
        return;
    };
    match kind {
        FrameKind::Envelope => {
            if let Ok(envelope) = Envelope::decode(data) {
                assert_eq!(envelope.encode(), data);
            }
        }
        FrameKind::RatchetMessage | FrameKind::PreKeyMessage => {
            if let Ok(frame) = MessageFrame::parse(data) {
                let (salt, header) = (frame.salt(), frame.header());
                let again =
                    sprag_wire::encode_message(frame.handshake(), &salt, header, frame.body());
                assert_eq!(again, frame.sealed_prefix());
                assert_eq!([again.as_slice(), frame.origin()].concat(), data);
            }
        }
        FrameKind::PreKeyBundle => {
            if let Ok(bundle) = UnverifiedPreKeyBundle::decode(data) {
                assert_eq!(bundle.encode(), data);
                let _ = PreKeyBundle::verify(bundle);
            }
        }
        FrameKind::DeviceList => {
            if let Ok(list) = UnverifiedDeviceList::decode(data) {
                assert_eq!(list.frame(), data);
                let _ = DeviceList::verify(list);
            }
        }
        FrameKind::LinkRequest => {
            if let Ok(request) = LinkRequest::decode(data) {
                assert_eq!(request.encode().as_slice(), data);
            }
        }
        _ => {}
    }
}

/// So is what stands inside a frame.
pub fn decode_part(data: &[u8]) {
    if let Ok(handshake) = Handshake::decode(data) {
        assert_eq!(handshake.encode(), data);
    }
    if let Ok(header) = RatchetHeader::decode(data) {
        assert_eq!(header.encode().as_slice(), data);
    }
    if let Ok(attachment) = Attachment::from_bytes(data) {
        assert_eq!(attachment.to_bytes(), data);
    }
}

/// Content may grow, so only what we write ourselves is canonical (The protocol, §6).
pub fn decode_content(data: &[u8]) {
    let Ok(content) = Content::decode(unpad(data).unwrap_or(data)) else {
        return;
    };
    let _ = content.check_body(true);
    let _ = content.check_body(false);
    let once = content.encode();
    if let Ok(again) = Content::decode(&once) {
        assert_eq!(again.encode().as_slice(), once.as_slice());
    }
}

/// A record that reads is the one that would be written.
pub fn decode_record(data: &[u8]) {
    if let Ok(pair) = SignedPreKeyPair::from_record(data) {
        assert_eq!(pair.to_record().as_slice(), data);
    }
    if let Ok(pair) = OneTimePreKeyPair::from_record(data) {
        assert_eq!(pair.to_record().as_slice(), data);
    }
    if let Ok(pair) = KemPreKeyPair::from_record(data) {
        assert_eq!(pair.to_record().as_slice(), data);
    }
    // A session with bytes of its records overwritten.
    let records = world().receiver.to_records();
    let hot = mixed(&records.hot, data);
    let rest = data.get(records.hot.len()..).unwrap_or(&[]);
    let constants = mixed(&records.constants, rest);
    let rest = rest.get(records.constants.len()..).unwrap_or(&[]);
    let old_chains = mixed(&records.old_chains, rest);
    if let Ok(session) = Session::from_records(&constants, &hot, &old_chains) {
        let again = session.to_records();
        assert_eq!(again.constants.as_slice(), constants);
        assert_eq!(again.hot.as_slice(), hot);
        assert_eq!(again.old_chains.as_slice(), old_chains);
    }
}

/// A key ring, sealed or not, and the journal of a rotation: what reads is what would be written. As they stand, and over
/// ones that read.
pub fn key_ring(data: &[u8]) {
    let [ring, sealed, journal] = key_records();
    for bytes in [data.to_vec(), mixed(ring, data)] {
        if let Ok(ring) = KeyRing::from_bytes(&bytes) {
            assert_eq!(ring.to_bytes().as_slice(), bytes);
        }
    }
    for bytes in [data.to_vec(), mixed(journal, data)] {
        if let Some(again) = sprag_keys::reread_journal(&bytes) {
            assert_eq!(again, bytes);
        }
    }
    let key = Key::raw([1; 32]);
    let _ = RingSeal::open(data, &key);
    let changed = mixed(sealed, data);
    assert_eq!(RingSeal::open(&changed, &key).is_ok(), changed == *sealed);
}

/// A ring with a version in each state; the same sealed; a journal.
#[allow(clippy::expect_used, reason = "a test fails by panicking")]
fn key_records() -> &'static [Vec<u8>; 3] {
    static RECORDS: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let id = KeyId::new("main").expect("a name");
        let mut ring = KeyRing::new();
        ring.create(&id, &mut rng, 1).expect("a new name");
        ring.rotate(&id, &mut rng, 2).expect("a name");
        ring.rotate(&id, &mut rng, 3).expect("a name");
        let destroyed = ring.destroy(&id, KeyVersion::FIRST, 4);
        destroyed.expect("a retired version");
        let seal = RingSeal::new(&Key::raw([1; 32]), &mut rng).expect("a key");
        let sealed = seal.seal(&ring, &mut rng);
        let journal = hex::decode(JOURNAL).expect("hexadecimal");
        [ring.to_bytes().to_vec(), sealed, journal]
    })
}

/// A journal, from the golden test of sprag-keys.
const JOURNAL: &str = "53504b4a0103046d61696e00000007000000020000000000000005000000000000000400000000000000\
                       030000000000000001000000000000000901000378797a";

/// A backup's record, a report, a recovery key: what reads says again what it says, and two reports always compare.
pub fn backup(data: &[u8]) {
    if let Ok(record) = BackupRecord::decode(data) {
        let again = record.encode().map(|bytes| bytes.to_vec());
        assert_eq!(again.ok().as_deref(), Some(data));
    }
    let opener = Key::raw([7; 32]);
    let _ = Client::verify_backup(data, &opener).map(|summary| summary.contacts);
    // The hash at its end is no secret.
    if let Some((before, _)) = data.split_last_chunk::<32>() {
        let hashed = [before, &sha256(&[before])].concat();
        let _ = Client::verify_backup(&hashed, &opener);
    }
    let middle = data.len() / 2;
    let (a, b) = data.split_at(middle);
    let reports = [data, a, b].map(|bytes| {
        let report = Report::parse(bytes).ok();
        if let Some(report) = &report {
            assert_eq!(report.encode(), bytes);
        }
        let body = bytes.get(..bytes.len().saturating_sub(8)).unwrap_or(&[]);
        let checked = [body, &sha256(&[body])[..8]].concat();
        report.or_else(|| Report::parse(&checked).ok())
    });
    for one in reports.iter().flatten() {
        for other in reports.iter().flatten() {
            assert!(!one.diagnose(other).to_string().is_empty());
        }
    }
    if let Ok(text) = str::from_utf8(data)
        && let Ok(key) = RecoveryKey::from_text(text)
    {
        let again = RecoveryKey::from_text(&key.to_text());
        assert!(again.is_ok_and(|again| again.as_bytes() == key.as_bytes()));
    }
}

/// Texts that people type or scan.
pub fn decode_text(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(user) = UserId::new(text) {
        assert_eq!(user.as_str(), text);
    }
    if let Ok(address) = text.parse::<DeviceAddress>() {
        assert_eq!(address.to_string(), text);
    }
    if let Ok(request) = LinkRequest::from_text(text) {
        assert!(LinkRequest::decode(&request.encode()).is_ok());
    }
}

/// What clients and servers say to each other, and a server that is told it.
pub fn serve(data: &[u8]) {
    let _ = ListReply::decode(data);
    let _ = BundleReply::decode(data);
    let _ = ListQuery::decode(data);
    let _ = BundleQuery::decode(data);
    let _ = PreKeyUpload::decode(data);
    let _ = Lists::decode(data);
    let epoch = ServerEpoch::from_bytes([7; 16]);
    let Ok(directory) = Directory::open(MemoryStorage::default(), epoch) else {
        return;
    };
    let _ = directory.publish_lists(data);
    if let Ok(address) = "alice#1".parse::<DeviceAddress>() {
        let _ = directory.upload_pre_keys(&address, data);
    }
    let _ = directory.deliver(data);
    let _ = directory.lists(data);
    let _ = directory.bundles(data);
    if let Ok(user) = UserId::new("alice") {
        let _ = directory.get_object(&user, data);
        if directory.put_object(&user, data).is_ok() {
            // Now there is one, and nobody expected it.
            assert!(directory.put_object(&user, data).is_err());
        }
        let name = sha256(&[data]);
        if directory.put_blob(&user, &name, data).is_ok() {
            assert_eq!(directory.get_blob(&name).ok().as_deref(), Some(data));
        }
    }
}

/// Keys and signatures of strangers: 33 bytes, 64 bytes, message.
pub fn verify(data: &[u8]) {
    if let Ok(key) = KemPublicKey::from_bytes(data) {
        let _ = key.check();
    }
    let Some((key, rest)) = data.split_at_checked(33) else {
        return;
    };
    let Some((signature, message)) = rest.split_at_checked(64) else {
        return;
    };
    if let Ok(key) = IdentityKey::from_bytes(key) {
        let _ = key.verify(message, signature);
    }
}

/// A message opens if and only if no bit of it was turned. The bytes are laid over chain index, salt, header and body.
pub fn receive(data: &[u8]) {
    let World { receiver, message } = world();
    let genuine = [
        &message.chain_index.to_be_bytes(),
        message.salt.as_bytes().as_slice(),
        &message.header,
        &message.body,
    ]
    .concat();
    let received = mixed(&genuine, data);
    let intact = received == genuine;
    let opened = (|| {
        let (chain_index, rest) = received.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (header, body) = rest.split_at_checked(message.header.len())?;
        let (chain_index, salt) = (u32::from_be_bytes(*chain_index), Salt::from_bytes(*salt));
        let received = ReceivedMessage::new(chain_index, salt, header, body);
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        Some(receiver.decrypt(&received, &NoSkippedKeys, Limits::STRANGER, &mut rng))
    })();
    match opened {
        Some(Ok(decrypted)) => assert!(intact && decrypted.plaintext.as_slice() == PLAINTEXT),
        Some(Err(error)) => assert!(!intact && error != DecryptError::SkippedUnavailable),
        None => assert!(!intact),
    }
}

const PLAINTEXT: &[u8] = b"what the sender wrote";

struct World {
    receiver: Session,
    message: EncryptedMessage,
}

/// A receiver for whom a message is under way.
#[expect(clippy::expect_used, reason = "all inputs are constants")]
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let secret = || {
            let transcript = TranscriptHash::from_bytes([1; 32]);
            let id = SessionId::from_bytes([2; 16]);
            let features = Features::default();
            HandshakeSecret::derive(Mode::Pqxdh, features, transcript, id, &[3; 128])
        };
        let signed = RatchetKeyPair::generate(&mut rng);
        let sender = Session::initiate(secret(), signed.public(), &mut rng).expect("a fresh key");
        let receiver = Session::respond(secret(), signed).expect("features that are offered");
        let salt = SaltSource::Injected(Salt::from_bytes([4; 16]));
        let (_, message) = sender.encrypt(PLAINTEXT, salt).expect("a fresh chain");
        World { receiver, message }
    })
}

/// `base`, with `over` laid over it bit by bit as far as both go.
pub(crate) fn mixed(base: &[u8], over: &[u8]) -> Vec<u8> {
    let turns = over.iter().copied().chain(std::iter::repeat(0));
    base.iter()
        .zip(turns)
        .map(|(byte, turn)| byte ^ turn)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rand_core::Rng;
    use serde_json::Value;

    use super::*;

    /// Short, since `cargo xtask ci` runs it each time; libFuzzer has the patience.
    const ROUNDS: usize = 20_000;

    #[test]
    fn the_corpus_holds_no_surprise() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        for (name, body) in BODIES {
            let target = root.join("fuzz_targets").join(name).with_extension("rs");
            assert!(target.is_file(), "{name} has no target");
            let entries = fs::read_dir(root.join("corpus").join(name));
            for entry in entries.into_iter().flatten() {
                body(&fs::read(entry.unwrap().path()).unwrap());
            }
        }
        let targets = fs::read_dir(root.join("fuzz_targets")).unwrap();
        assert_eq!(targets.count(), BODIES.len(), "a target without a body");
    }

    #[test]
    fn nothing_panics_on_what_the_vectors_contain() {
        for (round, bytes) in vectors().iter().enumerate() {
            for (name, body) in BODIES {
                if has_turn(name, round) {
                    body(bytes);
                }
            }
        }
    }

    #[test]
    fn nothing_panics_on_mutilated_vectors_or_on_noise() {
        let seeds = vectors();
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        for round in 0..ROUNDS {
            let data = mutilated(&seeds, &mut rng);
            let (name, body) = BODIES[round % BODIES.len()];
            if has_turn(name, round / BODIES.len()) {
                body(&data);
            }
        }
    }

    #[test]
    fn one_turned_bit_closes_a_message() {
        let World { message, .. } = world();
        let length = 4 + 16 + message.header.len() + message.body.len();
        receive(&[]);
        for bit in 0..length * 8 {
            let mut turn = vec![0; length];
            turn[bit / 8] = 1 << (bit % 8);
            receive(&turn);
        }
    }

    /// A whole conversation takes a thousand times as long as a decoder, a stream of chunks a hundred times.
    fn has_turn(name: &str, round: usize) -> bool {
        match name {
            "converse" => round.is_multiple_of(100),
            "vault_stream" | "redact" | "search_index" => round.is_multiple_of(20),
            _ => true,
        }
    }

    /// Every byte string of the published vectors.
    fn vectors() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                collect(
                    &serde_json::from_slice(&fs::read(path).unwrap()).unwrap(),
                    &mut found,
                );
            }
        }
        found.sort();
        found.dedup();
        assert!(found.len() > 1000);
        found
    }

    fn collect(value: &Value, found: &mut Vec<Vec<u8>>) {
        match value {
            Value::String(text) => found.extend(hex::decode(text)),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
            _ => {}
        }
    }

    /// A seed, or noise, with some bytes changed, cut out or doubled.
    fn mutilated(seeds: &[Vec<u8>], rng: &mut ChaCha20Rng) -> Vec<u8> {
        let mut data = seeds[below(seeds.len(), rng)].clone();
        if below(8, rng) == 0 {
            data = vec![0; below(300, rng)];
            rng.fill_bytes(&mut data);
        }
        for _ in 0..below(4, rng) {
            if data.is_empty() {
                break;
            }
            let at = below(data.len(), rng);
            let end = at + below((data.len() - at).min(40), rng);
            match below(5, rng) {
                0 => data[at] ^= 1 << below(8, rng),
                1 => data[at] = u8::try_from(below(256, rng)).unwrap(),
                2 => data.truncate(at),
                3 => drop(data.drain(at..end)),
                _ => {
                    let piece = data[at..end].to_vec();
                    data.splice(at..at, piece);
                }
            }
        }
        data
    }

    fn below(limit: usize, rng: &mut ChaCha20Rng) -> usize {
        usize::try_from(rng.next_u64() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}
