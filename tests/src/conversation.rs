//! Runs conversations of the published vectors (`docs/PROTOCOL.md`, appendix D) on the session layer.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sprag_crypto::{
    AccountKey, AccountKeyPair, Features, IdentityKey, IdentityKeyPair, KemPrivateKey, Mode,
    PrivateKey, Salt, sha256,
};
use sprag_session::hazmat::{PeerSession, PeerState};
use sprag_session::{Device, Env, Generation, Heal, ProtocolError, StepError};
use sprag_store::{MemoryRows, Staged};
use sprag_wire::{
    DeviceAddress, DeviceId, HOLDER, KemKind, KemPreKeyId, ListedDevice, OneTimePreKeyId, Padding,
    SignedPreKeyId, UnverifiedDeviceList, UserId,
};
use sprag_x3dh::{DeviceList, KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};

use crate::replay_rng::ReplayRng;

/// What is not as the vector says.
pub type Mismatch = String;

type Outcome<T = ()> = Result<T, Mismatch>;

fn text<'v>(value: &'v Value, name: &str) -> Outcome<&'v str> {
    value[name]
        .as_str()
        .ok_or_else(|| format!("no text {name}"))
}

fn number(value: &Value, name: &str) -> Outcome<u64> {
    value[name]
        .as_u64()
        .ok_or_else(|| format!("no number {name}"))
}

fn small(value: &Value, name: &str) -> Outcome<u32> {
    u32::try_from(number(value, name)?).map_err(|_| format!("{name} is no u32"))
}

fn list<'v>(value: &'v Value, name: &str) -> Outcome<&'v Vec<Value>> {
    value[name]
        .as_array()
        .ok_or_else(|| format!("no list {name}"))
}

fn unhex(text: &str) -> Outcome<Vec<u8>> {
    hex::decode(text).map_err(|error| format!("hex: {error}"))
}

fn bytes(value: &Value, name: &str) -> Outcome<Vec<u8>> {
    unhex(text(value, name)?)
}

fn array<const N: usize>(value: &Value, name: &str) -> Outcome<[u8; N]> {
    bytes(value, name)?
        .try_into()
        .map_err(|_| format!("{name} has another length"))
}

fn fits<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error:?}"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, theirs: &T) -> Outcome {
    if ours == theirs {
        Ok(())
    } else {
        Err(format!("{what}: {ours:?} instead of {theirs:?}"))
    }
}

fn u32_of(value: &Value) -> Outcome<u32> {
    let number = value.as_u64().ok_or("no number")?;
    u32::try_from(number).map_err(|_| "no u32".to_owned())
}

/// An entry of a list: number, key, flags.
fn listed(entry: &Value) -> Outcome<ListedDevice> {
    match entry.as_array().map(Vec::as_slice) {
        Some([device, key, flags]) => {
            let key = fits(
                "key",
                IdentityKey::from_bytes(&unhex(key.as_str().unwrap_or_default())?),
            )?;
            let device = fits("device", DeviceId::new(u32_of(device)?))?;
            Ok(ListedDevice::new(device, key, u32_of(flags)?))
        }
        _ => Err("no entry".into()),
    }
}

/// A device with its rows.
struct Party {
    rows: MemoryRows,
    device: Device,
}

/// One conversation under way.
pub struct Conversation {
    parties: BTreeMap<String, Party>,
    /// Frames, bundles and lists by event number.
    made: BTreeMap<usize, Vec<u8>>,
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}

/// Runs a whole conversation: every event, then the final states.
///
/// # Errors
/// The first thing that is not as the vector says, with the number of its event.
pub fn run(vector: &Value) -> Outcome {
    let mut conversation = Conversation::begin(list(vector, "devices")?)?;
    for (at, event) in list(vector, "events")?.iter().enumerate() {
        let op = event["op"].as_str().unwrap_or("?");
        conversation
            .event(at, event)
            .map_err(|mismatch| format!("event {at} ({op}): {mismatch}"))?;
    }
    for (name, expected) in vector["final"].as_object().ok_or("no final states")? {
        let state = conversation.state(name)?;
        compare(&format!("final {name}"), &sorted(&state), &sorted(expected))?;
    }
    Ok(())
}

