//! What is said inside the body seal ("The protocol", §6). Secret: wiped, and printed by nobody.

use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use sprag_crypto::{Salt, SessionId};
use zeroize::{Zeroize, Zeroizing};

use crate::generated::sprag::v1 as pb;
use crate::{BadContent, UserId, limits};

/// One content: a body, and riders that go on any body.
pub struct Content {
    message_id: [u8; 16],
    sent_at: u64,
    body: Body,
    received: Vec<Salt>,
    device_list: Option<Vec<u8>>,
    reset: Vec<SessionId>,
}

/// What a content is about. Rules for who may send what are checked by [`Content::check_body`].
#[non_exhaustive]
pub enum Body {
    /// Bytes for the application.
    Application(Vec<u8>),
    /// Copy of what our own user sent to others.
    #[non_exhaustive]
    Sync {
        /// The users of the conversation, as received.
        to: Vec<String>,
        /// What was sent.
        application: Vec<u8>,
    },
    /// Salts of frames that could not be read, as received.
    Retry(Vec<Vec<u8>>),
    /// Nothing.
    Ack,
    /// Keys of the account.
    KeyShare(KeyShare),
    /// Something that this version does not know.
    Unsupported,
}

impl Body {
    /// A sync copy.
    #[must_use]
    pub fn sync(to: Vec<String>, application: Vec<u8>) -> Self {
        Self::Sync { to, application }
    }
}

/// Keys of the account, as received ("The protocol", §6.1). Empty: absent.
#[derive(Clone)]
#[non_exhaustive]
pub struct KeyShare {
    /// The account root.
    pub account_root: Vec<u8>,
    /// Epoch, number and key of generations.
    pub generations: Vec<(u64, u32, Vec<u8>)>,
    /// The account's private key.
    pub account_private_key: Vec<u8>,
    /// Proof of the one who scanned the code.
    pub link_proof: Vec<u8>,
}

impl KeyShare {
    /// From its parts.
    #[must_use]
    pub fn new(
        account_root: Vec<u8>,
        generations: Vec<(u64, u32, Vec<u8>)>,
        account_private_key: Vec<u8>,
        link_proof: Vec<u8>,
    ) -> Self {
        Self {
            account_root,
            generations,
            account_private_key,
            link_proof,
        }
    }

    fn is_well_formed(&self) -> bool {
        let absent_or_key = |key: &Vec<u8>| key.is_empty() || key.len() == 32;
        let keys = [
            &self.account_root,
            &self.account_private_key,
            &self.link_proof,
        ];
        let ascend = self
            .generations
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a < b));
        let ranges = self
            .generations
            .iter()
            .all(|(epoch, number, key)| *epoch > 0 && *number > 0 && key.len() == 32);
        keys.into_iter().all(absent_or_key)
            && self.generations.len() <= limits::GENERATIONS
            && ranges
            && ascend
    }
}

