//! AWS KMS: against answers as AWS documents them; and, when `cargo xtask ci kms` runs it, against moto's server, which
//! checks the signature.

#![cfg(feature = "aws-kms")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use server::{Python, Reply, Server};
use sprag_keys::{
    AwsCredentials, AwsKms, AwsKmsConfig, Envelope, KeyId, KeySource, RingFile, RingFileError,
    SourceError,
};

/// 32 bytes ab, and something that stands for them wrapped.
const PLAINTEXT: &str = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=";
const WRAPPED: &str = "d3JhcHBlZA==";

fn client(address: &str, key_id: &str, context: &[(&str, &str)]) -> AwsKms {
    as_user(
        address,
        key_id,
        context,
        AwsCredentials::new("AKID", "secret", None),
    )
}

fn as_user(
    address: &str,
    key_id: &str,
    context: &[(&str, &str)],
    credentials: AwsCredentials,
) -> AwsKms {
    let mut config = AwsKmsConfig::new("eu-central-1", key_id);
    config.endpoint = Some(address.to_owned());
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config.context = context.iter().map(owned).collect::<BTreeMap<_, _>>();
    AwsKms::new(&config, move || Ok(credentials.clone())).unwrap()
}

fn serving(status: u16, body: &Value) -> (Server, AwsKms) {
    let body = body.to_string();
    let server = Server::start(move |_| Reply::text(status, &body));
    let kms = client(&server.address, "alias/sprag", &[]);
    (server, kms)
}

#[test]
fn requests_are_those_that_aws_documents() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let server = Server::start(move |request| {
        heard.lock().unwrap().push(request.clone());
        Reply::json(
            200,
            &json!({"KeyId": "x", "Plaintext": PLAINTEXT, "CiphertextBlob": WRAPPED}),
        )
    });
    let credentials = AwsCredentials::new("AKID", "secret", Some("session".to_owned()));
    let kms = as_user(
        &server.address,
        "alias/sprag",
        &[("tenant", "a"), ("b", "c")],
        credentials,
    );
    let data = kms.generate().unwrap();
    assert_eq!(
        (data.as_bytes(), data.wrapped()),
        (&[0xab; 32], &b"wrapped"[..])
    );
    assert_eq!(*kms.unwrap(data.wrapped()).unwrap(), [0xab; 32]);

    let seen = seen.lock().unwrap();
    let bodies: Vec<Value> = seen
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    let context = json!({"tenant": "a", "b": "c"});
    let generate =
        json!({"KeyId": "alias/sprag", "KeySpec": "AES_256", "EncryptionContext": context});
    let decrypt =
        json!({"KeyId": "alias/sprag", "CiphertextBlob": WRAPPED, "EncryptionContext": context});
    assert_eq!(bodies, [generate, decrypt]);
    for (request, action) in seen.iter().zip(["GenerateDataKey", "Decrypt"]) {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/")
        );
        let target = format!("TrentService.{action}");
        assert_eq!(request.header("x-amz-target"), Some(target.as_str()));
        assert_eq!(
            request.header("content-type"),
            Some("application/x-amz-json-1.1")
        );
        assert_eq!(request.header("x-amz-security-token"), Some("session"));
        let hosts = request.headers.iter().filter(|(name, _)| name == "host");
        let hosts: Vec<_> = hosts.map(|(_, value)| format!("http://{value}")).collect();
        assert_eq!(hosts.join(" "), server.address);
        let authorization = request.header("authorization").unwrap();
        let signed =
            "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, ";
        assert!(authorization.contains(signed), "{authorization}");
        assert!(
            authorization.contains("/eu-central-1/kms/aws4_request"),
            "{authorization}"
        );
        assert!(!authorization.contains("secret"));
    }
}

