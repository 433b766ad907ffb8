//! Vectors of the key log of memories, from a seed: `tests/vectors/memory-seed-1.json`. Names, keys, segments and heads with every
//! input; parts that are none; heads that are judged against what was seen; entries that meet.

use std::collections::BTreeMap;
use std::error::Error;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use sprag_crypto::{AccountKeyPair, IdentityKeyPair, SealKey, labels, sha256};
use sprag_session::hazmat::{LogPart, space_key};
use sprag_session::memory::{
    Entry, Head, KeyLog, LogError, NamesKey, ObjectName, RecordId, RecordState, Seen, Segment,
    SegmentRef, Space, SpaceKind, generation_id,
};
use sprag_session::{Generation, SignedList};
use sprag_wire::{DeviceId, HOLDER, ListHash, ListedDevice, UserId};

use crate::replay_rng::ReplayRng;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The spaces, by number.
const SPACES: [(&str, &str, Option<&str>, &str); 5] = [
    ("notes", "ann", Some("bot"), "memory"),
    ("notes", "ann", None, "memory"),
    ("notes", "ann", None, "chat"),
    // The parts cannot flow into each other.
    ("notesann", "b\u{f6}b", None, "file"),
    ("", "", None, "root"),
];

/// What is drawn in the order of its use.
struct Drawn(ChaCha20Rng);

impl Drawn {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// An account and what its devices share.
struct World {
    drawn: Drawn,
    root: [u8; 32],
    generations: Vec<Generation>,
    account: AccountKeyPair,
    devices: Vec<IdentityKeyPair>,
    lists: Vec<SignedList>,
    segments: Vec<Value>,
    heads: Vec<Value>,
}

fn replay(draws: &[&[u8]]) -> ReplayRng {
    ReplayRng::new(draws.iter().map(|draw| ("bytes".to_owned(), draw.to_vec())))
}

fn number(at: usize) -> u32 {
    70_000 + u32::try_from(at).unwrap_or(0)
}

fn space(at: usize) -> Outcome<Space> {
    let (app, user, agent, kind) = SPACES.get(at).ok_or("no such space")?;
    let kind = match *kind {
        "memory" => SpaceKind::Memory,
        "chat" => SpaceKind::Chat,
        "file" => SpaceKind::File,
        _ => return Ok(Space::root()),
    };
    Ok(Space::new(app, user, *agent, kind)?)
}

/// The file of a seed.
///
/// # Errors
/// What does not go as it should.
pub fn file(seed: u64) -> Outcome<Value> {
    let mut world = World::new(seed)?;
    world.write_segments()?;
    let segments_invalid = world.segments_invalid()?;
    let judged = world.write_heads()?;
    let spaces: Vec<_> = SPACES
        .iter()
        .map(|(app, user, agent, kind)| {
            json!({"app": app, "user": user, "agent": agent, "kind": kind})
        })
        .collect();
    let generations = world.generations.iter();
    let generations = generations.map(|generation| {
        json!({
            "epoch": generation.epoch, "number": generation.number, "key": hex::encode(generation.key),
            "id": hex::encode(generation_id(generation)),
        })
    });
    let devices = world.devices.iter().enumerate();
    let devices = devices.map(|(at, pair)| {
        json!({
            "device": number(at), "private": hex::encode(pair.private().to_bytes().as_slice()),
            "public": hex::encode(pair.public().as_bytes()),
        })
    });
    let lists = world.lists.iter().map(|list| hex::encode(list.frame()));
    Ok(json!({
        "about": format!("The key log of docs/MEMORY.md, written by sprag-session from the seed {seed}"),
        "schema": {
            "spaces, generations, lists": "named by their place below; generations by \"held\" and \"generation\"",
            "draws": "salt: 16 bytes of the seal; z: 64 bytes of the signature",
            "head (in segments and heads)": "the name of the space's head, which is in the associated data",
            "segments, heads": "plaintext: before padding, the signature of a head included; sealed: all bytes",
            "segments_invalid, heads_judged": "open it with the generations held, for this space and name of a head, a head with this list and what was seen; outcome: ok, or the error",
            "of, zeros": "instead of sealed: that of a head; so many zeros. seen: the place of a head",
            "merges": "the entries of one record in any order; counts: the place of the one that counts",
        },
        "names": world.names()?,
        "spaces": spaces,
        "generations": generations.collect::<Vec<_>>(),
        "space_keys": world.space_keys()?,
        "devices": devices.collect::<Vec<_>>(),
        "lists": lists.collect::<Vec<_>>(),
        "segments": world.segments,
        "segments_invalid": segments_invalid,
        "heads": world.heads,
        "heads_judged": judged,
        "merges": merges()?,
    }))
}

impl World {
    fn new(seed: u64) -> Outcome<Self> {
        let mut drawn = Drawn(ChaCha20Rng::seed_from_u64(seed));
        let numbers = [(1, 1), (1, 2), (3, 1)];
        let generations =
            numbers.map(|(epoch, number)| Generation::new(epoch, number, drawn.bytes()));
        let root = drawn.bytes();
        let account = AccountKeyPair::generate(&mut drawn.0);
        let devices: Vec<_> = (0..3)
            .map(|_| IdentityKeyPair::generate(&mut drawn.0))
            .collect();
        let mut world = Self {
            drawn,
            root,
            generations: generations.to_vec(),
            account,
            devices,
            lists: Vec::new(),
            segments: Vec::new(),
            heads: Vec::new(),
        };
        // Two devices; and one of them alone.
        world.list(1, &[0, 1])?;
        world.list(2, &[0])?;
        Ok(world)
    }