impl Drop for KeyShare {
    fn drop(&mut self) {
        self.account_root.zeroize();
        self.account_private_key.zeroize();
        self.link_proof.zeroize();
        self.generations
            .iter_mut()
            .for_each(|(_, _, key)| key.zeroize());
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque!(Content, Body, KeyShare);

impl Drop for Content {
    fn drop(&mut self) {
        match &mut self.body {
            Body::Application(bytes) => bytes.zeroize(),
            Body::Sync { to, application } => {
                to.zeroize();
                application.zeroize();
            }
            // A key share wipes itself; the rest is not secret.
            _ => {}
        }
    }
}

impl Content {
    /// A content without riders.
    #[must_use]
    pub fn new(message_id: [u8; 16], sent_at: u64, body: Body) -> Self {
        Self {
            message_id,
            sent_at,
            body,
            received: Vec::new(),
            device_list: None,
            reset: Vec::new(),
        }
    }

    /// 16 random bytes, the same in all copies.
    #[must_use]
    pub fn message_id(&self) -> &[u8; 16] {
        &self.message_id
    }

    /// The sender's clock, in milliseconds since 1970. For display only.
    #[must_use]
    pub fn sent_at(&self) -> u64 {
        self.sent_at
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Salts of the receiver's frames that were opened.
    #[must_use]
    pub fn received(&self) -> &[Salt] {
        &self.received
    }

    /// Sets the rider `received`; beyond 32 the rest is left out.
    pub fn set_received(&mut self, mut salts: Vec<Salt>) {
        salts.truncate(limits::RECEIVED);
        self.received = salts;
    }

    /// The sender's newest device list, a frame `0x14`, as received.
    #[must_use]
    pub fn device_list(&self) -> Option<&[u8]> {
        self.device_list.as_deref()
    }

    /// Sets the rider `device_list`.
    pub fn set_device_list(&mut self, frame: Option<Vec<u8>>) {
        self.device_list = frame;
    }

    /// Sessions that are to retire.
    #[must_use]
    pub fn reset(&self) -> &[SessionId] {
        &self.reset
    }

    /// Sets the rider `reset`; beyond 41 the rest is left out.
    pub fn set_reset(&mut self, mut sessions: Vec<SessionId>) {
        sessions.truncate(limits::RESET);
        self.reset = sessions;
    }

    /// Sets the proof of a key share that has one, for the session that carries it; of any other body nothing.
    pub fn set_link_proof(&mut self, proof: &[u8]) {
        if let Body::KeyShare(share) = &mut self.body
            && !share.link_proof.is_empty()
        {
            share.link_proof.zeroize();
            share.link_proof = proof.to_vec();
        }
    }

    /// The encoding, without padding.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        use pb::content::Body as Pb;
        let body = match &self.body {
            Body::Application(bytes) => Some(Pb::Application(bytes.clone())),
            Body::Sync { to, application } => Some(Pb::Sync(pb::SyncCopy {
                to: to.clone(),
                application: application.clone(),
            })),
            Body::Retry(salts) => Some(Pb::Retry(pb::RetryRequest {
                salts: salts.clone(),
            })),
            Body::Ack => Some(Pb::Ack(pb::Ack {})),
            Body::KeyShare(share) => Some(Pb::KeyShare(pb::KeyShare {
                account_root: share.account_root.clone(),
                generations: share
                    .generations
                    .iter()
                    .map(|(epoch, number, key)| pb::Generation {
                        epoch: *epoch,
                        number: *number,
                        key: key.clone(),
                    })
                    .collect(),
                account_private_key: share.account_private_key.clone(),
                link_proof: share.link_proof.clone(),
            })),
            Body::Unsupported => None,
        };
        let mut message = pb::Content {
            message_id: self.message_id.to_vec(),
            sent_at: self.sent_at,
            received: self
                .received
                .iter()
                .map(|salt| salt.as_bytes().to_vec())
                .collect(),
            device_list: self.device_list.clone().unwrap_or_default(),
            reset: self.reset.iter().map(|id| id.as_bytes().to_vec()).collect(),
            body,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(message.encoded_len()));
        // A Vec grows; encoding into it cannot fail.
        let _ = message.encode(&mut *bytes);
        wipe(&mut message);
        bytes
    }

    /// Decodes what was inside the padding (at most 2^20 bytes with it), by the ordinary rules of proto3 and rule (1) of
    /// "The protocol", §6.
    ///
    /// # Errors
    /// [`BadContent`]: nothing in it counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadContent> {
        if bytes.len() >= limits::PLAINTEXT {
            return Err(BadContent);
        }
        check_counts(bytes)?;
        let mut message = pb::Content::default();
        let merged = message.merge(bytes);
        let content = match merged {
            Ok(()) => Self::of_pb(&mut message),
            Err(_) => Err(BadContent),
        };
        wipe(&mut message);
        content
    }

    fn of_pb(message: &mut pb::Content) -> Result<Self, BadContent> {
        use pb::content::Body as Pb;
        let sixteen =
            |bytes: &Vec<u8>| <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| BadContent);
        // The body comes last: what is still in `message` when a rider is refused is wiped there.
        let message_id = sixteen(&message.message_id)?;
        let received = message
            .received
            .iter()
            .map(|salt| sixteen(salt).map(Salt::from_bytes))
            .collect::<Result<_, _>>()?;
        let reset = message
            .reset
            .iter()
            .map(|id| sixteen(id).map(SessionId::from_bytes))
            .collect::<Result<_, _>>()?;
        let body = match &mut message.body {
            None => Body::Unsupported,
            Some(Pb::Application(bytes)) => Body::Application(std::mem::take(bytes)),
            Some(Pb::Sync(sync)) => Body::Sync {
                to: std::mem::take(&mut sync.to),
                application: std::mem::take(&mut sync.application),
            },
            Some(Pb::Retry(retry)) => Body::Retry(std::mem::take(&mut retry.salts)),
            Some(Pb::Ack(_)) => Body::Ack,
            Some(Pb::KeyShare(share)) => Body::KeyShare(KeyShare {
                account_root: std::mem::take(&mut share.account_root),
                generations: share
                    .generations
                    .iter_mut()
                    .map(|one| (one.epoch, one.number, std::mem::take(&mut one.key)))
                    .collect(),
                account_private_key: std::mem::take(&mut share.account_private_key),
                link_proof: std::mem::take(&mut share.link_proof),
            }),
        };
        Ok(Self {
            message_id,
            sent_at: message.sent_at,
            body,
            received,
            device_list: (!message.device_list.is_empty())
                .then(|| std::mem::take(&mut message.device_list)),
            reset,
        })
    }

