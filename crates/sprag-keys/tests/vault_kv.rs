//! Vault: against a server in this test that answers as the documentation of the KV engine, version 2, says; and, when
//! `cargo xtask ci kms` runs it, against a real one.

#![cfg(feature = "vault-kv")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use server::{Reply, Server};
use sprag_keys::{KeyId, KeySource, KeyVersion, SourceError, VaultConfig, VaultKv};
use zeroize::Zeroizing;

const TOKEN: &str = "hvs.test-token";

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn version(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

fn client(address: &str, token: &str) -> VaultKv {
    let mut config = VaultConfig::new(address);
    config.prefix = "sprag/keys/".to_owned();
    let token = Zeroizing::new(token.to_owned());
    VaultKv::new(&config, move || Ok(token.clone())).unwrap()
}

/// The documented behaviour: `GET data`, `POST data` with check-and-set, `POST delete`, `POST undelete`, `POST destroy`.
#[derive(Default)]
struct Kv {
    secrets: BTreeMap<String, Vec<Kept>>,
}

struct Kept {
    data: Value,
    deleted: bool,
    destroyed: bool,
}

impl Kv {
    fn answer(&mut self, request: &server::Request) -> Reply {
        if request.header("x-vault-token") != Some(TOKEN) {
            return Reply::json(403, &json!({"errors": ["permission denied"]}));
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let rest = path.strip_prefix("/v1/secret/").unwrap_or("");
        let (call, name) = rest.split_once('/').unwrap_or(("", ""));
        match (request.method.as_str(), call) {
            ("GET", "data") => self.read(name, query),
            ("POST", "data") => self.write(name, &serde_json::from_slice(&request.body).unwrap()),
            ("POST", "delete" | "undelete" | "destroy") => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                for number in body["versions"].as_array().unwrap() {
                    let at = usize::try_from(number.as_u64().unwrap()).unwrap() - 1;
                    let kept = &mut self.secrets.get_mut(name).unwrap()[at];
                    match call {
                        "delete" => kept.deleted = true,
                        "undelete" => kept.deleted = false,
                        _ => kept.destroyed = true,
                    }
                }
                Reply::empty(204)
            }
            _ => Reply::json(404, &json!({"errors": ["no handler for route"]})),
        }
    }

    fn read(&self, name: &str, query: &str) -> Reply {
        let none = Reply::json(404, &json!({"errors": []}));
        let Some(versions) = self.secrets.get(name) else {
            return none;
        };
        let asked = query
            .strip_prefix("version=")
            .map(|number| number.parse::<usize>().unwrap());
        let number = asked.unwrap_or(versions.len());
        let Some(kept) = versions.get(number - 1) else {
            return none;
        };
        let hidden = kept.deleted || kept.destroyed;
        let metadata = json!({
            "created_time": "2018-03-22T02:24:06.945319214Z",
            "custom_metadata": null,
            "deletion_time": if kept.deleted { "2018-03-22T02:36:43.986212308Z" } else { "" },
            "destroyed": kept.destroyed,
            "version": number,
        });
        let data = if hidden { &Value::Null } else { &kept.data };
        let body = json!({"request_id": "x", "lease_id": "", "data": {"data": data, "metadata": metadata}});
        Reply::json(if hidden { 404 } else { 200 }, &body)
    }

    fn write(&mut self, name: &str, body: &Value) -> Reply {
        let versions = self.secrets.entry(name.to_owned()).or_default();
        if body["options"]["cas"].as_u64() != Some(versions.len() as u64) {
            let error = "check-and-set parameter did not match the current version";
            return Reply::json(400, &json!({"errors": [error]}));
        }
        versions.push(Kept {
            data: body["data"].clone(),
            deleted: false,
            destroyed: false,
        });
        Reply::json(
            200,
            &json!({"data": {"version": versions.len(), "destroyed": false}}),
        )
    }
}

fn documented() -> (Server, VaultKv) {
    let kv = Mutex::new(Kv::default());
    let server = Server::start(move |request| kv.lock().unwrap().answer(request));
    let vault = client(&server.address, TOKEN);
    (server, vault)
}

/// What holds with any server; `call` is the raw API.
fn story(vault: &VaultKv, main: &KeyId, call: impl Fn(&str, &str, Value) -> u16) {
    assert!(matches!(vault.current(main), Err(SourceError::NotFound)));
    assert!(matches!(
        vault.rotate(main, &mut rng(1)),
        Err(SourceError::NotFound)
    ));
    assert!(
        matches!(vault.current(main), Err(SourceError::NotFound)),
        "rotating made a key"
    );
    assert!(matches!(
        vault.destroy(main, version(1)),
        Err(SourceError::NotFound)
    ));

    let first = vault.create(main, &mut rng(2)).unwrap();
    assert_eq!(first.version(), version(1));
    assert_eq!(vault.current(main).unwrap().as_bytes(), first.as_bytes());
    assert!(matches!(
        vault.create(main, &mut rng(3)),
        Err(SourceError::Conflict)
    ));
    assert!(matches!(
        vault.destroy(main, version(1)),
        Err(SourceError::StillCurrent)
    ));

    let second = vault.rotate(main, &mut rng(4)).unwrap();
    assert_eq!(second.version(), version(2));
    let current = vault.current(main).unwrap();
    assert_eq!(
        (current.version(), current.as_bytes()),
        (version(2), second.as_bytes())
    );
    let old = vault.by_version(main, version(1)).unwrap();
    assert_eq!(old.as_bytes(), first.as_bytes());
    assert!(matches!(
        vault.by_version(main, version(3)),
        Err(SourceError::NotFound)
    ));
    assert!(matches!(
        vault.destroy(main, version(3)),
        Err(SourceError::NotFound)
    ));

    // Deleted can come back, destroyed cannot.
    let path = format!("sprag/keys/{main}");
    assert!(call("delete", &path, json!({"versions": [1]})) < 300);
    assert!(matches!(
        vault.by_version(main, version(1)),
        Err(SourceError::Disabled)
    ));
    assert!(call("undelete", &path, json!({"versions": [1]})) < 300);
    assert!(vault.by_version(main, version(1)).is_ok());
    vault.destroy(main, version(1)).unwrap();
    assert!(matches!(
        vault.by_version(main, version(1)),
        Err(SourceError::Destroyed)
    ));
    vault.destroy(main, version(1)).unwrap();
    assert_eq!(vault.current(main).unwrap().as_bytes(), second.as_bytes());

    // The newest version deleted: nothing to encrypt with, and nothing made up for it.
    assert!(call("delete", &path, json!({"versions": [2]})) < 300);
    assert!(matches!(vault.current(main), Err(SourceError::NoCurrent)));
    assert!(matches!(
        vault.rotate(main, &mut rng(5)),
        Err(SourceError::NoCurrent)
    ));
    assert!(matches!(
        vault.create(main, &mut rng(5)),
        Err(SourceError::Conflict)
    ));
    assert!(call("undelete", &path, json!({"versions": [2]})) < 300);

    // A secret that is no key.
    for text in ["", "c2hvcnQ="] {
        let other = id("other");
        let path = format!("sprag/keys/{other}");
        assert_eq!(call("data", &path, json!({"data": {"key": text}})), 200);
        assert!(
            matches!(vault.current(&other), Err(SourceError::Malformed)),
            "{text:?}"
        );
        assert!(matches!(
            vault.rotate(&other, &mut rng(6)),
            Err(SourceError::Malformed)
        ));
    }
    assert_eq!(
        call(
            "data",
            "sprag/keys/other",
            json!({"data": {"another": "x"}})
        ),
        200
    );
    assert!(matches!(
        vault.current(&id("other")),
        Err(SourceError::Malformed)
    ));
}

/// A call of the raw API.
fn raw(address: &str, token: &str) -> impl Fn(&str, &str, Value) -> u16 {
    let (address, token) = (address.to_owned(), token.to_owned());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    move |call, path, body| {
        let url = format!("{address}/v1/secret/{call}/{path}");
        let request = agent.post(url).header("x-vault-token", &token);
        request.send(body.to_string()).unwrap().status().as_u16()
    }
}

#[test]
fn a_key_lives_and_dies_in_a_server_that_does_as_documented() {
    let kv = Arc::new(Mutex::new(Kv::default()));
    let shared = Arc::clone(&kv);
    let server = Server::start(move |request| {
        let mut kv = shared.lock().unwrap();
        // What the raw calls write needs no check-and-set.
        let mut request = request.clone();
        if request.method == "POST" && request.path.contains("/data/") {
            let mut body: Value = serde_json::from_slice(&request.body).unwrap();
            if body["options"].is_null() {
                let name = request.path.strip_prefix("/v1/secret/data/").unwrap();
                let now = kv.secrets.get(name).map_or(0, Vec::len);
                body["options"] = json!({"cas": now});
                request.body = body.to_string().into_bytes();
            }
        }
        kv.answer(&request)
    });
    let vault = client(&server.address, TOKEN);
    story(&vault, &id("main"), raw(&server.address, TOKEN));
}

#[test]
#[ignore = "needs a server: cargo xtask ci kms"]
fn a_key_lives_and_dies_in_a_real_server() {
    let server = server::Python::start("bao");
    let address = &server.address;
    let vault = client(address, "root");
    story(&vault, &id("main"), raw(address, "root"));
    let denied = client(address, "another").current(&id("main"));
    assert!(matches!(denied, Err(SourceError::Denied)), "{denied:?}");
}

/// A blob whose key is wrapped under a version of a key of the server: it opens until that version is destroyed.
#[cfg(feature = "vault")]
fn blob_story(kv: &VaultKv, id: &KeyId) {
    use sprag_keys::SourceKms;
    use sprag_vault::{Context, DataKey, OpenError, Recipient, Sealing, Unlock, open, seal};

    kv.create(id, &mut rng(1)).unwrap();
    let kms = SourceKms::new(kv, || rng(2));
    let key = DataKey::generate(&mut rng(3));
    let (name, none) = (id.as_str(), Context::none());
    let to = [Recipient::kms(name, &kms)];
    let blob = seal(b"hello", &Sealing::new(&key, &to), &mut rng(4)).unwrap();
    let unlock = Unlock::new().kms(name, &kms);
    assert_eq!(*open(&blob, &unlock, &none).unwrap(), *b"hello");
    let elsewhere = Unlock::new().kms("another", &kms);
    assert_eq!(open(&blob, &elsewhere, &none), Err(OpenError::WrongKey));

    kv.rotate(id, &mut rng(5)).unwrap();
    assert_eq!(*open(&blob, &unlock, &none).unwrap(), *b"hello");
    kv.destroy(id, version(1)).unwrap();
    assert_eq!(open(&blob, &unlock, &none), Err(OpenError::WrongKey));
}

#[cfg(feature = "vault")]
#[test]
fn a_blob_opens_as_long_as_its_version_is_kept() {
    let (_server, vault) = documented();
    blob_story(&vault, &id("main"));
}

#[cfg(feature = "vault")]
#[test]
#[ignore = "needs a server: cargo xtask ci kms"]
fn a_blob_opens_as_long_as_a_real_server_keeps_its_version() {
    let server = server::Python::start("bao");
    blob_story(&client(&server.address, "root"), &id("main"));
}

#[test]
#[ignore = "needs a server: cargo xtask ci kms"]
fn a_real_server_is_spoken_to_through_tls_if_its_authority_is_trusted() {
    let server = server::Python::start("tls");
    let [authority]: [String; 1] = server.words().try_into().unwrap();
    let trusting = |roots: Option<Vec<u8>>| {
        let mut config = VaultConfig::new(&server.address);
        config.roots = roots;
        VaultKv::new(&config, || Ok(Zeroizing::new("root".to_owned()))).unwrap()
    };
    let authority = std::fs::read(authority).unwrap();
    let vault = trusting(Some(authority));
    let made = vault.create(&id("main"), &mut rng(1)).unwrap();
    assert_eq!(
        vault.current(&id("main")).unwrap().as_bytes(),
        made.as_bytes()
    );
    let stranger = trusting(None);
    let error = stranger.current(&id("main")).unwrap_err();
    assert!(matches!(error, SourceError::Unavailable(_)), "{error:?}");
    let other = include_bytes!("server/other-authority.pem").to_vec();
    let stranger = trusting(Some(other));
    let error = stranger.current(&id("main")).unwrap_err();
    assert!(matches!(error, SourceError::Unavailable(_)), "{error:?}");
}

#[test]
fn of_two_that_rotate_at_once_one_is_told() {
    let (_server, vault) = documented();
    let main = id("main");
    vault.create(&main, &mut rng(1)).unwrap();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let turn = |seed| {
            let (vault, main) = (&vault, &main);
            scope.spawn(move || vault.rotate(main, &mut rng(seed)))
        };
        let turns: Vec<_> = (0..8).map(turn).collect();
        turns.into_iter().map(|turn| turn.join().unwrap()).collect()
    });
    let mut given = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(key) => given.push((key.version(), *key.as_bytes())),
            Err(error) => assert!(matches!(error, SourceError::Conflict), "{error:?}"),
        }
    }
    given.sort_unstable();
    for (at, (number, key)) in given.iter().enumerate() {
        assert_eq!(number.get() as usize, at + 2);
        assert_eq!(vault.by_version(&main, *number).unwrap().as_bytes(), key);
    }
    assert!(!given.is_empty());
}

