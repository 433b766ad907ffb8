//! Makes further vectors of the published schema (`docs/PROTOCOL.md`, appendix D), each from a seed.
//!
//! Two devices or three talk at random: messages are lost, repeated, late, damaged; sessions are opened from both sides
//! and in both modes; devices are written out and read in. Every draw, frame, error and final state is recorded. The
//! seeds are others than those of `sprag-1.json`.

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng};
use serde_json::{Value, json};
use sprag_crypto::{AccountKeyPair, Features, IdentityKeyPair, Mode, PrivateKey, Salt, xeddsa};
use sprag_session::{Device, Env, StepError};
use sprag_store::Staged;
use sprag_wire::{
    Body, Content, HOLDER, KemKind, KemPreKeyId, ListedDevice, OneTimePreKeyId, Padding,
    SignedPreKeyId, UnverifiedPreKeyBundle, UserId, padme,
};
use sprag_x3dh::{DeviceList, KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair, prekey_message};

use crate::conversation::{Conversation, Mismatch, Refusable};
use crate::replay_rng::RecordingRng;

/// Time of the first event, in seconds since 1970.
const START: u64 = 1_750_000_000;

/// What a conversation is about.
#[derive(Clone, Copy)]
struct Plan {
    label: &'static str,
    names: &'static [&'static str],
    mode: Mode,
    /// One-time prekeys of each kind that each device has.
    one_time: u32,
    turns: usize,
}

const PLANS: [Plan; 5] = [
    Plan {
        label: "at random, PQXDH",
        names: &["ann", "ben"],
        mode: Mode::Pqxdh,
        one_time: 3,
        turns: 120,
    },
    Plan {
        label: "at random, PQXDH, last resort",
        names: &["ann", "ben"],
        mode: Mode::Pqxdh,
        one_time: 0,
        turns: 80,
    },
    Plan {
        label: "at random, X3DH",
        names: &["ann", "ben"],
        mode: Mode::X3dh,
        one_time: 3,
        turns: 120,
    },
    Plan {
        label: "at random, X3DH, no one-time prekey",
        names: &["ann", "ben"],
        mode: Mode::X3dh,
        one_time: 0,
        turns: 80,
    },
    Plan {
        label: "at random, three users",
        names: &["ann", "ben", "çem"],
        mode: Mode::Pqxdh,
        one_time: 4,
        turns: 150,
    },
];

/// A file of vectors.
///
/// # Errors
/// What did not go as the generator expects: a bug.
pub fn file(seed: u64) -> Result<Value, Mismatch> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let conversations: Vec<Value> = PLANS
        .iter()
        .map(|plan| conversation(plan, &mut rng))
        .collect::<Result<_, _>>()?;
    Ok(json!({
        "schema": [
            "As tests/vectors/sprag-1.json; docs/PROTOCOL.md, appendix D.",
            format!("Made by `cargo xtask vectors` from seed {seed}."),
        ],
        "primitives": primitives(&mut rng),
        "conversations": conversations,
        "decoding": [],
    }))
}

