//! The published vectors that are about bytes alone: strict decoding, padding, lists, scannable codes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the vectors are ours: where they do not fit the runner, it shall stop"
)]

use serde_json::Value;
use sprag_crypto::{AccountKey, Fingerprint, IdentityKey, PublicKey, SafetyNumber};
use sprag_wire::{
    Content, DecodeError, DeviceAddress, DeviceId, Envelope, Handshake, LinkRequest, ListHash,
    ListedDevice, MessageFrame, Padding, RatchetHeader, ScanError, ScannableFingerprint,
    UnverifiedDeviceList, UnverifiedPreKeyBundle, UserId, check_ratchet_message,
    encode_device_list, encode_message, pad, padme, unpad,
};

fn vectors(name: &str) -> Value {
    let path = format!("{}/../../tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Hex; a field that is absent is empty.
fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_default()).unwrap()
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap().try_into().unwrap()
}

#[test]
fn every_decoding_vector_is_accepted_or_refused_as_published() {
    let vectors = vectors("sprag-1.json");
    let cases = vectors["decoding"].as_array().unwrap();
    assert_eq!(cases.len(), 70);
    for case in cases {
        let mut input = bytes(&case["bytes"]);
        let zeros = case.get("zeros").map_or(0, size);
        input.resize(input.len() + zeros, 0);
        input.extend(bytes(&case["tail"]));
        let kind = case["as"].as_str().unwrap();
        let result: Result<(), &str> = match kind {
            "address" => name(DeviceAddress::decode(&input)),
            "handshake" => name(Handshake::decode(&input)),
            "header" => name(RatchetHeader::decode(&input)),
            "ratchet_message" => name(check_ratchet_message(&input)),
            "envelope" => name(Envelope::decode(&input)),
            "bundle" => name(UnverifiedPreKeyBundle::decode(&input)),
            "device_list" => name(UnverifiedDeviceList::decode(&input)),
            "link_request" => name(LinkRequest::decode(&input)),
            "frame" => name(MessageFrame::parse(&input)),
            other => panic!("unknown kind {other}"),
        };
        let expected = match case["ok"].as_bool().unwrap() {
            true => Ok(()),
            false => Err(case["error"].as_str().unwrap_or("Malformed")),
        };
        assert_eq!(result, expected, "{kind}: {}", case["note"]);
    }
}

fn name<T>(result: Result<T, DecodeError>) -> Result<(), &'static str> {
    match result {
        Ok(_) => Ok(()),
        Err(DecodeError::UnsupportedVersion) => Err("UnsupportedVersion"),
        Err(_) => Err("Malformed"),
    }
}

#[test]
fn lengths_are_padded_as_published() {
    let vectors = vectors("sprag-1.json");
    for case in vectors["primitives"]["padme"].as_array().unwrap() {
        let (length, padded) = (size(&case[0]), size(&case[1]));
        assert_eq!(padme(length), padded, "{length}");
        let plaintext = pad(&vec![0x80; length - 1], Padding::Padme);
        assert_eq!(plaintext.len(), padded);
        assert_eq!(unpad(&plaintext).unwrap(), vec![0x80; length - 1]);
    }
}

#[test]
fn contents_and_frames_of_all_conversations_decode() {
    let vectors = vectors("sprag-1.json");
    let conversations = vectors["conversations"].as_array().unwrap();
    let events = conversations
        .iter()
        .flat_map(|conversation| conversation["events"].as_array().unwrap());
    let (mut contents, mut frames) = (0, 0);
    for event in events.filter(|event| event["error"].is_null()) {
        if event["op"] == "receive" && event["content"].is_string() {
            let mut input = bytes(&event["content"]);
            input.resize(input.len() + event.get("zeros").map_or(0, size), 0);
            let content = Content::decode(&input).unwrap();
            let encoded = content.encode();
            let again = Content::decode(&encoded).unwrap();
            assert_eq!(again.encode(), encoded);
            contents += 1;
        }
        if event["op"] == "send" {
            let frame = bytes(&event["frame"]);
            let parsed = MessageFrame::parse(&frame).unwrap();
            let (salt, header) = (parsed.salt(), parsed.header());
            let mut made = encode_message(parsed.handshake(), &salt, header, parsed.body());
            assert_eq!(made, parsed.sealed_prefix());
            made.extend(parsed.origin());
            assert_eq!(made, frame);
            if let (Some(bytes), Some(handshake)) = (parsed.handshake(), parsed.parsed_handshake())
            {
                assert_eq!(handshake.encode(), bytes);
            }
            frames += 1;
        }
    }
    assert!(contents > 400 && frames > 400, "{contents} {frames}");
}

#[test]
fn the_published_list_is_made_read_and_hashed_as_published() {
    let vectors = vectors("sprag-1.json");
    let case = &vectors["primitives"]["device_list"];
    let frame = bytes(&case["list"]);
    let list = UnverifiedDeviceList::decode(&frame).unwrap();
    let entries: Vec<ListedDevice> = case["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let [device, flags] = [0, 2].map(|at| u32::try_from(size(&entry[at])).unwrap());
            let key = IdentityKey::from_bytes(&bytes(&entry[1])).unwrap();
            ListedDevice::new(DeviceId::new(device).unwrap(), key, flags)
        })
        .collect();
    let previous = ListHash::from_bytes(bytes(&case["previous"]).try_into().unwrap());
    assert_eq!(list.user().as_str(), case["user"].as_str().unwrap());
    assert_eq!(list.epoch(), case["epoch"].as_u64().unwrap());
    assert_eq!(list.previous(), Some(previous));
    assert_eq!(list.devices(), entries);
    assert_eq!(list.hash().as_bytes().to_vec(), bytes(&case["lh"]));

    let made = encode_device_list(
        &UserId::new(case["user"].as_str().unwrap()).unwrap(),
        &AccountKey::from_bytes(list.account_key().as_bytes()).unwrap(),
        2,
        Some(previous),
        &entries,
    );
    assert_eq!(made, list.signed_bytes());
    assert_eq!([made.as_slice(), list.signature()].concat(), frame);
}

#[test]
fn scannable_codes_are_made_and_compared_as_published() {
    let vectors = vectors("fingerprints.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let half = |who: &str| {
            let key = PublicKey::from_bytes(&bytes(&case[format!("{who}_key")])).unwrap();
            let iterations = u32::try_from(size(&case["iterations"])).unwrap();
            Fingerprint::compute(iterations, &bytes(&case[format!("{who}_id")]), &key).unwrap()
        };
        let number = SafetyNumber::new(half("local"), half("remote"));
        let other_side = SafetyNumber::new(half("remote"), half("local"));
        let (shown, peers) = (bytes(&case["scannable"]), bytes(&case["peer_scannable"]));
        match case["version"].as_u64().unwrap() {
            2 => {
                assert_eq!(ScannableFingerprint::of(&number).encode(), shown);
                assert_eq!(ScannableFingerprint::of(&other_side).encode(), peers);
                assert_eq!(ScannableFingerprint::compare(&number, &peers), Ok(true));
                assert_eq!(ScannableFingerprint::compare(&other_side, &shown), Ok(true));
                assert_eq!(ScannableFingerprint::compare(&number, &shown), Ok(false));
            }
            version => {
                let refused = ScannableFingerprint::compare(&number, &peers);
                assert!(
                    matches!(
                        refused,
                        Err(ScanError::VersionMismatch { theirs, ours: 2, .. })
                            if u64::from(theirs) == version
                    ),
                    "{refused:?}"
                );
            }
        }
    }
}
