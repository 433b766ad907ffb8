//! Several processes on one home at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use sprag_search::LexicalEmbedder;

use crate::agent::{Agent, Gone, logs};
use crate::home::{Home, ok, wrong};

/// Memories that each of the two agents stores.
const MEMORIES: usize = 200;
/// Every so many it searches, and forgets one.
const EVERY: usize = 10;

/// What an agent was told.
#[derive(Default)]
struct Told {
    /// Contents by ids.
    stored: BTreeMap<String, String>,
    forgotten: BTreeSet<String>,
    /// Calls that were under way when the agent's own server was killed: nobody knows.
    in_doubt: usize,
}

/// What is known of an agent's server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Server {
    Starting,
    Runs(u32),
    /// The agent is through.
    Ended,
}

/// As an agent works, all day: with a new server when its own dies.
fn work(home: &Home, name: &str, server: &Mutex<Server>, done: &AtomicUsize) -> Told {
    let start = || {
        let agent = Agent::start(home, &[]);
        *server.lock().unwrap() = Server::Runs(agent.process());
        agent
    };
    let mut told = Told::default();
    let mut agent = start();
    let mut number = 0;
    while number < MEMORIES {
        match step(&mut agent, &mut told, name, number) {
            Ok(()) => {
                number += 1;
                done.fetch_add(1, Ordering::SeqCst);
            }
            Err(Gone) => {
                told.in_doubt += 1;
                drop(agent);
                agent = start();
            }
        }
    }
    *server.lock().unwrap() = Server::Ended;
    assert!(agent.end().success());
    told
}

/// Stores one memory, and now and then searches and forgets.
fn step(agent: &mut Agent, told: &mut Told, name: &str, number: usize) -> Result<(), Gone> {
    // What is tried again after a kill is told apart from the first attempt, which may be there.
    let word = format!("{name}{number}try{}word", told.in_doubt);
    let content = format!("canary {word} secretly sang {}", number * 7919);
    let tag = format!("canarytag{name}");
    let store = json!({ "content": content, "title": "canarytitle", "tags": [tag] });
    let stored = agent.try_call("store", store)?.unwrap();
    let id = stored["id"].as_str().unwrap().to_owned();
    told.stored.insert(id.clone(), content);
    if number % EVERY == EVERY - 1 {
        let query = json!({ "query": word, "limit": 3 });
        let found = agent.try_call("search", query)?.unwrap();
        assert_eq!(found["memories"][0]["id"], id.as_str(), "{found}");
        let gone = told
            .stored
            .keys()
            .find(|id| !told.forgotten.contains(*id))
            .unwrap()
            .clone();
        let forget = agent.try_call("forget", json!({ "id": gone, "erase": number % 20 == 19 }))?;
        assert!(forget.is_ok(), "{forget:?}");
        told.forgotten.insert(gone);
    }
    Ok(())
}

/// Two agents at once. `victims` says whose server is killed, one after the other: of the one that came first (0) or of the other (1).
fn two_agents_and_kills(victims: &[usize]) {
    let home = Home::new();
    let servers = [Mutex::new(Server::Starting), Mutex::new(Server::Starting)];
    let done = AtomicUsize::new(0);
    let started = |which: usize| loop {
        match *servers[which].lock().unwrap() {
            Server::Starting => {}
            other => return other,
        }
        thread::yield_now();
    };
    let mut kills = [0, 0];
    let tolds: Vec<Told> = thread::scope(|scope| {
        let (home, servers, done) = (&home, &servers, &done);
        let first = scope.spawn(move || work(home, "one", &servers[0], done));
        started(0);
        let second = scope.spawn(move || work(home, "two", &servers[1], done));
        for (number, victim) in (1..).zip(victims) {
            let until = number * 2 * MEMORIES / (victims.len() + 1);
            while done.load(Ordering::SeqCst) < until {
                thread::yield_now();
            }
            let Server::Runs(process) = started(*victim) else {
                continue;
            };
            if number == 1 {
                let lock = fs::read_to_string(home.path("home/profile/LOCK")).unwrap();
                let has_store = lock.trim() == process.to_string();
                assert_eq!(has_store, *victim == 0, "who comes first has the store");
            }
            *servers[*victim].lock().unwrap() = Server::Starting;
            signal("-9", process);
            kills[*victim] += 1;
        }
        vec![first.join().unwrap(), second.join().unwrap()]
    });
    assert!(kills[0] + kills[1] > victims.len() / 2, "killed too late");
    for (told, kills) in tolds.iter().zip(kills) {
        // An agent notices the death of its own server, and of no other.
        assert_eq!(told.in_doubt, kills);
    }

    // Nothing acknowledged is missing, and nothing that was forgotten is back.
    let mut left = 0;
    let mut agent = Agent::start(&home, &[]);
    for told in &tolds {
        assert!(told.stored.len() >= MEMORIES);
        let mut missing = 0;
        for (id, content) in &told.stored {
            let recalled = agent.try_call("recall", json!({ "id": id })).unwrap();
            if told.forgotten.contains(id) {
                let code = recalled.unwrap_err()["code"].clone();
                assert!(["record_deleted", "record_erased"].contains(&code.as_str().unwrap()));
            } else if let Ok(recalled) = recalled {
                assert_eq!(recalled["content"], content.as_str());
                left += 1;
            } else {
                // One that was being forgotten when its agent's server was killed.
                missing += 1;
            }
        }
        assert!(missing <= told.in_doubt, "{missing} are missing");
    }
    let doubt: usize = tolds.iter().map(|told| told.in_doubt).sum();
    let listed = all(&mut agent);
    assert!(
        (left..=left + doubt).contains(&listed),
        "{listed} listed, {left} acknowledged"
    );
    assert!(agent.end().success());
    nothing_in_clear(&home, &tolds);
}

