//! A call that is made again, to another process that has the store open by then.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::profile::STORE;
use crate::shared::call::{Filter, Query};
use crate::sys;

struct World {
    home: TempDir,
    door: ProfileDoor,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let file: PathBuf = home.path().join("key");
        let key = Key::create_file(&file, &mut sys::rng()).unwrap();
        let client = Client::create(home.path().join(STORE), key.clone(), "alice").unwrap();
        client.close().unwrap();
        let global = Global {
            home: Some(home.path().to_path_buf()),
            key_file: Some(file),
            server: None,
            anchor: None,
            json: false,
        };
        Self {
            door: ProfileDoor::new(&global, key, false),
            home,
        }
    }

    /// One call to a process of its own.
    fn ask(&self, id: u128, call: &Call) -> Result<Answer, Fault> {
        let house = self.door.open().unwrap();
        let answer = house.answer(CallId(id), call);
        house.close().unwrap();
        answer
    }

    fn content(&self, id: u128) -> Result<(String, u64), String> {
        let get = Call::Get {
            whose: whose(),
            id: CallId(id).digits(),
        };
        match self.ask(u128::MAX, &get) {
            Ok(Answer::Memory(found)) => Ok((found.memory.content.clone(), found.revision)),
            Ok(_) => Err("another answer".to_owned()),
            Err(fault) => Err(fault.code),
        }
    }
}

fn whose() -> Whose {
    Whose {
        user: None,
        agent: Some("tutor".to_owned()),
    }
}

fn store(content: &str) -> Call {
    Call::Store {
        whose: whose(),
        memory: Box::new(Memory::new(content)),
        redact: true,
    }
}

fn update(of: u128, content: &str) -> Call {
    Call::Update {
        whose: whose(),
        id: CallId(of).digits(),
        change: Box::new(Change {
            content: Some(content.to_owned()),
            ..Change::default()
        }),
        redact: false,
    }
}

fn forget(of: u128, erase: bool) -> Call {
    Call::Forget {
        whose: whose(),
        id: CallId(of).digits(),
        erase,
    }
}

#[test]
fn a_store_that_is_asked_for_again_after_a_takeover_is_done_once_whatever_came_after_it() {
    let world = World::new();
    let first = world.ask(1, &store("one")).unwrap();
    assert_eq!(world.ask(1, &store("one")).unwrap(), first);
    assert_eq!(world.content(1).unwrap(), ("one".to_owned(), 1));
    world.ask(2, &update(1, "two")).unwrap();
    assert_eq!(world.ask(1, &store("one")).unwrap(), first);
    assert_eq!(world.content(1).unwrap(), ("two".to_owned(), 2));
    world.ask(3, &forget(1, false)).unwrap();
    assert_eq!(world.ask(1, &store("one")).unwrap(), first);
    assert_eq!(world.content(1).unwrap_err(), "record_deleted");
    world.ask(4, &forget(1, true)).unwrap();
    assert_eq!(world.ask(1, &store("one")).unwrap(), first);
    assert_eq!(world.content(1).unwrap_err(), "record_erased");
    assert!(world.home.path().exists());
}

#[test]
fn an_update_that_is_asked_for_again_does_not_undo_what_came_after_it() {
    let world = World::new();
    world.ask(1, &store("one")).unwrap();
    world.ask(2, &update(1, "two")).unwrap();
    for later in 3..10 {
        world.ask(later, &update(1, "later")).unwrap();
    }
    world.ask(2, &update(1, "two")).unwrap();
    assert_eq!(world.content(1).unwrap(), ("later".to_owned(), 9));
    // It remembers the last ones only, and nobody sees that.
    for later in 10..30 {
        world.ask(later, &update(1, "last")).unwrap();
    }
    let whose = whose();
    let id = CallId(1).digits();
    let Answer::Memory(found) = world.ask(99, &Call::Get { whose, id }).unwrap() else {
        panic!("another answer");
    };
    assert!(found.memory.extra.is_empty() && found.memory.embedding.is_none());
    assert_eq!(
        world.ask(20, &update(1, "x")).unwrap(),
        world.ask(21, &update(1, "x")).unwrap()
    );
    assert_eq!(world.content(1).unwrap(), ("last".to_owned(), 29));
}

#[test]
fn what_was_forgotten_is_forgotten_again_with_the_same_answer() {
    let world = World::new();
    for (id, erase) in [(1, false), (2, true)] {
        world.ask(id, &store("one")).unwrap();
        let first = world.ask(10, &forget(id, erase)).unwrap();
        assert_eq!(world.ask(10, &forget(id, erase)).unwrap(), first);
    }
    // A deletion leaves what was erased erased.
    let erased = world.ask(11, &forget(2, true)).unwrap();
    assert_eq!(world.ask(12, &forget(2, false)).unwrap(), erased);
    assert_eq!(
        world.ask(13, &forget(3, false)).unwrap_err().code,
        "not_found"
    );
    assert_eq!(
        world.ask(14, &update(1, "x")).unwrap_err().code,
        "record_deleted"
    );
}