    fn list(&mut self, epoch: u64, devices: &[usize]) -> Outcome<()> {
        let user = UserId::new("ann")?;
        let previous = (epoch > 1).then(|| ListHash::from_bytes([7; 32]));
        let mut entries = Vec::new();
        for at in devices {
            let key = self.devices.get(*at).ok_or("no such device")?.public();
            entries.push(ListedDevice::new(DeviceId::new(number(*at))?, *key, HOLDER));
        }
        let rng = &mut self.drawn.0;
        let list = SignedList::sign(&self.account, &user, epoch, previous, &entries, rng)?;
        self.lists.push(list);
        Ok(())
    }

    fn generation(&self, at: usize) -> Outcome<Generation> {
        let found = self.generations.get(at).ok_or("no such generation")?;
        Ok(found.clone())
    }

    fn head_name(&self, space: &Space) -> ObjectName {
        NamesKey::new(&self.root).head(space)
    }

    fn names(&self) -> Outcome<Value> {
        let names = NamesKey::new(&self.root);
        let mut heads = Vec::new();
        for at in 0..SPACES.len() {
            heads.push(hex::encode(names.head(&space(at)?)));
        }
        Ok(
            json!({"account_root": hex::encode(self.root), "root": hex::encode(names.root()), "heads": heads}),
        )
    }

    fn space_keys(&self) -> Outcome<Vec<Value>> {
        let mut keys = Vec::new();
        for (generation, of) in self.generations.iter().enumerate() {
            for at in 0..SPACES.len() {
                let key = hex::encode(space_key(of, &space(at)?).as_slice());
                keys.push(json!({"generation": generation, "space": at, "key": key}));
            }
        }
        Ok(keys)
    }

    fn live(&mut self, revision: u64, at_server: bool) -> Outcome<Entry> {
        let (key, blob) = (self.drawn.bytes(), self.drawn.bytes());
        let state = RecordState::live(key, blob, 138, at_server);
        Ok(Entry::new(
            revision,
            number(0),
            1_760_000_000_000,
            "",
            state,
        )?)
    }

    fn write_segments(&mut self) -> Outcome<()> {
        let mut entries = BTreeMap::new();
        self.segment("no entry", 0, 0, entries.clone())?;
        let live = self.live(1, false)?;
        entries.insert(RecordId::new("mem_1")?, live);
        self.segment(
            "one live record, kept by the application",
            0,
            0,
            entries.clone(),
        )?;
        let at_server = self.live(u64::MAX, true)?;
        entries.insert(RecordId::new("mem_2")?, at_server);
        let agent = "\u{e4}".repeat(127);
        let state = RecordState::Deleted;
        let deleted = Entry::new(7, u32::MAX, u64::MAX, &agent, state)?;
        entries.insert(RecordId::new([0xff; 128])?, deleted);
        let erased = Entry::new(9, number(1), 0, "a\nb", RecordState::erased((3, 1)))?;
        entries.insert(RecordId::new([0])?, erased);
        self.segment("every state, extremes of every field", 0, 2, entries)?;
        let mut listed = BTreeMap::new();
        for at in 0..SPACES.len() - 1 {
            let entry = Entry::new(1, number(0), 5, "", RecordState::Listed)?;
            let id = listed_id(at)?;
            listed.insert(id, entry);
        }
        // Ids of the root are longer than those of records: they are read, and not made here.
        let plaintext = root_plaintext(&listed);
        self.part_of("the log of the root", 4, 1, &plaintext)?;
        Ok(())
    }

    fn segment(
        &mut self,
        what: &str,
        at: usize,
        generation: usize,
        entries: BTreeMap<RecordId, Entry>,
    ) -> Outcome<()> {
        let entries: BTreeMap<_, _> = entries
            .into_iter()
            .map(|(id, entry)| (id.as_bytes().to_vec(), entry))
            .collect();
        let plaintext = root_plaintext(&entries);
        self.part_of(what, at, generation, &plaintext)
    }

    /// Seals a plaintext as a segment, and notes what is in it.
    fn part_of(
        &mut self,
        what: &str,
        at: usize,
        generation: usize,
        plaintext: &[u8],
    ) -> Outcome<()> {
        let salt: [u8; 16] = self.drawn.bytes();
        let (space, of) = (space(at)?, self.generation(generation)?);
        let head = self.head_name(&space);
        let mut rng = replay(&[&salt]);
        let sealed = LogPart::Segment.seal(&of, &space, &head, plaintext, &mut rng);
        rng.finish()?;
        let opened = Segment::open(&[of], &space, &head, &sealed)?;
        let entries: Vec<_> = opened.entries().iter().map(entry_json).collect();
        self.segments.push(json!({
            "name": what, "space": at, "generation": generation, "head": hex::encode(head),
            "salt": hex::encode(salt), "entries": entries, "plaintext": hex::encode(plaintext),
            "sealed": hex::encode(&sealed), "sha256": hex::encode(sha256(&[&sealed])),
        }));
        Ok(())
    }

