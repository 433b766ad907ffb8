//! The published vectors of prekeys, device lists and handshakes, byte for byte.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::VecDeque;
use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use sprag_crypto::{
    AccountKeyPair, Features, HandshakeSecret, IdentityKey, IdentityKeyPair, KemPrivateKey, Mode,
    PrivateKey, SessionId,
};
use sprag_wire::{
    DeviceAddress, DeviceId, HOLDER, Handshake, KemKind, KemPreKeyId, ListHash, ListedDevice,
    MessageFrame, OneTimePreKeyId, SignedPreKeyId, UnverifiedDeviceList, UnverifiedPreKeyBundle,
    UserId, id_bytes,
};
use sprag_x3dh::{
    DeviceList, HandshakeError, Initiated, Initiator, KemPreKeyPair, OneTimePreKeyPair,
    PreKeyBundle, Responder, ResponderKeys, SignedPreKeyPair, Transcript, TranscriptKeys, initiate,
    prekey_message, respond,
};

fn vectors() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/sprag-1.json"
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn private(value: &Value) -> PrivateKey {
    PrivateKey::from_bytes(&array(value))
}

/// Gives these draws, in this order, each as a whole.
struct Draws(VecDeque<Vec<u8>>);

impl Draws {
    fn one(value: &Value) -> Self {
        Self(VecDeque::from([bytes(value)]))
    }

    /// Those of an event that belong to the handshake: the first key of the ratchet comes after it.
    fn of(event: &Value) -> Self {
        let draws = list(&event["random"]).iter();
        let ours = draws.filter(|draw| draw[0] == "base-key" || draw[0] == "kem-m");
        Self(ours.map(|draw| bytes(&draw[1])).collect())
    }
}

impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only bytes are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only bytes are drawn")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.0.pop_front().expect("nothing more is drawn"));
        Ok(())
    }
}

impl TryCryptoRng for Draws {}

struct Device {
    identity: IdentityKeyPair,
    address: DeviceAddress,
    signed: Vec<SignedPreKeyPair>,
    one_time: Vec<OneTimePreKeyPair>,
    kem: Vec<KemPreKeyPair>,
}

impl Device {
    /// Makes all keys from the private halves, and compares what is published.
    fn new(device: &Value) -> Self {
        let identity = IdentityKeyPair::from_private(private(&device["identity_private"]));
        assert_eq!(
            identity.public().as_bytes()[..],
            bytes(&device["identity_public"])
        );
        let user = UserId::new(text(&device["user"])).unwrap();
        let number_of_device = DeviceId::new(number(&device["device"])).unwrap();
        let signed = list(&device["signed_pre_keys"]).iter().map(|key| {
            let pair = SignedPreKeyPair::from_private(
                SignedPreKeyId::new(number(&key["id"])).unwrap(),
                Features::from_bits(number(&key["features"])),
                private(&key["private"]),
                &identity,
                &mut Draws::one(&key["z"]),
            );
            assert_eq!(pair.public_key().as_bytes()[..], bytes(&key["public"]));
            assert_eq!(pair.public().signature[..], bytes(&key["signature"]));
            pair
        });
        let one_time = list(&device["one_time_pre_keys"]).iter().map(|key| {
            let id = OneTimePreKeyId::new(number(&key["id"])).unwrap();
            let pair = OneTimePreKeyPair::from_private(id, private(&key["private"]));
            assert_eq!(pair.public_key().as_bytes()[..], bytes(&key["public"]));
            pair
        });
        let kem = list(&device["kem_pre_keys"]).iter().map(|key| {
            let pair = KemPreKeyPair::from_private(
                KemPreKeyId::new(number(&key["id"])).unwrap(),
                kem_kind(&key["kind"]),
                KemPrivateKey::from_seed(&array(&key["seed"])),
                &identity,
                &mut Draws::one(&key["z"]),
            );
            assert_eq!(pair.public().signature[..], bytes(&key["signature"]));
            if key.get("public").is_some() {
                assert_eq!(pair.public_key().as_bytes(), bytes(&key["public"]));
            }
            pair
        });
        Self {
            address: DeviceAddress::new(user, number_of_device),
            signed: signed.collect(),
            one_time: one_time.collect(),
            kem: kem.collect(),
            identity: identity.clone(),
        }
    }

    fn initiate(
        &self,
        bundle: &PreKeyBundle,
        mode: Mode,
        said: &Handshake,
        draws: &mut Draws,
    ) -> Result<Initiated, HandshakeError> {
        let ours = Initiator {
            identity: &self.identity,
            address: &self.address,
            features: said.features,
            device_list: &said.device_list,
            responder_epoch: said.responder_epoch,
            responder_list: said.responder_list,
        };
        initiate(&ours, bundle, mode, draws)
    }

