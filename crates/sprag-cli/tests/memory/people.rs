//! `sprag memory`, for people.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::home::{Home, lines, ok, wrong};

#[test]
fn people_add_get_list_search_and_delete() {
    let home = Home::new();
    let tea = home.add(&[
        "Ann drinks her tea without milk",
        "--title",
        "Tea",
        "--tag",
        "taste",
    ]);
    let piped = home.run_with(
        b"Deployments happen\non Friday\n",
        &["memory", "add", "--at", "2026-01-31"],
    );
    let deploy = ok(&piped).trim().to_owned();
    assert_eq!(deploy.len(), 32);

    let got = &home.json(&["memory", "get", &deploy])[0];
    assert_eq!(got["content"], "Deployments happen\non Friday");
    assert_eq!(got["created_at"], 1_769_817_600_000_u64);
    assert_eq!(
        ok(&home.run(&["memory", "get", &tea, "--raw"])),
        "Ann drinks her tea without milk"
    );
    let text = ok(&home.run(&["memory", "get", &deploy]));
    assert!(
        text.ends_with("    Deployments happen\n    on Friday\n"),
        "{text}"
    );

    let ids = |args: &[&str]| -> Vec<String> {
        let found = home.json(args);
        found
            .iter()
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&["memory", "list"]), [&*tea, &*deploy]);
    assert_eq!(ids(&["memory", "list", "--limit", "1"]), [&*tea]);
    assert_eq!(ids(&["memory", "list", "--tag", "taste"]), [&*tea]);
    assert_eq!(
        ids(&["memory", "list", "--tag", "taste", "--tag", "x"]),
        [""; 0]
    );
    assert_eq!(
        ids(&["memory", "list", "--until", "2026-02-01"]),
        [&*deploy]
    );
    assert_eq!(
        ids(&["memory", "list", "--since", "2026-02-01T00:00:00Z"]),
        [&*tea]
    );
    assert_eq!(ids(&["memory", "search", "milk in tea"]), [&*tea]);
    assert_eq!(
        ids(&["memory", "search", "Friday", "--tag", "taste"]),
        [""; 0]
    );
    let nothing = home.run(&["memory", "search", "automobile"]);
    assert_eq!(ok(&nothing), "");
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("try other words"));

    assert_eq!(
        ok(&home.run(&["memory", "delete", &tea])),
        format!("{tea}  deleted\n")
    );
    let erased = &home.json(&["memory", "delete", &deploy, "--erase"])[0];
    assert_eq!(erased["type"], "memory_forgotten");
    assert_eq!(ids(&["memory", "list"]), [""; 0]);
    let (code, said) = wrong(&home.run(&["memory", "get", &tea]));
    assert_eq!(code, 7);
    assert!(said.contains("another memory gets another id"), "{said}");
}

#[test]
fn what_people_ask_wrongly_is_an_error_that_says_what_to_do() {
    let home = Home::new();
    for (args, code, said) in [
        (&["memory", "get", "unknown"][..], 7, "sprag memory list"),
        (
            &["memory", "delete", "unknown"],
            7,
            "there is no memory unknown",
        ),
        (&["memory", "delete"], 2, "<ID>"),
        (&["memory", "add", " "], 2, "nothing to remember"),
        (&["memory", "add", "x", "--tag", ""], 2, "tags"),
        (&["memory", "add", "x", "--metadata", "{"], 2, "--metadata"),
        (
            &["memory", "add", "x", "--at", "noon"],
            2,
            "2026-01-31T12:00:00Z",
        ),
        (
            &["memory", "list", "--since", "x"],
            2,
            "2026-01-31T12:00:00Z",
        ),
        (&["memory", "search", "x", "--limit", "101"], 2, "1 to 100"),
        (&["memory", "search", "!", "--threshold", "nan"], 2, ""),
        (&["memory", "search", " "], 2, "no word"),
        (&["memory", "add", "x", "--user", ""], 2, ""),
        (
            &["memory", "import", "/nowhere/at/all"],
            8,
            "/nowhere/at/all",
        ),
        (
            &["memory", "export", "--out", "/nowhere/at/all"],
            8,
            "/nowhere/at/all",
        ),
    ] {
        let (ended, told) = wrong(&home.run(args));
        assert_eq!(ended, code, "{args:?}: {told}");
        assert!(told.contains(said), "{args:?}: {told}");
    }
    let (code, told) = wrong(&home.run_with(b"\xff\xfe", &["memory", "add"]));
    assert_eq!((code, told.contains("UTF-8")), (2, true));
    assert_eq!(home.json(&["memory", "list"]).len(), 0);

    let empty = Home::empty();
    fs::write(empty.path("key"), "11".repeat(32)).unwrap();
    let (code, told) = wrong(&empty.run(&["memory", "list"]));
    assert_eq!(
        code,
        if told.contains("no profile") { 2 } else { 3 },
        "{told}"
    );
    fs::write(home.path("key"), "11".repeat(32)).unwrap();
    let (code, _) = wrong(&home.run(&["memory", "list"]));
    assert_eq!(code, 3);
}

