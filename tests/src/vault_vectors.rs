//! Vectors of the vault that this implementation writes from a seed, for others to read: `tests/vectors/vault-seed-1.json`, in
//! the schema of `vault.json`.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use sprag_crypto::{seal_in_place, sha256};
use sprag_vault::raw12::lumera;
use sprag_vault::{
    Argon2Params, ChunkSize, Context, DataKey, Header, Recipient, RecipientPrivateKey, Sealing,
    SlotKind, Suite, Unlock, open, seal,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The file of a seed.
///
/// # Errors
/// What the vault refuses, which it does not.
pub fn file(seed: u64) -> Outcome<Value> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut cases = Vec::new();
    let lengths = [0, 1, 100, 4095, 4096, 4097, 8192, 9000];
    for (at, length) in lengths.into_iter().enumerate() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            cases.push(case(at, length, suite, &mut rng)?);
        }
    }
    let mut raw12 = serde_json::Map::new();
    for (at, text) in ["", "{\"messages\": []}", "{\"text\": \"gr\u{fc}\u{df}e\"}"]
        .iter()
        .enumerate()
    {
        raw12.insert(format!("lumera_{at}"), legacy(text, &mut rng));
    }
    Ok(json!({
        "about": format!("Written by sprag-vault from the seed {seed}; fields as in vault.json"),
        "raw12": raw12,
        "evlt_valid": cases,
    }))
}

fn case(at: usize, length: usize, suite: Suite, rng: &mut ChaCha20Rng) -> Outcome<Value> {
    let key = DataKey::generate(rng);
    let private = RecipientPrivateKey::generate(rng);
    let (mut kek, mut iv) = ([0; 32], [0; 12]);
    rng.fill_bytes(&mut kek);
    rng.fill_bytes(&mut iv);
    let mut wrapped = iv.to_vec();
    wrapped.extend_from_slice(key.as_bytes());
    seal_in_place(&kek, &iv, b"", &mut wrapped, 12);
    let lanes = u32::try_from(at % 3)? + 1;
    let words = format!("p\u{e4}ssword {at}");
    let cost = Argon2Params::new(8 * lanes + 5, lanes, lanes)?;
    let all = [
        Recipient::direct("k1"),
        Recipient::key("r1", private.public_key()),
        Recipient::passphrase_with("p1", &words, cost),
        Recipient::wrapped("kms-1", &wrapped),
    ];
    let inputs = [
        json!({"dek": hex::encode(key.as_bytes())}),
        json!({
            "dek": hex::encode(key.as_bytes()),
            "recipient_private": hex::encode(private.to_bytes().as_slice()),
            "recipient_public": hex::encode(private.public_key().as_bytes()),
        }),
        Value::Null,
        json!({"dek": hex::encode(key.as_bytes()), "kek": hex::encode(kek), "iv": hex::encode(iv)}),
    ];
    let keys = [
        json!({"direct": {"k1": hex::encode(key.as_bytes())}}),
        json!({"hpke": {"r1": hex::encode(private.to_bytes().as_slice())}}),
        json!({"passphrase": words}),
        json!({"kms": {"kms-1": hex::encode(kek)}}),
    ];
    // One type of slot after another, and now and then all of them.
    let chosen: Vec<usize> = if at % 5 == 4 {
        (0..4).collect()
    } else {
        vec![at % 5]
    };
    let pick = |from: &[Value]| {
        chosen
            .iter()
            .filter_map(|at| from.get(*at))
            .cloned()
            .collect::<Vec<_>>()
    };
    let to: Vec<_> = chosen
        .iter()
        .filter_map(|at| all.get(*at))
        .cloned()
        .collect();
    let context = match at % 3 {
        0 => Context::none(),
        _ => Context::from_pairs([("user", format!("u{at}")), ("kind", "memory".to_owned())])?,
    };
    let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
    let sealing = Sealing::new(&key, &to)
        .context(&context)
        .suite(suite)
        .chunk_size(ChunkSize::LEAST);
    let blob = seal(&payload, &sealing, rng)?;
    let opened = open(&blob, &Unlock::new().direct("k1", key.clone()), &context);
    if chosen.contains(&0) && *opened? != payload {
        return Err("what was written does not open".into());
    }
    let header = Header::parse(&blob)?;
    let mut slots = Vec::new();
    let mut slot_inputs = pick(&inputs);
    for (slot, input) in header.slots().iter().zip(&mut slot_inputs) {
        let kind = match slot.kind() {
            SlotKind::Direct => 0,
            SlotKind::Kms => 1,
            SlotKind::Recipient => 2,
            _ => 3,
        };
        if kind == 3 {
            let part = |from: usize, to: usize| slot.body().get(from..to).map(hex::encode);
            *input = json!({
                "dek": hex::encode(key.as_bytes()), "passphrase": words, "kib": cost.memory_kib(),
                "passes": cost.passes(), "lanes": cost.lanes(), "salt": part(9, 25), "nonce": part(25, 37),
            });
        }
        let id = String::from_utf8(slot.id().to_vec())?;
        slots.push(json!([kind, id, hex::encode(slot.body())]));
    }
    let name = format!("{length} bytes, suite {}", suite as u8);
    Ok(json!({
        "name": name,
        "what": "written by sprag-vault",
        "suite": suite as u8,
        "flags": u8::from(header.shows_context()),
        "dek": hex::encode(key.as_bytes()),
        "salt": blob.get(16..48).map(hex::encode),
        "slots": slots,
        "slot_inputs": slot_inputs,
        "context": hex::encode(context.as_bytes()),
        "chunk_log2": header.chunk_size().log2(),
        "plaintext_len": length,
        "plaintext": "byte i = i mod 251",
        "blob_len": blob.len(),
        "blob_sha256": hex::encode(sha256(&[&blob])),
        "blob": hex::encode(&blob),
        "open_with": pick(&keys),
    }))
}

fn legacy(text: &str, rng: &mut ChaCha20Rng) -> Value {
    let key = DataKey::generate(rng);
    let (blob, metadata) = lumera::seal(&key, "default", text.as_bytes(), rng);
    json!({
        "key": hex::encode(key.as_bytes()),
        "nonce": blob.get(..12).map(hex::encode),
        "text": text,
        "blob": hex::encode(&blob),
        "plaintext_sha256": metadata.plaintext_sha256.map(hex::encode),
        "ciphertext_sha256": metadata.ciphertext_sha256.map(hex::encode),
        "cascade_uri": lumera::address(&blob),
        "bytes": blob.len(),
        "metadata": metadata.to_json(lumera::Form::Line),
        "metadata_tool": metadata.to_json(lumera::Form::Tool),
        "metadata_plugin": metadata.to_json(lumera::Form::Plugin),
    })
}
