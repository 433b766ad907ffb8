//! The conversation with one server.

use serde_json::{Value, json};

use crate::agent::{Agent, logs};
use crate::home::Home;

fn ids(found: &Value) -> Vec<&str> {
    let memories = found["memories"].as_array().unwrap();
    memories
        .iter()
        .map(|memory| memory["id"].as_str().unwrap())
        .collect()
}

#[test]
fn an_agent_stores_finds_recalls_changes_and_forgets() {
    let home = Home::new();
    let mut agent = Agent::start(&home, &["--agent", "tutor"]);
    let tea = agent.call(
        "store",
        json!({
            "content": "Ann drinks her tea without milk",
            "title": "Tea",
            "tags": ["taste", "ann"],
            "metadata": { "sure": 0.75, "from": ["lunch"] },
        }),
    );
    assert_eq!(tea["revision"], 1);
    assert_eq!(tea["redacted"], json!({}));
    let tea = tea["id"].as_str().unwrap();
    let deploy = agent.call(
        "store",
        json!({ "content": "Deployments happen on Friday at noon" }),
    );
    let deploy = deploy["id"].as_str().unwrap();

    let found = agent.call("search", json!({ "query": "does Ann take milk in tea?" }));
    assert_eq!(ids(&found), [tea]);
    let hit = &found["memories"][0];
    assert!(hit["score"].as_f64().unwrap() > 0.15);
    assert_eq!(hit["content"], "Ann drinks her tea without milk");
    assert_eq!(hit["agent"], "tutor");

    let whole = agent.call("recall", json!({ "id": tea }));
    assert_eq!(whole["title"], "Tea");
    assert_eq!(whole["tags"], json!(["taste", "ann"]));
    assert_eq!(
        whole["metadata"],
        json!({ "sure": 0.75, "from": ["lunch"] })
    );
    assert!(whole["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(ids(&agent.call("recall", json!({}))), [deploy, tea]);
    assert_eq!(
        ids(&agent.call("recall", json!({ "tags": ["ann", "taste"] }))),
        [tea]
    );
    assert_eq!(
        ids(&agent.call("recall", json!({ "until": "2020-01-01" }))),
        [""; 0]
    );
    let page = agent.call("recall", json!({ "limit": 1 }));
    let rest = agent.call("recall", json!({ "limit": 1, "after": page["more"] }));
    assert_eq!((ids(&page), ids(&rest)), (vec![deploy], vec![tea]));
    assert_eq!(rest["more"], Value::Null);

    let changed = agent.call(
        "store",
        json!({ "id": deploy, "content": "Deployments happen on Monday" }),
    );
    assert_eq!(
        (changed["id"].as_str(), &changed["revision"]),
        (Some(deploy), &json!(2))
    );
    let found = agent.call("search", json!({ "query": "Monday" }));
    assert_eq!(ids(&found), [deploy]);
    assert_eq!(
        ids(&agent.call("search", json!({ "query": "noon" }))),
        [""; 0]
    );

    assert_eq!(
        agent.call("forget", json!({ "id": tea }))["state"],
        "deleted"
    );
    assert_eq!(
        agent.call("forget", json!({ "id": tea }))["state"],
        "deleted"
    );
    let erased = agent.call("forget", json!({ "id": deploy, "erase": true }));
    assert!(["erase_pending", "erased"].contains(&erased["state"].as_str().unwrap()));
    assert_eq!(ids(&agent.call("recall", json!({}))), [""; 0]);
    assert_eq!(
        ids(&agent.call("search", json!({ "query": "milk tea Monday" }))),
        [""; 0]
    );
    assert_eq!(
        agent.refused("recall", json!({ "id": tea })).0,
        "record_deleted"
    );
    assert_eq!(
        agent.refused("recall", json!({ "id": deploy })).0,
        "record_erased"
    );
    assert!(agent.end().success());
    assert_eq!(logs(&home), "");
}

#[test]
fn an_agent_with_a_model_of_its_own_searches_by_its_vectors() {
    let home = Home::new();
    let mut agent = Agent::start(&home, &[]);
    let store = |agent: &mut Agent, content: &str, embedding: Value| {
        let stored = agent.call(
            "store",
            json!({ "content": content, "embedding": embedding }),
        );
        stored["id"].as_str().unwrap().to_owned()
    };
    let one = store(&mut agent, "one", json!([1.0, 0.0, 0.1]));
    let two = store(&mut agent, "two", json!([0.0, 1.0, 0.0]));
    let found = agent.call("search", json!({ "embedding": [0.9, 0.5, 0.0] }));
    assert_eq!(ids(&found), [&one, &two]);
    let found = agent.call(
        "search",
        json!({ "embedding": [0.9, 0.5, 0.0], "threshold": 0.8 }),
    );
    assert_eq!(ids(&found), [&one]);
    let found = agent.call(
        "search",
        json!({ "embedding": [0.9, 0.5, 0.0], "limit": 1 }),
    );
    assert_eq!(ids(&found), [&one]);
    let other = agent.call("search", json!({ "embedding": [1.0, 0.0] }));
    assert_eq!(ids(&other), [""; 0], "of another number of dimensions");
    for embedding in [json!([]), json!([0.0, 0.0, 0.0]), json!(vec![1.0; 4097])] {
        let store = json!({ "content": "x", "embedding": embedding });
        assert_eq!(agent.refused("store", store).0, "bad_record");
        assert_eq!(
            agent.refused("search", json!({ "embedding": embedding })).0,
            "bad_record"
        );
    }
}

#[test]
fn secrets_are_replaced_before_anything_is_kept_unless_that_is_turned_off() {
    let secret = "mail bob@example.com, password: hunter2horse";
    let home = Home::new();
    let mut agent = Agent::start(&home, &[]);
    let stored = agent.call(
        "store",
        json!({ "content": secret, "title": "of bob@example.com" }),
    );
    assert_eq!(stored["redacted"], json!({ "email": 2, "token": 1 }));
    let kept = agent.call("recall", json!({ "id": stored["id"] }));
    assert_eq!(
        kept["content"],
        "mail [redacted:email], password: [redacted:token]"
    );
    assert_eq!(kept["title"], "of [redacted:email]");
    let changed = json!({ "id": stored["id"], "content": "now carol@example.com" });
    assert_eq!(
        agent.call("store", changed)["redacted"],
        json!({ "email": 1 })
    );

    let mut plain = Agent::start(&home, &["--no-redaction"]);
    let stored = plain.call("store", json!({ "content": secret }));
    assert_eq!(stored["redacted"], json!({}));
    assert_eq!(
        plain.call("recall", json!({ "id": stored["id"] }))["content"],
        secret
    );
}

#[test]
fn what_an_agent_asks_wrongly_is_told_to_it_and_changes_nothing() {
    let home = Home::new();
    let mut agent = Agent::start(&home, &[]);
    for (tool, arguments, said) in [
        ("store", json!({}), "nothing to remember"),
        ("store", json!({ "content": " \n" }), "nothing to remember"),
        ("store", json!({ "content": 7 }), "arguments are not right"),
        (
            "store",
            json!({ "content": "x", "tag": "y" }),
            "unknown field `tag`",
        ),
        (
            "store",
            json!({ "content": "x", "tags": "y" }),
            "arguments are not right",
        ),
        ("search", json!({}), "either `query` or `embedding`"),
        (
            "search",
            json!({ "query": "x", "embedding": [1.0] }),
            "either `query` or `embedding`",
        ),
        ("search", json!({ "query": " " }), "no word"),
        (
            "search",
            json!({ "query": "x", "limit": 0 }),
            "`limit` is 1 to 100",
        ),
        (
            "search",
            json!({ "query": "x", "limit": 101 }),
            "`limit` is 1 to 100",
        ),
        (
            "search",
            json!({ "query": "x", "limit": -1 }),
            "arguments are not right",
        ),
        (
            "search",
            json!({ "query": "x", "threshold": 2 }),
            "`threshold` is -1 to 1",
        ),
        (
            "search",
            json!({ "query": "x", "since": "yesterday" }),
            "is no time",
        ),
        ("recall", json!({ "limit": 1000 }), "`limit` is 1 to 100"),
        ("recall", json!({ "until": "1" }), "is no time"),
        ("recall", json!({ "id": ["a"] }), "arguments are not right"),
        ("forget", json!({}), "missing field `id`"),
        (
            "forget",
            json!({ "id": "x", "erase": "yes" }),
            "arguments are not right",
        ),
    ] {
        let (code, message) = agent.refused(tool, arguments);
        assert_eq!(code, "bad_input", "{message}");
        assert!(message.contains(said), "{message}");
    }
    let long = "x".repeat(1025);
    for (arguments, code) in [
        (
            json!({ "content": "x".repeat((1 << 20) + 1) }),
            "bad_record",
        ),
        (json!({ "content": "x", "title": long }), "bad_record"),
        (json!({ "content": "x", "tags": ["a\nb"] }), "bad_record"),
        (
            json!({ "content": "x", "tags": vec!["t"; 65] }),
            "bad_record",
        ),
        (json!({ "content": "x", "id": "unknown" }), "no_record"),
    ] {
        assert_eq!(agent.refused("store", arguments).0, code);
    }
    assert_eq!(
        agent.refused("recall", json!({ "id": "unknown" })).0,
        "no_record"
    );
    assert_eq!(
        agent.refused("recall", json!({ "after": "nowhere" })).0,
        "bad_input"
    );
    assert_eq!(
        agent.refused("forget", json!({ "id": "unknown" })).0,
        "not_found"
    );
    assert_eq!(ids(&agent.call("recall", json!({}))), [""; 0]);
    assert!(agent.end().success());
    assert_eq!(logs(&home), "");
}

#[test]
fn the_protocol_is_kept_whatever_comes() {
    let home = Home::new();
    let mut agent = Agent::start(&home, &[]);
    let tools = agent.ask("tools/list", &json!({})).unwrap();
    let tools = tools["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["store", "search", "recall", "forget"]);
    for tool in tools {
        let schema = &tool["inputSchema"];
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["additionalProperties"], false);
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}");
        }
        let reads = ["search", "recall"].contains(&tool["name"].as_str().unwrap());
        assert_eq!(tool["annotations"]["readOnlyHint"], reads);
    }
    assert_eq!(tools[3]["inputSchema"]["required"], json!(["id"]));

    let unknown = agent
        .ask("tools/call", &json!({ "name": "drop", "arguments": {} }))
        .unwrap();
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let unknown = agent.ask("resources/list", &json!({})).unwrap();
    assert!(
        unknown["error"].is_object() || unknown["result"]["resources"] == json!([]),
        "{unknown}"
    );
    let unknown = agent.ask("no/such/method", &json!({})).unwrap();
    assert!(unknown["error"].is_object(), "{unknown}");
    for garbage in ["garbage", "{", "[]", "{\"jsonrpc\":\"1.0\"}", "\u{0}"] {
        agent.send(garbage).unwrap();
    }
    // It may say that it did not understand; the conversation goes on.
    agent
        .send(&json!({ "jsonrpc": "2.0", "id": "last", "method": "ping" }).to_string())
        .unwrap();
    loop {
        let heard = agent.hear().unwrap();
        if heard["id"] == "last" {
            assert!(heard["result"].is_object(), "{heard}");
            break;
        }
        assert!(heard["error"].is_object(), "{heard}");
    }
    assert!(agent.end().success());
    assert!(!logs(&home).contains("garbage"));
}

