//! What must hold for any value and any bytes ("The protocol", §2.2): what is encoded decodes to itself, whatever decodes
//! is the one encoding of what it says, and no decoder panics.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "values are made in range, and helpers of tests may stop"
)]

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use sprag_crypto::{
    AccountKey, BaseKey, Features, IdentityKey, KemCiphertext, KemPublicKey, Mode, PublicKey,
    RatchetKey, Salt, SessionId,
};
use sprag_wire::relay::{
    BundleQuery, BundleReply, ListQuery, ListReply, ListState, Lists, Object, PreKeyState,
    PreKeyUpload,
};
use sprag_wire::{
    Body, Content, DeviceAddress, DeviceId, Envelope, Handshake, KemKind, KemPreKey, KemPreKeyId,
    KeyShare, LinkRequest, ListHash, ListedDevice, MessageFrame, OneTimePreKey, OneTimePreKeyId,
    Padding, RatchetHeader, ScannableFingerprint, SignedPreKey, SignedPreKeyId,
    UnverifiedDeviceList, UnverifiedPreKeyBundle, UserId, encode_device_list, encode_message, pad,
    unpad,
};

// Values.

fn user() -> impl Strategy<Value = UserId> {
    let letters = prop::sample::select(vec!['a', 'Z', '#', ' ', 'é', '漢', '\u{80}']);
    vec(letters, 1..85).prop_map(|letters| UserId::new(&String::from_iter(letters)).unwrap())
}

fn address() -> impl Strategy<Value = DeviceAddress> {
    (user(), 1..=u32::MAX)
        .prop_map(|(user, device)| DeviceAddress::new(user, DeviceId::new(device).unwrap()))
}

/// 33 bytes with the type of a curve key.
fn key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(|u| PublicKey::from_bytes(&[[5].as_slice(), &u].concat()).unwrap())
}

/// 1,569 bytes with the type of a KEM key.
fn kem_bytes() -> impl Strategy<Value = Vec<u8>> {
    any::<u8>().prop_map(|byte| [[0x0A].as_slice(), &[byte; 1568]].concat())
}

fn signature() -> impl Strategy<Value = [u8; 64]> {
    any::<u8>().prop_map(|byte| [byte; 64])
}

fn salt() -> impl Strategy<Value = Salt> {
    any::<[u8; 16]>().prop_map(Salt::from_bytes)
}

prop_compose! {
    /// A list of up to 32 devices, of `user`, with any signature.
    fn list_of(user: UserId)(
        account_key in key(),
        epoch in prop_oneof![Just(1), 2..=u64::MAX],
        previous in any::<[u8; 32]>(),
        devices in btree_map(1..=u32::MAX, (any::<[u8; 28]>(), any::<u32>()), 1..=32),
        signature in signature(),
    ) -> Vec<u8> {
        let devices: Vec<_> = BTreeMap::into_iter(devices).map(|(device, (tail, flags))| {
            let key = [[5].as_slice(), &device.to_be_bytes(), &tail].concat();
            let key = IdentityKey::from_bytes(&key).unwrap();
            ListedDevice::new(DeviceId::new(device).unwrap(), key, flags)
        }).collect();
        let previous = (epoch > 1).then(|| ListHash::from_bytes(previous));
        let account_key = AccountKey::from(account_key);
        let mut frame = encode_device_list(&user, &account_key, epoch, previous, &devices);
        frame.extend(signature);
        frame
    }
}

fn list() -> impl Strategy<Value = Vec<u8>> {
    user().prop_flat_map(list_of)
}

prop_compose! {
    fn signed_pre_key()(
        id in 1..=u32::MAX, features in any::<u32>(), key in key(), signature in signature(),
    ) -> SignedPreKey {
        let id = SignedPreKeyId::new(id).unwrap();
        SignedPreKey::new(id, Features::from_bits(features), key, signature)
    }
}

