//! Replays the published conversations without the post-quantum ratchet at the level of this crate, from the
//! handshake's inputs to the final state of both sessions.

use core::convert::Infallible;
use std::collections::BTreeMap;

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use sprag_crypto::{
    Features, HandshakeSecret, Mode, PrivateKey, RatchetKeyPair, SessionId, TranscriptHash,
};
use sprag_wire::MessageFrame;

use super::{MemorySkipped, bytes32, hex, vectors};
use crate::{DecryptError, Limits, ReceivedMessage, Role, SaltSource, Session, SkippedIndex};

/// Gives the bytes that the vectors say were drawn, and no more.
struct Drawn(Vec<u8>);

impl Drawn {
    fn of(event: &Value) -> Self {
        let draws = event["random"].as_array().into_iter().flatten();
        Self(
            draws
                .filter(|draw| draw[0] == "ratchet")
                .flat_map(|draw| hex(&draw[1]))
                .collect(),
        )
    }
}

impl TryRng for Drawn {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

fn secret(mode: Mode, values: &Value) -> HandshakeSecret {
    let sid: [u8; 16] = hex(&values["sid"]).try_into().unwrap();
    HandshakeSecret::derive(
        mode,
        Features::default(),
        TranscriptHash::from_bytes(bytes32(&values["th"])),
        SessionId::from_bytes(sid),
        &hex(&values["ikm"]),
    )
}

fn name(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn optional(value: &Value) -> Option<[u8; 32]> {
    Some(hex(value))
        .filter(|bytes| !bytes.is_empty())
        .map(|bytes| bytes.try_into().unwrap())
}

fn replay(conversation: &Value) {
    let events = conversation["events"].as_array().unwrap();
    let mut sessions: BTreeMap<&str, Session> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, MemorySkipped> = BTreeMap::new();
    let mut mode = Mode::Pqxdh;
    let mut messages = 0;
    for event in events {
        let by = name(&event["by"]);
        let values = &event["values"];
        let mut drawn = Drawn::of(event);
        match name(&event["op"]) {
            "open" => {
                if event["mode"] == 2 {
                    mode = Mode::X3dh;
                }
                let to = device(conversation, name(&event["to"]));
                let signed = to["signed_pre_keys"].as_array().unwrap().last().unwrap();
                let signed = RatchetKeyPair::from_private(PrivateKey::from_bytes(&bytes32(
                    &signed["private"],
                )));
                let session = Session::initiate(secret(mode, values), signed.public(), &mut drawn);
                sessions.insert(by, session.unwrap());
                skipped.insert(by, MemorySkipped::default());
            }
            "send" => {
                let frame = hex(&event["frame"]);
                let frame = MessageFrame::parse(&frame).unwrap();
                let (next, sent) = sessions[by]
                    .encrypt(
                        &hex(&values["plaintext"]),
                        SaltSource::Injected(frame.salt()),
                    )
                    .unwrap();
                assert_eq!(sent.header, frame.header());
                assert_eq!(sent.body, frame.body());
                assert_eq!(
                    u64::from(sent.chain_index),
                    values["chain_index"].as_u64().unwrap()
                );
                sessions.insert(by, next);
                messages += 1;
            }
            "receive" => {
                let sent = &events[event["frame_of"]
                    .as_u64()
                    .map(|n| usize::try_from(n).unwrap())
                    .unwrap()];
                let frame = hex(&sent["frame"]);
                let frame = MessageFrame::parse(&frame).unwrap();
                let index: u32 = sent["values"]["chain_index"]
                    .as_u64()
                    .unwrap()
                    .try_into()
                    .unwrap();
                let message =
                    ReceivedMessage::new(index, frame.salt(), frame.header(), frame.body());
                if !sessions.contains_key(by) {
                    let signed = device(conversation, by)["signed_pre_keys"]
                        .as_array()
                        .unwrap()
                        .last()
                        .unwrap();
                    let signed = PrivateKey::from_bytes(&bytes32(&signed["private"]));
                    let signed = RatchetKeyPair::from_private(signed);
                    let session = Session::respond(secret(mode, values), signed).unwrap();
                    sessions.insert(by, session);
                    skipped.insert(by, MemorySkipped::default());
                }
                let session = sessions.get_mut(by).unwrap();
                let rows = skipped.get_mut(by).unwrap();
                let result = session.decrypt(&message, rows, Limits::ACCEPTED, &mut drawn);
                match event["error"].as_str() {
                    None => {
                        let decrypted = result.unwrap();
                        assert_eq!(*decrypted.plaintext, hex(&values["plaintext"]));
                        rows.commit(session, decrypted);
                    }
                    Some("Duplicate") => assert_eq!(result.unwrap_err(), DecryptError::Duplicate),
                    Some(other) => panic!("{other} is not expected here"),
                }
            }
            "restart" => {
                let records = sessions[by].to_records();
                let again =
                    Session::from_records(&records.constants, &records.hot, &records.old_chains);
                sessions.insert(by, again.unwrap());
            }
            _ => {} // what concerns other layers
        }
        assert!(drawn.0.is_empty(), "something was not drawn");
    }
    assert!(messages > 5);
    for (device, session) in sessions {
        let expected = &conversation["final"][device]["peers"][0]["sessions"][0];
        check_final(&session, &skipped[device], expected);
    }
}

fn device<'a>(conversation: &'a Value, device: &str) -> &'a Value {
    let mut devices = conversation["devices"].as_array().unwrap().iter();
    devices.find(|known| known["name"] == device).unwrap()
}