    /// Answers from the keys that the handshake names.
    fn respond(&self, initiator: &DeviceAddress, handshake: &[u8]) -> HandshakeSecret {
        let parsed = Handshake::decode(handshake).unwrap();
        let id = parsed.signed_pre_key;
        let signed = self.signed.iter().find(|key| key.id() == id).unwrap();
        let one_time = parsed
            .one_time_pre_key
            .map(|id| self.one_time.iter().find(|key| key.id() == id).unwrap());
        let kem = parsed.kem.as_ref();
        let kem = kem.map(|(id, _)| self.kem.iter().find(|key| key.id() == *id).unwrap());
        let ours = Responder {
            identity: &self.identity,
            address: &self.address,
        };
        let keys = ResponderKeys {
            signed,
            one_time,
            kem,
        };
        respond(&ours, initiator, handshake, &parsed, &keys).unwrap()
    }
}

fn kem_kind(value: &Value) -> KemKind {
    match number(value) {
        2 => KemKind::OneTime,
        3 => KemKind::LastResort,
        other => panic!("no KEM kind {other}"),
    }
}

fn mode(event: &Value) -> Mode {
    match number(&event["mode"]) {
        1 => Mode::Pqxdh,
        2 => Mode::X3dh,
        other => panic!("no mode {other}"),
    }
}

fn device(conversation: &Value, name: &Value) -> Device {
    let mut devices = list(&conversation["devices"]).iter();
    Device::new(devices.find(|device| device["name"] == *name).unwrap())
}

/// The bundle of an `open`, be it given or that of an earlier event.
fn bundle(events: &[Value], event: &Value) -> Vec<u8> {
    match event["bundle_of"].as_u64() {
        Some(earlier) => bytes(&events[usize::try_from(earlier).unwrap()]["bundle"]),
        None => bytes(&event["bundle"]),
    }
}

fn assert_secret(secret: HandshakeSecret, values: &Value) {
    assert_eq!(
        secret.transcript_hash().as_bytes()[..],
        bytes(&values["th"])
    );
    assert_eq!(secret.session_id().as_bytes()[..], bytes(&values["sid"]));
    let parts = secret.into_parts();
    assert_eq!(parts.sk[..], bytes(&values["sk"]));
    assert_eq!(parts.hk_i[..], bytes(&values["hk_i"]));
    assert_eq!(parts.hk_r[..], bytes(&values["hk_r"]));
    assert_eq!(parts.pqk[..], bytes(&values["pqk"]));
}

