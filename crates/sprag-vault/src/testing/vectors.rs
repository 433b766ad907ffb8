//! The published vectors of `evlt/v1`, read in every way and written.

use std::io::Read;
use std::sync::Mutex;

use serde_json::Value;
use sprag_crypto::{Argon2Params, RecipientKey, RecipientPrivateKey, sha256};

use super::{Replay, TestKms, bytes32, hex, pattern, rng, stream, vectors};
use crate::slot::Slot;
use crate::{
    ChunkSize, Context, DataKey, Header, OpenReader, Opener, PassphraseLimits, Recipient, Sealer,
    Sealing, SeekError, SeekReader, Suite, Unlock, open, reseal, seal,
};

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// An id is text, or `hex:` and what is no text.
fn id(text: &str) -> Vec<u8> {
    text.strip_prefix("hex:").map_or_else(
        || text.as_bytes().to_vec(),
        |digits| hex::decode(digits).unwrap(),
    )
}

fn context(case: &Value) -> Context {
    Context::from_bytes(hex(&case["context"]))
}

fn plaintext(case: &Value) -> Vec<u8> {
    match case["plaintext"].as_str().unwrap() {
        "byte i = i mod 251" => {
            pattern(usize::try_from(case["plaintext_len"].as_u64().unwrap()).unwrap())
        }
        _ => hex(&case["plaintext"]),
    }
}

fn suite(case: &Value) -> Suite {
    Suite::from_byte(u8::try_from(case["suite"].as_u64().unwrap()).unwrap()).unwrap()
}

fn chunk_size(case: &Value) -> ChunkSize {
    ChunkSize::from_log2(u8::try_from(case["chunk_log2"].as_u64().unwrap()).unwrap()).unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

/// Runs `f` with what `open_with` says that the caller has, and checks what the key service was asked.
fn with_keys<T>(open_with: &Value, f: impl FnOnce(&Unlock<'_>) -> T) -> T {
    let asked = Mutex::default();
    let services: Vec<_> = open_with["kms"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, kek)| {
            let kek = (kek != "unreachable").then(|| bytes32(kek));
            let (iv, asked) = ([0; 12], &asked);
            (id(name), TestKms { kek, iv, asked })
        })
        .collect();
    let mut unlock = Unlock::new();
    for (name, key) in open_with["direct"].as_object().into_iter().flatten() {
        // A key of another length is none.
        if let Some(key) = DataKey::from_slice(&hex(key)) {
            unlock = unlock.direct(id(name), key);
        }
    }
    for (name, service) in &services {
        unlock = unlock.kms(name, service);
    }
    for (name, key) in open_with["hpke"].as_object().into_iter().flatten() {
        let key = RecipientPrivateKey::from_bytes(&bytes32(key)).unwrap();
        unlock = unlock.private_key(id(name), key);
    }
    if let Some(passphrase) = open_with["passphrase"].as_str() {
        unlock = unlock.passphrase(passphrase);
    }
    if let Some(limits) = open_with["limits"].as_object() {
        let limit = |name, format| limits.get(name).map_or(format, number);
        unlock = unlock.limits(PassphraseLimits::new(
            limit("kib", 1024 * 1024),
            limit("passes", 16),
            limit("lanes", 8),
        ));
    }
    let result = f(&unlock);
    if let Some(expected) = open_with["kms_asked"].as_array() {
        assert_eq!(
            serde_json::json!(*asked.lock().unwrap()),
            serde_json::json!(expected)
        );
    }
    result
}

/// Opens it whole, in pieces, through `Read`, and from the end.
fn check_opens(name: &str, blob: &[u8], open_with: &Value, context: &Context, text: &[u8]) {
    with_keys(open_with, |unlock| {
        assert_eq!(
            open(blob, unlock, context).unwrap().as_slice(),
            text,
            "{name}"
        );
    });
    with_keys(open_with, |unlock| {
        let piece = if blob.len() < 1000 { 1 } else { 4096 };
        let (out, ended) = stream(Opener::new(unlock, context), blob, piece);
        assert_eq!((out.as_slice(), ended), (text, Ok(())), "{name}");
    });
    with_keys(open_with, |unlock| {
        let mut out = Vec::new();
        OpenReader::new(blob, unlock, context)
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, text, "{name}");
    });
    with_keys(open_with, |unlock| {
        let mut reader = SeekReader::open(blob, unlock, context).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!(out, text, "{name}");
        assert_eq!(reader.payload_len().unwrap(), text.len() as u64, "{name}");
    });
    let header = Header::parse(blob).unwrap();
    assert_eq!(header.encode(), blob[..header.len()], "{name}");
    assert_eq!(
        header.payload_len(blob.len() as u64),
        Some(text.len() as u64),
        "{name}"
    );
}

