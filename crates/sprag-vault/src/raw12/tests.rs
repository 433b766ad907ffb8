use serde_json::Value;
use sprag_crypto::sha256;

use super::lumera::{CryptoResult, Form};
use super::pyagent::{KeyFile, Purpose};
use super::*;
use crate::testing::{Replay, bytes32, hex, pattern, rng, vectors};
use crate::{Context, Recipient, SealError, Sealing, Unlock};

fn legacy(name: &str) -> Value {
    vectors()["raw12"][name].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn lumera_blob() -> (DataKey, Vec<u8>, Vec<u8>) {
    let lumera = legacy("lumera");
    let key = DataKey::from_bytes(&bytes32(&lumera["key"]));
    (key, hex(&lumera["blob"]), text(&lumera["text"]).into())
}

#[test]
fn lumeras_blob_and_metadata_are_written_byte_for_byte() {
    let lumera = legacy("lumera");
    let (key, blob, payload) = lumera_blob();
    let mut draws = Replay(hex(&lumera["nonce"]));
    let (written, metadata) = lumera::seal(&key, "default", &payload, &mut draws);
    assert_eq!(written, blob);
    assert_eq!(*open(&key, &blob).unwrap(), payload);
    assert_eq!(
        metadata.plaintext_sha256,
        Some(bytes32(&lumera["plaintext_sha256"]))
    );
    assert_eq!(
        metadata.ciphertext_sha256,
        Some(bytes32(&lumera["ciphertext_sha256"]))
    );
    assert_eq!(metadata.bytes, lumera["bytes"].as_u64());
    assert_eq!(lumera::address(&blob), lumera["cascade_uri"]);
    assert_eq!(
        metadata.to_json(Form::Line),
        format!(
            "{{\"algorithm\": \"AES-256-GCM\", \"key_id\": \"default\", \"plaintext_sha256\": {}, \
             \"ciphertext_sha256\": {}, \"bytes\": 66}}",
            lumera["plaintext_sha256"], lumera["ciphertext_sha256"]
        )
    );
    assert_eq!(
        metadata.to_json(Form::Tool),
        format!(
            "{{\n  \"algorithm\": \"AES-256-GCM\",\n  \"key_id\": \"default\",\n  \"plaintext_sha256\": {},\n  \
             \"ciphertext_sha256\": {},\n  \"nonce_hex\": {},\n  \"ciphertext_bytes\": 54\n}}",
            lumera["plaintext_sha256"], lumera["ciphertext_sha256"], lumera["nonce"]
        )
    );
    for form in [Form::Line, Form::Tool, Form::Plugin] {
        let json = metadata.to_json(form);
        let mut read = CryptoResult::from_json(json.as_bytes()).unwrap();
        assert_eq!(read.nonce.is_some(), form == Form::Tool);
        read.nonce = metadata.nonce;
        assert_eq!(read, metadata, "{json}");
    }
}

#[test]
fn every_form_of_metadata_is_read_and_verified() {
    let (key, blob, payload) = lumera_blob();
    let (plain, cipher) = (
        hex::encode(sha256(&[&payload])),
        hex::encode(sha256(&[&blob])),
    );
    let bare = hex::encode(sha256(&[&blob[12..]]));
    let hashes = format!(r#""plaintext_sha256":"{plain}","ciphertext_sha256":"{cipher}""#);
    let forms = [
        format!(r#"{{"algorithm":"AES-256-GCM","key_id":"k",{hashes},"bytes":66}}"#),
        format!(
            r#"{{"algorithm":"AES-256-GCM","nonce_bytes":12,{hashes},"total_bytes":66,"extra":[1]}}"#
        ),
        format!(
            r#"{{"algorithm":"AES-256-GCM",{hashes},"nonce_hex":"a0a1a2a3a4a5a6a7a8a9aaab","ciphertext_bytes":54}}"#
        ),
        format!(
            r#"{{"algorithm":"AES-256-GCM","ciphertext_sha256":"{bare}","nonce_hex":"a0a1a2a3a4a5a6a7a8a9aaab"}}"#
        ),
        format!(
            r#"{{"crypto":{{"enc":"AES-256-GCM","key_id":"env:LUMERA_MEMORY_KEY",{hashes},"bytes":66}},"v":1}}"#
        ),
        r#"{"algorithm":"AES-256-GCM","key_id":null}"#.to_owned(),
    ];
    for json in &forms {
        let metadata = CryptoResult::from_json(json.as_bytes()).unwrap();
        let opened = lumera::open(&key, &blob, Some(&metadata));
        assert_eq!(*opened.unwrap(), payload, "{json}");
    }
    let metadata = CryptoResult::from_json(forms[0].as_bytes()).unwrap();
    let opened = |change: &dyn Fn(&mut CryptoResult)| {
        let mut metadata = metadata.clone();
        change(&mut metadata);
        // With a key that opens nothing, so that what is told was told before decryption.
        let stranger = DataKey::from_bytes(&[9; 32]);
        let before = lumera::open(&stranger, &blob, Some(&metadata)).unwrap_err();
        (
            before,
            lumera::open(&key, &blob, Some(&metadata)).map(|_| ()),
        )
    };
    let closed = LegacyError::Closed;
    assert_eq!(opened(&|_| ()), (closed, Ok(())));
    let refused = |error| (error, Err(error));
    assert_eq!(
        opened(&|m| m.bytes = Some(65)),
        refused(LegacyError::Length)
    );
    assert_eq!(
        opened(&|m| m.ciphertext_sha256 = Some([1; 32])),
        refused(LegacyError::CiphertextHash)
    );
    assert_eq!(
        opened(&|m| m.nonce = Some([1; 12])),
        refused(LegacyError::CiphertextHash)
    );
    assert_eq!(
        opened(&|m| m.plaintext_sha256 = Some([1; 32])),
        (closed, Err(LegacyError::PlaintextHash))
    );
}

#[test]
fn malformed_metadata_are_refused_and_never_taken_for_none() {
    for (json, error) in [
        ("", LegacyError::Metadata),
        ("[]", LegacyError::Metadata),
        ("{}", LegacyError::Metadata),
        (r#"{"crypto":1}"#, LegacyError::Metadata),
        (r#"{"algorithm":7}"#, LegacyError::Metadata),
        (r#"{"algorithm":"AES-128-GCM"}"#, LegacyError::Algorithm),
        (
            r#"{"algorithm":"AES-256-GCM","nonce_bytes":16}"#,
            LegacyError::Algorithm,
        ),
        (
            r#"{"algorithm":"AES-256-GCM","bytes":-1}"#,
            LegacyError::Metadata,
        ),
        (
            r#"{"algorithm":"AES-256-GCM","bytes":"66"}"#,
            LegacyError::Metadata,
        ),
        (
            r#"{"algorithm":"AES-256-GCM","plaintext_sha256":"00"}"#,
            LegacyError::Metadata,
        ),
        (
            r#"{"algorithm":"AES-256-GCM","ciphertext_sha256":"zz"}"#,
            LegacyError::Metadata,
        ),
        (
            r#"{"algorithm":"AES-256-GCM","nonce_hex":"00"}"#,
            LegacyError::Metadata,
        ),
    ] {
        assert_eq!(
            CryptoResult::from_json(json.as_bytes()),
            Err(error),
            "{json}"
        );
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        CryptoResult::from_json(deep.as_bytes()),
        Err(LegacyError::Metadata)
    );
}

#[test]
fn a_changed_or_shortened_blob_does_not_open() {
    let (key, blob, _) = lumera_blob();
    for length in 0..blob.len() {
        let error = if length < 28 {
            LegacyError::Short
        } else {
            LegacyError::Closed
        };
        assert_eq!(open(&key, &blob[..length]), Err(error));
        assert_eq!(lumera::open(&key, &blob[..length], None), Err(error));
    }
    for bit in 0..blob.len() * 8 {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&key, &flipped), Err(LegacyError::Closed));
    }
    assert_eq!(
        open(&DataKey::from_bytes(&[1; 32]), &blob),
        Err(LegacyError::Closed)
    );
}

#[test]
fn addresses_are_hashes_and_nothing_else() {
    let (_, blob, _) = lumera_blob();
    let address = lumera::address(&blob);
    assert_eq!(lumera::check_address(&address, &blob), Ok(()));
    assert_eq!(
        lumera::check_address(&address, &blob[1..]),
        Err(LegacyError::CiphertextHash)
    );
    let digits = &address[10..];
    assert_eq!(
        lumera::path_in_folder(&address).unwrap(),
        format!("7d/{digits}")
    );
    for wrong in [
        digits.to_owned(),
        format!("cascade://{}", digits.to_uppercase()),
        format!("{address}00"),
        "cascade://../../etc/passwd".to_owned(),
    ] {
        assert_eq!(lumera::path_in_folder(&wrong), Err(LegacyError::Metadata));
    }
}

#[test]
fn keys_are_read_from_all_their_places() {
    let lumera = legacy("lumera");
    let key = bytes32(&lumera["key"]);
    let base64 = text(&lumera["key_env_base64"]);
    let is = |read: Result<DataKey, LegacyError>| assert_eq!(read.unwrap().as_bytes(), &key);
    is(lumera::key_from_text(base64.as_bytes()));
    is(lumera::key_from_text(format!(" {base64}\n").as_bytes()));
    is(lumera::plugin_key_from_text(
        text(&lumera["key"]).as_bytes(),
    ));
    is(aegis::key_from_text(
        text(&legacy("aegis_keyring")["value"]).as_bytes(),
    ));
    is(aegis::key_from_text(&key));
    let url_safe = aegis::key_from_text(b"_-8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let standard = lumera::key_from_text(b"/+8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    assert_eq!(url_safe.as_bytes(), standard.as_bytes());
    for wrong in [
        "",
        "AAAA",
        &base64[1..],
        &format!("{base64}="),
        &base64.replace('D', "!"),
        &"00".repeat(31),
    ] {
        assert_eq!(
            lumera::key_from_text(wrong.as_bytes()).err(),
            Some(LegacyError::Key),
            "{wrong}"
        );
        assert_eq!(
            lumera::plugin_key_from_text(wrong.as_bytes()).err(),
            Some(LegacyError::Key)
        );
    }
    assert_eq!(lumera::environment_name("default"), "LUMERA_KEY_DEFAULT");

    let password = legacy("lumera_password");
    let salt = hex(&password["salt"]).try_into().unwrap();
    let derived = lumera::key_from_password(text(&password["password"]), &salt);
    assert_eq!(derived.as_bytes(), &bytes32(&password["key"]));

    let keys =
        lumera::keys_from_json(format!(r#"{{"a":"{base64}","b":"{base64}"}}"#).as_bytes()).unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!((keys[1].0.as_str(), keys[1].1.as_bytes()), ("b", &key));
    assert_eq!(lumera::keys_from_json(b"{}").unwrap().len(), 0);
    for wrong in [
        "",
        "null",
        "[]",
        &format!(r#"{{"a":"{base64}","b":1}}"#),
        r#"{"a":"AAAA"}"#,
    ] {
        assert_eq!(
            lumera::keys_from_json(wrong.as_bytes()).err(),
            Some(LegacyError::Key)
        );
    }
}

#[test]
fn pyagents_keys_and_blobs_are_read() {
    let vector = legacy("pyagent");
    let public = bytes32(&vector["identity_public"]);
    let memory = pyagent::data_key(&public, Purpose::Memory);
    assert_eq!(memory.as_bytes(), &bytes32(&vector["key_memory"]));
    let chat = pyagent::data_key(&public, Purpose::Chat);
    assert_eq!(chat.as_bytes(), &bytes32(&vector["key_chat"]));
    let blob = pyagent::blob_in_content(text(&vector["content_field"])).unwrap();
    assert_eq!(blob, hex(&vector["blob_memory"]));
    assert_eq!(
        open(&memory, &blob).unwrap().as_slice(),
        text(&vector["text"]).as_bytes()
    );
    assert_eq!(open(&chat, &blob), Err(LegacyError::Closed));
    assert_eq!(
        pyagent::blob_in_content("hello"),
        Err(LegacyError::NotEncrypted)
    );
    assert_eq!(
        pyagent::blob_in_content("encrypted:xy"),
        Err(LegacyError::Metadata)
    );

    let file = |private: &str, public: &str| {
        let json = format!(
            r#"{{"user_id":"u1","identity_key":"{private}","identity_public":"{public}"}}"#
        );
        KeyFile::from_json(json.as_bytes())
    };
    let (private, public_text) = (
        text(&vector["identity_private"]),
        text(&vector["identity_public"]),
    );
    let read = file(private, public_text).unwrap();
    assert_eq!(
        (read.user_id.as_str(), read.identity_public),
        ("u1", public)
    );
    assert_eq!(file(public_text, public_text), Err(LegacyError::Key));
    assert_eq!(file("00", public_text), Err(LegacyError::Key));
    assert_eq!(file(private, "00"), Err(LegacyError::Key));
    assert_eq!(KeyFile::from_json(b"{}"), Err(LegacyError::Key));
    assert_eq!(KeyFile::from_json(b"7"), Err(LegacyError::Key));
}

/// A file of AEGIS with these chunks.
fn aegis_file(key: &DataKey, total_size: &str, chunks: &[&[u8]]) -> Vec<u8> {
    let header = format!(
        r#"{{"original_filename":"a.txt","timestamp":1700000000,"version":1,"total_size":{total_size}}}"#
    );
    let mut rng = rng();
    let mut file = Vec::new();
    for part in [header.as_bytes()].iter().chain(chunks) {
        let blob = seal(key, part, &mut rng);
        file.extend_from_slice(&u32::try_from(blob.len()).unwrap().to_le_bytes());
        file.extend_from_slice(&blob);
    }
    file
}

fn read_aegis(key: &DataKey, file: &[u8]) -> Result<Vec<u8>, LegacyError> {
    let mut all = Vec::new();
    for chunk in aegis::FileReader::open(key, file)? {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

#[test]
fn a_file_of_aegis_is_read_chunk_by_chunk() {
    let vector = legacy("aegis_vault_file");
    let key = DataKey::from_bytes(&bytes32(&vector["key"]));
    let file = hex(&vector["file"]);
    let reader = aegis::FileReader::open(&key, &file).unwrap();
    let header = reader.header().clone();
    assert_eq!(
        (
            header.original_filename.as_str(),
            header.timestamp,
            header.total_size
        ),
        ("a.txt", 1_700_000_000, Some(5))
    );
    assert_eq!(read_aegis(&key, &file).unwrap(), b"hello");
    for length in 0..file.len() {
        assert!(
            read_aegis(&key, &file[..length]).is_err(),
            "cut at {length}"
        );
    }
    assert_eq!(
        read_aegis(&DataKey::from_bytes(&[1; 32]), &file),
        Err(LegacyError::Closed)
    );

    let long = pattern(1024 * 1024);
    let file = aegis_file(&key, "null", &[&long, b"end"]);
    assert_eq!(
        read_aegis(&key, &file).unwrap(),
        [&long, b"end".as_slice()].concat()
    );
    let too_long = aegis_file(&key, "null", &[&pattern(1024 * 1024 + 1)]);
    assert_eq!(read_aegis(&key, &too_long), Err(LegacyError::Length));
    assert_eq!(
        read_aegis(&key, &aegis_file(&key, "2", &[b"abc"])),
        Err(LegacyError::Length)
    );
    assert_eq!(
        read_aegis(&key, &aegis_file(&key, "4", &[b"abc"])),
        Err(LegacyError::Length)
    );
    assert_eq!(
        read_aegis(&key, &aegis_file(&key, "3", &[b"ab", b"c"])).unwrap(),
        b"abc"
    );
    assert_eq!(
        read_aegis(&key, &aegis_file(&key, "\"3\"", &[b"abc"])),
        Err(LegacyError::Metadata)
    );
    let mut huge = u32::MAX.to_le_bytes().to_vec();
    huge.extend_from_slice(&file);
    assert_eq!(read_aegis(&key, &huge), Err(LegacyError::Length));
}

#[test]
fn after_an_error_there_are_no_more_chunks() {
    let key = DataKey::from_bytes(&[1; 32]);
    let mut file = aegis_file(&key, "null", &[b"one", b"two"]);
    let end = file.len() - 35;
    file[end - 1] ^= 1;
    let mut reader = aegis::FileReader::open(&key, &file).unwrap();
    assert_eq!(reader.next().unwrap().err(), Some(LegacyError::Closed));
    assert!(reader.next().is_none());
}

#[test]
fn what_is_imported_is_encrypted_anew_and_its_weaknesses_are_named() {
    let (old, blob, payload) = lumera_blob();
    let new = DataKey::from_bytes(&[5; 32]);
    let context = Context::from_pairs([("record", "mem_1")]).unwrap();
    let to = [Recipient::direct("k")];
    let sealing = Sealing::new(&new, &to).context(&context);
    let imported = |legacy: &Legacy<'_>, expected: &[u8]| {
        let imported = import(legacy, &sealing, &mut rng()).unwrap();
        let unlock = Unlock::new().direct("k", new.clone());
        assert_eq!(
            crate::open(&imported.blob, &unlock, &context)
                .unwrap()
                .as_slice(),
            expected
        );
        imported.warnings
    };
    let (key, metadata) = (&old, None);
    let plain = Legacy::Blob {
        key,
        blob: &blob,
        metadata,
    };
    assert_eq!(imported(&plain, &payload), [Warning::NoContext]);
    let metadata = lumera::seal(key, "k", &payload, &mut Replay(blob[..12].to_vec())).1;
    let with_hash = Legacy::Blob {
        key,
        blob: &blob,
        metadata: Some(&metadata),
    };
    assert_eq!(
        imported(&with_hash, &payload),
        [Warning::NoContext, Warning::PlaintextHashBeside]
    );

    let salt = &[5; 16];
    let weak = lumera::key_from_password("correct horse", salt);
    let of_password = seal(&weak, b"text", &mut rng());
    let password = Legacy::Password {
        password: "correct horse",
        salt,
        blob: &of_password,
        metadata: None,
    };
    assert_eq!(
        imported(&password, b"text"),
        [Warning::NoContext, Warning::PasswordNotStretched]
    );

    let vector = legacy("pyagent");
    let (identity_public, stored) = (
        &bytes32(&vector["identity_public"]),
        hex(&vector["blob_memory"]),
    );
    let purpose = Purpose::Memory;
    let public = Legacy::PyAgent {
        identity_public,
        purpose,
        blob: &stored,
    };
    assert_eq!(
        imported(&public, text(&vector["text"]).as_bytes()),
        [Warning::NoContext, Warning::KeyIsPublic]
    );

    let long = pattern(200_000);
    let whole = aegis_file(key, "200000", &[&long[..70_000], &long[70_000..]]);
    let file = Legacy::AegisFile { key, file: &whole };
    assert_eq!(
        imported(&file, &long),
        [Warning::NoContext, Warning::ChunksNotBound]
    );
    let open_ended = aegis_file(key, "null", &[&long]);
    let file = Legacy::AegisFile {
        key,
        file: &open_ended,
    };
    assert_eq!(
        imported(&file, &long),
        [
            Warning::NoContext,
            Warning::ChunksNotBound,
            Warning::EndNotMarked
        ]
    );
    for warning in [
        Warning::NoContext,
        Warning::KeyIsPublic,
        Warning::EndNotMarked,
    ] {
        assert!(!warning.to_string().is_empty());
    }
    let shown = format!("{plain:?} {password:?} {public:?} {file:?} {metadata:?}");
    assert_eq!(
        shown,
        "Blob { .. } Password { .. } PyAgent { .. } AegisFile { .. } \
         CryptoResult { key_id: Some(\"k\"), bytes: Some(66), .. }"
    );
}

#[test]
fn a_weak_key_is_not_kept_by_an_import_and_a_failed_one_makes_nothing() {
    let (old, blob, payload) = lumera_blob();
    let to = [Recipient::direct("k")];
    let fresh = DataKey::from_bytes(&[5; 32]);
    let vector = legacy("pyagent");
    let identity_public = &bytes32(&vector["identity_public"]);
    let public_key = pyagent::data_key(identity_public, Purpose::Memory);
    let stored = hex(&vector["blob_memory"]);
    let of_pyagent = Legacy::PyAgent {
        identity_public,
        purpose: Purpose::Memory,
        blob: &stored,
    };
    let file = aegis_file(&old, "null", &[&payload]);
    let of_aegis = Legacy::AegisFile {
        key: &old,
        file: &file,
    };
    let of_lumera = Legacy::Blob {
        key: &old,
        blob: &blob,
        metadata: None,
    };
    for (legacy, weak) in [
        (of_pyagent, &public_key),
        (of_aegis, &old),
        (of_lumera, &old),
    ] {
        let error = import(&legacy, &Sealing::new(weak, &to), &mut rng()).unwrap_err();
        assert_eq!(error, ImportError::SameKey);
        assert!(import(&legacy, &Sealing::new(&fresh, &to), &mut rng()).is_ok());
        let error = import(&legacy, &Sealing::new(&fresh, &[]), &mut rng()).unwrap_err();
        assert_eq!(error, ImportError::Seal(SealError::NoRecipient));
    }
    let cut = Legacy::AegisFile {
        key: &old,
        file: &file[..file.len() - 1],
    };
    let error = import(&cut, &Sealing::new(&fresh, &to), &mut rng()).unwrap_err();
    assert_eq!(error, ImportError::Legacy(LegacyError::Short));
}