#[test]
fn a_key_of_ours_is_wrapped_as_aws_documents_and_an_answer_that_shows_it_is_none() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let server = Server::start(move |request| {
        heard.lock().unwrap().push(request.clone());
        Reply::json(200, &json!({"KeyId": "x", "CiphertextBlob": WRAPPED}))
    });
    let kms = client(&server.address, "alias/sprag", &[("tenant", "a")]);
    assert_eq!(kms.wrap(&[0xab; 32]).unwrap(), b"wrapped");
    let request = seen.lock().unwrap().remove(0);
    assert_eq!(request.header("x-amz-target"), Some("TrentService.Encrypt"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let context = json!({"tenant": "a"});
    let expected =
        json!({"KeyId": "alias/sprag", "Plaintext": PLAINTEXT, "EncryptionContext": context});
    assert_eq!(body, expected);
    let long = json!({"CiphertextBlob": "A".repeat(8_196)});
    let shown = json!({"CiphertextBlob": PLAINTEXT});
    for answer in [json!({}), json!({"CiphertextBlob": ""}), long, shown] {
        let (_server, kms) = serving(200, &answer);
        assert!(
            matches!(kms.wrap(&[0xab; 32]), Err(SourceError::Malformed)),
            "{answer}"
        );
    }
}

#[test]
fn an_answer_that_is_none_is_no_key() {
    let shown = json!({"Plaintext": PLAINTEXT, "CiphertextBlob": PLAINTEXT});
    let answers = [
        json!({}),
        json!([]),
        json!({"Plaintext": PLAINTEXT}),
        json!({"CiphertextBlob": WRAPPED}),
        json!({"Plaintext": "c2hvcnQ=", "CiphertextBlob": WRAPPED}),
        json!({"Plaintext": "not base64", "CiphertextBlob": WRAPPED}),
        json!({"Plaintext": 7, "CiphertextBlob": WRAPPED}),
        json!({"Plaintext": PLAINTEXT, "CiphertextBlob": ""}),
        json!({"Plaintext": PLAINTEXT, "CiphertextBlob": "A".repeat(8_196)}),
        shown, // the key itself, not wrapped
    ];
    for answer in answers {
        let (_server, kms) = serving(200, &answer);
        assert!(
            matches!(kms.generate(), Err(SourceError::Malformed)),
            "{answer}"
        );
    }
    let (_server, kms) = serving(200, &json!({"Plaintext": "c2hvcnQ="}));
    assert!(matches!(
        kms.unwrap(b"wrapped"),
        Err(SourceError::Malformed)
    ));
}

#[test]
fn what_cannot_be_a_wrapped_key_is_not_sent() {
    let server = Server::start(|_| panic!("nothing is to be asked"));
    let kms = client(&server.address, "k", &[]);
    for wrapped in [vec![], vec![0; 6_145]] {
        assert!(matches!(kms.unwrap(&wrapped), Err(SourceError::Malformed)));
    }
}

#[test]
fn a_service_that_is_away_or_busy_can_be_asked_later() {
    for (status, kind) in [
        (400, "ThrottlingException"),
        (500, "KMSInternalException"),
        (503, "x"),
    ] {
        let (_server, kms) = serving(status, &json!({"__type": kind}));
        assert!(kms.generate().unwrap_err().is_retryable(), "{kind}");
    }
    let server = Server::start(|_| Reply::HangUp);
    let kms = client(&server.address, "k", &[]);
    assert!(kms.unwrap(b"wrapped").unwrap_err().is_retryable());
}

#[test]
fn without_credentials_nothing_is_sent() {
    let server = Server::start(|_| panic!("nothing is to be asked"));
    let mut config = AwsKmsConfig::new("eu-central-1", "k");
    config.endpoint = Some(server.address.clone());
    let kms = AwsKms::new(&config, || Err(SourceError::Denied)).unwrap();
    assert!(matches!(kms.generate(), Err(SourceError::Denied)));
}

/// What serve.py prints after the address: the user that it made, and two keys.
fn moto() -> (Python, AwsCredentials, [String; 2]) {
    let server = Python::start("moto");
    let [id, secret, one, two] = server.words().try_into().unwrap();
    (server, AwsCredentials::new(id, secret, None), [one, two])
}

#[test]
#[ignore = "needs Python: cargo xtask ci kms"]
fn a_ring_is_opened_by_the_wrapped_key_it_keeps() {
    let (server, user, [one, two]) = moto();
    let kms =
        |key: &str, context: &[(&str, &str)]| as_user(&server.address, key, context, user.clone());
    let dir = tempfile::tempdir().unwrap();
    let (path, mut rng) = (dir.path().join("ring"), ChaCha20Rng::from_seed([1; 32]));
    let first = kms(&one, &[("tenant", "a")]);
    let first: &dyn Envelope = &first;
    let mut ring = RingFile::create(&path, first, &mut rng).unwrap();
    let main = KeyId::new("main").unwrap();
    ring.create_key(&main, &mut rng, 1).unwrap();
    ring.rotate(&main, &mut rng, 2).unwrap();

    let open = |kms: &dyn Envelope| RingFile::open(&path, kms);
    let again = open(first).unwrap();
    let (kept, known) = (again.current(&main).unwrap(), ring.current(&main).unwrap());
    assert_eq!(kept.as_bytes(), known.as_bytes());

    // Another context, another key.
    let refused = open(&kms(&one, &[("tenant", "b")]));
    assert!(
        matches!(refused, Err(RingFileError::Source(_))),
        "{refused:?}"
    );
    let refused = open(&kms(&two, &[("tenant", "a")]));
    assert!(
        matches!(refused, Err(RingFileError::Source(_))),
        "{refused:?}"
    );
    // Handed over to the other key.
    let second = kms(&two, &[]);
    let second: &dyn Envelope = &second;
    ring.change_opener(second, &mut rng).unwrap();
    assert!(open(first).is_err());
    assert!(open(second).is_ok());
}

#[cfg(feature = "vault")]
#[test]
#[ignore = "needs Python: cargo xtask ci kms"]
fn a_blob_is_sealed_and_opened_through_aws_and_through_no_other_key_or_context() {
    use sprag_keys::EnvelopeKms;
    use sprag_vault::{Context, DataKey, OpenError, Recipient, Sealing, Unlock, open, seal};

    let (server, user, [one, two]) = moto();
    let kms = |key: &str, tenant: &str| {
        let context = [("tenant", tenant)];
        EnvelopeKms::new(as_user(&server.address, key, &context, user.clone()))
    };
    let (mut rng, none) = (ChaCha20Rng::from_seed([1; 32]), Context::none());
    let (first, second) = (kms(&one, "a"), kms(&two, "a"));

    // With a key that AWS made.
    let (key, wrapped) = first.generate().unwrap();
    let to = [Recipient::wrapped(&one, &wrapped)];
    let made = seal(b"hello", &Sealing::new(&key, &to), &mut rng).unwrap();
    // With a key of ours, which two keys of AWS wrap.
    let key = DataKey::generate(&mut rng);
    let to = [Recipient::kms(&one, &first), Recipient::kms(&two, &second)];
    let ours = seal(b"hello", &Sealing::new(&key, &to), &mut rng).unwrap();

    for blob in [&made, &ours] {
        let unlock = Unlock::new().kms(&one, &first);
        assert_eq!(*open(blob, &unlock, &none).unwrap(), *b"hello");
        for stranger in [kms(&one, "b"), kms(&two, "a")] {
            let unlock = Unlock::new().kms(&one, &stranger);
            assert_eq!(open(blob, &unlock, &none), Err(OpenError::WrongKey));
        }
    }
    let unlock = Unlock::new().kms(&two, &second);
    assert_eq!(*open(&ours, &unlock, &none).unwrap(), *b"hello");
    drop(server);
    assert_eq!(open(&ours, &unlock, &none), Err(OpenError::Unavailable));
}

#[test]
#[ignore = "needs Python: cargo xtask ci kms"]
fn moto_accepts_our_signature_and_no_other() {
    let (server, user, [one, _]) = moto();
    let kms = |credentials| as_user(&server.address, &one, &[], credentials);
    let good = kms(user);
    let (first, second) = (good.generate().unwrap(), good.generate().unwrap());
    assert_ne!(first.as_bytes(), second.as_bytes());
    assert_eq!(*good.unwrap(first.wrapped()).unwrap(), *first.as_bytes());
    let [id, ..]: [String; 4] = server.words().try_into().unwrap();
    for wrong in [
        AwsCredentials::new(id, "another secret", None),
        AwsCredentials::new("AKIDUNKNOWN", "another secret", None),
    ] {
        let refused = kms(wrong).generate();
        assert!(matches!(refused, Err(SourceError::Denied)), "{refused:?}");
    }
}

#[test]
#[ignore = "needs Python: cargo xtask ci kms"]
fn a_key_that_aws_does_not_have_is_not_found_and_a_damaged_one_does_not_unwrap() {
    let (server, user, [one, _]) = moto();
    let kms = |key: &str| as_user(&server.address, key, &[], user.clone());
    let unknown = kms("11111111-2222-3333-4444-555555555555");
    for _ in 0..2 {
        assert!(matches!(unknown.generate(), Err(SourceError::NotFound)));
    }
    let wrapped = kms(&one).generate().unwrap().wrapped().to_vec();
    let mut damaged = wrapped.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(kms(&one).unwrap(&damaged).is_err());
    assert!(kms(&one).unwrap(&wrapped[..wrapped.len() - 1]).is_err());
    assert!(kms(&one).unwrap(&wrapped).is_ok());
}