#[test]
fn a_client_that_does_not_begin_as_it_should_is_told_by_the_exit_code() {
    let home = Home::new();
    let mut agent = Agent::spawn(&home, &[]);
    agent.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1,\"reason\":\"canary\"}}").unwrap();
    let status = agent.end();
    assert!(status.code().is_some(), "{status}");
    assert!(!logs(&home).contains("canary"));
    // One that ends at once did nothing wrong.
    assert!(Agent::spawn(&home, &[]).end().success());
}

#[test]
fn a_server_that_cannot_open_the_profile_says_so_before_the_first_word() {
    let home = Home::empty();
    let none = Agent::spawn(&home, &[]).end();
    assert_eq!(none.code(), Some(2));
    assert!(logs(&home).contains("there is no profile in"));

    let home = Home::new();
    std::fs::write(home.path("key"), "11".repeat(32)).unwrap();
    let wrong = Agent::spawn(&home, &[]).end();
    assert_eq!(wrong.code(), Some(3));
    assert!(logs(&home).contains("right passphrase or --key-file"));

    // Nobody is asked for a passphrase.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sprag"));
    for name in [
        "SPRAG_PASSPHRASE",
        "SPRAG_KEY_FILE",
        "SPRAG_SERVER",
        "SPRAG_ANCHOR",
    ] {
        command.env_remove(name);
    }
    let asked = command
        .arg("mcp")
        .arg("--home")
        .arg(home.path("home"))
        .output()
        .unwrap();
    assert_eq!(asked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--key-file or SPRAG_PASSPHRASE"));
    assert!(asked.stdout.is_empty());
}

#[test]
fn agents_and_users_have_memories_apart_from_each_other() {
    let home = Home::new();
    let mut tutor = Agent::start(&home, &["--agent", "tutor"]);
    let mut coach = Agent::start(&home, &["--agent", "coach"]);
    let mut bob = Agent::start(&home, &["--user", "bob", "--agent", "tutor"]);
    let stored = tutor.call("store", json!({ "content": "Ann is tired on Mondays" }));
    for other in [&mut coach, &mut bob] {
        assert_eq!(
            ids(&other.call("search", json!({ "query": "Ann tired" }))),
            [""; 0]
        );
        assert_eq!(
            other.refused("recall", json!({ "id": stored["id"] })).0,
            "no_record"
        );
        assert_eq!(
            other.refused("forget", json!({ "id": stored["id"] })).0,
            "not_found"
        );
    }
    let own = Agent::start(&home, &["--user", "alice", "--agent", "tutor"])
        .call("recall", json!({ "id": stored["id"] }));
    assert_eq!(own["content"], "Ann is tired on Mondays");
}