prop_compose! {
    fn one_time_pre_key()(id in 1..=u32::MAX, key in key()) -> OneTimePreKey {
        OneTimePreKey::new(OneTimePreKeyId::new(id).unwrap(), key)
    }
}

prop_compose! {
    fn kem_pre_key()(
        id in 1..=u32::MAX, last in any::<bool>(), key in kem_bytes(), signature in signature(),
    ) -> KemPreKey {
        let kind = if last { KemKind::LastResort } else { KemKind::OneTime };
        let key = KemPublicKey::from_bytes(&key).unwrap();
        KemPreKey::new(KemPreKeyId::new(id).unwrap(), kind, key, signature)
    }
}

prop_compose! {
    fn bundle()(address in address())(
        list in list_of(address.user().clone()),
        address in Just(address),
        identity_key in key(),
        signed in signed_pre_key(),
        one_time in prop::option::of(one_time_pre_key()),
        kem in kem_pre_key(),
    ) -> UnverifiedPreKeyBundle {
        UnverifiedPreKeyBundle::new(address, identity_key.into(), signed, one_time, kem, list)
    }
}

prop_compose! {
    fn handshake()(
        kem in prop::option::of((1..=u32::MAX, kem_bytes())),
        features in any::<u32>(),
        keys in (key(), key()),
        signed in 1..=u32::MAX,
        one_time in any::<u32>(),
        list in list(),
        epoch in 1..=u64::MAX,
        responder_list in any::<[u8; 32]>(),
    ) -> Handshake {
        Handshake::new(
            if kem.is_some() { Mode::Pqxdh } else { Mode::X3dh },
            Features::from_bits(features),
            IdentityKey::from(keys.0),
            BaseKey::from(keys.1),
            SignedPreKeyId::new(signed).unwrap(),
            OneTimePreKeyId::new(one_time).ok(),
            kem.map(|(id, ciphertext)| {
                (KemPreKeyId::new(id).unwrap(), KemCiphertext::from_bytes(&ciphertext).unwrap())
            }),
            list,
            epoch,
            ListHash::from_bytes(responder_list),
        )
    }
}

prop_compose! {
    /// A frame `0x11` or `0x12` with its origin seal.
    fn message()(
        handshake in prop::option::of(handshake()),
        salt in salt(),
        header in prop_oneof![vec(any::<u8>(), 61), vec(any::<u8>(), 115)],
        body in vec(any::<u8>(), 17..400),
        origin in vec(any::<u8>(), 36),
    ) -> Vec<u8> {
        let handshake = handshake.map(|handshake| handshake.encode());
        let mut frame = encode_message(handshake.as_deref(), &salt, &header, &body);
        frame.extend(origin);
        frame
    }
}

prop_compose! {
    fn header()(
        key in key(), previous in any::<u32>(), number in any::<u32>(),
        pq in prop::option::of(any::<u8>()),
    ) -> RatchetHeader {
        let mut header = RatchetHeader::new(RatchetKey::from(key), previous, number);
        header.pq_ratchet = pq.map(|byte| [byte; 52]);
        header
    }
}

prop_compose! {
    fn envelope()(from in address(), to in address(), message in message()) -> Option<Envelope> {
        let id = MessageFrame::parse(&message).unwrap().salt();
        (from != to).then(|| Envelope::new(from, to, id, message))
    }
}

fn absent_or_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), vec(any::<u8>(), 32)]
}

fn body() -> impl Strategy<Value = Body> {
    let bytes = || vec(any::<u8>(), 0..300);
    let names = vec(user().prop_map(|user| user.as_str().to_owned()), 0..5);
    let generation = (any::<u64>(), any::<u32>(), absent_or_key());
    let share = (
        absent_or_key(),
        vec(generation, 0..4),
        absent_or_key(),
        absent_or_key(),
    );
    prop_oneof![
        bytes().prop_map(Body::Application),
        (names, bytes()).prop_map(|(to, application)| Body::sync(to, application)),
        vec(vec(any::<u8>(), 0..20), 0..5).prop_map(Body::Retry),
        Just(()).prop_map(|()| Body::Ack),
        share.prop_map(|(root, generations, private, proof)| {
            Body::KeyShare(KeyShare::new(root, generations, private, proof))
        }),
        Just(()).prop_map(|()| Body::Unsupported),
    ]
}