#[test]
fn prekeys_are_signed_over_the_published_messages() {
    let vectors = vectors();
    let cases = list(&vectors["primitives"]["signed_message"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let message = prekey_message(
            number(&case["kind"]).try_into().unwrap(),
            number(&case["id"]),
            Features::from_bits(number(&case["features"])),
            &bytes(&case["key"]),
        );
        assert_eq!(message, bytes(&case["message"]));
    }
}

#[test]
fn the_published_device_list_is_signed_and_hashed_as_published() {
    let vectors = vectors();
    let case = &vectors["primitives"]["device_list"];
    let account = AccountKeyPair::from_private(private(&case["account_private"]));
    let devices: Vec<_> = list(&case["entries"])
        .iter()
        .map(|entry| {
            let key = IdentityKey::from_bytes(&bytes(&entry[1])).unwrap();
            ListedDevice::new(
                DeviceId::new(number(&entry[0])).unwrap(),
                key,
                number(&entry[2]),
            )
        })
        .collect();
    let signed = DeviceList::sign(
        &account,
        &UserId::new(text(&case["user"])).unwrap(),
        u64::from(number(&case["epoch"])),
        Some(ListHash::from_bytes(array(&case["previous"]))),
        &devices,
        &mut Draws::one(&case["z"]),
    )
    .unwrap();
    assert_eq!(signed.frame(), bytes(&case["list"]));
    assert_eq!(signed.hash().as_bytes()[..], bytes(&case["lh"]));
    let claimed = UnverifiedDeviceList::decode(signed.frame()).unwrap();
    assert_eq!(DeviceList::verify(claimed).unwrap(), signed);
}

#[test]
fn the_first_list_of_every_device_is_signed_as_published() {
    let mut signed = 0;
    for conversation in list(&vectors()["conversations"]) {
        for device in list(&conversation["devices"]) {
            for known in list(&device["lists"]) {
                let claimed = UnverifiedDeviceList::decode(&bytes(known)).unwrap();
                DeviceList::verify(claimed).unwrap();
            }
            if device.get("list_z").is_none() {
                continue;
            }
            let account = AccountKeyPair::from_private(private(&device["account_private"]));
            let Device {
                identity, address, ..
            } = Device::new(device);
            let entry = ListedDevice::new(address.device(), *identity.public(), HOLDER);
            let list = DeviceList::sign(
                &account,
                address.user(),
                1,
                None,
                &[entry],
                &mut Draws::one(&device["list_z"]),
            );
            assert_eq!(list.unwrap().frame(), bytes(&device["lists"][0]));
            signed += 1;
        }
    }
    assert_eq!(signed, 53);
}

#[test]
fn the_stored_records_of_published_prekeys_are_their_parts_in_order() {
    for conversation in list(&vectors()["conversations"]) {
        for device in list(&conversation["devices"]) {
            let keys = Device::new(device);
            for (pair, key) in keys.signed.iter().zip(list(&device["signed_pre_keys"])) {
                let record = [
                    &[1][..],
                    &number(&key["id"]).to_be_bytes(),
                    &number(&key["features"]).to_be_bytes(),
                    private(&key["private"]).to_bytes().as_slice(),
                    &bytes(&key["signature"]),
                ]
                .concat();
                assert_eq!(pair.to_record()[..], record);
                let read = SignedPreKeyPair::from_record(&record).unwrap();
                assert_eq!(read.public(), pair.public());
            }
            for (pair, key) in keys.kem.iter().zip(list(&device["kem_pre_keys"])) {
                let kind = u8::try_from(number(&key["kind"])).unwrap();
                let record = [
                    &[1][..],
                    &number(&key["id"]).to_be_bytes(),
                    &[kind],
                    &bytes(&key["seed"]),
                    pair.public_key().as_bytes(),
                    &bytes(&key["signature"]),
                ]
                .concat();
                assert_eq!(pair.to_record()[..], record);
                let read = KemPreKeyPair::from_record(&record).unwrap();
                assert_eq!(read.public(), pair.public());
            }
        }
    }
}

#[test]
fn the_first_five_handshakes_have_the_published_values_on_both_sides() {
    let vectors = vectors();
    let conversations = list(&vectors["conversations"]);
    for conversation in conversations.get(..5).unwrap() {
        let events = list(&conversation["events"]);
        let open = &events[0];
        assert_eq!(open["op"], "open");
        let values = &open["values"];
        let (ours, theirs) = (
            device(conversation, &open["by"]),
            device(conversation, &open["to"]),
        );
        let claimed = UnverifiedPreKeyBundle::decode(&bytes(&open["bundle"])).unwrap();
        let bundle = PreKeyBundle::verify(claimed.clone()).unwrap();

        // What the initiator brings along, from the devices and the bundle; nothing is copied from H.
        let of = |name: &Value| {
            let mut devices = list(&conversation["devices"]).iter();
            devices.find(|device| device["name"] == *name).unwrap()
        };
        let list_of_theirs = UnverifiedDeviceList::decode(&claimed.device_list).unwrap();
        let features = Features::from_bits(number(&of(&open["by"])["features"]));
        let own_list = bytes(list(&of(&open["by"])["lists"]).last().unwrap());
        let initiator = Initiator {
            identity: &ours.identity,
            address: &ours.address,
            features,
            device_list: &own_list,
            responder_epoch: list_of_theirs.epoch(),
            responder_list: list_of_theirs.hash(),
        };
        let mut draws = Draws::of(open);
        let made = initiate(&initiator, &bundle, mode(open), &mut draws).unwrap();
        assert!(draws.0.is_empty());
        assert_eq!(made.handshake, bytes(&values["handshake"]));
        assert_eq!(
            made.signed_pre_key.as_bytes(),
            bundle.signed_pre_key().public_key.as_bytes()
        );
        assert_eq!(
            made.secret.features(),
            features & bundle.signed_pre_key().features
        );
        assert_eq!(made.secret.mode(), mode(open));

        let kem = bundle.kem_pre_key();
        let keys = TranscriptKeys::new(
            &bundle.signed_pre_key().public_key,
            bundle.signed_pre_key().features,
            bundle.one_time_pre_key().map(|key| &key.public_key),
            (mode(open) == Mode::Pqxdh).then_some((kem.kind, &kem.public_key)),
        );
        let transcript = Transcript::new(
            &id_bytes(ours.identity.public(), &ours.address),
            &id_bytes(theirs.identity.public(), &theirs.address),
            &made.handshake,
            &keys,
        );
        assert_eq!(transcript.as_bytes(), bytes(&values["transcript"]));
        assert_eq!(transcript.hash().as_bytes()[..], bytes(&values["th"]));

        // The responder has nothing but the first frame that reaches it.
        let received = events
            .iter()
            .find(|event| event["values"].get("hk_i").is_some() && event["op"] == "receive");
        let received = received.unwrap();
        let sent = usize::try_from(received["frame_of"].as_u64().unwrap()).unwrap();
        let frame = bytes(&events[sent]["frame"]);
        let handshake = MessageFrame::parse(&frame)
            .unwrap()
            .handshake()
            .unwrap()
            .to_vec();
        assert_eq!(handshake, made.handshake);
        let answer = theirs.respond(&ours.address, &handshake);
        assert_eq!(answer.features(), made.secret.features());
        assert_eq!(answer.mode(), mode(open));
        assert_secret(made.secret, values);
        assert_secret(answer, &received["values"]);
    }
}

#[test]
fn every_published_handshake_is_made_and_answered_alike() {
    let (mut made, mut without_frame) = (0, 0);
    for conversation in list(&vectors()["conversations"]) {
        let events = list(&conversation["events"]);
        for open in events.iter().filter(|event| event["op"] == "open") {
            let Some(sid) = open.get("sid") else { continue };
            let frames = events.iter().filter_map(|event| event["frame"].as_str());
            let handshake = frames
                .map(|frame| hex::decode(frame).unwrap())
                .filter_map(|frame| {
                    let frame = MessageFrame::parse(&frame).ok()?;
                    frame.handshake().map(<[u8]>::to_vec)
                })
                .find(|h| SessionId::of_handshake(h).as_bytes()[..] == bytes(sid));
            let Some(handshake) = handshake else {
                without_frame += 1; // never sent on, so its H is not published
                continue;
            };
            let said = Handshake::decode(&handshake).unwrap();
            let (ours, theirs) = (
                device(conversation, &open["by"]),
                device(conversation, &open["to"]),
            );
            let claimed = UnverifiedPreKeyBundle::decode(&bundle(events, open)).unwrap();
            let bundle = PreKeyBundle::verify(claimed).unwrap();
            let mut draws = Draws::of(open);
            let initiated = ours
                .initiate(&bundle, mode(open), &said, &mut draws)
                .unwrap();
            assert!(draws.0.is_empty());
            assert_eq!(initiated.handshake, handshake, "{}", conversation["label"]);
            let answer = theirs.respond(&ours.address, &handshake);
            let (ours, theirs) = (initiated.secret.into_parts(), answer.into_parts());
            assert_eq!((ours.sk, ours.hk_i), (theirs.sk, theirs.hk_i));
            assert_eq!((ours.hk_r, ours.pqk), (theirs.hk_r, theirs.pqk));
            assert_eq!(ours.transcript_hash, theirs.transcript_hash);
            made += 1;
        }
    }
    assert_eq!((made, without_frame), (73, 44));
}

#[test]
fn published_bundles_with_bad_signatures_or_keys_start_nothing() {
    let vectors = vectors();
    let conversations = list(&vectors["conversations"]).iter();
    let (mut signatures, mut keys) = (0, 0);
    for conversation in conversations {
        let events = list(&conversation["events"]);
        for open in events.iter().filter(|event| event["op"] == "open") {
            let claimed = || UnverifiedPreKeyBundle::decode(&bundle(events, open)).unwrap();
            match open["error"].as_str() {
                Some("BadSignature") => {
                    let list = UnverifiedDeviceList::decode(&claimed().device_list).unwrap();
                    let list_holds = DeviceList::verify(list).is_ok();
                    assert!(!list_holds || PreKeyBundle::verify(claimed()).is_err());
                    signatures += 1;
                }
                Some("InvalidKey") => {
                    let ours = device(conversation, &open["by"]);
                    if claimed().identity_key == *ours.identity.public() {
                        continue; // our own identity at another address is refused above this crate
                    }
                    let bundle = PreKeyBundle::verify(claimed()).unwrap();
                    let list = UnverifiedDeviceList::decode(&claimed().device_list).unwrap();
                    let initiator = Initiator {
                        identity: &ours.identity,
                        address: &ours.address,
                        features: Features::NONE,
                        device_list: list.frame(),
                        responder_epoch: list.epoch(),
                        responder_list: list.hash(),
                    };
                    let mut draws = Draws::of(open);
                    let refused = initiate(&initiator, &bundle, mode(open), &mut draws);
                    assert_eq!(refused.unwrap_err(), HandshakeError::InvalidKey);
                    assert!(draws.0.is_empty());
                    keys += 1;
                }
                _ => (),
            }
        }
    }
    assert_eq!((signatures, keys), (11, 2));
}
