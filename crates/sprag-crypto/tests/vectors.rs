//! The published vectors: `primitives` of `sprag-1.json` as far as they belong to this crate, and `fingerprints.json`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly, as tests do"
)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use sprag_crypto::{
    AccountKey, Fingerprint, IdentityKey, IdentityKeyPair, PrivateKey, PublicKey,
    SAFETY_ITERATIONS, SafetyNumber, hkdf, hmac, labels, sha256, xeddsa,
};

fn load(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn primitives() -> Value {
    load("sprag-1.json")["primitives"].take()
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(case, field)).unwrap()
}

fn array<const N: usize>(case: &Value, field: &str) -> [u8; N] {
    bytes(case, field).try_into().unwrap()
}

fn cases(value: &Value) -> &Vec<Value> {
    let cases = value.as_array().unwrap();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn xeddsa_signs_byte_for_byte() {
    for case in cases(&primitives()["xeddsa_sign"]) {
        let key = PrivateKey::from_bytes(&array(case, "private"));
        let message = bytes(case, "message");
        let signature = bytes(case, "signature");
        assert_eq!(key.public_key().as_bytes()[..], bytes(case, "public"));
        assert_eq!(
            xeddsa::sign(&key, &message, &array(case, "z"))[..],
            signature
        );
        let pair = IdentityKeyPair::from_private(key);
        assert_eq!(pair.public().verify(&message, &signature), Ok(()));
    }
}

#[test]
fn xeddsa_verifies_strictly() {
    for case in cases(&primitives()["xeddsa_verify"]) {
        let (message, signature) = (bytes(case, "message"), bytes(case, "signature"));
        let ok = case["ok"].as_bool().unwrap();
        let label = text(case, "label");
        let identity = IdentityKey::from_bytes(&bytes(case, "public")).unwrap();
        assert_eq!(identity.verify(&message, &signature).is_ok(), ok, "{label}");
        let account = AccountKey::from_bytes(&bytes(case, "public")).unwrap();
        assert_eq!(account.verify(&message, &signature).is_ok(), ok, "{label}");
    }
}

#[test]
fn device_list_is_signed_byte_for_byte() {
    let primitives = primitives();
    let case = &primitives["device_list"];
    let list = bytes(case, "list");
    let (signed, signature) = list.split_at(list.len() - 64);
    let message = [labels::DEVICE_LIST, signed].concat();
    let key = PrivateKey::from_bytes(&array(case, "account_private"));
    assert_eq!(
        xeddsa::sign(&key, &message, &array(case, "z"))[..],
        *signature
    );
    assert_eq!(
        xeddsa::verify(&key.public_key(), &message, signature),
        Ok(())
    );
    assert_eq!(sha256(&[signed])[..], bytes(case, "lh"));
}

#[test]
fn signed_message_of_prekeys_has_its_label() {
    for case in cases(&primitives()["signed_message"]) {
        let number = |field: &str| {
            u32::try_from(case[field].as_u64().unwrap())
                .unwrap()
                .to_be_bytes()
        };
        let kind = number("kind")[3];
        let parts = [
            labels::PREKEY,
            &[kind],
            &number("id"),
            &number("features"),
            &bytes(case, "key"),
        ];
        assert_eq!(parts.concat(), bytes(case, "message"));
    }
}

#[test]
fn root_step_chain_and_message_key_derive() {
    let primitives = primitives();
    let root = &primitives["kdf_rk"];
    let okm = hkdf::<96>(&bytes(root, "rk"), &bytes(root, "dh"), &[labels::RATCHET]);
    let parts = [bytes(root, "new_rk"), bytes(root, "ck"), bytes(root, "nhk")].concat();
    assert_eq!(okm[..], parts);

    let chain = &primitives["chain"];
    assert_eq!(hmac(&bytes(chain, "ck"), &[&[1]])[..], bytes(chain, "seed"));
    assert_eq!(
        hmac(&bytes(chain, "ck"), &[&[2]])[..],
        bytes(chain, "next_ck")
    );

    for case in cases(&primitives["message_key"]) {
        let salt = [bytes(case, "pq_key"), bytes(case, "salt")].concat();
        let okm = hkdf::<44>(&salt, &bytes(case, "seed"), &[labels::MESSAGE]);
        assert_eq!(okm[..], [bytes(case, "key"), bytes(case, "nonce")].concat());
    }

    let kid = &primitives["kid"];
    assert_eq!(
        hmac(&bytes(kid, "header_key"), &[labels::CHAIN])[..8],
        bytes(kid, "kid")
    );

    let link = &primitives["link_proof"];
    let proof = hmac(&bytes(link, "nonce"), &[labels::LINK, &bytes(link, "th")]);
    assert_eq!(proof[..], bytes(link, "proof"));
}

#[test]
fn origin_keys_derive_in_both_directions() {
    let primitives = primitives();
    let case = &primitives["origin_key"];
    let a = PrivateKey::from_bytes(&array(case, "private_a"));
    let b = PrivateKey::from_bytes(&array(case, "private_b"));
    let (id_a, id_b) = (bytes(case, "id_a"), bytes(case, "id_b"));
    assert_eq!(id_a[..33], a.public_key().as_bytes()[..]);
    assert_eq!(id_b[..33], b.public_key().as_bytes()[..]);
    for shared in [a.agree(&b.public_key()), b.agree(&a.public_key())] {
        let shared = shared.unwrap();
        let key = |from: &[u8], to: &[u8]| {
            hkdf::<32>(&[0; 32], shared.as_bytes(), &[labels::ORIGIN, from, to])
        };
        assert_eq!(key(&id_a, &id_b)[..], bytes(case, "a_to_b"));
        assert_eq!(key(&id_b, &id_a)[..], bytes(case, "b_to_a"));
    }
}

#[test]
fn safety_number_is_that_of_account_keys_and_user_ids() {
    let primitives = primitives();
    let case = &primitives["safety_number"];
    let party = |at: usize| {
        let key = hex::decode(case["account_keys"][at].as_str().unwrap()).unwrap();
        let user = case["users"][at].as_str().unwrap();
        let key = PublicKey::from_bytes(&key).unwrap();
        let fingerprint = Fingerprint::compute(SAFETY_ITERATIONS, user.as_bytes(), &key).unwrap();
        assert_eq!(
            hex::encode(fingerprint.as_bytes()),
            case["fingerprints"][at].as_str().unwrap()
        );
        fingerprint
    };
    assert_eq!(
        SafetyNumber::new(party(0), party(1)).digits(),
        text(case, "number")
    );
    assert_eq!(
        SafetyNumber::new(party(1), party(0)).digits(),
        text(case, "number")
    );
}

#[test]
fn fingerprints_display_and_scan() {
    for case in cases(&load("fingerprints.json")["cases"]) {
        let iterations = u32::try_from(case["iterations"].as_u64().unwrap()).unwrap();
        let party = |side: &str| {
            let key = PublicKey::from_bytes(&bytes(case, &format!("{side}_key"))).unwrap();
            let id = bytes(case, &format!("{side}_id"));
            let fingerprint = Fingerprint::compute(iterations, &id, &key).unwrap();
            assert_eq!(
                fingerprint.as_bytes()[..],
                bytes(case, &format!("{side}_fingerprint"))
            );
            assert_eq!(fingerprint.digits(), text(case, &format!("{side}_digits")));
            fingerprint
        };
        let (local, remote) = (party("local"), party("remote"));
        let number = SafetyNumber::new(local.clone(), remote.clone());
        assert_eq!(number.digits(), text(case, "display"));
        // The scannable form, decoded by sprag-wire, holds the first halves: ours are in it.
        let scannable = bytes(case, "scannable");
        for half in [local.scannable(), remote.scannable()] {
            assert!(scannable.windows(32).any(|window| window == half));
        }
        assert!(number.matches_scanned(&remote.scannable(), &local.scannable()));
        assert_eq!(
            number.matches_scanned(&local.scannable(), &remote.scannable()),
            local == remote
        );
    }
}
