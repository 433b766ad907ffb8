//! Memories on two devices of one user, over a server.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::Agent;
use crate::home::{Home, ok, wrong};

/// Two linked devices of alice.
fn devices(server: &std::path::Path) -> (Home, Home) {
    let (phone, made) = Home::online(server, &["init", "alice"]);
    ok(&made);
    let (laptop, shown) = Home::online(server, &["init", "alice", "--link"]);
    let shown = ok(&shown);
    let request = shown
        .lines()
        .find(|line| line.starts_with("sprag-link:"))
        .unwrap();
    let request = format!("{request}\n");
    ok(&phone.run_with(request.as_bytes(), &["device", "add", "-"]));
    for _ in 0..100 {
        laptop.run(&["sync"]);
        phone.run(&["sync"]);
        let link = laptop.run(&["device", "link"]);
        if String::from_utf8_lossy(&link.stderr).contains("this device is linked") {
            return (phone, laptop);
        }
    }
    panic!("not linked");
}

#[test]
fn what_one_device_remembers_the_other_finds_and_what_it_forgets_is_gone_there() {
    let server = tempfile::tempdir().unwrap();
    let (phone, laptop) = devices(server.path());
    let tea = phone.add(&["Ann drinks her tea without milk", "--tag", "tea"]);
    let found = &laptop.json(&["memory", "search", "milk in tea"])[0];
    assert_eq!(found["id"], tea.as_str());
    assert_eq!(found["content"], "Ann drinks her tea without milk");
    let number = &phone.json(&["status"])[0]["device"];
    assert_eq!(&found["device"], number, "which device wrote it");
    ok(&laptop.run(&["memory", "delete", &tea]));
    assert_eq!(phone.json(&["memory", "list"]).len(), 0);
    let (code, said) = wrong(&phone.run(&["memory", "get", &tea]));
    assert_eq!(code, 7, "{said}");
}

#[test]
fn what_an_agent_remembers_on_one_device_comes_to_the_agent_of_another() {
    let server = tempfile::tempdir().unwrap();
    let (phone, laptop) = devices(server.path());
    let mut one = Agent::start(&phone, &["--agent", "tutor"]);
    let stored = one.call("store", json!({ "content": "Ann is tired on Mondays" }));
    // What waits goes to the server when this one ends.
    assert!(one.end().success());
    let mut other = Agent::start(&laptop, &["--agent", "tutor"]);
    // The server is asked beside the calls.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let found = other.call("search", json!({ "query": "tired on which day" }));
        let found = found["memories"].as_array().unwrap();
        if let [memory] = found.as_slice() {
            assert_eq!(memory["id"], stored["id"]);
            assert_eq!(memory["agent"], "tutor");
            break;
        }
        assert!(Instant::now() < until, "it never came");
        std::thread::yield_now();
    }
    assert!(other.end().success());
}