    fn segments_invalid(&mut self) -> Outcome<Vec<Value>> {
        let (space0, generation) = (space(0)?, self.generation(0)?);
        let head = self.head_name(&space0);
        let good = Segment::new(BTreeMap::from([(
            RecordId::new("a")?,
            self.live(1, false)?,
        )]))?;
        let plaintext = LogPart::Segment;
        let sealed = good.seal(&generation, &space0, &head, &mut self.drawn.0);
        let plain = self.plain_of(&sealed)?;
        let mut cases = Vec::new();
        let mut put = |name: &str,
                       at: usize,
                       head: &ObjectName,
                       held: &[usize],
                       sealed: &[u8],
                       outcome: &str| {
            cases.push(json!({
                "name": name, "space": at, "head": hex::encode(head), "held": held,
                "sealed": hex::encode(sealed), "outcome": outcome,
            }));
        };
        put("as it was sealed", 0, &head, &[0], &sealed, "ok");
        put(
            "its generation is not held",
            0,
            &head,
            &[1, 2],
            &sealed,
            "NotYet",
        );
        put("no generation is held", 0, &head, &[], &sealed, "NotYet");
        put("for another space", 1, &head, &[0], &sealed, "Damaged");
        put(
            "for another head",
            0,
            &self_name(&head),
            &[0],
            &sealed,
            "Damaged",
        );
        for (at, what, outcome) in [
            (0, "epoch", "NotYet"),
            (11, "number", "NotYet"),
            (19, "id of the generation", "NotYet"),
            (20, "salt", "Damaged"),
            (36, "ciphertext", "Damaged"),
            (sealed.len() - 1, "tag", "Damaged"),
        ] {
            let mut changed = sealed.clone();
            *changed.get_mut(at).ok_or("too short")? ^= 1;
            put(
                &format!("a changed {what}"),
                0,
                &head,
                &[0],
                &changed,
                outcome,
            );
        }
        for (length, outcome) in [
            (0, "Damaged"),
            (19, "Damaged"),
            (20, "Damaged"),
            (52, "Damaged"),
        ] {
            let cut = sealed.get(..length).ok_or("too short")?;
            put(
                &format!("cut to {length} bytes"),
                0,
                &head,
                &[0],
                cut,
                outcome,
            );
        }
        let mut longer = sealed.clone();
        longer.push(0);
        put("a byte longer", 0, &head, &[0], &longer, "Damaged");
        let as_head = LogPart::Head.seal(&generation, &space0, &head, &plain, &mut self.drawn.0);
        put("sealed as a head", 0, &head, &[0], &as_head, "Damaged");
        for (name, padded, outcome) in [
            (
                "padded to another length",
                [plain.as_slice(), &[0x80], &[0; 7]].concat(),
                "ok",
            ),
            (
                "padded by the mark alone",
                [plain.as_slice(), &[0x80]].concat(),
                "ok",
            ),
            (
                "without a mark",
                [plain.as_slice(), &[0; 7]].concat(),
                "Damaged",
            ),
            (
                "with another mark",
                [plain.as_slice(), &[0x81], &[0; 7]].concat(),
                "Damaged",
            ),
            ("nothing but zeros", vec![0; 160], "Damaged"),
            ("nothing at all", Vec::new(), "Damaged"),
        ] {
            let sealed = raw(
                &generation,
                &space0,
                &head,
                labels::SEGMENT,
                &padded,
                &mut self.drawn.0,
            );
            put(name, 0, &head, &[0], &sealed, outcome);
        }
        for (name, plain) in malformed(&plain)? {
            let sealed = plaintext.seal(&generation, &space0, &head, &plain, &mut self.drawn.0);
            let outcome = if name == "of version 2" {
                "NotYet"
            } else {
                "Damaged"
            };
            put(&name, 0, &head, &[0], &sealed, outcome);
        }
        for case in &cases {
            agree(case, self.judge_segment(case)?.as_str())?;
        }
        Ok(cases)
    }

    fn plain_of(&self, sealed: &[u8]) -> Outcome<Vec<u8>> {
        let (space0, generation) = (space(0)?, self.generation(0)?);
        let name = self.head_name(&space0);
        let plain = LogPart::Segment.open(&generation, &space0, &name, sealed)?;
        Ok(plain.to_vec())
    }

    fn judge_segment(&self, case: &Value) -> Outcome<String> {
        let (at, head, held, sealed) = self.inputs(case)?;
        Ok(outcome(
            Segment::open(&held, &at, &head, &sealed).map(|_| ()),
        ))
    }