/// How many memories there are.
fn all(agent: &mut Agent) -> usize {
    let (mut count, mut after) = (0, Value::Null);
    loop {
        let page = agent.call("recall", json!({ "limit": 100, "after": after }));
        count += page["memories"].as_array().unwrap().len();
        after = page["more"].clone();
        if after.is_null() {
            return count;
        }
    }
}

/// Neither words nor embeddings are in any file or name below the home folder, nor in what was logged.
fn nothing_in_clear(home: &Home, tolds: &[Told]) {
    let contents: Vec<&String> = tolds.iter().flat_map(|told| told.stored.values()).collect();
    let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).unwrap();
    let embeddings: Vec<Vec<u8>> = contents
        .iter()
        .step_by(40)
        .map(|content| {
            let text = format!(
                "canarytitle\n{content}\n{}",
                if content.contains("one") {
                    "canarytagone"
                } else {
                    "canarytagtwo"
                }
            );
            let vector = embedder.embed(&text).unwrap();
            vector
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        })
        .collect();
    let mut files = 0;
    walk(&home.path("home"), &mut |path| {
        files += 1;
        assert!(!path.to_string_lossy().contains("canary"), "{path:?}");
        if !fs::symlink_metadata(path).unwrap().is_file() {
            return;
        }
        let bytes = fs::read(path).unwrap();
        for word in ["canary", "secretly", "sang"] {
            assert!(!contains(&bytes, word.as_bytes()), "{word} in {path:?}");
        }
        for embedding in &embeddings {
            // A piece that is not all zeros.
            let start = embedding.iter().position(|byte| *byte != 0).unwrap() & !3;
            assert!(
                !contains(&bytes, &embedding[start..start + 256]),
                "{path:?}"
            );
        }
    });
    assert!(files > 2);
    let logs = logs(home);
    assert!(!logs.contains("canary"), "{logs}");
}

fn walk(path: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        visit(&path);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            walk(&path, visit);
        }
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[test]
fn two_agents_lose_nothing_acknowledged_when_the_server_that_has_the_store_is_killed() {
    two_agents_and_kills(&[0]);
}

#[test]
fn two_agents_lose_nothing_acknowledged_when_the_other_server_is_killed() {
    two_agents_and_kills(&[1]);
}

#[test]
fn two_agents_lose_nothing_acknowledged_when_their_servers_are_killed_again_and_again() {
    two_agents_and_kills(&[0, 1, 0, 1, 1, 0, 0, 1, 0, 1]);
}

/// As `kill` does.
fn signal(name: &str, process: u32) {
    let kill = Command::new("kill")
        .args([name, &process.to_string()])
        .status();
    assert!(kill.unwrap().success());
}

fn socket(home: &Home) -> std::path::PathBuf {
    home.path("home/profile.sock")
}

