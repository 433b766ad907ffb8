//! The model driver: two devices do what a string of bytes says, and what must always hold is looked at after each step.
//!
//! One function for property tests, for libFuzzer and for long runs. The model is a set of frames and what became of
//! them: a message opens at most once, as what was sent, and only by the device that it is for; a refused frame changes
//! nothing; writing a device out and reading it in is invisible; an unchanged frame that arrives in time opens.

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag_crypto::{Features, KemPrivateKey, Mode, PrivateKey, Salt};
use sprag_session::{Device, Env, Heal, ProtocolError, StepError};
use sprag_store::{MemoryRows, Staged};
use sprag_wire::{
    Body, Content, DeviceAddress, KemKind, KemPreKeyId, OneTimePreKeyId, Padding, SignedPreKeyId,
    UnverifiedPreKeyBundle, UserId,
};
use sprag_x3dh::{KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};

/// Steps beyond these are not made: a run stays short.
const STEPS: usize = 300;
/// Sessions opened in one run: fewer than the archive holds, so that none is ever given up.
const SESSIONS: usize = 12;

const NOW: u64 = 1_750_000_000_000;

/// One step of a conversation, from two bytes.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// A side opens a session from the other's bundle.
    Open,
    Send,
    /// A frame under way arrives; which one, the second byte says.
    Deliver,
    /// The same, but it stays under way: it will arrive again.
    Repeat,
    Drop,
    /// It arrives with a bit turned, and stays under way.
    Corrupt,
    /// A side is written out and read in.
    Restart,
    /// A side begins to send, and its process dies before the step is committed.
    Die,
    /// A side loses all its sessions.
    Lose,
}

impl Op {
    fn of(byte: u8) -> Self {
        match byte & 15 {
            0 => Self::Open,
            1..=5 => Self::Send,
            6..=10 => Self::Deliver,
            11 => Self::Repeat,
            12 => Self::Drop,
            13 => Self::Corrupt,
            14 if byte & 0x60 == 0x60 => Self::Lose,
            14 => Self::Restart,
            _ => Self::Die,
        }
    }
}

#[derive(Clone)]
struct Side {
    rows: MemoryRows,
    address: DeviceAddress,
    bundles: Vec<Vec<u8>>,
    list: Vec<u8>,
}

struct Flight {
    to: usize,
    frame: Vec<u8>,
    id: [u8; 16],
    salt: Salt,
}

/// Plays the bytes.
pub fn converse(data: &[u8]) {
    play(data);
}

/// Plays the bytes, and says how many messages were opened and how many genuine frames were missed.
fn play(data: &[u8]) -> (usize, usize) {
    let mut model = Model::new();
    for pair in data.chunks_exact(2).take(STEPS) {
        if let [what, which] = *pair {
            model.step(Op::of(what), usize::from(what >> 7), usize::from(which));
        }
    }
    model.finish()
}

struct Model {
    sides: [Side; 2],
    rng: ChaCha20Rng,
    under_way: Vec<Flight>,
    /// What was sent under which id, and whether it was opened.
    sent: BTreeMap<[u8; 16], (Vec<u8>, bool)>,
    opened_sessions: usize,
    counter: u64,
    /// Genuine frames that were not opened although they had not been before.
    missed: usize,
    /// Sessions that each side gave up to heal.
    healed: [usize; 2],
    /// Frames that were opened.
    read: HashSet<Salt>,
}

impl Model {
    fn new() -> Self {
        static SIDES: OnceLock<[Side; 2]> = OnceLock::new();
        Self {
            sides: SIDES
                .get_or_init(|| introduced([side("ann", 1), side("ben", 2)]))
                .clone(),
            rng: ChaCha20Rng::seed_from_u64(3),
            under_way: Vec::new(),
            sent: BTreeMap::new(),
            opened_sessions: 0,
            counter: 0,
            missed: 0,
            healed: [0; 2],
            read: HashSet::new(),
        }
    }

