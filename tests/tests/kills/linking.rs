//! Alice links a second device, which hears and says what she does, removes it again, and links another; all of it is
//! killed at any instant. What was acknowledged of that comes to its end, or ends with an event; each device that is
//! listed hears everything once; a removed one is offered nothing any more; and the server holds one chain of lists.

use std::sync::atomic::AtomicBool;

use sprag::OwnDeviceState;
use sprag_wire::UnverifiedDeviceList;
use sprag_wire::relay::{ListQuery, ListReply};

use super::*;

/// Whether this child links devices at all.
pub(super) static LINKS: AtomicBool = AtomicBool::new(false);

/// A device that waits lets at most so much time pass, in milliseconds: less than there is between two lives.
const PATIENCE: u64 = 150_000;

/// How long after the life before a life begins: a code that was shown lives on, unless there was a settling in between;
/// and once between two of those more than a day passes, so that a device which waits for its keys gives up.
fn step(life: u64) -> u64 {
    match life % (SETTLED as u64 + 1) {
        2 => 2 * 3_600_000,
        15 => 30 * 3_600_000,
        _ => PATIENCE + 30_000,
    }
}

// Names: those of the devices that are linked are "alice+1", "alice+2" and so on.

fn name(number: u64) -> String {
    format!("{}+{number}", USERS[0])
}

pub(super) fn user_of(name: &str) -> &str {
    name.split('+').next().unwrap()
}

pub(super) fn is_linked_one(name: &str) -> bool {
    name.contains('+')
}

/// Message ids of different devices are different ones.
pub(super) fn first_id(name: &str) -> u128 {
    let number = name.split_once('+').map(|(_, number)| number);
    number.map_or(0, |number| number.parse::<u128>().unwrap()) << 64
}

/// The device that began to be linked last.
fn newest(home: &Path) -> Option<u64> {
    let begun = |number: &u64| Journal::path(home, &name(*number)).exists();
    (1..).take_while(begun).last()
}

fn code_file(home: &Path, number: u64) -> PathBuf {
    home.join(format!("{}.code", name(number)))
}

/// What a journal says of linking.
#[derive(Default)]
pub(super) struct Links {
    pub(super) any: bool,
    /// What alice was about to do, and what she did: by the numbers in the names.
    linking: BTreeSet<u64>,
    linked: BTreeMap<u64, u32>,
    removing: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    /// Devices of alice, and how many messages were begun when they were first seen on her list.
    sees: BTreeMap<u32, usize>,
    /// Of a device that is linked: its profile was made, what it shows, whether it has the keys, and how it ended.
    made: bool,
    code: Option<String>,
    inside: bool,
    over: Option<String>,
}

impl Links {
    pub(super) fn line(&mut self, verb: &str, rest: &[String], begun: usize) {
        let number = |text: &String| text.parse::<u64>().unwrap();
        match (verb, rest) {
            ("links", []) => self.any = true,
            ("linking", [n]) => drop(self.linking.insert(number(n))),
            ("linked", [n, device]) => {
                let device = number(device) as u32;
                let before = self.linked.insert(number(n), device);
                assert!(before.is_none_or(|before| before == device));
            }
            ("removing", [n]) => drop(self.removing.insert(number(n))),
            ("removed", [n]) => drop(self.removed.insert(number(n))),
            ("sees", [device]) => {
                self.sees.entry(number(device) as u32).or_insert(begun);
            }
            ("made", []) => self.made = true,
            ("code", [code]) => {
                let first = self.code.get_or_insert(code.clone());
                assert_eq!(first, code, "another code");
            }
            ("inside", []) => self.inside = true,
            ("over", [code]) => self.over = Some(code.clone()),
            _ => {}
        }
    }
}

// The child.

/// The thread of the devices that are linked, one after the other.
pub(super) fn live(home: &Path, life: (u64, u64), server: &Server) {
    loop {
        let mut talker = Talker::begin_linked(home, life, server);
        while talker.over.is_none() {
            talker.something_linked();
        }
        talker.end_if_over();
        talker.client.close().expect("closed");
    }
}