/// Records have no order of their own.
fn sorted(state: &Value) -> Value {
    let mut state = state.clone();
    if let Some(peers) = state.get_mut("peers").and_then(Value::as_array_mut) {
        peers.sort_by_key(|peer| peer["address"].to_string());
    }
    state
}

/// Compares two values and names the place where they differ.
fn compare(at: &str, ours: &Value, theirs: &Value) -> Outcome {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            same(
                &format!("{at} fields"),
                &a.keys().collect::<Vec<_>>(),
                &b.keys().collect(),
            )?;
            a.iter()
                .zip(b.values())
                .try_for_each(|((key, a), b)| compare(&format!("{at}.{key}"), a, b))
        }
        (Value::Array(a), Value::Array(b)) => {
            same(&format!("{at} length"), &a.len(), &b.len())?;
            let pairs = a.iter().zip(b).enumerate();
            pairs
                .into_iter()
                .try_for_each(|(index, (a, b))| compare(&format!("{at}[{index}]"), a, b))
        }
        _ => same(at, ours, theirs),
    }
}

impl Conversation {
    /// The devices as they are at first.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn begin(devices: &[Value]) -> Outcome<Self> {
        let mut parties = BTreeMap::new();
        for device in devices {
            let name = text(device, "name")?;
            parties.insert(
                name.to_owned(),
                party(device).map_err(|mismatch| format!("device {name}: {mismatch}"))?,
            );
        }
        Ok(Self {
            parties,
            made: BTreeMap::new(),
        })
    }

    fn party(&mut self, name: &str) -> Outcome<&mut Party> {
        self.parties
            .get_mut(name)
            .ok_or_else(|| format!("no device {name}"))
    }

    /// A device name, or user and device.
    fn address(&self, value: &Value) -> Outcome<DeviceAddress> {
        match value {
            Value::String(name) => {
                let party = self
                    .parties
                    .get(name)
                    .ok_or_else(|| format!("no device {name}"))?;
                Ok(party.device.address().clone())
            }
            Value::Array(pair) => match pair.as_slice() {
                [user, device] => {
                    let user = fits("user", UserId::new(user.as_str().unwrap_or_default()))?;
                    let device = u32::try_from(device.as_u64().unwrap_or(0)).unwrap_or(0);
                    Ok(DeviceAddress::new(
                        user,
                        fits("device", DeviceId::new(device))?,
                    ))
                }
                _ => Err("no address".into()),
            },
            _ => Err("no address".into()),
        }
    }

    /// The bytes `name`, or those that the event `<name>_of` had.
    fn given(&mut self, at: usize, event: &Value, name: &str) -> Outcome<Vec<u8>> {
        let mut bytes = match event[format!("{name}_of")].as_u64() {
            None => bytes(event, name)?,
            Some(other) => {
                let other = usize::try_from(other).map_err(|_| "event number")?;
                self.made
                    .get(&other)
                    .cloned()
                    .ok_or_else(|| format!("event {other} made nothing"))?
            }
        };
        if let Some(flip) = event["flip"].as_u64() {
            let place = usize::try_from(flip)
                .ok()
                .and_then(|flip| bytes.get_mut(flip));
            *place.ok_or("flip beyond the end")? ^= 1;
        }
        self.made.insert(at, bytes.clone());
        Ok(bytes)
    }

    /// One event.
    ///
    /// # Errors
    /// What is not as the vector says.
    pub fn event(&mut self, at: usize, event: &Value) -> Outcome {
        let by = text(event, "by")?.to_owned();
        match text(event, "op")? {
            "open" => {
                let to = self.address(&event["to"])?;
                let bundle = self.given(at, event, "bundle")?;
                let mode = if number(event, "mode")? == 1 {
                    Mode::Pqxdh
                } else {
                    Mode::X3dh
                };
                let reset = event["reset"].as_bool().unwrap_or(false);
                let opened = self.step(&by, event, |device, rows, env| {
                    if reset {
                        device.open_for_reset(rows, env, &to, &bundle, mode)
                    } else {
                        device.open(rows, env, &to, &bundle, mode)
                    }
                })?;
                if let Some(opened) = opened {
                    if reset {
                        let resets: Vec<&str> = list(event, "resets")?
                            .iter()
                            .filter_map(Value::as_str)
                            .collect();
                        let party = self.party(&by)?;
                        let peers = fits(
                            "peers",
                            party.device.peers(&Staged::new(&party.rows), to.user()),
                        )?;
                        let record = peers
                            .iter()
                            .find(|peer| peer.address == to)
                            .ok_or("no record")?;
                        let ours: Vec<String> = record
                            .reset
                            .iter()
                            .map(|id| hex::encode(id.as_bytes()))
                            .collect();
                        same(
                            "resets",
                            &ours.iter().map(String::as_str).collect(),
                            &resets,
                        )?;
                    }
                    same(
                        "sid",
                        &hex::encode(opened.session_id.as_bytes()).as_str(),
                        &text(event, "sid")?,
                    )?;
                    let replaced = event["replaced"].as_bool().unwrap_or(false);
                    same("replaced", &opened.learned.replaced, &replaced)?;
                    self.check_opened(&by, &to, event)?;
                }
                Ok(())
            }
            "send" => {
                let to = self.address(&event["to"])?;
                let mut content = bytes(event, "content")?;
                let zeros =
                    usize::try_from(event["zeros"].as_u64().unwrap_or(0)).map_err(|_| "zeros")?;
                content.resize(content.len() + zeros, 0);
                let padding = if event["padding"] == json!(true) {
                    Padding::Padme
                } else {
                    Padding::None
                };
                let sealed = self.step(&by, event, |device, rows, env| {
                    let sealed = device.seal(rows, env, &to, &content, padding)?;
                    device.note_sent(rows, &to, &sealed.salt, &content)?;
                    Ok(sealed)
                })?;
                if let Some(sealed) = sealed {
                    same(
                        "frame",
                        &hex::encode(&sealed.frame).as_str(),
                        &text(event, "frame")?,
                    )?;
                    self.made.insert(at, sealed.frame);
                }
                Ok(())
            }
            "receive" => {
                let from = self.address(&event["from"])?;
                let frame = self.given(at, event, "frame")?;
                let again = event["again"].as_bool().unwrap_or(false);
                let received = self.step(&by, event, |device, rows, env| {
                    if again {
                        device.receive_again(rows, env, &from, &frame)
                    } else {
                        device.receive(rows, env, &from, &frame)
                    }
                })?;
                if let Some(expected) = event.get("heal") {
                    self.heal(&by, event, expected)?;
                }
                if let Some(received) = received {
                    same(
                        "content",
                        &hex::encode(&*received.plaintext).as_str(),
                        &text(event, "content")?,
                    )?;
                    same(
                        "aside",
                        &received.aside,
                        &event["aside"].as_bool().unwrap_or(false),
                    )?;
                    let refused = received.list_refused.map(|error| format!("{error:?}"));
                    same(
                        "list_error",
                        &refused.as_deref(),
                        &event["list_error"].as_str(),
                    )?;
                }
                Ok(())
            }
            "learn" => {
                let user = fits("user", UserId::new(text(event, "user")?))?;
                let list = self.given(at, event, "list")?;
                let old = event["old"].as_bool().unwrap_or(false);
                self.step(&by, event, |device, rows, _| {
                    device.learn(rows, &user, &list, old)
                })?;
                Ok(())
            }
            "accept" => {
                let user = fits("user", UserId::new(text(event, "user")?))?;
                let list = event
                    .get("list")
                    .map(|_| self.given(at, event, "list"))
                    .transpose()?;
                self.step(&by, event, |device, rows, _| match &list {
                    None => device.accept(rows, &user),
                    Some(list) => device.accept_list(rows, &user, list),
                })?;
                Ok(())
            }
            "restart" => {
                let party = self.party(&by)?;
                let device = fits("load", Device::load(&party.rows))?;
                party.device = device.ok_or("the device is gone")?;
                Ok(())
            }
            "forget" => {
                let peer = self.address(&event["peer"])?;
                self.step(&by, event, |device, rows, _| {
                    device.forget_sessions(rows, &peer)
                })
                .map(|_| ())
            }
            "drop_spk" => {
                let id = small(event, "id")?;
                self.step(&by, event, |device, rows, _| {
                    device.drop_signed_pre_key(rows, id)
                })
                .map(|_| ())
            }
            "fill_seen" => {
                let (id, count) = (small(event, "id")?, small(event, "count")?);
                self.step(&by, event, |device, rows, _| {
                    device.fill_seen_set(rows, id, count)
                })
                .map(|_| ())
            }
            "own_list" => {
                let list = self.given(at, event, "list")?;
                self.step(&by, event, |device, rows, _| {
                    device.settle_fork(rows, &list)
                })
                .map(|_| ())
            }
            "next_list" => {
                let mut put = Vec::new();
                for entry in list(event, "set")? {
                    put.push(listed(entry)?);
                }
                let mut drop = Vec::new();
                for device in list(event, "drop")? {
                    drop.push(fits("device", DeviceId::new(u32_of(device)?))?);
                }
                let next = self.step(&by, event, |device, rows, env| {
                    device.next_list(rows, env, &put, &drop)
                })?;
                self.check_list(at, event, next)
            }
            "link_accept" => {
                let request = text(event, "text")?.to_owned();
                let device = fits("device", DeviceId::new(small(event, "number")?))?;
                let flags = if event["holder"] == json!(true) {
                    HOLDER
                } else {
                    0
                };
                let next = self.step(&by, event, |holder, rows, env| {
                    holder.link(rows, env, &request, device, flags)
                })?;
                self.check_list(at, event, next)
            }
            "resend" => {
                let to = self.address(&event["to"])?;
                let mut salts = Vec::new();
                for salt in list(event, "salts")? {
                    let salt = unhex(salt.as_str().unwrap_or_default())?;
                    salts.push(Salt::from_bytes(
                        salt.try_into().map_err(|_| "salt length")?,
                    ));
                }
                let party = self.party(&by)?;
                let mut rows = Staged::new(&party.rows);
                let contents = fits("resend", party.device.resend(&mut rows, &to, &salts))?;
                let ours: Vec<String> = contents
                    .iter()
                    .map(|content| hex::encode(&**content))
                    .collect();
                compare("contents", &json!(ours), &event["contents"])
            }
            "may_ack" => {
                let to = self.address(&event["to"])?;
                let (now, quiet) = (number(event, "now")? * 1000, event["quiet"] == json!(true));
                let party = self.party(&by)?;
                let mut rows = Staged::new(&party.rows);
                let ok = fits("may_ack", party.device.may_ack(&mut rows, &to, now, quiet))?;
                let changes = rows.into_changes();
                party.rows.apply(changes);
                same("ok", &Some(ok), &event["ok"].as_bool())
            }
            other => Err(format!("unknown event {other}")),
        }
    }

    /// What section 9 does after the error of this event.
    fn heal(&mut self, by: &str, event: &Value, expected: &Value) -> Outcome {
        let error = event["error"].as_str().unwrap_or_default();
        let party = self.party(by)?;
        let mut rows = Staged::new(&party.rows);
        let healing = [
            ProtocolError::NoSession,
            ProtocolError::UnknownPreKey,
            ProtocolError::ModeRefused,
            ProtocolError::Desynchronised,
            ProtocolError::TooFarAhead,
            ProtocolError::Unreadable,
        ];
        let error = healing
            .into_iter()
            .find(|other| format!("{other:?}") == error);
        // Whatever else it was is told the device too: it must not heal.
        let heal = fits(
            "heal",
            party
                .device
                .heal(&mut rows, error.unwrap_or(ProtocolError::Duplicate)),
        )?;
        let changes = rows.into_changes();
        party.rows.apply(changes);
        let heal = heal.map(|heal| match heal {
            Heal::Fresh => "fresh",
            _ => "ask",
        });
        same("heal", &heal, &expected.as_str())
    }

    /// The list that a holder signed.
    fn check_list(&mut self, at: usize, event: &Value, next: Option<DeviceList>) -> Outcome {
        if let Some(next) = next {
            same(
                "list",
                &hex::encode(next.frame()).as_str(),
                &text(event, "list")?,
            )?;
            self.made.insert(at, next.frame().to_vec());
        }
        Ok(())
    }

    /// One step of a device: its draws, its error, and that an error changes nothing.
    fn step<T>(
        &mut self,
        by: &str,
        event: &Value,
        step: impl FnOnce(&mut Device, &mut Staged<'_>, &mut Env<'_>) -> Result<T, StepError>,
    ) -> Outcome<Option<T>>
    where
        T: Refusable,
    {
        let party = self.party(by)?;
        let mut draws = Vec::new();
        let mut salt = None;
        for draw in event["random"].as_array().into_iter().flatten() {
            let kind = draw[0].as_str().ok_or("no kind of draw")?;
            let drawn = unhex(draw[1].as_str().ok_or("no draw")?)?;
            match kind {
                "salt" => {
                    salt = Some(Salt::from_bytes(
                        drawn.try_into().map_err(|_| "salt length")?,
                    ))
                }
                _ => draws.push((kind.to_owned(), drawn)),
            }
        }
        let mut rng = ReplayRng::new(draws);
        let now = event["now"].as_u64().unwrap_or(0) * 1000;
        let mut rows = Staged::new(&party.rows);
        let mut env = Env::new(now, &mut rng);
        if let Some(salt) = salt {
            env = env.with_injected_salt(salt);
        }
        let result = step(&mut party.device, &mut rows, &mut env);
        let salt_left = env.injected_salt_is_left();
        let changes = rows.into_changes();
        rng.finish()?;
        if salt_left {
            return Err("the salt was not used".into());
        }
        let (value, error) = match result {
            Ok(value) => {
                let refused = value.refused();
                party.rows.apply(changes);
                (refused.is_none().then_some(value), refused)
            }
            Err(StepError::Protocol(error)) => {
                if !changes.is_empty() {
                    return Err(format!("{error:?} left changes behind"));
                }
                (None, Some(error))
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        let error = error.map(|error| format!("{error:?}"));
        same("error", &error.as_deref(), &event["error"].as_str())?;
        Ok(value)
    }

    /// A step without a vector behind it, for making one. An error changes nothing and is given by its name.
    ///
    /// # Errors
    /// No such device, or the rows failed.
    pub fn raw_step<T, X>(
        &mut self,
        by: &str,
        step: impl FnOnce(&mut Device, &mut Staged<'_>) -> (Result<T, StepError>, X),
    ) -> Outcome<(Result<T, ProtocolError>, X)>
    where
        T: Refusable,
    {
        let party = self.party(by)?;
        let mut rows = Staged::new(&party.rows);
        let (result, more) = step(&mut party.device, &mut rows);
        let changes = rows.into_changes();
        match result {
            Ok(value) => {
                party.rows.apply(changes);
                Ok((value.refused().map_or(Ok(value), Err), more))
            }
            Err(StepError::Protocol(error)) => Ok((Err(error), more)),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    /// Where a device is.
    ///
    /// # Errors
    /// No such device.
    pub fn address_of(&self, name: &str) -> Outcome<DeviceAddress> {
        self.address(&json!(name))
    }

    /// The bytes of an event.
    ///
    /// # Errors
    /// It made none.
    pub fn frame(&self, at: usize) -> Outcome<Vec<u8>> {
        self.made
            .get(&at)
            .cloned()
            .ok_or_else(|| format!("event {at} made nothing"))
    }

    /// Keeps the bytes of an event.
    pub fn keep_frame(&mut self, at: usize, frame: Vec<u8>) {
        self.made.insert(at, frame);
    }

    /// The values that an opened session shows.
    fn check_opened(&mut self, by: &str, to: &DeviceAddress, event: &Value) -> Outcome {
        let Some(values) = event["values"].as_object() else {
            return Ok(());
        };
        let party = self.party(by)?;
        let rows = Staged::new(&party.rows);
        let peers = fits("peers", party.device.peers(&rows, to.user()))?;
        let peer = peers
            .into_iter()
            .find(|peer| peer.address == *to)
            .ok_or("no record")?;
        let session = peer.current.ok_or("no session")?.state;
        let handshake = fits("handshake", party.device.pending_handshake(&party.rows, to))?;
        let ours = [
            (
                "handshake",
                handshake
                    .map(|bytes| hex::encode(&*bytes))
                    .unwrap_or_default(),
            ),
            ("th", hex::encode(session.th.as_bytes())),
            ("root", hex::encode(session.rk)),
            (
                "chain_send",
                session.cks.map(hex::encode).unwrap_or_default(),
            ),
            ("next_header_send", hex::encode(session.nhks)),
            ("hk_r", hex::encode(session.nhkr)),
        ];
        for (name, ours) in ours {
            same(
                name,
                &ours.as_str(),
                &values.get(name).and_then(Value::as_str).unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    /// The state of a device as the vectors write it.
    ///
    /// # Errors
    /// What the rows answer.
    pub fn state(&mut self, name: &str) -> Outcome<Value> {
        let party = self.party(name)?;
        let rows = Staged::new(&party.rows);
        let device = &party.device;
        let (one_time, kem) = fits("prekeys", device.held_pre_keys(&rows))?;
        let mut users = Map::new();
        let mut peers = Vec::new();
        for (user, state) in fits("users", device.users(&rows))? {
            let history: Vec<Value> = state
                .history
                .iter()
                .map(|(epoch, hash)| json!([epoch, hex::encode(hash.as_bytes())]))
                .collect();
            let value = json!([
                hex::encode(state.account_key),
                state.epoch,
                hex::encode(state.newest.as_bytes()),
                state.accepted,
                history,
                state.may_be_written_to,
            ]);
            users.insert(user.as_str().to_owned(), value);
            for peer in fits("peers", device.peers(&rows, &user))? {
                peers.push(peer_value(&peer));
            }
        }
        let generation = |one: &Generation| json!([one.epoch, one.number, hex::encode(one.key)]);
        let generations: Vec<Value> = fits("generations", device.generations(&rows))?
            .iter()
            .map(generation)
            .collect();
        let writes = fits("generation", device.writing_generation(&rows))?;
        let writes = writes.as_ref().map_or(Value::Null, generation);
        Ok(json!({
            "one_time_left": one_time,
            "kem_left": kem,
            "users": users,
            "peers": peers,
            "account_public": hex::encode(device.account_key().as_bytes()),
            "account_root": fits("root", device.account_root(&rows))?.map(|root| hex::encode(*root)).unwrap_or_default(),
            "generations": generations,
            "writes": writes,
            "waiting": fits("waiting", device.is_waiting(&rows))?,
            "aside": fits("aside", device.shares_aside(&rows))?,
        }))
    }
}

/// A result that may carry a refusal although the step was committed.
pub trait Refusable {
    /// The refusal.
    fn refused(&self) -> Option<ProtocolError> {
        None
    }
}

impl Refusable for () {}
impl Refusable for DeviceList {}
impl Refusable for sprag_session::Opened {}
impl Refusable for sprag_session::SealedFrame {}
impl Refusable for sprag_session::Learned {}
impl Refusable for sprag_session::Received {
    fn refused(&self) -> Option<ProtocolError> {
        self.content.as_ref().err().copied()
    }
}

fn peer_value(peer: &PeerState) -> Value {
    let ledger: Vec<Value> = peer
        .ledger
        .iter()
        .map(|(id, closed, salts)| {
            let salts: Vec<String> = salts
                .iter()
                .map(|salt| hex::encode(salt.as_bytes()))
                .collect();
            json!([hex::encode(id.as_bytes()), closed, salts])
        })
        .collect();
    let reset: Vec<String> = peer
        .reset
        .iter()
        .map(|id| hex::encode(id.as_bytes()))
        .collect();
    let current = peer.current.as_ref().map_or(Value::Null, session_value);
    let sessions: Vec<Value> = [current]
        .into_iter()
        .chain(peer.archive.iter().map(session_value))
        .collect();
    json!({
        "address": [peer.address.user().as_str(), peer.address.device().get()],
        "ledger": ledger,
        "reset": reset,
        "sessions": sessions,
    })
}

fn session_value(session: &PeerSession) -> Value {
    let state = &session.state;
    let key = |key: Option<[u8; 32]>| key.map(hex::encode).unwrap_or_default();
    let skipped = match session.skipped.as_slice() {
        few if few.len() <= 64 => few
            .iter()
            .map(|(kid, number, seed)| {
                json!([hex::encode(kid), number, hex::encode(seed.as_bytes())])
            })
            .collect(),
        many => {
            let bytes: Vec<u8> = many
                .iter()
                .flat_map(|(kid, number, seed)| {
                    [&kid[..], &number.to_be_bytes(), seed.as_bytes()].concat()
                })
                .collect();
            json!({ "count": many.len(), "sha256": hex::encode(sha256(&[&bytes])) })
        }
    };
    let old: Vec<Value> = state
        .old
        .iter()
        .map(|(index, key)| json!([index, hex::encode(key)]))
        .collect();
    let role = match state.role {
        sprag_ratchet::Role::Initiator => "initiator",
        _ => "responder",
    };
    json!({
        "sid": hex::encode(state.sid.as_bytes()),
        "th": hex::encode(state.th.as_bytes()),
        "rk": hex::encode(state.rk),
        "cks": key(state.cks),
        "hks": key(state.hks),
        "ckr": key(state.ckr),
        "hkr": key(state.hkr),
        "nhks": hex::encode(state.nhks),
        "nhkr": hex::encode(state.nhkr),
        "role": role,
        "mode": state.mode as u8,
        "features": state.features.bits(),
        "ns": state.ns,
        "nr": state.nr,
        "pn": state.pn,
        "i_s": state.i_s,
        "c": state.c,
        "retired": session.retired,
        "pending": session.pending,
        "ratchet_private": hex::encode(state.ratchet_private),
        "old": old,
        "skipped": skipped,
    })
}

/// A device as a conversation begins.
fn party(value: &Value) -> Outcome<Party> {
    let user = fits("user", UserId::new(text(value, "user")?))?;
    let address = DeviceAddress::new(
        user.clone(),
        fits("device", DeviceId::new(small(value, "device")?))?,
    );
    let identity =
        IdentityKeyPair::from_private(PrivateKey::from_bytes(&array(value, "identity_private")?));
    same(
        "identity",
        &hex::encode(identity.public().as_bytes()).as_str(),
        &text(value, "identity_public")?,
    )?;
    let account_key = fits(
        "account",
        AccountKey::from_bytes(&bytes(value, "account_public")?),
    )?;
    let account = match value.get("account_private") {
        None => None,
        Some(_) => Some(AccountKeyPair::from_private(PrivateKey::from_bytes(
            &array(value, "account_private")?,
        ))),
    };

    let lists = list(value, "lists")?;
    let first = unhex(lists.first().and_then(Value::as_str).ok_or("no list")?)?;
    let first = fits(
        "list",
        DeviceList::verify(fits("list", UnverifiedDeviceList::decode(&first))?),
    )?;
    if let (Some(_), Some(account)) = (value.get("list_z"), &account) {
        // The list itself is a vector: signed again with its randomness it must be the same bytes.
        let mut z = ReplayRng::new([("xeddsa-z".to_owned(), bytes(value, "list_z")?)]);
        let previous = first.previous();
        let again = DeviceList::sign(
            account,
            &user,
            first.epoch(),
            previous,
            first.devices(),
            &mut z,
        );
        same(
            "list",
            &hex::encode(fits("list", again)?.frame()),
            &hex::encode(first.frame()),
        )?;
    }
    let mut rows = MemoryRows::new();
    let mut staged = Staged::new(&rows);
    let features = Features::from_bits(small(value, "features")?);
    let mut device = Device::adopt(
        &mut staged,
        address,
        features,
        identity.clone(),
        account_key,
        account,
        first,
    );
    for more in lists.iter().skip(1) {
        let frame = unhex(more.as_str().unwrap_or_default())?;
        fits("list", device.learn(&mut staged, &user, &frame, false))?;
    }
    if value.get("account_root").is_some() {
        let root = array(value, "account_root")?;
        fits("root", device.set_account_root(&mut staged, &root))?;
    }
    for generation in value["generations"].as_array().into_iter().flatten() {
        match generation.as_array().map(Vec::as_slice) {
            Some([epoch, number, key]) => {
                let key = unhex(key.as_str().unwrap_or_default())?;
                let key = key.try_into().map_err(|_| "generation key")?;
                let epoch = epoch.as_u64().ok_or("no epoch")?;
                device
                    .add_generation(&mut staged, epoch, u32_of(number)?, &key)
                    .map_err(|error| error.to_string())?;
            }
            _ => return Err("no generation".into()),
        }
    }
    if value.get("nonce").is_some() {
        let nonce = array(value, "nonce")?;
        fits("nonce", device.wait_for_keys(&mut staged, &nonce))?;
    }

    let mut signed = Vec::new();
    for key in list(value, "signed_pre_keys")? {
        let id = fits("id", SignedPreKeyId::new(small(key, "id")?))?;
        let private = PrivateKey::from_bytes(&array(key, "private")?);
        let features = Features::from_bits(small(key, "features")?);
        let mut z = ReplayRng::new([("xeddsa-z".to_owned(), bytes(key, "z")?)]);
        let pair = SignedPreKeyPair::from_private(id, features, private, &identity, &mut z);
        same(
            "signature",
            &hex::encode(pair.public().signature).as_str(),
            &text(key, "signature")?,
        )?;
        same(
            "signed prekey",
            &hex::encode(pair.public_key().as_bytes()).as_str(),
            &text(key, "public")?,
        )?;
        signed.push(pair);
    }
    let mut one_time = Vec::new();
    for key in list(value, "one_time_pre_keys")? {
        let id = fits("id", OneTimePreKeyId::new(small(key, "id")?))?;
        let pair =
            OneTimePreKeyPair::from_private(id, PrivateKey::from_bytes(&array(key, "private")?));
        same(
            "one-time prekey",
            &hex::encode(pair.public_key().as_bytes()).as_str(),
            &text(key, "public")?,
        )?;
        one_time.push(pair);
    }
    let mut kem = Vec::new();
    for key in list(value, "kem_pre_keys")? {
        let id = fits("id", KemPreKeyId::new(small(key, "id")?))?;
        let kind = if number(key, "kind")? == 2 {
            KemKind::OneTime
        } else {
            KemKind::LastResort
        };
        let private = KemPrivateKey::from_seed(&array(key, "seed")?);
        let mut z = ReplayRng::new([("xeddsa-z".to_owned(), bytes(key, "z")?)]);
        let pair = KemPreKeyPair::from_private(id, kind, private, &identity, &mut z);
        same(
            "signature",
            &hex::encode(pair.public().signature).as_str(),
            &text(key, "signature")?,
        )?;
        kem.push(pair);
    }
    fits(
        "prekeys",
        device.store_pre_keys(&mut staged, &signed, &one_time, &kem),
    )?;
    let changes = staged.into_changes();
    rows.apply(changes);
    Ok(Party { rows, device })
}