fn draw<const N: usize>(rng: &mut dyn CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A number below `bound`; small bounds, so the bias does not matter.
fn below(rng: &mut dyn CryptoRng, bound: usize) -> usize {
    usize::try_from(rng.next_u32()).unwrap_or(0) % bound.max(1)
}

fn primitives(rng: &mut ChaCha20Rng) -> Value {
    let mut signed = Vec::new();
    let mut verified = Vec::new();
    for length in [0, 1, 63, 64, 200] {
        let private: [u8; 32] = draw(rng);
        let mut message = vec![0; length];
        rng.fill_bytes(&mut message);
        let z: [u8; 64] = draw(rng);
        let key = PrivateKey::from_bytes(&private);
        let signature = xeddsa::sign(&key, &message, &z);
        let public = hex::encode(key.public_key().as_bytes());
        signed.push(json!({
            "private": hex::encode(private), "public": public, "message": hex::encode(&message),
            "z": hex::encode(z), "signature": hex::encode(signature),
            "edwards_sign_of_kB": edwards_sign(&private),
        }));
        let mut flipped = signature;
        if let Some(byte) = flipped.get_mut(below(rng, 64)) {
            *byte ^= 1 << below(rng, 8);
        }
        for (label, signature) in [("good", signature), ("one bit flipped", flipped)] {
            let ok = xeddsa::verify(&key.public_key(), &message, &signature).is_ok();
            verified.push(json!({
                "label": format!("{label}, {length} bytes"), "public": public, "message": hex::encode(&message),
                "signature": hex::encode(signature), "ok": ok,
            }));
        }
    }
    let mut messages = Vec::new();
    for kind in 1..=3u8 {
        let id = rng.next_u32().max(1);
        let features = if kind == 1 { rng.next_u32() } else { 0 };
        let key: [u8; 33] = draw(rng);
        let message = prekey_message(kind, id, Features::from_bits(features), &key);
        messages.push(json!({
            "kind": kind, "id": id, "features": features, "key": hex::encode(key), "message": hex::encode(message),
        }));
    }
    let lengths: Vec<Value> = (0..20)
        .map(|_| {
            let length = 1 + below(rng, 1 << 20);
            json!([length, padme(length)])
        })
        .collect();
    json!({ "xeddsa_sign": signed, "xeddsa_verify": verified, "signed_message": messages, "padme": lengths })
}

/// The sign bit of the Edwards point of a private key. The published vectors state it; signing does not show it.
fn edwards_sign(private: &[u8; 32]) -> u8 {
    use curve25519_dalek::edwards::EdwardsPoint;
    let point = EdwardsPoint::mul_base_clamped(*private)
        .compress()
        .to_bytes();
    point.last().map_or(0, |byte| byte >> 7)
}

fn fits<T, E: std::fmt::Debug>(result: Result<T, E>) -> Result<T, Mismatch> {
    result.map_err(|error| format!("{error:?}"))
}

/// A device as the schema writes it, and its bundles to be handed out: one for each one-time prekey, then the last resort.
fn device(
    plan: &Plan,
    name: &str,
    rng: &mut ChaCha20Rng,
) -> Result<(Value, Vec<Vec<u8>>), Mismatch> {
    let user = fits(UserId::new(name))?;
    let number = rng.next_u32() | 1 << 16;
    let (identity, account): ([u8; 32], [u8; 32]) = (draw(rng), draw(rng));
    let identity_pair = IdentityKeyPair::from_private(PrivateKey::from_bytes(&identity));
    let account_pair = AccountKeyPair::from_private(PrivateKey::from_bytes(&account));
    let features = match plan.mode {
        Mode::X3dh => Features::ACCEPTS_X3DH,
        _ => Features::NONE,
    };
    let mut rng = RecordingRng::new(rng);
    let id = fits(sprag_wire::DeviceId::new(number))?;
    let entry = ListedDevice::new(id, *identity_pair.public(), HOLDER);
    let list = fits(DeviceList::sign(
        &account_pair,
        &user,
        1,
        None,
        &[entry],
        &mut rng,
    ))?;
    let list_z = hex::encode(rng.take().concat());

    let two = |draws: Vec<Vec<u8>>| -> Result<(String, String), Mismatch> {
        match draws.as_slice() {
            [private, z] => Ok((hex::encode(private), hex::encode(z))),
            _ => Err("a prekey draws twice".to_owned()),
        }
    };
    let signed = SignedPreKeyPair::generate(
        fits(SignedPreKeyId::new(1))?,
        features,
        &identity_pair,
        &mut rng,
    );
    let (private, z) = two(rng.take())?;
    let signed_value = json!({
        "id": 1, "features": features.bits(), "private": private, "z": z,
        "public": hex::encode(signed.public_key().as_bytes()), "signature": hex::encode(signed.public().signature),
    });
    let mut one_time = Vec::new();
    let mut one_time_values = Vec::new();
    for id in 1..=plan.one_time {
        let pair = OneTimePreKeyPair::generate(fits(OneTimePreKeyId::new(id))?, &mut rng);
        one_time_values.push(json!({
            "id": id, "private": hex::encode(rng.take().concat()), "public": hex::encode(pair.public_key().as_bytes()),
        }));
        one_time.push(pair);
    }
    let mut kem = Vec::new();
    let mut kem_values = Vec::new();
    for id in 1..=plan.one_time + 1 {
        let kind = if id == 1 {
            KemKind::LastResort
        } else {
            KemKind::OneTime
        };
        let pair =
            KemPreKeyPair::generate(fits(KemPreKeyId::new(id))?, kind, &identity_pair, &mut rng);
        let (seed, z) = two(rng.take())?;
        kem_values.push(json!({
            "id": id, "kind": kind as u8, "seed": seed, "z": z, "signature": hex::encode(pair.public().signature),
            "public": hex::encode(pair.public_key().as_bytes()),
        }));
        kem.push(pair);
    }

    let address = sprag_wire::DeviceAddress::new(user.clone(), id);
    let bundle = |one_time: Option<&OneTimePreKeyPair>, kem: &KemPreKeyPair| {
        let one_time = one_time.map(OneTimePreKeyPair::public);
        let list = list.frame().to_vec();
        UnverifiedPreKeyBundle::new(
            address.clone(),
            *identity_pair.public(),
            signed.public(),
            one_time,
            kem.public(),
            list,
        )
        .encode()
    };
    let mut bundles: Vec<Vec<u8>> = one_time
        .iter()
        .zip(kem.iter().skip(1))
        .map(|(one_time, kem)| bundle(Some(one_time), kem))
        .collect();
    bundles.extend(kem.first().map(|last_resort| bundle(None, last_resort)));
    let value = json!({
        "name": name, "user": name, "device": number, "features": features.bits(),
        "identity_private": hex::encode(identity), "identity_public": hex::encode(identity_pair.public().as_bytes()),
        "account_public": hex::encode(account_pair.public().as_bytes()), "account_private": hex::encode(account),
        "list_z": list_z, "lists": [hex::encode(list.frame())],
        "signed_pre_keys": [signed_value], "one_time_pre_keys": one_time_values, "kem_pre_keys": kem_values,
    });
    Ok((value, bundles))
}

fn conversation(plan: &Plan, rng: &mut ChaCha20Rng) -> Result<Value, Mismatch> {
    let mut devices = Vec::new();
    let mut bundles = Vec::new();
    for name in plan.names {
        let (value, stock) = device(plan, name, rng)?;
        devices.push(value);
        bundles.push(stock);
    }
    let mut talk = Talk {
        plan,
        conversation: Conversation::begin(&devices)?,
        events: Vec::new(),
        flights: Vec::new(),
    };
    talk.open(0, 1, &mut bundles, rng)?;
    for _ in 0..plan.turns {
        let a = below(rng, plan.names.len());
        let b = (a + 1 + below(rng, plan.names.len() - 1)) % plan.names.len();
        match below(rng, 20) {
            0 => talk.open(a, b, &mut bundles, rng)?,
            1 => talk.restart(a),
            2..=9 => talk.send(a, b, rng)?,
            _ => talk.receive(rng)?,
        }
    }
    let mut states = serde_json::Map::new();
    for name in plan.names {
        states.insert((*name).to_owned(), talk.conversation.state(name)?);
    }
    let Talk { events, .. } = talk;
    let vector = json!({ "label": plan.label, "needs": [], "devices": devices, "events": events, "final": states });
    // What was made must pass as what is read.
    crate::conversation::run(&vector)?;
    Ok(vector)
}

fn set(event: &mut Value, name: &str, value: Value) {
    if let Some(fields) = event.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// A conversation as it is being made.
struct Talk<'p> {
    plan: &'p Plan,
    conversation: Conversation,
    events: Vec<Value>,
    /// Event, sender and receiver of each frame made.
    flights: Vec<(usize, usize, usize)>,
}

impl Talk<'_> {
    fn name(&self, at: usize) -> &'static str {
        self.plan.names.get(at).copied().unwrap_or_default()
    }

    fn now(&self) -> u64 {
        START + 60 * self.events.len() as u64
    }

    /// Does a step, and completes its event with draws, error or result.
    fn step<T: Refusable>(
        &mut self,
        by: usize,
        mut event: Value,
        kinds: &[&str],
        salt: Option<[u8; 16]>,
        rng: &mut ChaCha20Rng,
        step: impl FnOnce(&mut Device, &mut Staged<'_>, &mut Env<'_>) -> Result<T, StepError>,
    ) -> Result<Option<T>, Mismatch> {
        let mut recording = RecordingRng::new(&mut *rng);
        let now = self.now();
        let result = self.conversation.raw_step(self.name(by), |device, rows| {
            let mut env = Env::new(now * 1000, &mut recording);
            if let Some(salt) = salt {
                env = env.with_injected_salt(Salt::from_bytes(salt));
            }
            let result = step(device, rows, &mut env);
            (result, env.injected_salt_is_left())
        })?;
        let (result, salt_left) = result;
        let mut random: Vec<Value> = recording
            .take()
            .iter()
            .zip(kinds)
            .map(|(draw, kind)| json!([kind, hex::encode(draw)]))
            .collect();
        if let (Some(salt), false) = (salt, salt_left) {
            random.push(json!(["salt", hex::encode(salt)]));
        }
        if let Some(fields) = event.as_object_mut() {
            fields.insert("by".into(), self.name(by).into());
            fields.insert("now".into(), now.into());
            if !random.is_empty() {
                fields.insert("random".into(), random.into());
            }
            if let Err(error) = &result {
                fields.insert("error".into(), format!("{error:?}").into());
            }
        }
        self.events.push(event);
        Ok(result.ok())
    }

    fn open(
        &mut self,
        a: usize,
        b: usize,
        bundles: &mut [Vec<Vec<u8>>],
        rng: &mut ChaCha20Rng,
    ) -> Result<(), Mismatch> {
        let Some(stock) = bundles.get_mut(b) else {
            return Ok(());
        };
        let bundle = if stock.len() > 1 {
            stock.remove(0)
        } else {
            stock.first().cloned().unwrap_or_default()
        };
        let mode = self.plan.mode;
        let to = self.conversation.address_of(self.name(b))?;
        let event = json!({ "op": "open", "to": self.name(b), "mode": mode as u8, "bundle": hex::encode(&bundle) });
        let kinds: &[&str] = if mode == Mode::Pqxdh {
            &["base-key", "kem-m", "ratchet"]
        } else {
            &["base-key", "ratchet"]
        };
        let opened = self.step(a, event, kinds, None, rng, |device, rows, env| {
            device.open(rows, env, &to, &bundle, mode)
        })?;
        if let (Some(opened), Some(event)) = (opened, self.events.last_mut()) {
            set(
                event,
                "sid",
                hex::encode(opened.session_id.as_bytes()).into(),
            );
        }
        Ok(())
    }

    fn send(&mut self, a: usize, b: usize, rng: &mut ChaCha20Rng) -> Result<(), Mismatch> {
        let mut application = vec![0; below(rng, 400)];
        rng.fill_bytes(&mut application);
        let content =
            Content::new(draw(rng), self.now() * 1000, Body::Application(application)).encode();
        let padding = if below(rng, 4) == 0 {
            Padding::None
        } else {
            Padding::Padme
        };
        let to = self.conversation.address_of(self.name(b))?;
        let event = json!({
            "op": "send", "to": self.name(b), "content": hex::encode(&*content),
            "padding": padding == Padding::Padme,
        });
        let salt = draw(rng);
        let sealed = self.step(a, event, &[], Some(salt), rng, |device, rows, env| {
            device.seal(rows, env, &to, &content, padding)
        })?;
        if let Some(sealed) = sealed {
            let at = self.events.len() - 1;
            self.conversation.keep_frame(at, sealed.frame.clone());
            if let Some(event) = self.events.last_mut() {
                set(event, "frame", hex::encode(&sealed.frame).into());
            }
            self.flights.push((at, a, b));
        }
        Ok(())
    }

    /// One of the frames made so far arrives, perhaps damaged, perhaps again.
    fn receive(&mut self, rng: &mut ChaCha20Rng) -> Result<(), Mismatch> {
        // Late ones more often than by chance alone: the last ten, or any.
        let span = if below(rng, 3) == 0 {
            self.flights.len()
        } else {
            self.flights.len().min(10)
        };
        let place = self.flights.len().saturating_sub(1 + below(rng, span));
        let Some((at, a, b)) = self.flights.get(place).copied() else {
            return Ok(());
        };
        let from = self.conversation.address_of(self.name(a))?;
        let mut frame = self.conversation.frame(at)?;
        let mut event = json!({ "op": "receive", "from": self.name(a), "frame_of": at });
        if below(rng, 8) == 0 {
            let flip = below(rng, frame.len());
            if let Some(byte) = frame.get_mut(flip) {
                *byte ^= 1;
            }
            set(&mut event, "flip", flip.into());
        }
        self.conversation
            .keep_frame(self.events.len(), frame.clone());
        let received = self.step(b, event, &["ratchet"], None, rng, |device, rows, env| {
            device.receive(rows, env, &from, &frame)
        })?;
        if let (Some(received), Some(event)) = (received, self.events.last_mut()) {
            set(event, "content", hex::encode(&*received.plaintext).into());
        }
        Ok(())
    }

    fn restart(&mut self, a: usize) {
        self.events
            .push(json!({ "op": "restart", "by": self.name(a) }));
    }
}