#[test]
fn an_import_that_is_asked_for_again_says_that_it_is_there() {
    let world = World::new();
    let import = |content: &str| {
        let memory = Box::new(Memory::new(content).id("mine"));
        let whose = whose();
        world.ask(1, &Call::Import { whose, memory }).unwrap()
    };
    assert_eq!(import("one"), Answer::Imported(Imported::Added));
    // Times were given to it.
    assert_eq!(import("one"), Answer::Imported(Imported::Differs));
    assert_eq!(import("two"), Answer::Imported(Imported::Differs));
}

#[test]
fn embeddings_are_made_of_what_is_kept_and_not_of_what_was_taken_out() {
    let world = World::new();
    world
        .ask(1, &store("write to quetzalcoatl@example.com soon"))
        .unwrap();
    let search = |text: &str| {
        let call = Call::Search {
            whose: whose(),
            query: Query::Text(text.to_owned()),
            limit: 10,
            threshold: 0.15,
            filter: Filter::default(),
        };
        match world.ask(9, &call).unwrap() {
            Answer::Memories { found, .. } => found.len(),
            _ => usize::MAX,
        }
    };
    assert_eq!(search("quetzalcoatl"), 0);
    assert_eq!(search("write soon"), 1);
}

#[test]
fn a_store_that_somebody_has_open_is_told_with_its_process() {
    let world = World::new();
    let house = world.door.open().unwrap();
    let second = world.door.open().err().unwrap();
    assert!(matches!(second, NotOpen::InUse(Some(process)) if process == std::process::id()));
    // Its key can be had all the same.
    world.door.proof_key().unwrap();
    house.close().unwrap();
    world.door.open().unwrap().close().unwrap();
}

#[test]
fn secrets_are_known_by_the_names_of_their_fields_too() {
    let world = World::new();
    let with = |json: &str| Some(Json::parse(json).unwrap());
    let mut memory = Memory::new("how to get in");
    memory.metadata =
        with(r#"{"password":"tulip-bulb","login":{"client_secret":"Hx9-kettle-moss"},"n":1.10}"#);
    let call = Call::Store {
        whose: whose(),
        memory: Box::new(memory),
        redact: true,
    };
    let Answer::Written { redacted, .. } = world.ask(1, &call).unwrap() else {
        panic!("another answer");
    };
    assert_eq!(redacted.iter().map(|(_, count)| count).sum::<u64>(), 2);
    let change = Call::Update {
        whose: whose(),
        id: CallId(2).digits(),
        change: Box::new(Change {
            metadata: with(r#"{"passphrase":"tulip-bulb"}"#),
            ..Change::default()
        }),
        redact: true,
    };
    world.ask(2, &store("to be changed")).unwrap();
    world.ask(3, &change).unwrap();
    for id in [1, 2] {
        let get = Call::Get {
            whose: whose(),
            id: CallId(id).digits(),
        };
        let Answer::Memory(found) = world.ask(9, &get).unwrap() else {
            panic!("another answer");
        };
        let metadata = found.memory.metadata.clone().unwrap();
        assert!(!metadata.as_str().contains("tulip") && !metadata.as_str().contains("Hx9"));
        assert!(metadata.as_str().contains("[redacted:"));
    }
}

#[test]
fn an_answer_with_many_has_excerpts_of_whatever_is_long() {
    let world = World::new();
    let mut memory = Memory::new("x".repeat(10_000));
    memory.metadata = Some(Json::string(&"y".repeat(10_000)));
    memory.extra = vec![("more".to_owned(), Json::string(&"z".repeat(10_000)))];
    let call = Call::Store {
        whose: whose(),
        memory: Box::new(memory),
        redact: false,
    };
    world.ask(1, &call).unwrap();
    let list = Call::List {
        whose: whose(),
        filter: Filter::default(),
        limit: 1,
        after: None,
    };
    let Answer::Memories { found, .. } = world.ask(2, &list).unwrap() else {
        panic!("another answer");
    };
    assert!(found[0].cut);
    assert!(found[0].memory.to_json().len() < 5_000);
    // All of it is given of one.
    let get = Call::Get {
        whose: whose(),
        id: CallId(1).digits(),
    };
    let Answer::Memory(found) = world.ask(3, &get).unwrap() else {
        panic!("another answer");
    };
    assert!(!found.cut && found.memory.to_json().len() > 30_000);
}