#[test]
fn a_token_is_sent_with_each_call_and_a_wrong_one_is_denied() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let server = Server::start(move |request| {
        let header = |name| request.header(name).map(str::to_owned);
        heard.lock().unwrap().push((
            header("x-vault-token"),
            header("x-vault-request"),
            header("x-vault-namespace"),
        ));
        Reply::json(403, &json!({"errors": ["permission denied"]}))
    });
    let mut config = VaultConfig::new(&server.address);
    config.namespace = Some("team".to_owned());
    let turn = Mutex::new(0);
    let vault = VaultKv::new(&config, move || {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        Ok(Zeroizing::new(format!("token-{turn}")))
    });
    let vault = vault.unwrap();
    for _ in 0..2 {
        assert!(matches!(
            vault.current(&id("main")),
            Err(SourceError::Denied)
        ));
    }
    let some = |text: &str| Some(text.to_owned());
    let expected = |token| (some(token), some("true"), some("team"));
    assert_eq!(
        *seen.lock().unwrap(),
        [expected("token-1"), expected("token-2")]
    );
    // Without a token, or with one that no header can hold, nothing is sent.
    let refused = VaultKv::new(&config, || Err(SourceError::Denied)).unwrap();
    assert!(matches!(
        refused.current(&id("main")),
        Err(SourceError::Denied)
    ));
    assert!(matches!(
        client(&server.address, "a\nb").current(&id("main")),
        Err(SourceError::Denied)
    ));
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[test]
fn each_refusal_is_told_as_what_to_do_about_it() {
    let statuses = [
        400, 401, 403, 429, 472, 473, 500, 502, 503, 301, 307, 418, 204,
    ];
    for status in statuses {
        let server = Server::start(move |_| Reply::json(status, &json!({"errors": ["no"]})));
        let error = client(&server.address, TOKEN)
            .current(&id("main"))
            .unwrap_err();
        let expected = match status {
            400..=403 => matches!(error, SourceError::Denied),
            429 | 472 | 473 | 500..=599 => error.is_retryable(),
            _ => matches!(error, SourceError::Malformed),
        };
        assert!(expected, "{status}: {error:?}");
    }
}