#[test]
fn the_socket_is_for_its_user_alone_and_gone_when_the_last_server_ends() {
    let home = Home::new();
    let mut first = Agent::start(&home, &[]);
    first.call("store", json!({ "content": "one" }));
    let there = fs::symlink_metadata(socket(&home)).unwrap();
    assert!(there.file_type().is_socket());
    assert_eq!(there.permissions().mode() & 0o7777, 0o600);
    let mut second = Agent::start(&home, &[]);
    second.call("store", json!({ "content": "two" }));
    assert!(first.end().success());
    second.call("store", json!({ "content": "three" }));
    assert_eq!(all(&mut second), 3);
    assert!(second.end().success());
    assert!(!socket(&home).exists());
    let left: Vec<_> = fs::read_dir(home.path("home")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn people_ask_and_write_while_a_server_runs_and_other_commands_say_who_is_in_the_way() {
    let home = Home::new();
    let mut agent = Agent::start(&home, &[]);
    let stored = agent.call("store", json!({ "content": "Ann drinks tea" }));
    let id = home.add(&["Bob drinks coffee"]);
    let listed = ok(&home.run(&["memory", "list"]));
    assert!(
        listed.contains("tea") && listed.contains("coffee"),
        "{listed}"
    );
    assert_eq!(
        agent.call("recall", json!({ "id": id }))["content"],
        "Bob drinks coffee"
    );
    ok(&home.run(&["memory", "delete", stored["id"].as_str().unwrap()]));
    assert_eq!(
        agent.refused("recall", json!({ "id": stored["id"] })).0,
        "record_deleted"
    );
    let (code, said) = wrong(&home.run(&["status"]));
    assert_eq!(code, 4);
    assert!(said.contains(&agent.process().to_string()), "{said}");
    assert!(agent.end().success());
    ok(&home.run(&["status"]));
}

#[test]
fn a_killed_server_leaves_a_socket_that_the_next_one_takes_over() {
    let home = Home::new();
    let mut killed = Agent::start(&home, &[]);
    killed.call("store", json!({ "content": "kept" }));
    killed.kill();
    assert!(socket(&home).exists());
    let mut next = Agent::start(&home, &[]);
    assert_eq!(all(&mut next), 1);
    assert!(next.end().success());
    assert!(!socket(&home).exists());
}

#[test]
fn whoever_made_a_socket_there_without_the_key_is_replaced_and_hears_nothing() {
    let home = Home::new();
    let fake = UnixListener::bind(socket(&home)).unwrap();
    let hears = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = fake.accept().unwrap();
        let mut greeting = [0; 41];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(&greeting).unwrap();
        stream.write_all(&[7; 32]).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    let id = home.add(&["a secret"]);
    assert!(hears.join().unwrap().is_empty());
    assert_eq!(ok(&home.run(&["memory", "get", &id, "--raw"])), "a secret");
}

#[test]
fn a_server_that_stood_still_answers_whoever_waited_when_it_goes_on() {
    let home = Home::new();
    let mut agent = Agent::start(&home, &[]);
    agent.call("store", json!({ "content": "one" }));
    signal("-STOP", agent.process());
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| home.run(&["memory", "list"]));
        // Whoever asks waits for it.
        while !asked.is_finished() {
            if is_waiting(&home) {
                signal("-CONT", agent.process());
                break;
            }
            thread::yield_now();
        }
        asked.join().unwrap()
    });
    assert_eq!(ok(&asked).lines().count(), 1);
}

/// Whether somebody has connected: the kernel lists both ends of the socket.
fn is_waiting(home: &Home) -> bool {
    // They go by the name that it had before it was put there.
    let home = home.path("home").to_string_lossy().into_owned();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // Without that list (not Linux), nobody is waited for.
    sockets.is_empty() || sockets.lines().filter(|line| line.contains(&home)).count() > 1
}

#[test]
fn a_server_that_is_asked_to_end_unlocks_the_profile_and_another_takes_over() {
    let home = Home::new();
    let mut first = Agent::start(&home, &[]);
    first.call("store", json!({ "content": "kept" }));
    let mut second = Agent::start(&home, &[]);
    assert_eq!(all(&mut second), 1);
    signal("-TERM", first.process());
    assert_eq!(first.wait().code(), Some(130));
    assert_eq!(all(&mut second), 1);
    assert!(second.end().success());
    assert!(!socket(&home).exists());
    ok(&home.run(&["status"]));
}