fn check_final(session: &Session, skipped: &MemorySkipped, expected: &Value) {
    let state = session.export();
    assert_eq!(state.sid.as_bytes().to_vec(), hex(&expected["sid"]));
    assert_eq!(*state.th.as_bytes(), bytes32(&expected["th"]));
    let role = match state.role {
        Role::Initiator => "initiator",
        Role::Responder => "responder",
    };
    assert_eq!(role, expected["role"]);
    assert_eq!(
        u64::from(state.features.bits()),
        expected["features"].as_u64().unwrap()
    );
    assert_eq!(state.rk, bytes32(&expected["rk"]));
    for (value, name) in [
        (state.cks, "cks"),
        (state.hks, "hks"),
        (state.ckr, "ckr"),
        (state.hkr, "hkr"),
        (Some(state.nhks), "nhks"),
        (Some(state.nhkr), "nhkr"),
        (Some(state.ratchet_private), "ratchet_private"),
    ] {
        assert_eq!(value, optional(&expected[name]), "{name}");
    }
    for (value, name) in [
        (i64::from(state.ns), "ns"),
        (i64::from(state.nr), "nr"),
        (i64::from(state.pn), "pn"),
        (state.i_s, "i_s"),
        (i64::from(state.c), "c"),
    ] {
        assert_eq!(value, expected[name].as_i64().unwrap(), "{name}");
    }
    let old: Vec<(u32, [u8; 32])> = expected["old"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry[0].as_u64().unwrap().try_into().unwrap(),
                bytes32(&entry[1]),
            )
        })
        .collect();
    assert_eq!(state.old, old);
    let expected = expected["skipped"].as_array().unwrap();
    assert_eq!(skipped.rows.len(), expected.len());
    for ((at, seed), entry) in skipped.rows.iter().zip(expected) {
        let SkippedIndex { chain, number, .. } = *at;
        assert_eq!(state.kid(chain).unwrap().to_vec(), hex(&entry[0]));
        assert_eq!(u64::from(number), entry[1].as_u64().unwrap());
        assert_eq!(*seed, bytes32(&entry[2]));
    }
}

#[test]
fn the_first_four_published_conversations_replay_byte_for_byte() {
    for conversation in &vectors()["conversations"].as_array().unwrap()[..4] {
        replay(conversation);
    }
}