fn slots(case: &Value) -> Vec<Slot> {
    let slot = |slot: &Value| {
        let kind = u8::try_from(slot[0].as_u64().unwrap()).unwrap();
        Slot::new(kind, &id(slot[1].as_str().unwrap()), hex(&slot[2]))
    };
    list(&case["slots"]).iter().map(slot).collect()
}

/// Writes the blob of a case over the slots that it gives, and checks it against what is published of it.
fn written(case: &Value, slots: Vec<Slot>) -> Vec<u8> {
    let key = DataKey::from_bytes(&bytes32(&case["dek"]));
    let recipients: Vec<_> = slots.into_iter().map(Recipient::slot).collect();
    let context = context(case);
    let mut sealing = Sealing::new(&key, &recipients)
        .context(&context)
        .suite(suite(case))
        .chunk_size(chunk_size(case));
    if case["flags"].as_u64() != Some(1) {
        sealing = sealing.without_context_hint();
    }
    let text = plaintext(case);
    let replay = || Replay(hex(&case["salt"]));
    let blob = seal(&text, &sealing, &mut replay()).unwrap();
    let mut sealer = Sealer::new(&sealing, &mut replay()).unwrap();
    let mut streamed = Vec::new();
    for mut input in text.chunks(1000) {
        while let Some(piece) = sealer.push(&mut input).unwrap() {
            streamed.extend_from_slice(piece);
        }
    }
    streamed.extend_from_slice(&sealer.finish().unwrap());
    assert_eq!(blob, streamed, "{}", case["name"]);
    blob
}

fn check_published(name: &str, blob: &[u8], case: &Value) {
    assert_eq!(
        blob.len() as u64,
        case["blob_len"].as_u64().unwrap(),
        "{name}"
    );
    assert_eq!(sha256(&[blob]), bytes32(&case["blob_sha256"]), "{name}");
    if !case["blob"].is_null() {
        assert_eq!(blob, hex(&case["blob"]), "{name}");
    }
    let header = Header::parse(blob).unwrap();
    if !case["commit"].is_null() {
        assert_eq!(header.core().commitment, bytes32(&case["commit"]), "{name}");
    }
    assert_eq!(*header.mac(), bytes32(&case["header_mac"]), "{name}");
}

#[test]
fn published_blobs_are_written_byte_for_byte_and_open() {
    let vectors = vectors();
    let cases = list(&vectors["evlt"]);
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let slot = Slot::new(0, case["slot"][1].as_str().unwrap().as_bytes(), Vec::new());
        let blob = written(case, vec![slot]);
        check_published(name, &blob, case);
        let keys = serde_json::json!({"direct": {"k1": case["dek"]}});
        check_opens(name, &blob, &keys, &context(case), &plaintext(case));
    }
}

#[test]
fn published_blobs_with_slots_of_every_type_are_written_byte_for_byte_and_open() {
    let vectors = vectors();
    let cases = list(&vectors["evlt_valid"]);
    assert!(cases.len() >= 33, "{}", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let blob = written(case, slots(case));
        check_published(name, &blob, case);
        for keys in list(&case["open_with"]) {
            check_opens(name, &blob, keys, &context(case), &plaintext(case));
        }
        if let Some(pairs) = case["context_pairs"].as_array() {
            let pairs = pairs
                .iter()
                .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
            assert_eq!(Context::from_pairs(pairs.rev()).unwrap(), context(case));
        }
    }
}