    fn judge_head(&self, case: &Value) -> Outcome<String> {
        let (at, head, held, sealed) = self.inputs(case)?;
        let list = number_in(case, "list")?;
        let list = self.lists.get(list).ok_or("no such list")?;
        let seen = case.get("seen").and_then(Value::as_u64);
        let seen = seen.and_then(|at| self.heads.get(usize::try_from(at).ok()?));
        let seen = seen.map(|head| -> Outcome<Seen> {
            let (at, name, _) = self.inputs_of(head)?;
            let sealed = bytes_in(head, "sealed")?;
            // Seen is what was believed then, under the list of then.
            let generation = self.generation(number_in(head, "generation")?)?;
            let all = self.lists.first().ok_or("no list")?;
            let newest = self.lists.last().ok_or("no list")?;
            let held = [generation];
            let opened = Head::open(&held, &at, &name, all, None, &sealed)
                .or_else(|_| Head::open(&held, &at, &name, newest, None, &sealed))?;
            Ok(opened.1)
        });
        let seen = seen.transpose()?;
        let judged = Head::open(&held, &at, &head, list, seen.as_ref(), &sealed);
        Ok(outcome(judged.map(|_| ())))
    }

    fn inputs_of(&self, of: &Value) -> Outcome<(Space, ObjectName, Vec<u8>)> {
        let at = space(number_in(of, "space")?)?;
        let head: ObjectName = bytes_in(of, "head")?.try_into().map_err(|_| "no name")?;
        Ok((
            at,
            head,
            bytes_in(of, "sealed").or_else(|_| self.sealed_of(of))?,
        ))
    }

    /// What a case takes from one of the heads, or so many zeros.
    fn sealed_of(&self, case: &Value) -> Outcome<Vec<u8>> {
        if let Ok(zeros) = number_in(case, "zeros") {
            return Ok(vec![0; zeros]);
        }
        let of = self.heads.get(number_in(case, "of")?);
        bytes_in(of.ok_or("no such head")?, "sealed")
    }

    fn inputs(&self, case: &Value) -> Outcome<(Space, ObjectName, Vec<Generation>, Vec<u8>)> {
        let (at, head, sealed) = self.inputs_of(case)?;
        let held = case.get("held").and_then(Value::as_array);
        let held = held.ok_or("nothing held")?.iter();
        let held = held.map(|at| self.generation(usize::try_from(at.as_u64().unwrap_or(99))?));
        Ok((at, head, held.collect::<Outcome<_>>()?, sealed))
    }

    fn head(
        &mut self,
        what: &str,
        generation: usize,
        by: usize,
        before: Option<&(Head, Seen)>,
        list_epoch: u64,
        segments: Vec<SegmentRef>,
    ) -> Outcome<(Head, Seen)> {
        let of = self.generation(generation)?;
        let holds = (of.epoch, of.number);
        let before = before.map(|(head, seen)| (head, seen));
        let head = Head::after(before, number(by), list_epoch, holds, segments)?;
        let sealed = self.sign(what, 0, generation, by, &head)?;
        let seen = Seen::new(&head, &sealed)?;
        Ok((head, seen))
    }

    /// Signs and seals a head, and notes it.
    fn sign(
        &mut self,
        what: &str,
        at: usize,
        generation: usize,
        by: usize,
        head: &Head,
    ) -> Outcome<Vec<u8>> {
        let (z, salt): ([u8; 64], [u8; 16]) = (self.drawn.bytes(), self.drawn.bytes());
        let (of, space) = (self.generation(generation)?, space(at)?);
        let name = self.head_name(&space);
        let identity = self.devices.get(by).ok_or("no such device")?;
        let mut rng = replay(&[&z, &salt]);
        let sealed = head.seal(identity, &of, &space, &name, &mut rng);
        rng.finish()?;
        let writers = head.writers.iter().map(|(device, writer)| {
            json!([device, writer.counter, [writer.holds.0, writer.holds.1]])
        });
        let segments = head.segments.iter();
        let segments = segments
            .map(|segment| json!([hex::encode(segment.blob), segment.records, segment.size]));
        self.heads.push(json!({
            "name": what, "space": at, "generation": generation, "head": hex::encode(name),
            "identity_private": hex::encode(identity.private().to_bytes().as_slice()),
            "z": hex::encode(z), "salt": hex::encode(salt),
            "list_epoch": head.list_epoch, "restarts": head.restarts, "writers": writers.collect::<Vec<_>>(),
            "previous": head.previous.map(hex::encode), "segments": segments.collect::<Vec<_>>(),
            "signer": head.signer,
            "sealed": hex::encode(&sealed), "sha256": hex::encode(sha256(&[&sealed])),
        }));
        Ok(sealed)
    }

