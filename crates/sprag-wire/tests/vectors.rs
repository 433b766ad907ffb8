//! The published vectors that are about bytes alone: strict decoding, padding, lists, scannable codes.

use serde_json::Value;
use sprag_crypto::{Fingerprint, PublicKey, SafetyNumber};
use sprag_wire::{
    Content, DecodeError, DeviceAddress, Envelope, Handshake, LinkRequest, MessageFrame,
    RatchetHeader, ScannableFingerprint, UnverifiedDeviceList, UnverifiedPreKeyBundle,
    check_ratchet_message, padme, unpad,
};

fn vectors(name: &str) -> Value {
    let path = format!("{}/../../tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_default()).unwrap()
}

#[test]
fn every_decoding_vector_is_accepted_or_refused_as_published() {
    let vectors = vectors("sprag-1.json");
    let cases = vectors["decoding"].as_array().unwrap();
    assert_eq!(cases.len(), 70);
    for case in cases {
        let mut input = bytes(&case["bytes"]);
        input.resize(
            input.len() + case["zeros"].as_u64().unwrap_or(0) as usize,
            0,
        );
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
            "frame" | "message" => name(MessageFrame::parse(&input)),
            "link_text" => name(LinkRequest::from_text(
                std::str::from_utf8(&input).unwrap_or(""),
            )),
            "content" => Content::decode(&input)
                .map(|_| ())
                .map_err(|_| "BadContent"),
            "padded" => unpad(&input).map(|_| ()).map_err(|_| "BadContent"),
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
    for case in vectors("sprag-1.json")["primitives"]["padme"]
        .as_array()
        .unwrap()
    {
        let [length, padded] = [0, 1].map(|at| case[at].as_u64().unwrap() as usize);
        assert_eq!(padme(length), padded);
    }
}

#[test]
fn the_published_list_decodes_and_hashes_as_published() {
    let vectors = vectors("sprag-1.json");
    let case = &vectors["primitives"]["device_list"];
    let list = UnverifiedDeviceList::decode(&bytes(&case["list"])).unwrap();
    assert_eq!(list.user().as_str(), case["user"].as_str().unwrap());
    assert_eq!(list.epoch(), case["epoch"].as_u64().unwrap());
    assert_eq!(
        list.previous().unwrap().as_bytes().to_vec(),
        bytes(&case["previous"])
    );
    assert_eq!(list.hash().as_bytes().to_vec(), bytes(&case["lh"]));
    assert_eq!(
        list.devices().len(),
        case["entries"].as_array().unwrap().len()
    );
}

#[test]
fn scannable_codes_are_made_and_compared_as_published() {
    let vectors = vectors("fingerprints.json");
    let cases = vectors["cases"]
        .as_array()
        .or_else(|| vectors.as_array())
        .unwrap();
    let mut compared = 0;
    for case in cases {
        let (Some(iterations), Some(2)) = (case["iterations"].as_u64(), case["version"].as_u64())
        else {
            continue;
        };
        let half = |who: &str| {
            let key = PublicKey::from_bytes(&bytes(&case[format!("{who}_key")])).unwrap();
            Fingerprint::compute(iterations as u32, &bytes(&case[format!("{who}_id")]), &key)
                .unwrap()
        };
        let number = SafetyNumber::new(half("local"), half("remote"));
        let code = ScannableFingerprint::of(&number).encode();
        assert_eq!(hex::encode(&code), case["scannable"].as_str().unwrap());
        let other_side = SafetyNumber::new(half("remote"), half("local"));
        assert_eq!(ScannableFingerprint::compare(&other_side, &code), Ok(true));
        assert_eq!(ScannableFingerprint::compare(&number, &code), Ok(false));
        compared += 1;
    }
    assert!(compared > 0, "no case of version 2");
}
