//! The rows of the session layer: one table byte each, names only through these functions.
//!
//! | table | name | value |
//! | --- | --- | --- |
//! | `01` | `00` to `04` | our device; its counters; epoch of the server; when it last got prekeys for lack of them; link nonce and account root |
//! | `01` | `07` `08` | what upkeep remembers; how often a renewal was wanted |
//! | `01` | `09` `0a` | what was counted; settings |
//! | `01` | `05`; `05 01`, sequence | our next list, not yet taken by the server; changes that are to be signed |
//! | `01` | `05 02`; `05 03`; `05 04`, device | a list that others are to hear of (empty: only our own devices); a generation is due; the account key is to be shared |
//! | `01` | `06`; `06`, device | link request shown here; link request read here, whose device waits for our keys |
//! | `01` | `0b` | how often we were set back, and whether the anchor was away |
//! | `01` | `0c` | a restore under way |
//! | `02` `03` `04` | prekey id | one-time, signed, KEM prekey with its private half |
//! | `05` | signed prekey id, SID | seen-set of handshakes that used no one-time prekey |
//! | `10` | *user*, `00` to `02` | account key, newest list, history, accepted; changed list to be decided on; last fetch |
//! | `11` | *device*, `00` or `01` | order of sessions, reset; ledger |
//! | `12` | *device*, session number, part | hot part, constants, pending handshake, old chains |
//! | `13` | *device*, session number, chain, number | one skipped key |
//! | `14` | `00` to `02`, number | frame kept to be offered again, in chunks; salts of frames that were not kept |
//! | `15` | epoch | our own signed lists, as bytes |
//! | `16` | epoch | hash of our own list of that epoch |
//! | `17` | *device* | a record of a user who is not accepted: address, last read |
//! | `18` | *user*, device | this device has a record |
//! | `19` | *device*, SID | salts asked for of a lost session |
//! | `1b` | *device* or *user*, `00` to `04` | fresh session wanted; last acknowledgement; fresh sessions of a day; how far the outbox was delivered again |
//! | `1b` | *device*, `08` | hash of the list of ours that the device has |
//! | `1b` | *user*, `0a` or `0b` | when something last brought the list; when it was last asked for, for lack of that |
//! | `1c` | *device* | what is to be asked for |
//! | `1d` | *device*, salt | frame that carried a reset not confirmed yet |
//! | `1a` | device number | was on a list of ours |
//! | `1e` | epoch, number, place | a generation of the account's memory keys |
//! | `1f` | place | key share put aside until this device is linked |
//! | `30` | sequence, chunk | inbox |
//! | `31` `32` | *device*, message id; *device*, slot | message ids already delivered |
//! | `33` | *device*, number | salt of a frame opened here and not yet named in `received` |
//! | `34` | *device*, `00` to `02` | next number of `32`, of `33`, of `35` |
//! | `35` | *device*, slot | copies handed over that wait for their receipt |
//! | `40` | sequence, chunk | outbox: what was sent, until all have it |
//! | `41` | sequence, copy | outbox: state of one device's copy |
//! | `42` | task id, chunk | outbox: the frame to hand over |
//! | `43` | message id | sequence of a message |
//! | `44` | *device*, salt | copy that this frame carried |
//! | `45` | *device*, sequence | copy that waits for a session |
//! | `46` | *user*, sequence | message that waits for the user's list |
//! | `50` | task id | task |
//! | `51` | *user* or *device* | the fetch under way for it |
//! | `52` | sequence | event |
//! | `53` | place | event of the protocol, for a report |
//! | `54` | *user* | sending waits for this user's list, which nothing had brought for a day |
//! | `55` | *device*, salt | frame that carried our newest list |
//! | `60` | space | a space of memories: its names, tag and flags, what is under way |
//! | `61` | space, record | what the key log says of a record |
//! | `62` | *blob*, chunk | a blob that is held: what of, then its bytes |
//! | `63` | space, record | written here and not yet in a head of the server |
//! | `64` | space, record, chunk | what the search index says of a record |
//! | `65` | space, record | changed by another device, and not yet in the index |
//! | `66` | kind, blob | a blob to be put, got or dropped |
//! | `67` `68` `69` | space, chunk | sealed head: the newest; ours that is under way; one whose segments are being got |
//! | `6a` | part | what holds for all spaces |
//! | `6b` | space, record | erased, and not yet everywhere |
//! | `6c` | space | has something to be done |
//! | `6d` | space, blob | to be dropped at the server once it has our next head |
//! | `6e` | space, record, blob | a write that lost against another of the same revision |
//! | `6f` | *space* | its number |
//! | `70` | attachment, part | part of an attachment that is being made |
//!
//! Names in *italics* are blinded by the store.