impl<'s> Talker<'s> {
    /// The device that is linked or to be linked now.
    pub(super) fn begin_linked(home: &Path, (life, ahead): (u64, u64), server: &'s Server) -> Self {
        let number = newest(home).map_or(1, |number| {
            let over = Said::read(home, &name(number)).links.over.is_some();
            number + u64::from(over)
        });
        let name = name(number);
        let mut journal = Journal::open(home, &name);
        journal.say(&format!("life {life}"));
        journal.say("links");
        let said = Said::read(home, &name);
        let path = home.join(&name);
        let make = Client::start_create_linked_in(path, key(0), USERS[0], surroundings(ahead));
        let client = match make.wait() {
            Err(error) if error.code() == "profile_exists" => open(home, &name, &said, ahead).0,
            made => {
                assert!(!said.links.made, "the profile is gone");
                made.expect("made")
            }
        };
        journal.say("made");
        let mut talker = Self {
            home: home.to_owned(),
            name,
            user: USERS[0],
            ahead,
            server,
            address: None,
            client,
            journal,
            said,
            rng: ChaCha20Rng::seed_from_u64(1 << 32 | life),
            over: None,
        };
        talker.note_number();
        talker.show_code();
        if talker.is_inside() {
            talker.finish_sending();
        }
        talker.journal.say("ready");
        talker
    }

    /// Whether it has the keys of the account.
    pub(super) fn is_inside(&mut self) -> bool {
        let linked = self.client.is_linked();
        let inside = self.fine(linked, "linked") == Some(true);
        if inside && !self.said.links.inside {
            self.said.links.inside = true;
            self.journal.say("inside");
        }
        inside
    }

    /// A device that was linked has a number once it found itself on the list.
    pub(super) fn note_number(&mut self) {
        if is_linked_one(&self.name)
            && self.address.is_none()
            && let Ok(address) = self.client.address()
        {
            let device = address.device().get();
            self.journal.say(&format!("device {device}"));
            self.address = Some(address);
        }
    }

    /// Lays the code where alice finds it.
    pub(super) fn show_code(&mut self) {
        let Ok(code) = self.client.link_request() else {
            return; // it is listed, or too late
        };
        let hash = hex::encode(sha256(&[code.as_bytes()]));
        self.journal.say(&format!("code {hash}"));
        let file = code_file(&self.home, newest(&self.home).unwrap());
        fs::write(file.with_extension("tmp"), code).unwrap();
        fs::rename(file.with_extension("tmp"), file).unwrap();
    }

    fn something_linked(&mut self) {
        let inside = self.is_inside();
        if !inside && PASSED.load(Ordering::SeqCst) < PATIENCE && self.below(2) == 0 {
            PASSED.fetch_add(3_001, Ordering::SeqCst);
        }
        match self.below(12) {
            0..4 => {
                self.work();
                self.poll();
            }
            4..7 => self.poll(),
            7 => drop(self.read()),
            8 | 9 if inside => self.send_new(),
            10 => match self.below(4) {
                0 => self.maintain(),
                1 => self.renew(),
                2 => self.restart(),
                _ => self.ask_for_state(),
            },
            _ => {}
        }
        // Whoever removes it takes it out of use some time.
        if self.below(8) == 0 {
            let number = newest(&self.home).unwrap();
            let removed = Said::read(&self.home, USERS[0]).links.removed;
            if removed.contains(&number) {
                self.over = Some("unlisted_device");
            }
        }
    }

    pub(super) fn end_if_over(&mut self) {
        if let Some(code) = self.over {
            self.journal.say(&format!("over {code}"));
        }
    }

    /// The devices of alice as far as this device knows them. What is new on her list is noted.
    pub(super) fn listed(&mut self) -> Option<BTreeSet<u32>> {
        if !LINKS.load(Ordering::SeqCst) {
            return None;
        }
        let (all, listed): (BTreeSet<u32>, Vec<u32>) = if self.user == USERS[0] {
            let devices = self.client.devices();
            let devices = self.fine(devices, "devices")?;
            let adding = OwnDeviceState::Adding;
            let listed = devices.iter().filter(|one| one.state != adding);
            let listed = listed.map(|one| one.device).collect();
            (devices.iter().map(|one| one.device).collect(), listed)
        } else {
            let contact = self.client.contact(USERS[0]).expect("contact")?;
            (contact.devices.iter().copied().collect(), contact.devices)
        };
        for device in listed {
            let seen = self.said.links.sees.insert(device, 0);
            if seen.is_none() {
                self.journal.say(&format!("sees {device}"));
            }
        }
        Some(all)
    }