prop_compose! {
    fn content()(
        message_id in any::<[u8; 16]>(),
        sent_at in any::<u64>(),
        body in body(),
        received in vec(salt(), 0..=32),
        list in prop::option::of(vec(any::<u8>(), 1..200)),
        reset in vec(any::<[u8; 16]>(), 0..=41),
    ) -> Content {
        let mut content = Content::new(message_id, sent_at, body);
        content.set_received(received);
        content.set_device_list(list);
        content.set_reset(reset.into_iter().map(SessionId::from_bytes).collect());
        content
    }
}

// What holds for all strict decoders: each of these decodes and encodes again.

type Again = fn(&[u8]) -> Option<Vec<u8>>;

const STRICT: [Again; 8] = [
    |bytes| Some(DeviceAddress::decode(bytes).ok()?.encode()),
    |bytes| Some(Handshake::decode(bytes).ok()?.encode()),
    |bytes| Some(RatchetHeader::decode(bytes).ok()?.encode()),
    |bytes| Some(Envelope::decode(bytes).ok()?.encode()),
    |bytes| Some(UnverifiedPreKeyBundle::decode(bytes).ok()?.encode()),
    |bytes| Some(LinkRequest::decode(bytes).ok()?.encode().to_vec()),
    |bytes| {
        let list = UnverifiedDeviceList::decode(bytes).ok()?;
        let (user, key, epoch) = (list.user(), list.account_key(), list.epoch());
        let made = encode_device_list(user, key, epoch, list.previous(), list.devices());
        Some([made.as_slice(), list.signature()].concat())
    },
    |bytes| {
        let frame = MessageFrame::parse(bytes).ok()?;
        let made = encode_message(
            frame.handshake(),
            &frame.salt(),
            frame.header(),
            frame.body(),
        );
        Some([made.as_slice(), frame.origin()].concat())
    },
];
const ADDRESS: Again = STRICT[0];
const HANDSHAKE: Again = STRICT[1];
const HEADER: Again = STRICT[2];
const ENVELOPE: Again = STRICT[3];
const BUNDLE: Again = STRICT[4];
const LINK: Again = STRICT[5];
const LIST: Again = STRICT[6];
const MESSAGE: Again = STRICT[7];

/// A way to damage bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Remove(Index),
    Append(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        8 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, with)| Damage::Flip(at, with)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => vec(any::<u8>(), 1..40).prop_map(Damage::Append),
    ]
}

impl Damage {
    fn done_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Flip(at, with) => {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Self::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Self::Append(more) => bytes.extend(more),
        }
        bytes
    }
}