use sprag_crypto::{Salt, SessionId};
use sprag_store::RowName;
use sprag_wire::{DeviceAddress, UserId};

/// A device as owner of rows: `u8(len user) ‖ user ‖ u32be(device)`.
pub(crate) fn device_owner(address: &DeviceAddress) -> Vec<u8> {
    let user = address.user().as_str().as_bytes();
    let mut owner = Vec::with_capacity(user.len() + 5);
    owner.push(u8::try_from(user.len()).unwrap_or(u8::MAX));
    owner.extend_from_slice(user);
    owner.extend_from_slice(&address.device().get().to_be_bytes());
    owner
}

fn user_owner(user: &UserId) -> Vec<u8> {
    user.as_str().as_bytes().to_vec()
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn own(part: u8) -> RowName {
    RowName::plain(0x01, vec![part])
}

pub(crate) const OWN_DEVICE: u8 = 0;
pub(crate) const OWN_COUNTERS: u8 = 1;
pub(crate) const OWN_SERVER: u8 = 2;
pub(crate) const OWN_REFILLED: u8 = 3;
pub(crate) const OWN_KEYS: u8 = 4;
pub(crate) const OWN_UPKEEP: u8 = 7;
pub(crate) const OWN_RENEWAL: u8 = 8;
pub(crate) const OWN_TALLY: u8 = 9;
pub(crate) const OWN_SETTINGS: u8 = 0x0a;

/// Our next list, signed and not yet taken by the server.
pub(crate) const OWN_NEXT: u8 = 5;

/// Changes of our list that are to be signed, in the order they were asked for.
pub(crate) fn list_changes() -> RowName {
    RowName::plain(0x01, vec![OWN_NEXT, 1])
}

pub(crate) fn list_change(sequence: u64) -> RowName {
    RowName::plain(0x01, join(&[&[OWN_NEXT, 1], &sequence.to_be_bytes()]))
}

/// The list of ours that left out a device, and of which contacts are to hear.
pub(crate) fn announced_list() -> RowName {
    RowName::plain(0x01, vec![OWN_NEXT, 2])
}

/// A new generation of memory keys is due.
pub(crate) fn generation_due() -> RowName {
    RowName::plain(0x01, vec![OWN_NEXT, 3])
}

/// Devices of ours that became holders and lack the account's private key.
pub(crate) fn new_holders() -> RowName {
    RowName::plain(0x01, vec![OWN_NEXT, 4])
}

pub(crate) fn new_holder(device: u32) -> RowName {
    RowName::plain(0x01, join(&[&[OWN_NEXT, 4], &device.to_be_bytes()]))
}

/// The link request that this device shows.
pub(crate) const OWN_REQUEST: u8 = 6;

/// Link requests that this device read: the row that this one prefixes is [`OWN_REQUEST`].
pub(crate) fn links() -> RowName {
    RowName::plain(0x01, vec![OWN_REQUEST])
}

pub(crate) fn link(device: u32) -> RowName {
    RowName::plain(0x01, join(&[&[OWN_REQUEST], &device.to_be_bytes()]))
}
pub(crate) const OWN_GUARD: u8 = 0x0b;

pub(crate) const OWN_RESTORING: u8 = 0x0c;

pub(crate) const GENERATIONS: u8 = 0x1e;

pub(crate) fn generation(epoch: u64, number: u32, place: &[u8; 8]) -> RowName {
    RowName::plain(
        GENERATIONS,
        join(&[&epoch.to_be_bytes(), &number.to_be_bytes(), place]),
    )
}

pub(crate) const ASIDE: u8 = 0x1f;

pub(crate) fn aside(place: u8) -> RowName {
    RowName::plain(ASIDE, vec![place])
}

pub(crate) const ONE_TIME: u8 = 0x02;
pub(crate) const SIGNED: u8 = 0x03;
pub(crate) const KEM: u8 = 0x04;

pub(crate) fn prekey(table: u8, id: u32) -> RowName {
    RowName::plain(table, id.to_be_bytes().to_vec())
}

pub(crate) fn all(table: u8) -> RowName {
    RowName::plain(table, Vec::new())
}

pub(crate) fn seen(signed: u32, sid: Option<&SessionId>) -> RowName {
    let id = signed.to_be_bytes();
    RowName::plain(
        0x05,
        join(&[&id, sid.map_or(&[][..], |sid| sid.as_bytes())]),
    )
}

/// A row of a seen-set, by the bytes of its SID.
pub(crate) fn seen_row(signed: u32, sid: &[u8]) -> RowName {
    RowName::plain(0x05, join(&[&signed.to_be_bytes(), sid]))
}

pub(crate) const USERS: u8 = 0x10;

pub(crate) fn user(user: &UserId) -> RowName {
    RowName::owned(USERS, user_owner(user), vec![0])
}

/// A changed identity that the server showed, and that waits for the user's decision.
pub(crate) fn candidate(user: &UserId) -> RowName {
    RowName::owned(0x10, user_owner(user), vec![1])
}

/// When the user's list was last fetched because of a frame.
pub(crate) fn list_fetched(user: &UserId) -> RowName {
    RowName::owned(0x10, user_owner(user), vec![2])
}

pub(crate) fn record(device: &[u8]) -> RowName {
    RowName::owned(0x11, device.to_vec(), vec![0])
}

pub(crate) fn ledger(device: &[u8]) -> RowName {
    RowName::owned(0x11, device.to_vec(), vec![1])
}

pub(crate) const HOT: u8 = 0;
pub(crate) const CONSTANTS: u8 = 1;
pub(crate) const PENDING: u8 = 2;
pub(crate) const OLD_CHAINS: u8 = 3;

pub(crate) fn session(device: &[u8], number: u64, part: u8) -> RowName {
    RowName::owned(
        0x12,
        device.to_vec(),
        join(&[&number.to_be_bytes(), &[part]]),
    )
}

pub(crate) fn session_rows(device: &[u8], number: u64) -> RowName {
    RowName::owned(0x12, device.to_vec(), number.to_be_bytes().to_vec())
}

pub(crate) fn skipped(device: &[u8], number: u64, chain: u32, message: u32) -> RowName {
    let suffix = join(&[
        &number.to_be_bytes(),
        &chain.to_be_bytes(),
        &message.to_be_bytes(),
    ]);
    RowName::owned(0x13, device.to_vec(), suffix)
}

pub(crate) fn skipped_rows(device: &[u8], number: u64, chain: Option<u32>) -> RowName {
    let chain = chain.map(u32::to_be_bytes);
    let suffix = join(&[&number.to_be_bytes(), chain.as_ref().map_or(&[][..], |c| c)]);
    RowName::owned(0x13, device.to_vec(), suffix)
}

/// A frame that is kept to be offered again.
pub(crate) fn kept_frame(number: Option<u64>) -> RowName {
    kept(0, number)
}

pub(crate) fn kept_chunk(number: u64, chunk: u32) -> RowName {
    kept(1, Some(number)).join(&chunk.to_be_bytes())
}

/// Salts of frames of one device that were not kept.
pub(crate) fn kept_salts(number: Option<u64>) -> RowName {
    kept(2, number)
}

fn kept(part: u8, number: Option<u64>) -> RowName {
    let number = number.map(u64::to_be_bytes);
    RowName::plain(
        0x14,
        join(&[&[part], number.as_ref().map_or(&[][..], |n| n)]),
    )
}

pub(crate) fn own_list(epoch: u64) -> RowName {
    RowName::plain(0x15, epoch.to_be_bytes().to_vec())
}

pub(crate) const OWN_LISTS: u8 = 0x15;
pub(crate) const OWN_HISTORY: u8 = 0x16;

pub(crate) fn own_history(epoch: u64) -> RowName {
    RowName::plain(OWN_HISTORY, epoch.to_be_bytes().to_vec())
}

pub(crate) const OWN_NUMBERS: u8 = 0x1a;

/// A device number that was on a list of ours: it is never given again.
pub(crate) fn own_number(number: u32) -> RowName {
    RowName::plain(OWN_NUMBERS, number.to_be_bytes().to_vec())
}

pub(crate) const STRANGERS: u8 = 0x17;

pub(crate) fn stranger(device: &[u8]) -> RowName {
    RowName::owned(STRANGERS, device.to_vec(), Vec::new())
}

/// The salts asked for of a lost session.
pub(crate) fn lost_salts(device: &[u8], id: &SessionId) -> RowName {
    RowName::owned(0x19, device.to_vec(), id.as_bytes().to_vec())
}

pub(crate) fn lost_salts_of(device: &[u8]) -> RowName {
    RowName::owned(0x19, device.to_vec(), Vec::new())
}

/// A fresh session with the device is wanted, although there may be one.
pub(crate) fn wants_fresh(device: &[u8]) -> RowName {
    RowName::owned(0x1b, device.to_vec(), vec![0])
}

pub(crate) fn last_ack(device: &[u8]) -> RowName {
    RowName::owned(0x1b, device.to_vec(), vec![1])
}

pub(crate) fn fresh_of_device(device: &[u8]) -> RowName {
    RowName::owned(0x1b, device.to_vec(), vec![2])
}

pub(crate) fn fresh_of_user(user: &UserId) -> RowName {
    RowName::owned(0x1b, user_owner(user), vec![3])
}

/// How far the outbox has been delivered again to a server that went back.
pub(crate) fn redelivery(own: &UserId) -> RowName {
    RowName::owned(0x1b, user_owner(own), vec![4])
}

/// The list of ours that a device is known to have.
pub(crate) fn has_list(device: &[u8]) -> RowName {
    RowName::owned(0x1b, device.to_vec(), vec![8])
}

/// When something last brought a user's list.
pub(crate) fn list_brought(user: &UserId) -> RowName {
    RowName::owned(0x1b, user_owner(user), vec![0x0a])
}

/// When a user's list was last asked for because nothing had brought it for a day.
pub(crate) fn list_asked(user: &UserId) -> RowName {
    RowName::owned(0x1b, user_owner(user), vec![0x0b])
}

pub(crate) const REQUESTS: u8 = 0x1c;

/// What is to be asked for of a device.
pub(crate) fn request(device: &[u8]) -> RowName {
    RowName::owned(REQUESTS, device.to_vec(), Vec::new())
}

/// A frame that carried a reset which is not confirmed yet.
pub(crate) fn carried_reset(device: &[u8], salt: Option<&Salt>) -> RowName {
    let suffix = salt.map_or(Vec::new(), |salt| salt.as_bytes().to_vec());
    RowName::owned(0x1d, device.to_vec(), suffix)
}

pub(crate) fn has_record(user: &UserId, device: u32) -> RowName {
    RowName::owned(0x18, user_owner(user), device.to_be_bytes().to_vec())
}

pub(crate) fn records_of(user: &UserId) -> RowName {
    RowName::owned(0x18, user_owner(user), Vec::new())
}

pub(crate) const INBOX: u8 = 0x30;
pub(crate) const OUTBOX: u8 = 0x40;
pub(crate) const COPIES: u8 = 0x41;
pub(crate) const FRAMES: u8 = 0x42;

/// One chunk of something kept under a sequence number.
pub(crate) fn chunk(table: u8, sequence: u64, chunk: u32) -> RowName {
    RowName::plain(
        table,
        join(&[&sequence.to_be_bytes(), &chunk.to_be_bytes()]),
    )
}

pub(crate) fn sequence(table: u8, sequence: u64) -> RowName {
    RowName::plain(table, sequence.to_be_bytes().to_vec())
}

pub(crate) fn delivered(device: &[u8], message_id: &[u8; 16]) -> RowName {
    RowName::owned(0x31, device.to_vec(), message_id.to_vec())
}

pub(crate) fn delivered_slot(device: &[u8], slot: u64) -> RowName {
    RowName::owned(0x32, device.to_vec(), slot.to_be_bytes().to_vec())
}

pub(crate) fn handed_over_slot(device: &[u8], slot: u64) -> RowName {
    RowName::owned(0x35, device.to_vec(), slot.to_be_bytes().to_vec())
}

pub(crate) fn unnamed(device: &[u8], number: Option<u64>) -> RowName {
    RowName::owned(
        0x33,
        device.to_vec(),
        number.map_or(Vec::new(), |number| number.to_be_bytes().to_vec()),
    )
}

pub(crate) const RING_DELIVERED: u8 = 0;
pub(crate) const RING_OPENED: u8 = 1;
pub(crate) const RING_HANDED_OVER: u8 = 2;

pub(crate) fn ring(device: &[u8], which: u8) -> RowName {
    RowName::owned(0x34, device.to_vec(), vec![which])
}

/// Everything that is remembered of a device's messages, as prefixes.
pub(crate) fn memory_of(device: &[u8]) -> [RowName; 5] {
    [0x31, 0x32, 0x33, 0x34, 0x35].map(|table| RowName::owned(table, device.to_vec(), Vec::new()))
}

pub(crate) fn message(id: &[u8; 16]) -> RowName {
    RowName::plain(0x43, id.to_vec())
}

pub(crate) fn carried(device: &[u8], salt: Option<&Salt>) -> RowName {
    RowName::owned(
        0x44,
        device.to_vec(),
        salt.map_or(Vec::new(), |salt| salt.as_bytes().to_vec()),
    )
}

pub(crate) fn waits_for_session(device: &[u8], sequence: Option<u64>) -> RowName {
    let suffix = sequence.map_or(Vec::new(), |sequence| sequence.to_be_bytes().to_vec());
    RowName::owned(0x45, device.to_vec(), suffix)
}

pub(crate) fn waits_for_list(user: &UserId, sequence: Option<u64>) -> RowName {
    let suffix = sequence.map_or(Vec::new(), |sequence| sequence.to_be_bytes().to_vec());
    RowName::owned(0x46, user_owner(user), suffix)
}

pub(crate) const STALE_LISTS: u8 = 0x54;

/// What is sent to a user waits for his list, which nothing had brought for a day.
pub(crate) fn stale_list(user: &UserId) -> RowName {
    RowName::owned(STALE_LISTS, user_owner(user), Vec::new())
}

pub(crate) const CARRIED_LISTS: u8 = 0x55;

/// A frame that carried our newest list.
pub(crate) fn carried_list(device: &[u8], salt: Option<&Salt>) -> RowName {
    let suffix = salt.map_or(Vec::new(), |salt| salt.as_bytes().to_vec());
    RowName::owned(CARRIED_LISTS, device.to_vec(), suffix)
}

pub(crate) const TASKS: u8 = 0x50;
pub(crate) const EVENTS: u8 = 0x52;

pub(crate) fn fetch_of_device(device: &[u8]) -> RowName {
    RowName::owned(0x51, device.to_vec(), vec![1])
}

pub(crate) fn fetch_of_lists(user: &UserId) -> RowName {
    RowName::owned(0x51, user_owner(user), vec![2])
}

pub(crate) fn fetch_of_user(user: &UserId) -> RowName {
    RowName::owned(0x51, user_owner(user), vec![0])
}

pub(crate) const RING: u8 = 0x53;

/// A place in the ring of protocol events.
pub(crate) fn ring_place(place: u16) -> RowName {
    RowName::plain(RING, place.to_be_bytes().to_vec())
}

/// The number of a space, and what follows it.
fn of_space(table: u8, space: u32, rest: &[u8]) -> RowName {
    RowName::plain(table, join(&[&space.to_be_bytes(), rest]))
}

pub(crate) const SPACES: u8 = 0x60;

pub(crate) fn space(number: u32) -> RowName {
    of_space(SPACES, number, &[])
}

/// The number of the space whose head has this name.
pub(crate) fn space_number(head: &[u8; 32]) -> RowName {
    RowName::owned(0x6f, head.to_vec(), Vec::new())
}

/// What the key log says of a record; of all of a space without one.
pub(crate) fn log_entry(space: u32, record: &[u8]) -> RowName {
    of_space(0x61, space, record)
}

pub(crate) fn blob(name: &[u8; 32]) -> RowName {
    RowName::owned(0x62, name.to_vec(), Vec::new())
}

pub(crate) fn unpublished(space: u32, record: &[u8]) -> RowName {
    of_space(0x63, space, record)
}

pub(crate) fn index_row(space: u32, record: &[u8]) -> RowName {
    of_space(0x64, space, record)
}

pub(crate) fn unindexed(space: u32, record: &[u8]) -> RowName {
    of_space(0x65, space, record)
}

pub(crate) const BLOB_WORK: u8 = 0x66;

pub(crate) fn blob_work(kind: u8, name: &[u8]) -> RowName {
    RowName::plain(BLOB_WORK, join(&[&[kind], name]))
}

pub(crate) const HEADS: u8 = 0x67;
pub(crate) const HEADS_OUT: u8 = 0x68;
pub(crate) const HEADS_IN: u8 = 0x69;

pub(crate) fn memory_state(part: u8, rest: &[u8]) -> RowName {
    RowName::plain(0x6a, join(&[&[part], rest]))
}

pub(crate) const ERASES: u8 = 0x6b;

pub(crate) fn erase(space: u32, record: &[u8]) -> RowName {
    of_space(ERASES, space, record)
}

pub(crate) const BUSY_SPACES: u8 = 0x6c;

pub(crate) fn busy_space(space: u32) -> RowName {
    of_space(BUSY_SPACES, space, &[])
}

pub(crate) fn drop_later(space: u32, blob: &[u8]) -> RowName {
    of_space(0x6d, space, blob)
}

pub(crate) fn lost_write(space: u32, rest: &[u8]) -> RowName {
    of_space(0x6e, space, rest)
}

pub(crate) const ATTACHMENT_PARTS: u8 = 0x70;

pub(crate) fn attachment_part(suffix: Vec<u8>) -> RowName {
    RowName::plain(ATTACHMENT_PARTS, suffix)
}