#[test]
fn an_answer_that_is_none_is_no_key() {
    let key = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=";
    let secret = |version: Value| {
        json!({"data": {"data": {"key": key}, "metadata": {
        "version": version, "destroyed": false, "deletion_time": ""}}})
    };
    let good = |version: u32| secret(json!(version)).to_string();
    let ask = |body: String, by_version: Option<u32>| {
        let server = Server::start(move |_| Reply::text(200, &body));
        let vault = client(&server.address, TOKEN);
        match by_version {
            None => vault.current(&id("main")),
            Some(number) => vault.by_version(&id("main"), version(number)),
        }
    };
    assert_eq!(ask(good(3), None).unwrap().as_bytes(), &[0xab; 32]);
    assert_eq!(ask(good(3), Some(3)).unwrap().version(), version(3));
    let escaped = good(3).replace("q6s=", "q6s\\u003d");
    assert_eq!(ask(escaped, None).unwrap().as_bytes(), &[0xab; 32]);
    let wrong = [
        (good(3), Some(2)), // not what was asked
        (good(0), None),
        (secret(json!(-1)).to_string(), None),
        (secret(json!("3")).to_string(), None),
        (secret(json!(4_294_967_296_u64)).to_string(), None),
        (String::new(), None),
        ("{}".to_owned(), None),
        ("[]".to_owned(), None),
        (format!("{}x", good(3)), None),
        (good(3)[..60].to_owned(), None),
        (good(3).replace(key, "AA=="), None),
        (good(3).replace(&format!("\"{key}\""), "7"), None),
        (format!("{}{}", good(3), " ".repeat(70_000)), None),
        (format!("{}{}", "[".repeat(60_000), good(3)), None),
    ];
    for (body, by_version) in wrong {
        let shown: String = body.chars().take(80).collect();
        let found = ask(body, by_version);
        assert!(
            matches!(found, Err(SourceError::Malformed)),
            "{shown}: {found:?}"
        );
    }
}