    fn lose(&mut self, who: usize) {
        let Some(to) = self.sides.get(1 - who).map(|side| side.address.clone()) else {
            return;
        };
        let lost = self.act(who, true, |device, rows, _| {
            device.forget_sessions(rows, &to)
        });
        assert!(lost.is_ok(), "{lost:?}");
    }

    /// A side could not read a frame that was really the other's: it opens a session, and the other sends again.
    fn heal(&mut self, flight: &Flight, heal: Option<Heal>) {
        if heal == Some(Heal::Fresh) {
            if let Some(healed) = self.healed.get_mut(flight.to) {
                *healed += 1;
                assert!(
                    *healed <= self.opened_sessions,
                    "more sessions are healed than there ever were"
                );
            }
            self.open(flight.to);
        }
        let addresses = [0, 1].map(|who| self.sides.get(who).map(|side| side.address.clone()));
        let (Some(Some(to)), Some(Some(from))) =
            (addresses.get(flight.to), addresses.get(1 - flight.to))
        else {
            return;
        };
        if heal.is_none() {
            return;
        }
        // It says so on that session, which the other then sends on. (This word is never lost here.)
        let (salt, sender) = (flight.salt, 1 - flight.to);
        let request = Body::Retry(vec![salt.as_bytes().to_vec()]);
        self.counter += 1;
        let mut id = [1; 16];
        id.iter_mut()
            .zip(self.counter.to_be_bytes())
            .for_each(|(to, from)| *to = from);
        let request = Content::new(id, NOW, request).encode();
        let asked = self.act(flight.to, true, |device, rows, env| {
            device.seal(rows, env, from, &request, Padding::Padme)
        });
        let Ok(asked) = asked else { return };
        let heard = self.act(sender, true, |device, rows, env| {
            device.receive(rows, env, to, &asked.frame)
        });
        if let Err(error) = heard {
            // The other has lost that session, too.
            assert!(error.heals(), "a request was refused: {error:?}");
            return;
        }
        let again = self.act(sender, true, |device, rows, env| {
            let mut again = Vec::new();
            for content in device.resend(rows, to, &[salt])? {
                match device.seal(rows, env, to, &content, Padding::Padme) {
                    Ok(sealed) => {
                        device.note_sent(rows, to, &sealed.salt, &content)?;
                        again.push((sealed.frame, sealed.salt));
                    }
                    Err(StepError::Protocol(ProtocolError::NeedsBundle)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(again)
        });
        for (frame, salt) in again.unwrap_or_default() {
            self.under_way.push(Flight {
                to: flight.to,
                frame,
                id: flight.id,
                salt,
            });
        }
    }

    fn step(&mut self, op: Op, who: usize, which: usize) {
        match op {
            Op::Open => self.open(who),
            Op::Send => self.send(who, which, true),
            Op::Die => self.send(who, which, false),
            Op::Deliver => {
                if let Some(place) = self.pick(which) {
                    let flight = self.under_way.remove(place);
                    self.arrive(&flight, None);
                }
            }
            Op::Repeat => self.arrive_and_stay(which, None),
            Op::Corrupt => self.arrive_and_stay(which, Some(which)),
            Op::Drop => {
                if let Some(place) = self.pick(which) {
                    let flight = self.under_way.remove(place);
                    self.sent.remove(&flight.id);
                }
            }
            // The device lives in its rows alone: each step reads it in.
            Op::Restart => {}
            Op::Lose => self.lose(who),
        }
    }

    fn pick(&self, which: usize) -> Option<usize> {
        (!self.under_way.is_empty()).then(|| which % self.under_way.len())
    }

    /// One step of a side. It is committed if it went well, and `commit` says so.
    fn act<T>(
        &mut self,
        who: usize,
        commit: bool,
        act: impl FnOnce(&mut Device, &mut Staged<'_>, &mut Env<'_>) -> Result<T, StepError>,
    ) -> Result<T, ProtocolError> {
        let [a, b] = &mut self.sides;
        let side = if who == 0 { a } else { b };
        let mut device = match Device::load(&side.rows) {
            Ok(Some(device)) => device,
            other => unreachable_state(&format!("a device that does not read: {other:?}")),
        };
        let mut rows = Staged::new(&side.rows);
        let result = act(&mut device, &mut rows, &mut Env::new(NOW, &mut self.rng));
        let changes = rows.into_changes();
        match result {
            Ok(value) => {
                if commit {
                    side.rows.apply(changes);
                }
                Ok(value)
            }
            Err(StepError::Protocol(error)) => {
                assert!(changes.is_empty(), "{error:?} left changes behind");
                Err(error)
            }
            Err(error) => unreachable_state(&format!("{error:?}")),
        }
    }

    fn open(&mut self, who: usize) {
        if self.opened_sessions >= SESSIONS {
            return;
        }
        self.opened_sessions += 1;
        let other = 1 - who;
        let Some(side) = self.sides.get_mut(other) else {
            return;
        };
        let bundle = if side.bundles.len() > 1 {
            side.bundles.remove(0)
        } else {
            side.bundles.concat()
        };
        let to = side.address.clone();
        let opened = self.act(who, true, |device, rows, env| {
            device.open(rows, env, &to, &bundle, Mode::Pqxdh)
        });
        assert!(opened.is_ok(), "a genuine bundle was refused: {opened:?}");
    }

    fn send(&mut self, who: usize, length: usize, commit: bool) {
        self.counter += 1;
        let mut id = [0; 16];
        id.iter_mut()
            .zip(self.counter.to_be_bytes())
            .for_each(|(to, from)| *to = from);
        let application = vec![length.to_le_bytes().first().copied().unwrap_or(0); length];
        let content = Content::new(id, NOW, Body::Application(application.clone())).encode();
        let Some(to) = self.sides.get(1 - who).map(|side| side.address.clone()) else {
            return;
        };
        let sealed = self.act(who, commit, |device, rows, env| {
            let sealed = device.seal(rows, env, &to, &content, Padding::Padme)?;
            device.note_sent(rows, &to, &sealed.salt, &content)?;
            Ok(sealed)
        });
        match sealed {
            // What was not committed was not released.
            Ok(_) if !commit => {}
            Ok(sealed) => {
                self.under_way.push(Flight {
                    to: 1 - who,
                    frame: sealed.frame,
                    id,
                    salt: sealed.salt,
                });
                self.sent.insert(id, (application, false));
            }
            Err(error) => assert_eq!(error, ProtocolError::NeedsBundle),
        }
    }

    fn arrive_and_stay(&mut self, which: usize, damage: Option<usize>) {
        if let Some(place) = self.pick(which) {
            let flight = self.under_way.remove(place);
            self.arrive(&flight, damage);
            self.under_way.insert(place, flight);
        }
    }

    fn arrive(&mut self, flight: &Flight, damage: Option<usize>) {
        let mut frame = flight.frame.clone();
        if let Some(place) = damage {
            let bit = place * 7919 % (frame.len() * 8);
            if let Some(byte) = frame.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        let Some(from) = self
            .sides
            .get(1 - flight.to)
            .map(|side| side.address.clone())
        else {
            return;
        };
        let received = self.act(flight.to, true, |device, rows, env| {
            match device.receive(rows, env, &from, &frame) {
                Err(StepError::Protocol(error)) if error.heals() => {
                    Ok(Err((error, device.heal(rows, error)?)))
                }
                received => received.map(Ok),
            }
        });
        let (received, heal) = match received {
            Ok(Err((error, heal))) => (Err(error), heal),
            Ok(Ok(received)) => (Ok(received), None),
            Err(error) => (Err(error), None),
        };
        assert!(damage.is_none() || heal.is_none(), "a damaged frame healed");
        self.heal(flight, heal);
        let Some((application, opened)) = self.sent.get_mut(&flight.id) else {
            return;
        };
        match received {
            Ok(received) => {
                assert!(damage.is_none(), "a damaged frame was opened");
                // The same message in another frame, because it was asked for, is another matter.
                let new = self.read.insert(flight.salt);
                assert!(new, "a frame was opened twice");
                *opened = true;
                match received.content.as_ref().map(Content::body) {
                    Ok(Body::Application(bytes)) => assert_eq!(bytes, application),
                    other => unreachable_state(&format!("another content: {other:?}")),
                }
            }
            Err(error) if damage.is_some() => {
                let noise = matches!(
                    error,
                    ProtocolError::Malformed
                        | ProtocolError::UnsupportedVersion
                        | ProtocolError::BadOrigin
                        | ProtocolError::BadSignature
                        | ProtocolError::InvalidKey
                        | ProtocolError::UntrustedIdentity
                        | ProtocolError::UnlistedDevice
                        | ProtocolError::UnknownPeer
                );
                assert!(noise, "a damaged frame got as far as {error:?}");
            }
            Err(error) => {
                // Opened before; or from a chain six turns old; or its session was lost, or never began because the
                // frames with its handshake were; or its one-time prekey was used by a session that was lost.
                let fine = matches!(
                    error,
                    ProtocolError::Duplicate
                        | ProtocolError::NoSession
                        | ProtocolError::UnknownPreKey
                );
                assert!(fine, "a genuine frame was refused: {error:?}");
                self.missed += usize::from(!*opened);
            }
        }
    }

    /// Whatever is still under way arrives, in the order sent.
    fn finish(mut self) -> (usize, usize) {
        for flight in std::mem::take(&mut self.under_way) {
            self.arrive(&flight, None);
        }
        let opened = self.sent.values().filter(|(_, opened)| *opened).count();
        (opened, self.missed)
    }
}

#[expect(
    clippy::panic,
    reason = "a broken invariant is what the driver looks for"
)]
fn unreachable_state(what: &str) -> ! {
    panic!("{what}")
}

/// Each side has seen the other's list from the server, so that it may write to it.
#[expect(clippy::expect_used, reason = "all inputs are constants")]
fn introduced(mut sides: [Side; 2]) -> [Side; 2] {
    let lists = sides
        .clone()
        .map(|side| (side.address.user().clone(), side.list));
    for (side, (user, list)) in sides.iter_mut().zip(lists.into_iter().rev()) {
        let mut device = Device::load(&side.rows).expect("rows").expect("a device");
        let mut rows = Staged::new(&side.rows);
        device
            .learn(&mut rows, &user, &list, false)
            .expect("a genuine list");
        let changes = rows.into_changes();
        side.rows.apply(changes);
    }
    sides
}

/// A side with twelve bundles of one-time prekeys and one of the last resort.
#[expect(clippy::expect_used, reason = "all inputs are constants")]
fn side(name: &str, seed: u64) -> Side {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let user = UserId::new(name).expect("a name");
    let mut rows = MemoryRows::new();
    let mut staged = Staged::new(&rows);
    let device =
        Device::create(&mut staged, &mut Env::new(NOW, &mut rng), &user).expect("a device");
    let list = device.own_list(&staged).expect("a list");
    let identity = device.identity();
    let first = 1_000;
    let id = SignedPreKeyId::new(first).expect("an id");
    let signed = SignedPreKeyPair::generate(id, Features::NONE, identity, &mut rng);
    let mut one_time = Vec::new();
    let mut kem = Vec::new();
    for number in 0..SESSIONS {
        let number = first + u32::try_from(number).expect("a small number");
        let id = OneTimePreKeyId::new(number).expect("an id");
        one_time.push(OneTimePreKeyPair::from_private(
            id,
            PrivateKey::generate(&mut rng),
        ));
        let id = KemPreKeyId::new(number).expect("an id");
        let private = KemPrivateKey::generate(&mut rng);
        kem.push(KemPreKeyPair::from_private(
            id,
            KemKind::OneTime,
            private,
            identity,
            &mut rng,
        ));
    }
    device
        .store_pre_keys(&mut staged, std::slice::from_ref(&signed), &one_time, &kem)
        .expect("prekeys");
    let bundles = one_time
        .iter()
        .zip(&kem)
        .map(|(one_time, kem)| {
            let address = device.address().clone();
            let (signed, one_time, kem) = (signed.public(), Some(one_time.public()), kem.public());
            UnverifiedPreKeyBundle::new(
                address,
                *identity.public(),
                signed,
                one_time,
                kem,
                list.clone(),
            )
            .encode()
        })
        .collect();
    let address = device.address().clone();
    let changes = staged.into_changes();
    rows.apply(changes);
    Side {
        rows,
        address,
        bundles,
        list,
    }
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn whatever_happens_a_message_opens_at_most_once_and_nothing_moves_without_authentication() {
        let (opened, missed) = play_at_random(60, false);
        // What is six turns late is given up; that is rare at random.
        assert!(
            opened > 3_000 && missed * 20 < opened,
            "{opened} opened, {missed} missed"
        );
        // A session that is lost takes what was under way with it, until it heals.
        let (opened, _) = play_at_random(40, true);
        assert!(opened > 1_500, "{opened} opened");
    }

    /// Plays runs at random, with or without lost sessions.
    fn play_at_random(runs: usize, lose: bool) -> (usize, usize) {
        let mut rng = ChaCha20Rng::seed_from_u64(11);
        let (mut opened, mut missed) = (0, 0);
        for _ in 0..runs {
            let mut script = vec![0; 2 * STEPS];
            rng.fill_bytes(&mut script);
            if !lose {
                for byte in script.iter_mut().step_by(2) {
                    *byte &= if *byte & 15 == 14 { 0x9f } else { 0xff };
                }
            }
            // Somebody opens a session first, else little happens.
            script[0] &= 0x80;
            let played = play(&script);
            opened += played.0;
            missed += played.1;
        }
        (opened, missed)
    }

    #[test]
    fn the_driver_opens_messages_at_all() {
        let mut model = Model::new();
        model.open(0);
        for _ in 0..5 {
            model.send(0, 40, true);
        }
        model.step(Op::Corrupt, 0, 3);
        for _ in 0..5 {
            model.step(Op::Deliver, 0, 4);
        }
        model.send(1, 10, true);
        model.step(Op::Deliver, 0, 0);
        assert_eq!(model.sent.values().filter(|(_, opened)| *opened).count(), 6);
    }

    #[test]
    fn lost_sessions_are_healed_and_their_messages_opened_in_the_end() {
        let mut model = Model::new();
        model.open(0);
        model.send(0, 40, true);
        model.step(Op::Deliver, 0, 0);
        model.send(1, 40, true);
        model.step(Op::Deliver, 0, 0);
        for round in 0..4 {
            model.send(0, 10 + round, true);
            model.step(Op::Lose, round % 2, 0);
            model.send(1, 20 + round, true);
            for _ in 0..6 {
                model.step(Op::Deliver, 0, 0);
            }
        }
        assert!(
            model.healed.iter().sum::<usize>() >= 4,
            "{:?}",
            model.healed
        );
        let unread = model.sent.values().filter(|(_, opened)| !opened).count();
        assert_eq!(unread, 0);
    }

    #[test]
    #[should_panic(expected = "opened twice")]
    fn the_driver_notices_a_message_that_opens_twice() {
        let mut model = Model::new();
        model.open(0);
        model.send(0, 40, true);
        let before = model.sides.clone();
        model.step(Op::Repeat, 0, 0);
        // The receiver is put back to its older state, as a broken store might.
        model.sides = before;
        model.step(Op::Deliver, 0, 0);
    }
}