    /// Heads that follow each other and ones that do not, and what becomes of each.
    fn write_heads(&mut self) -> Outcome<Vec<Value>> {
        let segments: Vec<_> = (1..4)
            .map(|byte| SegmentRef::new([byte; 32], u32::from(byte), 300 + u64::from(byte)))
            .collect();
        let none = Vec::new;
        // 0 to 3: a log. 4 and 5: other branches after 1. 6: by whoever is on no list. 7: of a later list. 8: of a later generation.
        let first = self.head("the first, without segments", 0, 0, None, 1, none())?;
        let one = segments.first().copied().into_iter().collect();
        let second = self.head(
            "the second, by the other device",
            0,
            1,
            Some(&first),
            1,
            one,
        )?;
        let third = self.head("the third", 0, 0, Some(&second), 1, segments.clone())?;
        self.head("the fourth", 0, 1, Some(&third), 1, segments.clone())?;
        self.head(
            "another third, by the other device",
            0,
            1,
            Some(&second),
            1,
            none(),
        )?;
        self.head(
            "another third, by the same device",
            0,
            0,
            Some(&second),
            1,
            segments,
        )?;
        self.head("by a device on no list", 0, 2, Some(&third), 1, none())?;
        self.head(
            "by one who knew a list that is not known here",
            0,
            0,
            Some(&third),
            9,
            none(),
        )?;
        let later = self.head("under the third generation", 2, 0, Some(&third), 1, none())?;
        self.head(
            "under the first again, after that",
            0,
            0,
            Some(&later),
            2,
            none(),
        )?;
        let full = Head::after(None, number(0), u64::MAX, (u64::MAX, u32::MAX), none())?;
        let mut full = full;
        full.list_epoch = 2;
        full.restarts = u32::MAX;
        full.previous = Some([0xee; 32]);
        full.segments = (0..1_000)
            .map(|at| SegmentRef::new([u8::try_from(at % 251).unwrap_or(0); 32], at, u64::MAX))
            .collect();
        for device in 1..=255 {
            let mut writer = full.writers.get(&number(0)).copied().ok_or("no writer")?;
            writer.counter = u64::MAX;
            full.writers.insert(device, writer);
        }
        self.sign("as full as one may be", 0, 1, 0, &full)?;

        let mut cases = Vec::new();
        let mut judge = |name: &str, of: usize, list: usize, seen: Option<usize>, outcome: &str| {
            let head = self.heads.get(of).cloned().unwrap_or_default();
            cases.push(json!({
                "name": name, "of": of, "space": 0, "head": head.get("head"), "held": [0, 1, 2],
                "list": list, "seen": seen, "outcome": outcome,
            }));
        };
        judge("a new device believes the first head", 0, 0, None, "ok");
        judge("the next one", 1, 0, Some(0), "ok");
        judge("the next but one", 2, 0, Some(0), "ok");
        judge("the same again", 2, 0, Some(2), "ok");
        judge("an older one", 1, 0, Some(2), "Stale");
        judge("the oldest", 0, 0, Some(3), "Stale");
        judge("another branch", 4, 0, Some(2), "Forked");
        judge("the same counters and other bytes", 5, 0, Some(2), "Forked");
        judge("another branch, seen first", 2, 0, Some(4), "Forked");
        judge(
            "what follows one branch is a fork of the other",
            3,
            0,
            Some(4),
            "ok",
        );
        judge("by a device on no list", 6, 0, Some(2), "UnlistedDevice");
        judge(
            "by a removed device, not seen before",
            1,
            1,
            Some(0),
            "UnlistedDevice",
        );
        judge(
            "by a removed device, never seen anything",
            1,
            1,
            None,
            "UnlistedDevice",
        );
        judge("by a removed device, seen before", 1, 1, Some(1), "ok");
        judge("of a list that is not known here", 7, 0, Some(2), "NotYet");
        judge("under a later generation", 8, 0, Some(2), "ok");
        judge(
            "under an earlier generation, by higher counters",
            9,
            1,
            Some(8),
            "Stale",
        );
        judge("as full as one may be", 10, 1, None, "ok");
        let earlier = self.heads.get(9).cloned().unwrap_or_default();
        for (name, seen, outcome) in [
            (
                "under an earlier generation that was given up",
                json!(8),
                "Stale",
            ),
            (
                "under one that is not held, never seen anything",
                Value::Null,
                "NotYet",
            ),
        ] {
            cases.push(json!({
                "name": name, "of": 9, "space": 0, "head": earlier.get("head"), "held": [1, 2],
                "list": 1, "seen": seen, "outcome": outcome,
            }));
        }
        let whole = self.heads.get(2).cloned().unwrap_or_default();
        let (sealed, name) = (
            bytes_in(&whole, "sealed")?,
            whole.get("head").cloned().unwrap_or_default(),
        );
        let head: ObjectName = bytes_in(&whole, "head")?
            .try_into()
            .map_err(|_| "no name")?;
        let mut put =
            |what: &str, at: usize, name: &Value, held: &[usize], sealed: &[u8], outcome: &str| {
                cases.push(json!({
                    "name": what, "space": at, "head": name, "held": held, "list": 0, "seen": null,
                    "sealed": hex::encode(sealed), "outcome": outcome,
                }));
            };
        put(
            "its generation is not held",
            0,
            &name,
            &[1, 2],
            &sealed,
            "NotYet",
        );
        put("for another space", 1, &name, &[0], &sealed, "Damaged");
        put(
            "for another name",
            0,
            &json!(hex::encode(self_name(&head))),
            &[0],
            &sealed,
            "Damaged",
        );
        put(
            "shorter than a generation",
            0,
            &name,
            &[0],
            &[0; 19],
            "Damaged",
        );
        let (of, space0) = (self.generation(0)?, space(0)?);
        for (what, plain, outcome) in self.malformed_heads(&head)? {
            let part = LogPart::Head;
            let sealed = part.seal(&of, &space0, &head, &plain, &mut self.drawn.0);
            put(what, 0, &name, &[0], &sealed, outcome);
        }
        cases.push(json!({
            "name": "longer than an object", "zeros": 65_537, "space": 0, "head": name, "held": [0],
            "list": 0, "seen": null, "outcome": "Damaged",
        }));
        for case in &cases {
            agree(case, self.judge_head(case)?.as_str())?;
        }
        Ok(cases)
    }