    /// Alice links the device that shows a code, if she has no other, and removes one now and then.
    pub(super) fn care_for_devices(&mut self, settling: bool) {
        if self.name != USERS[0] {
            return;
        }
        let links = Said::read(&self.home, USERS[0]).links;
        for number in &links.linking {
            if !links.linked.contains_key(number) {
                self.link(*number, &links);
                return self.rest(settling);
            }
        }
        for (number, device) in &links.linked {
            if links.removed.contains(number) {
                continue;
            }
            let other = Said::read(&self.home, &name(*number)).links;
            let often = if other.inside { 4 } else { 40 };
            let tired = !settling && self.below(often) == 0;
            if tired || other.over.is_some() || links.removing.contains(number) {
                self.remove(*number, *device, &links);
                self.rest(settling);
            }
            return;
        }
        if let Some(number) = newest(&self.home)
            && !links.linking.contains(&number)
            && code_file(&self.home, number).exists()
            && Said::read(&self.home, &name(number)).links.over.is_none()
        {
            self.link(number, &links);
            self.rest(settling);
        }
    }

    /// Now and then nothing comes after a verb that would make it last: what was acknowledged lasts all the same.
    fn rest(&mut self, settling: bool) {
        if !settling && self.below(4) == 0 {
            loop {
                thread::park(); // until it is killed
            }
        }
    }

    fn link(&mut self, number: u64, links: &Links) {
        let code = fs::read_to_string(code_file(&self.home, number)).unwrap();
        let again = links.linking.contains(&number);
        self.journal.say(&format!("linking {number}"));
        let device = match self.client.link_device(&code, number.is_multiple_of(2)) {
            // A life before did it, and did not live to tell.
            Err(error) if again && error.code() == "bad_input" => {
                let devices = self.client.devices().expect("devices").into_iter();
                let known = |device: u32| links.linked.values().any(|known| *known == device);
                let new: Vec<_> = devices
                    .filter(|one| !one.this && !known(one.device))
                    .collect();
                assert_eq!(new.len(), 1, "refused, but not there: {new:?}");
                new[0].device
            }
            linked => linked.expect("linked"),
        };
        self.journal.say(&format!("linked {number} {device}"));
    }

    fn remove(&mut self, number: u64, device: u32, links: &Links) {
        let again = links.removing.contains(&number);
        self.journal.say(&format!("removing {number}"));
        match self.client.remove_device(device) {
            Err(error) if again && error.code() == "bad_input" => {
                let devices = self.client.devices().expect("devices");
                let goes = |state| state == OwnDeviceState::Removing;
                let mut same = devices.iter().filter(|one| one.device == device);
                assert!(same.all(|one| goes(one.state)), "{devices:?}");
            }
            removed => removed.expect("removed"),
        }
        self.journal.say(&format!("removed {number}"));
    }
}

// The parent.

/// What a client says of its account's devices is what was acknowledged.
pub(super) fn check(client: &Client, said: &Said, whose: &str) {
    if !said.links.any {
        return;
    }
    let fork = client.own_fork().unwrap();
    assert!(fork.is_none(), "{whose}: {fork:?}");
    for user in USERS {
        let contact = client.contact(user).unwrap();
        assert!(contact.is_none_or(|contact| !contact.changed), "{whose}");
    }
    if said.links.linked.is_empty() {
        return;
    }
    let devices = client.devices().unwrap();
    for (number, device) in &said.links.linked {
        let state = devices.iter().find(|one| one.device == *device);
        let goes = state.is_none_or(|one| one.state == OwnDeviceState::Removing);
        if said.links.removed.contains(number) {
            assert!(goes, "{whose}: {number} was removed, and is {state:?}");
        } else if !said.links.removing.contains(number) {
            assert!(!goes, "{whose}: {number} was linked, and is {state:?}");
        }
    }
}

/// The lists of alice's account as the server had them, life after life.
#[derive(Default)]
pub(super) struct Chain {
    hashes: BTreeMap<u64, [u8; 32]>,
    keys: BTreeMap<u32, [u8; 33]>,
    listed: BTreeSet<u32>,
    gone: BTreeSet<u32>,
}

impl Chain {
    fn add(&mut self, list: &UnverifiedDeviceList) {
        let (epoch, hash) = (list.epoch(), *list.hash().as_bytes());
        if let Some(before) = self.hashes.get(&epoch) {
            assert_eq!(*before, hash, "two lists of epoch {epoch}");
            return;
        }
        let previous = list.previous().map(|hash| *hash.as_bytes());
        let last = self.hashes.last_key_value().map(|(epoch, _)| *epoch);
        assert_eq!(epoch, last.unwrap_or(0) + 1, "a list is missing");
        assert_eq!(previous, last.map(|last| self.hashes[&last]), "no chain");
        self.hashes.insert(epoch, hash);
        let listed: BTreeSet<u32> = list
            .devices()
            .iter()
            .map(|one| {
                let (device, key) = (one.device().get(), *one.identity_key().as_bytes());
                let first = *self.keys.entry(device).or_insert(key);
                assert_eq!(first, key, "one number for two devices");
                let same = self.keys.values().filter(|other| **other == key).count();
                assert_eq!(same, 1, "two numbers for one device");
                assert!(!self.gone.contains(&device), "{device} came back");
                device
            })
            .collect();
        self.gone.extend(self.listed.difference(&listed));
        self.listed = listed;
    }
}