#[test]
fn an_export_is_for_its_owner_alone_and_imports_elsewhere_as_the_same() {
    let home = Home::new();
    for number in 0..30 {
        let note = format!("note {number}");
        home.add(&[&note, "--tag", "n", "--metadata", "{\"x\":1.10}"]);
    }
    let mut agent = Agent::start(&home, &[]);
    let vector = json!({ "content": "of a model", "embedding": [0.1, 0.2, 0.3] });
    let id = agent.call("store", vector)["id"].clone();
    let change = json!({ "id": id, "title": "changed", "embedding": [0.3, 0.1] });
    agent.call("store", change);
    // Also while another process has the profile open.
    let file = home.path("export");
    let export = |home: &Home, to: &str| {
        let to = home.path(to);
        home.run(&["memory", "export", "--out", to.to_str().unwrap()])
    };
    let done = export(&home, "export");
    ok(&done);
    assert!(String::from_utf8_lossy(&done.stderr).contains("IN CLEAR"));
    drop(agent);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let there = fs::metadata(&file).unwrap();
        assert_eq!(there.permissions().mode() & 0o777, 0o600);
    }
    let (code, _) = wrong(&export(&home, "export"));
    assert_eq!(code, 8, "it is there already");
    let text = fs::read_to_string(&file).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(all["memories"].as_array().unwrap().len(), 31);

    let other = Home::new();
    let import = |from: &Path| other.run(&["memory", "import", from.to_str().unwrap(), "--json"]);
    let done = &lines(&ok(&import(&file)))[0];
    assert_eq!((&done["added"], &done["same"]), (&json!(31), &json!(0)));
    ok(&export(&other, "again"));
    assert_eq!(fs::read_to_string(other.path("again")).unwrap(), text);
    let again = &lines(&ok(&import(&file)))[0];
    assert_eq!((&again["added"], &again["same"]), (&json!(0), &json!(31)));

    // What differs, and what was erased, is left alone and told.
    let erased = all["memories"][3]["id"].as_str().unwrap();
    ok(&other.run(&["memory", "delete", "--erase", erased]));
    fs::write(&file, text.replace("note 20", "note twenty")).unwrap();
    let output = import(&file);
    assert_eq!(output.status.code(), Some(6));
    let told = &lines(&String::from_utf8(output.stdout).unwrap())[0];
    assert_eq!(told["same"], 29);
    assert_eq!(told["erased"], json!([erased]));
    assert_eq!(told["differ"].as_array().unwrap().len(), 1);
    assert_eq!(other.json(&["memory", "list"]).len(), 30);
}

#[test]
fn an_import_that_is_not_all_there_stores_nothing() {
    let home = Home::new();
    let file = home.path("file");
    for text in [
        "{\"_sprag_export\":1,\"memories\":[{\"id\":\"a\",\"content\":\"one\"}],\"chats\":[]",
        "{\"id\":\"a\",\"content\":\"one\"}\nbroken",
    ] {
        fs::write(&file, text).unwrap();
        let (code, told) = wrong(&home.run(&["memory", "import", file.to_str().unwrap()]));
        assert_eq!(code, 2);
        assert!(told.contains("nothing was imported"), "{told}");
    }
    assert_eq!(home.json(&["memory", "list"]).len(), 0);
    let done = home.run_with(
        b"{\"content\":\"of another program\"}\n",
        &["memory", "import", "-"],
    );
    assert!(ok(&done).starts_with("1 records added"));
    assert_eq!(home.json(&["memory", "search", "another program"]).len(), 1);
}