    /// Plaintexts of heads that are none, each signed as it should be unless that is the point.
    fn malformed_heads(
        &mut self,
        name: &ObjectName,
    ) -> Outcome<Vec<(&'static str, Vec<u8>, &'static str)>> {
        let signed = |body: Vec<u8>, by: &IdentityKeyPair, rng: &mut ChaCha20Rng| {
            let lp = u32::try_from(name.len()).unwrap_or(0).to_be_bytes();
            let message = [labels::HEAD, &lp, name, &body].concat();
            let signature = by.sign(&message, rng);
            [body.as_slice(), &signature].concat()
        };
        let writer = |device: u32, counter: u64| {
            [&device.to_be_bytes()[..], &counter.to_be_bytes(), &[0; 12]].concat()
        };
        let body = |version: u8, writers: &[Vec<u8>], count: u32, middle: &[u8], signer: u32| {
            let epoch = 1_u64.to_be_bytes();
            let mut body = [&[version][..], &epoch, &[0; 4], &count.to_be_bytes()].concat();
            writers
                .iter()
                .for_each(|writer| body.extend_from_slice(writer));
            body.extend_from_slice(middle);
            body.extend_from_slice(&signer.to_be_bytes());
            body
        };
        let (ours, theirs) = (number(0), number(1));
        // No head before, no segment.
        let middle = [0; 5];
        let good = body(1, &[writer(ours, 1)], 1, &middle, ours);
        let [one, two] = [ours, theirs].map(|device| writer(device, 1));
        let many: Vec<_> = (1..=257).map(|device| writer(device, 1)).collect();
        let mut longer = good.clone();
        longer.push(0);
        let mut shorter = good.clone();
        shorter.pop();
        let by = self.devices.first().ok_or("no device")?;
        let other = self.devices.get(1).ok_or("no device")?;
        let rng = &mut self.drawn.0;
        let mut cases = vec![
            ("signed and sound", signed(good.clone(), by, rng), "ok"),
            (
                "signed by another than it names",
                signed(good.clone(), other, rng),
                "BadSignature",
            ),
            (
                "with nothing for a signature",
                [good.as_slice(), &[0; 64]].concat(),
                "BadSignature",
            ),
        ];
        let mut put = |what: &'static str, body: Vec<u8>, rng: &mut ChaCha20Rng| {
            cases.push((what, signed(body, by, rng), "Damaged"));
        };
        put(
            "of version 0",
            body(0, std::slice::from_ref(&one), 1, &middle, ours),
            rng,
        );
        put("with a byte too many", longer, rng);
        put("with a byte too few", shorter, rng);
        put(
            "its signer among no writers",
            body(1, std::slice::from_ref(&two), 1, &middle, ours),
            rng,
        );
        put("without writers", body(1, &[], 0, &middle, ours), rng);
        put(
            "writers that do not ascend",
            body(1, &[two.clone(), one.clone()], 2, &middle, ours),
            rng,
        );
        put(
            "a writer twice",
            body(1, &[one.clone(), one.clone()], 2, &middle, ours),
            rng,
        );
        put(
            "a writer 0",
            body(1, &[writer(0, 1), one.clone()], 2, &middle, ours),
            rng,
        );
        put(
            "a counter 0",
            body(1, &[writer(ours, 0)], 1, &middle, ours),
            rng,
        );
        put("257 writers", body(1, &many, 257, &middle, 1), rng);
        put(
            "fewer writers than it says",
            body(1, std::slice::from_ref(&one), 2, &middle, ours),
            rng,
        );
        put(
            "a mark that is neither 0 nor 1",
            body(1, std::slice::from_ref(&one), 1, &[2, 0, 0, 0, 0], ours),
            rng,
        );
        let segments = [&[0][..], &1_001_u32.to_be_bytes(), &vec![0; 1_001 * 44]].concat();
        put("1,001 segments", body(1, &[one], 1, &segments, ours), rng);
        cases.push(("shorter than a signature", vec![1; 63], "Damaged"));
        let later = body(2, &[writer(ours, 1)], 1, &middle, ours);
        cases.push(("of version 2", signed(later, by, rng), "NotYet"));
        Ok(cases)
    }
}

/// Another name of a head.
fn self_name(head: &ObjectName) -> ObjectName {
    let mut other = *head;
    other.iter_mut().for_each(|byte| *byte ^= 0x55);
    other
}

fn raw(
    generation: &Generation,
    space: &Space,
    head: &ObjectName,
    label: &[u8],
    padded: &[u8],
    rng: &mut ChaCha20Rng,
) -> Vec<u8> {
    let mut prefix = generation.epoch.to_be_bytes().to_vec();
    prefix.extend_from_slice(&generation.number.to_be_bytes());
    prefix.extend_from_slice(&generation_id(generation));
    let key = SealKey::from_bytes(&space_key(generation, space));
    let ad = [prefix.as_slice(), head].concat();
    let sealed = key.seal(label, &ad, padded, rng);
    [prefix, sealed].concat()
}