impl Killer {
    pub(super) fn names(&self) -> Vec<String> {
        let linked = (1..=newest(self.home()).unwrap_or(0)).map(name);
        USERS.into_iter().map(str::to_owned).chain(linked).collect()
    }

    /// Whose stores are still in use.
    pub(super) fn names_of_late(&self) -> Vec<String> {
        let mut names = USERS.map(str::to_owned).to_vec();
        names.extend(newest(self.home()).map(name));
        names.retain(|name| Said::read(self.home(), name).links.over.is_none());
        names
    }

    /// The server's lists go on from those that it had.
    pub(super) fn check_lists(&mut self) {
        let server = server(self.home());
        loop {
            let last = self.lists.hashes.last_key_value();
            let from = last.map_or(1, |(epoch, _)| *epoch);
            let query = ListQuery::new(USERS[0].to_owned(), from, Vec::new()).encode();
            let reply = match server.lists(&query) {
                Err(DirectoryError::NoSuchUser) => return,
                reply => ListReply::decode(&reply.unwrap()).unwrap(),
            };
            for frame in &reply.frames {
                self.lists
                    .add(&UnverifiedDeviceList::decode(frame).unwrap());
            }
            if !reply.more {
                return;
            }
        }
    }

    /// What was linked is in, was removed, or gave up; and whoever is in heard everything that was for it, once.
    pub(super) fn check_linked(&self) {
        let [alice, bob] = USERS.map(|user| Said::read(self.home(), user));
        if !alice.links.any {
            return;
        }
        let texts = |name: &str, begun: &[String]| -> BTreeSet<String> {
            begun.iter().map(|id| format!("{name}-{id}")).collect()
        };
        let mut others = BTreeSet::new();
        for number in 1..=newest(self.home()).unwrap_or(0) {
            let name = name(number);
            let said = Said::read(self.home(), &name);
            let whose = format!("life {}, {name}", self.life);
            let theirs = texts(&name, &said.begun);
            let both = [(USERS[0], &alice), (USERS[1], &bob)];
            for text in said.heard.keys() {
                let known = |(name, of): (&str, &Said)| texts(name, &of.begun).contains(text);
                assert!(both.into_iter().any(known), "{whose} heard {text}");
            }
            let device = alice.links.linked.get(&number);
            if let (Some(device), Some(own)) = (device, said.device) {
                assert_eq!(own, *device, "{whose}: another number");
            }
            let removing = alice.links.removing.contains(&number);
            match said.links.over.as_deref() {
                Some("link_expired") => assert!(!said.links.inside, "{whose}"),
                Some(_) => assert!(removing, "{whose} fell silent"),
                None => {}
            }
            if let Some(device) = device
                && !removing
                && said.links.over.is_none()
            {
                assert!(said.links.inside, "{whose} neither came in nor gave up");
                for (name, of) in both {
                    let Some(from) = of.links.sees.get(device) else {
                        continue;
                    };
                    for text in texts(name, &of.begun[*from..]) {
                        let heard = said.heard.contains_key(&text);
                        assert!(heard, "{whose} did not hear {text}");
                    }
                    for text in &theirs {
                        let heard = of.heard.contains_key(text);
                        assert!(heard, "{whose}: {name} did not hear {text}");
                    }
                }
            }
            others.extend(theirs);
        }
        for heard in alice.heard.keys().chain(bob.heard.keys()) {
            assert!(!heard.contains('+') || others.contains(heard), "{heard}");
        }
    }
}

#[test]
fn devices_linked_and_removed_by_killed_clients_hear_all_once_and_nothing_after() {
    let mut killer = Killer::new(4);
    killer.step = step;
    // What three do takes longer.
    killer.lifetime *= 2;
    let kills = kills() * 3 / 10;
    let counts = kill_them(killer, "link", kills);
    for verb in ["linked", "removed", "inside"] {
        assert!(
            counts[verb] > kills / 30,
            "hardly any was {verb}: {counts:?}"
        );
    }
}