    /// The rules of the body ("The protocol", §6, table, and the form of §6.1), once the riders have been heard.
    ///
    /// # Errors
    /// [`BadContent`]: the body does not count.
    pub fn check_body(&self, from_own_user: bool) -> Result<(), BadContent> {
        let fine = match &self.body {
            Body::Application(_) | Body::Ack | Body::Unsupported => true,
            Body::Sync { to, .. } => {
                let users = (1..=limits::SYNC_TO).contains(&to.len())
                    && to.iter().all(|to| UserId::new(to).is_ok());
                from_own_user && users
            }
            Body::Retry(salts) => {
                (1..=limits::RETRY).contains(&salts.len())
                    && salts.iter().all(|salt| salt.len() == 16)
            }
            Body::KeyShare(share) => from_own_user && share.is_well_formed(),
        };
        if fine { Ok(()) } else { Err(BadContent) }
    }
}

/// Tags of the `oneof body`, and of the repeated riders.
const BODIES: [u32; 5] = [3, 4, 5, 6, 8];
const RECEIVED: u32 = 9;
const RESET: u32 = 11;

/// Counts the fields at the top level before anything is allocated for them: prost would merge or drop a second body in
/// silence, and take any number of riders.
fn check_counts(mut bytes: &[u8]) -> Result<(), BadContent> {
    let [mut bodies, mut received, mut reset] = [0usize; 3];
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).map_err(|_| BadContent)?;
        skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(|_| BadContent)?;
        let count = match tag {
            RECEIVED => &mut received,
            RESET => &mut reset,
            _ if BODIES.contains(&tag) => &mut bodies,
            _ => continue,
        };
        *count = count.saturating_add(1);
    }
    if bodies > 1 || received > limits::RECEIVED || reset > limits::RESET {
        return Err(BadContent);
    }
    Ok(())
}