/// `LP(app) ‖ LP(user) ‖ LP(agent) ‖ LP(kind)`.
fn listed_id(at: usize) -> Outcome<Vec<u8>> {
    let (app, user, agent, kind) = SPACES.get(at).ok_or("no such space")?;
    let mut id = Vec::new();
    for part in [*app, *user, agent.unwrap_or_default(), *kind] {
        id.extend_from_slice(&u32::try_from(part.len())?.to_be_bytes());
        id.extend_from_slice(part.as_bytes());
    }
    Ok(id)
}

/// A segment, written here from the text.
fn root_plaintext(entries: &BTreeMap<Vec<u8>, Entry>) -> Vec<u8> {
    let be = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = vec![1];
    out.extend_from_slice(&be(entries.len()));
    for (id, entry) in entries {
        out.extend_from_slice(&be(id.len()));
        out.extend_from_slice(id);
        out.extend_from_slice(&entry.revision.to_be_bytes());
        out.extend_from_slice(&entry.device.to_be_bytes());
        out.extend_from_slice(&entry.at.to_be_bytes());
        out.extend_from_slice(&be(entry.agent.len()));
        out.extend_from_slice(entry.agent.as_bytes());
        match &entry.state {
            RecordState::Live {
                key,
                blob,
                size,
                at_server,
                ..
            } => {
                out.push(if *at_server { 3 } else { 0 });
                out.extend_from_slice(key.as_slice());
                out.extend_from_slice(blob);
                out.extend_from_slice(&size.to_be_bytes());
            }
            RecordState::Deleted => out.push(1),
            RecordState::Erased { under, .. } => {
                out.push(2);
                out.extend_from_slice(&under.0.to_be_bytes());
                out.extend_from_slice(&under.1.to_be_bytes());
            }
            _ => out.push(4),
        }
    }
    out
}

/// Plaintexts of segments that are none, beside a good one of one live record `a`.
fn malformed(good: &[u8]) -> Outcome<Vec<(String, Vec<u8>)>> {
    let entry = good.get(5..).ok_or("too short")?;
    let with = |count: u32, entries: &[&[u8]]| {
        [&[1][..], &count.to_be_bytes(), &entries.concat()].concat()
    };
    let changed = |at: usize, to: &[u8]| -> Outcome<Vec<u8>> {
        let mut plain = good.to_vec();
        let place = plain.get_mut(at..at + to.len()).ok_or("too short")?;
        place.copy_from_slice(to);
        Ok(plain)
    };
    let named = |id: &[u8], rest: &[u8]| {
        let length = u32::try_from(id.len()).unwrap_or(0).to_be_bytes();
        [&length[..], id, rest].concat()
    };
    // Behind `LP("a")`: revision 8, device 4, time 8, LP(agent) 4, state.
    let rest = entry.get(5..).ok_or("too short")?;
    let (head, state) = rest.split_at_checked(24).ok_or("too short")?;
    let (fields, _) = head.split_at_checked(20).ok_or("too short")?;
    let agent = |agent: &[u8]| {
        let length = u32::try_from(agent.len()).unwrap_or(0).to_be_bytes();
        let entry = [&named(b"a", fields)[..], &length, agent, state].concat();
        with(1, &[&entry])
    };
    let mut longer = good.to_vec();
    longer.push(0);
    let b = named(b"b", rest);
    let long = named(&[0x61; 129], rest);
    let longest = named(&[0x61; 790], &[head, &[4]].concat());
    let cases = [
        ("of version 2", changed(0, &[2])?),
        ("of version 0", changed(0, &[0])?),
        ("with a byte too many", longer),
        (
            "with a byte too few",
            good.get(..good.len() - 1).ok_or("too short")?.to_vec(),
        ),
        ("fewer entries than it says", with(2, &[entry])),
        ("more entries than it says", with(0, &[entry])),
        ("says 4,097 entries", with(4_097, &[entry])),
        (
            "says more entries than there are numbers",
            with(u32::MAX, &[entry]),
        ),
        ("ids that do not ascend", with(2, &[&b, entry])),
        ("an id twice", with(2, &[entry, entry])),
        ("an id of no bytes", with(1, &[&named(b"", rest)])),
        ("an id of 129 bytes for a record", with(1, &[&long])),
        ("an id of 790 bytes for a space", with(1, &[&longest])),
        ("an id longer than the plaintext", changed(5, &[0xff; 4])?),
        ("revision 0", changed(10, &[0; 8])?),
        ("device 0", changed(18, &[0; 4])?),
        ("an agent of 256 bytes", agent(&[0x61; 256])),
        ("an agent that is no UTF-8", agent(&[0xff])),
        ("a state that there is not", changed(34, &[5])?),
        ("nothing", Vec::new()),
    ];
    Ok(cases
        .into_iter()
        .map(|(name, plain)| (name.to_owned(), plain))
        .collect())
}