#[test]
fn a_server_that_is_not_there_or_hangs_up_is_unavailable() {
    let server = Server::start(|_| Reply::HangUp);
    let error = client(&server.address, TOKEN)
        .current(&id("main"))
        .unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let address = server.address.clone();
    drop(server);
    let error = client(&address, TOKEN).current(&id("main")).unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
}

#[test]
fn a_redirect_is_not_followed_with_the_token() {
    let asked = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&asked);
    let other = Server::start(move |_| {
        *heard.lock().unwrap() += 1;
        Reply::empty(200)
    });
    let target = format!("{}/v1/secret/data/sprag/keys/main", other.address);
    let server = Server::start(move |_| Reply::redirect(307, &target));
    let vault = client(&server.address, TOKEN);
    assert!(vault.current(&id("main")).is_err());
    assert!(vault.create(&id("main"), &mut rng(1)).is_err());
    assert_eq!(*asked.lock().unwrap(), 0);
}

#[test]
fn a_mount_or_prefix_leads_nowhere_else() {
    for (mount, prefix) in [
        ("..", ""),
        ("secret", "../sys"),
        ("", ""),
        ("a b", ""),
        ("a", "b?c"),
    ] {
        let mut config = VaultConfig::new("http://127.0.0.1:1");
        (config.mount, config.prefix) = (mount.to_owned(), prefix.to_owned());
        let vault = VaultKv::new(&config, || Err(SourceError::Denied));
        assert!(matches!(vault, Err(SourceError::BadId)), "{mount} {prefix}");
    }
}