/// What made each slot, given to our writer with the same draws, makes it again. The encapsulated key of an HPKE slot cannot be
/// chosen, so there ours is opened instead.
#[test]
fn published_slots_are_written_byte_for_byte() {
    let vectors = vectors();
    let mut seen = [0; 4];
    for case in list(&vectors["evlt_valid"]) {
        for (slot, input) in slots(case).iter().zip(list(&case["slot_inputs"])) {
            let Some(key) = input["dek"]
                .as_str()
                .and_then(|key| DataKey::from_slice(&hex::decode(key).unwrap()))
            else {
                continue;
            };
            let asked = Mutex::default();
            let id = slot.id();
            let written = match slot.type_byte() {
                0 => Recipient::direct(id).to_slot(&key, &mut Replay(Vec::new())),
                1 => {
                    let (kek, iv) = (
                        Some(bytes32(&input["kek"])),
                        hex(&input["iv"]).try_into().unwrap(),
                    );
                    let kms = TestKms {
                        kek,
                        iv,
                        asked: &asked,
                    };
                    Recipient::kms(id, &kms).to_slot(&key, &mut Replay(Vec::new()))
                }
                2 => {
                    let public = RecipientKey::from_bytes(bytes32(&input["recipient_public"]));
                    let private =
                        RecipientPrivateKey::from_bytes(&bytes32(&input["recipient_private"]))
                            .unwrap();
                    assert_eq!(private.public_key(), public);
                    let ours = Recipient::key(id, public)
                        .to_slot(&key, &mut rng())
                        .unwrap();
                    for sealed in [&ours, slot] {
                        let opened = private.open(b"evlt/v1 slot", b"", sealed.body()).unwrap();
                        assert_eq!(opened.as_slice(), key.as_bytes());
                    }
                    Ok(slot.clone())
                }
                _ => {
                    let params = Argon2Params::new(
                        number(&input["kib"]),
                        number(&input["passes"]),
                        number(&input["lanes"]),
                    );
                    let mut draws = Replay([hex(&input["salt"]), hex(&input["nonce"])].concat());
                    Recipient::passphrase_with(
                        id,
                        input["passphrase"].as_str().unwrap(),
                        params.unwrap(),
                    )
                    .to_slot(&key, &mut draws)
                }
            };
            assert_eq!(&written.unwrap(), slot, "{}", case["name"]);
            seen[usize::from(slot.type_byte())] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count >= 5), "{seen:?}");
}

#[test]
fn published_resealed_headers_are_written_byte_for_byte_over_the_same_body() {
    let vectors = vectors();
    let cases = list(&vectors["evlt_reseal"]);
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (before, after) = (&case["before"], &case["after"]);
        let old = written(case, slots(before));
        check_published(name, &old, before);
        for keys in list(&before["open_with"]) {
            let kept: Vec<_> = slots(before)
                .into_iter()
                .filter(|slot| slots(after).contains(slot))
                .collect();
            let added = slots(after).into_iter().filter(|slot| !kept.contains(slot));
            let added: Vec<_> = added.map(Recipient::slot).collect();
            let context = context(case);
            let new = with_keys(keys, |unlock| {
                reseal(
                    &old,
                    unlock,
                    &context,
                    |slot| kept.contains(slot),
                    &added,
                    &mut Replay(Vec::new()),
                )
            });
            let new = new.unwrap();
            check_published(name, &new, after);
            let body = |blob: &[u8]| blob[Header::parse(blob).unwrap().len()..].to_vec();
            assert_eq!(body(&old), body(&new));
            assert_eq!(sha256(&[&body(&new)]), bytes32(&case["body_sha256"]));
            for keys in list(&after["open_with"]) {
                check_opens(name, &new, keys, &context, &plaintext(case));
            }
        }
        for keys in list(&before["open_with"]) {
            check_opens(name, &old, keys, &context(case), &plaintext(case));
        }
    }
}

#[test]
fn published_invalid_blobs_fail_with_the_error_they_name_and_release_what_they_say() {
    let vectors = vectors();
    let cases = list(&vectors["evlt_invalid"]);
    assert!(cases.len() >= 120, "{}", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (blob, context) = (hex(&case["blob"]), context(case));
        let (error, keys) = (case["error"].as_str().unwrap(), &case["open_with"]);
        with_keys(keys, |unlock| {
            assert_eq!(
                open(&blob, unlock, &context).unwrap_err().code(),
                error,
                "{name}"
            );
        });
        for piece in [1, 7, 4112, usize::MAX] {
            let (out, ended) = with_keys(keys, |unlock| {
                stream(Opener::new(unlock, &context), &blob, piece)
            });
            assert_eq!(
                ended.unwrap_err().code(),
                error,
                "{name} in pieces of {piece}"
            );
            let released = case["released"].as_u64().unwrap_or(0);
            assert_eq!(out.len() as u64, released, "{name} in pieces of {piece}");
            assert_eq!(out, pattern(out.len()));
        }
        let sought = with_keys(keys, |unlock| -> Result<(), SeekError> {
            let mut reader = SeekReader::open(&blob, unlock, &context)?;
            reader.payload_len()?;
            let mut out = [0; 4096];
            let mut position = 0;
            loop {
                match reader.read_at(position, &mut out)? {
                    0 => return Ok(()),
                    read => position += read as u64,
                }
            }
        });
        let Err(SeekError::Open(sought)) = sought else {
            panic!("{name} opened from the end");
        };
        // From the end, a chunk without its mark and one that is in its place by chance only cannot be told apart as well.
        let same = sought.code() == error || case["released"].is_u64();
        assert!(same, "{name} from the end: {}", sought.code());
    }
}