/// Wipes what a generated message still holds.
fn wipe(message: &mut pb::Content) {
    use pb::content::Body as Pb;
    match &mut message.body {
        Some(Pb::Application(bytes)) => bytes.zeroize(),
        Some(Pb::Sync(sync)) => {
            sync.to.zeroize();
            sync.application.zeroize();
        }
        Some(Pb::KeyShare(share)) => {
            share.account_root.zeroize();
            share.account_private_key.zeroize();
            share.link_proof.zeroize();
            share
                .generations
                .iter_mut()
                .for_each(|one| one.key.zeroize());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [9; 16];

    /// A content's bytes with these fields after `message_id`.
    fn with(fields: &[&[u8]]) -> Vec<u8> {
        let id = [[1 << 3 | 2, 16].as_slice(), &ID].concat();
        [id, fields.concat()].concat()
    }

    fn field(number: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[number << 3 | 2, length], payload].concat()
    }

    fn checked(body: Body, from_own_user: bool) -> bool {
        let content = Content::new(ID, 0, body);
        let content = Content::decode(&content.encode()).unwrap();
        content.check_body(from_own_user).is_ok()
    }

    #[test]
    fn every_body_decodes_and_an_unknown_one_is_unsupported() {
        let body = |number: u8| {
            let content = Content::decode(&with(&[&field(number, &[])])).unwrap();
            std::mem::discriminant(content.body())
        };
        let expected = [
            (3, Body::Application(Vec::new())),
            (4, Body::sync(Vec::new(), Vec::new())),
            (5, Body::Retry(Vec::new())),
            (6, Body::Ack),
            (7, Body::Unsupported),
            (12, Body::Unsupported),
        ];
        for (number, expected) in expected {
            assert_eq!(body(number), std::mem::discriminant(&expected), "{number}");
        }
        let share = KeyShare::new(Vec::new(), Vec::new(), Vec::new(), Vec::new());
        assert_eq!(body(8), std::mem::discriminant(&Body::KeyShare(share)));
        assert!(matches!(
            Content::decode(&with(&[])).unwrap().body(),
            Body::Unsupported
        ));
    }

    #[test]
    fn a_second_body_is_bad_also_of_the_same_kind_or_empty() {
        for first in [3, 4, 5, 6, 8] {
            for second in [3, 4, 5, 6, 8] {
                let bytes = with(&[&field(first, &[]), &field(2, &[])[..0], &field(second, &[])]);
                assert_eq!(
                    Content::decode(&bytes).unwrap_err(),
                    BadContent,
                    "{first} {second}"
                );
            }
            let unknown = with(&[&field(7, b"new"), &field(first, &[]), &field(15, b"new")]);
            assert!(Content::decode(&unknown).is_ok());
        }
    }

    #[test]
    fn unknown_fields_of_every_wire_type_are_skipped() {
        let group = [7 << 3 | 3, 3 << 3 | 2, 0, 3 << 3 | 2, 0, 7 << 3 | 4]; // two bodies, but not of the content
        for unknown in [
            [7 << 3, 1].as_slice(),
            &[7 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[7 << 3 | 2, 1, 0],
            &[7 << 3 | 5, 0, 0, 0, 0],
            &group,
        ] {
            let content = Content::decode(&with(&[unknown, &field(3, b"hi")])).unwrap();
            assert!(matches!(content.body(), Body::Application(bytes) if bytes == b"hi"));
        }
    }

    #[test]
    fn what_is_no_protobuf_is_bad() {
        for fields in [
            [3 << 3, 1].as_slice(),                // another wire type of a known field
            &[2 << 3 | 2, 0],                      // of sent_at
            &[9 << 3, 1],                          // of a rider
            &[3 << 3 | 3, 3 << 3 | 4],             // a group of a known field
            &[3 << 3 | 2, 5, 1],                   // cut short
            &[7 << 3 | 3],                         // a group without end
            &[7 << 3 | 4],                         // an end without group
            &[7 << 3 | 6],                         // no wire type
            &[0, 0],                               // no field
            &[0xff; 11],                           // no varint
            &[4 << 3 | 2, 3, 1 << 3 | 2, 1, 0xff], // a string that is not UTF-8
            &[5 << 3 | 2, 2, 1 << 3, 1],           // another wire type further inside
        ] {
            assert_eq!(
                Content::decode(&with(&[fields])).unwrap_err(),
                BadContent,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn ids_and_riders_of_another_size_or_number_are_bad() {
        let id = |size: usize| field(1, &vec![1; size]);
        for size in [0, 15, 17] {
            assert_eq!(Content::decode(&id(size)).unwrap_err(), BadContent);
        }
        assert_eq!(Content::decode(&[]).unwrap_err(), BadContent);
        for (number, most) in [(9, 32), (11, 41)] {
            let riders = |count: usize, size: usize| {
                with(&[
                    &field(number, &vec![1; size]).repeat(count),
                    &field(3, b"hi"),
                ])
            };
            assert!(Content::decode(&riders(most, 16)).is_ok());
            assert_eq!(
                Content::decode(&riders(most + 1, 16)).unwrap_err(),
                BadContent
            );
            assert_eq!(Content::decode(&riders(1, 15)).unwrap_err(), BadContent);
            assert_eq!(Content::decode(&riders(1, 17)).unwrap_err(), BadContent);
        }
    }

    #[test]
    fn more_than_a_plaintext_is_refused_unread() {
        let body = Body::Application(vec![1; limits::PLAINTEXT]);
        let content = Content::new(ID, 0, body).encode();
        assert_eq!(Content::decode(&content).unwrap_err(), BadContent);
    }

    #[test]
    fn riders_are_cut_to_what_a_receiver_takes() {
        let mut content = Content::new(ID, 0, Body::Ack);
        content.set_received(vec![Salt::from_bytes([1; 16]); 33]);
        content.set_reset(vec![SessionId::from_bytes([1; 16]); 42]);
        content.set_device_list(Some(vec![0x14; 70]));
        let content = Content::decode(&content.encode()).unwrap();
        assert_eq!((content.received().len(), content.reset().len()), (32, 41));
        assert_eq!(content.device_list(), Some([0x14; 70].as_slice()));
    }

    #[test]
    fn a_body_that_breaks_the_table_is_decoded_but_does_not_count() {
        let salts = |count: usize, size: usize| Body::Retry(vec![vec![1; size]; count]);
        let sync = |to: &str, count: usize| Body::sync(vec![to.to_owned(); count], Vec::new());
        assert!(checked(salts(1, 16), false) && checked(salts(64, 16), true));
        assert!(checked(sync("ann", 1), true) && checked(sync("ann", 256), true));
        assert!(checked(Body::Ack, false) && checked(Body::Unsupported, false));
        for (body, own) in [
            (salts(0, 16), false),
            (salts(65, 16), false),
            (salts(1, 15), false),
            (sync("ann", 1), false), // of another user
            (sync("ann", 0), true),
            (sync("ann", 257), true),
            (sync("", 1), true),
            (sync("a\n", 1), true),
        ] {
            assert!(!checked(body, own));
        }
    }

    #[test]
    fn only_key_shares_of_the_form_and_of_our_own_user_count() {
        let key = |size: usize| vec![1; size];
        let share = |keys: [usize; 3], generations: &[(u64, u32, u8)], size: usize| {
            let generations = generations
                .iter()
                .map(|(epoch, number, byte)| (*epoch, *number, vec![*byte; size]));
            let [root, private, proof] = keys.map(key);
            Body::KeyShare(KeyShare::new(root, generations.collect(), private, proof))
        };
        let ascending = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)];
        assert!(checked(share([0, 0, 0], &[], 32), true));
        assert!(checked(share([32, 32, 32], &ascending, 32), true));
        let many: Vec<_> = (1..=65).map(|epoch| (epoch, 1, 1)).collect();
        assert!(checked(share([32, 0, 0], &many[..64], 32), true));
        for (body, own) in [
            (share([32, 32, 32], &ascending, 32), false),
            (share([31, 32, 32], &ascending, 32), true),
            (share([32, 33, 32], &ascending, 32), true),
            (share([32, 32, 1], &ascending, 32), true),
            (share([32, 32, 32], &ascending, 31), true),
            (share([32, 32, 32], &ascending, 0), true),
            (share([32, 0, 0], &many, 32), true),
            (share([32, 0, 0], &[(0, 1, 1)], 32), true),
            (share([32, 0, 0], &[(1, 0, 1)], 32), true),
            (share([32, 0, 0], &[(1, 1, 1), (1, 1, 1)], 32), true),
            (share([32, 0, 0], &[(2, 1, 1), (1, 1, 1)], 32), true),
        ] {
            assert!(!checked(body, own));
        }
    }

    #[test]
    fn nothing_of_a_content_is_printed() {
        let share = KeyShare::new(vec![1; 32], Vec::new(), Vec::new(), Vec::new());
        assert_eq!(format!("{share:?}"), "KeyShare { .. }");
        assert_eq!(format!("{:?}", Body::KeyShare(share)), "Body { .. }");
        let content = Content::new(ID, 0, Body::Ack);
        assert_eq!(format!("{content:?}"), "Content { .. }");
    }
}