/// Entries of one record, of which one counts in whatever order they come.
fn merges() -> Outcome<Vec<Value>> {
    let live = |blob: u8| RecordState::live([blob; 32], [blob; 32], 138, false);
    let entry = |revision, device, at, agent: &str, state| -> Outcome<Entry> {
        Ok(Entry::new(revision, device, at, agent, state)?)
    };
    let cases = [
        (
            "the higher revision",
            vec![entry(1, 9, 9, "z", live(9))?, entry(2, 1, 1, "", live(1))?],
            1,
        ),
        (
            "of one revision the higher device",
            vec![entry(2, 8, 1, "", live(1))?, entry(2, 7, 9, "z", live(9))?],
            0,
        ),
        (
            "a later write after a tombstone",
            vec![
                entry(3, 1, 1, "", RecordState::Deleted)?,
                entry(4, 1, 1, "", live(1))?,
            ],
            1,
        ),
        (
            "a tombstone after a write",
            vec![
                entry(4, 1, 1, "", live(1))?,
                entry(5, 1, 1, "", RecordState::Deleted)?,
            ],
            1,
        ),
        (
            "an erase before everything",
            vec![
                entry(90, 9, 9, "", live(9))?,
                entry(2, 1, 1, "", RecordState::erased((1, 1)))?,
                entry(91, 1, 1, "", RecordState::Deleted)?,
            ],
            1,
        ),
        (
            "of two erases the higher revision",
            vec![
                entry(3, 1, 1, "", RecordState::erased((1, 1)))?,
                entry(2, 9, 9, "", RecordState::erased((9, 9)))?,
            ],
            0,
        ),
        (
            "of two erases of one write the later generation",
            vec![
                entry(3, 1, 1, "", RecordState::erased((1, 2)))?,
                entry(3, 1, 1, "", RecordState::erased((1, 1)))?,
            ],
            0,
        ),
        (
            "of one device's two of a revision a tombstone",
            vec![
                entry(3, 1, 1, "", live(9))?,
                entry(3, 1, 1, "", RecordState::Deleted)?,
            ],
            1,
        ),
        (
            "else the higher blob",
            vec![entry(3, 1, 9, "z", live(1))?, entry(3, 1, 1, "", live(2))?],
            1,
        ),
        (
            "else the later time",
            vec![entry(3, 1, 2, "", live(1))?, entry(3, 1, 1, "z", live(1))?],
            0,
        ),
        (
            "else the higher agent",
            vec![entry(3, 1, 1, "a", live(1))?, entry(3, 1, 1, "b", live(1))?],
            1,
        ),
    ];
    let last = |size, at_server, key: u8| {
        entry(
            3,
            1,
            1,
            "",
            RecordState::live([key; 32], [1; 32], size, at_server),
        )
    };
    let last = [
        (
            "else the larger size",
            vec![last(138, true, 9)?, last(139, false, 1)?],
            1,
        ),
        (
            "else the one that the server keeps",
            vec![last(138, true, 1)?, last(138, false, 9)?],
            0,
        ),
        (
            "else the higher key",
            vec![last(138, true, 1)?, last(138, true, 2)?],
            1,
        ),
    ];
    let mut out = Vec::new();
    for (name, entries, counts) in cases.into_iter().chain(last) {
        let id = RecordId::new("r")?;
        let winner = entries.get(counts).ok_or("no such entry")?;
        let orders = [entries.clone(), entries.iter().rev().cloned().collect()];
        for order in orders {
            let mut log = KeyLog::default();
            for entry in order.iter().chain(&order) {
                log.merge(&id, entry);
            }
            if log.get(&id) != Some(winner) {
                return Err(format!("{name}: another entry counts").into());
            }
        }
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| entry_json((&id, entry)))
            .collect();
        out.push(json!({"name": name, "entries": entries, "counts": counts}));
    }
    Ok(out)
}

fn entry_json((id, entry): (&RecordId, &Entry)) -> Value {
    let (state, key, blob, size, under) = match &entry.state {
        RecordState::Live {
            key,
            blob,
            size,
            at_server,
            ..
        } => {
            let state = if *at_server { 3 } else { 0 };
            (
                state,
                Some(hex::encode(key.as_slice())),
                Some(hex::encode(blob)),
                Some(*size),
                None,
            )
        }
        RecordState::Deleted => (1, None, None, None, None),
        RecordState::Erased { under, .. } => (2, None, None, None, Some(json!([under.0, under.1]))),
        _ => (4, None, None, None, None),
    };
    json!({
        "id": hex::encode(id.as_bytes()), "revision": entry.revision, "device": entry.device, "at": entry.at,
        "agent": entry.agent, "state": state, "key": key, "blob": blob, "size": size, "under": under,
    })
}

fn outcome(judged: Result<(), LogError>) -> String {
    match judged {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn agree(case: &Value, found: &str) -> Outcome<()> {
    if case["outcome"] == found {
        return Ok(());
    }
    Err(format!("{}: {}, not {found}", case["name"], case["outcome"]).into())
}

fn number_in(of: &Value, field: &str) -> Outcome<usize> {
    let number = of.get(field).and_then(Value::as_u64);
    Ok(usize::try_from(
        number.ok_or_else(|| format!("no {field}"))?,
    )?)
}

fn bytes_in(of: &Value, field: &str) -> Outcome<Vec<u8>> {
    let text = of.get(field).and_then(Value::as_str);
    Ok(hex::decode(text.ok_or_else(|| format!("no {field}"))?)?)
}