/// The bytes decode to what gives them back; damaged, they do not decode or give themselves back.
fn is_canonical(bytes: &[u8], damage: &[Damage], again: Again) -> Result<(), TestCaseError> {
    let encoded = again(bytes);
    prop_assert_eq!(encoded.as_deref(), Some(bytes));
    for damage in damage {
        let damaged = damage.done_to(bytes);
        if let Some(encoded) = again(&damaged) {
            prop_assert_eq!(encoded, damaged);
        }
    }
    Ok(())
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    vec(damage(), 40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_canonical(address in address(), damages in damages()) {
        prop_assert_eq!(&DeviceAddress::decode(&address.encode()).unwrap(), &address);
        prop_assert_eq!(&address.to_string().parse::<DeviceAddress>().unwrap(), &address);
        is_canonical(&address.encode(), &damages, ADDRESS)?;
    }

    #[test]
    fn handshakes_are_canonical(handshake in handshake(), damages in damages()) {
        let bytes = handshake.encode();
        prop_assert!(bytes.len() < 3_700);
        prop_assert_eq!(Handshake::decode(&bytes).unwrap(), handshake);
        is_canonical(&bytes, &damages, HANDSHAKE)?;
    }

    #[test]
    fn headers_are_canonical_and_of_two_sizes(header in header(), damages in damages()) {
        let bytes = header.encode();
        prop_assert_eq!(bytes.len(), if header.pq_ratchet.is_some() { 99 } else { 45 });
        prop_assert_eq!(RatchetHeader::decode(&bytes).unwrap(), header);
        is_canonical(&bytes, &damages, HEADER)?;
    }

    #[test]
    fn envelopes_are_canonical(envelope in envelope(), damages in damages()) {
        if let Some(envelope) = envelope {
            let bytes = envelope.encode();
            prop_assert_eq!(Envelope::decode(&bytes).unwrap(), envelope);
            is_canonical(&bytes, &damages, ENVELOPE)?;
        }
    }

    #[test]
    fn bundles_are_canonical(bundle in bundle(), damages in damages()) {
        let bytes = bundle.encode();
        prop_assert_eq!(UnverifiedPreKeyBundle::decode(&bytes).unwrap(), bundle);
        is_canonical(&bytes, &damages, BUNDLE)?;
    }

    #[test]
    fn lists_are_canonical(list in list(), damages in damages()) {
        is_canonical(&list, &damages, LIST)?;
    }

    #[test]
    fn messages_are_canonical(message in message(), damages in damages()) {
        is_canonical(&message, &damages, MESSAGE)?;
    }

    #[test]
    fn link_requests_are_canonical_as_bytes_and_as_text(
        user in user(), key in key(), nonce in any::<[u8; 32]>(), damages in damages(),
    ) {
        let request = LinkRequest::new(user, key.into(), nonce);
        let (bytes, text) = (request.encode(), request.to_text());
        is_canonical(&bytes, &damages, LINK)?;
        let again = LinkRequest::from_text(&text).unwrap();
        prop_assert_eq!(again.encode(), bytes);
        for damage in damages {
            let damaged = damage.done_to(text.as_bytes());
            if let Ok(damaged) = std::str::from_utf8(&damaged)
                && let Ok(request) = LinkRequest::from_text(damaged)
            {
                let text = request.to_text();
                prop_assert_eq!(text.as_str(), damaged);
            }
        }
    }

    #[test]
    fn contents_decode_to_what_was_encoded(content in content(), damages in damages()) {
        let bytes = content.encode();
        let again = Content::decode(&bytes).unwrap();
        prop_assert_eq!(again.message_id(), content.message_id());
        prop_assert_eq!(again.sent_at(), content.sent_at());
        prop_assert_eq!(again.received(), content.received());
        prop_assert_eq!(again.device_list(), content.device_list());
        prop_assert_eq!(again.reset(), content.reset());
        for own in [true, false] {
            prop_assert_eq!(again.check_body(own), content.check_body(own));
        }
        prop_assert_eq!(again.encode(), bytes.clone());
        for damage in damages {
            if let Ok(content) = Content::decode(&damage.done_to(&bytes)) {
                let _ = content.check_body(true);
            }
        }
    }

    #[test]
    fn what_is_padded_comes_back(content in vec(any::<u8>(), 0..2000)) {
        for padding in [Padding::Padme, Padding::None] {
            let padded = pad(&content, padding);
            prop_assert_eq!(unpad(&padded).unwrap(), content.as_slice());
        }
        prop_assert!(pad(&content, Padding::Padme).len() <= 160.max((content.len() + 1) * 28 / 25));
    }

    #[test]
    fn what_servers_are_told_comes_back(
        number in any::<(u64, u32, bool)>(),
        name in user(),
        bytes in vec(vec(any::<u8>(), 0..50), 0..4),
        numbers in vec(any::<u32>(), 0..9),
        signed in signed_pre_key(),
        one_time in vec(one_time_pre_key(), 0..4),
        kem in vec(kem_pre_key(), 1..3),
    ) {
        macro_rules! comes_back {
            ($type:ident($($field:expr),*)) => {{
                let value = $type::new($($field),*);
                prop_assert_eq!($type::decode(&value.encode()).unwrap(), value);
            }};
        }
        let (long, short, flag) = number;
        let name = name.as_str().to_owned();
        let one = bytes.first().cloned().unwrap_or_default();
        let state = ListState::new(short, long, one.clone(), long);
        comes_back!(ListState(short, long, one.clone(), long));
        comes_back!(ListQuery(name.clone(), long, one.clone()));
        comes_back!(ListReply(flag.then_some(state), bytes.clone(), flag));
        comes_back!(Lists(bytes.clone()));
        comes_back!(PreKeyState(one.clone(), long, one.clone(), short, short, numbers.clone()));
        comes_back!(BundleQuery(name, numbers.clone(), one.clone()));
        comes_back!(BundleReply(bytes, numbers, one.clone()));
        comes_back!(Object(one.clone(), one.clone(), one));
        comes_back!(PreKeyUpload(long, flag, signed, kem[0].clone(), one_time, kem));
    }
}

/// Bytes that look like protobuf: keys of small fields, short lengths, nested.
fn protobuf_like() -> impl Strategy<Value = Vec<u8>> {
    let field = (1u8..12, 0u8..6, vec(any::<u8>(), 0..70)).prop_map(|(field, wire, payload)| {
        let mut bytes = vec![field << 3 | wire];
        if wire == 2 {
            bytes.push(u8::try_from(payload.len()).unwrap());
        }
        bytes.extend(payload);
        bytes
    });
    let flat = vec(field, 0..6).prop_map(|fields| fields.concat());
    flat.prop_recursive(3, 12, 3, |inner| {
        vec((1u8..12, inner), 1..3).prop_map(|fields| {
            let mut bytes = Vec::new();
            for (field, payload) in fields {
                bytes.push(field << 3 | 2);
                let mut length = payload.len();
                while length >= 0x80 {
                    bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
                    length >>= 7;
                }
                bytes.push(u8::try_from(length).unwrap());
                bytes.extend(payload);
            }
            bytes
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_decoder_panics_and_what_is_accepted_is_canonical(
        first in 0x0Fu8..0x17,
        bytes in prop_oneof![vec(any::<u8>(), 0..300), protobuf_like()],
    ) {
        let frame = [[first].as_slice(), &bytes].concat();
        for again in STRICT {
            for input in [&bytes, &frame] {
                if let Some(encoded) = again(input) {
                    prop_assert_eq!(&encoded, input);
                }
            }
        }
        if let Ok(content) = Content::decode(&bytes) {
            let _ = (content.check_body(true), content.encode());
        }
        let _ = unpad(&bytes);
        let _ = ListReply::decode(&bytes);
        let _ = BundleReply::decode(&bytes);
        let _ = PreKeyUpload::decode(&bytes);
        let _ = PreKeyState::decode(&bytes);
        let _ = Object::decode(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = LinkRequest::from_text(&text);
        let _ = LinkRequest::from_text(&format!("sprag-link:{text}"));
        let _ = text.parse::<DeviceAddress>();
        let number = sprag_crypto::SafetyNumber::new(fingerprint(b"a"), fingerprint(b"b"));
        let _ = ScannableFingerprint::compare(&number, &bytes);
    }
}

fn fingerprint(user: &[u8]) -> sprag_crypto::Fingerprint {
    let key = PublicKey::from_bytes(&[5; 33]).unwrap();
    sprag_crypto::Fingerprint::compute(2, user, &key).unwrap()
}
