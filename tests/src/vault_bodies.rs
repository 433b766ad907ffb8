//! Bodies of the fuzz targets of the vault: blobs, streams, older forms and what stands beside them.

use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag_vault::raw12::{self, aegis, lumera, pyagent};
use sprag_vault::{
    Argon2Params, ChunkSize, Context, DataKey, Header, OpenError, Opener, PassphraseLimits,
    Recipient, RecipientPrivateKey, Sealing, SeekReader, Suite, Unlock, open, reseal, seal,
};

use crate::fuzz_bodies::mixed;

/// A header that reads is the one that would be written, and tells its length from its first bytes.
pub fn vault_header(data: &[u8]) {
    let length = Header::length_in(data);
    let Ok(header) = Header::parse(data) else {
        return;
    };
    assert_eq!(length, Ok(Some(header.len())));
    assert_eq!(Some(header.encode().as_slice()), data.get(..header.len()));
    for slot in header.slots() {
        let _ = (slot.kind(), slot.id(), slot.body());
    }
    for total in [0, 1, data.len() as u64, u64::MAX] {
        let _ = header.payload_len(total);
    }
}

/// A blob opens if and only if no bit of it was turned, in whatever way it is opened; resealing changes nothing about that.
pub fn vault_open(data: &[u8]) {
    let vault = vault();
    let _ = open(data, &vault.unlock, &vault.context);
    let blob = mixed(&vault.small, data);
    let opened = open(&blob, &vault.unlock, &vault.context);
    if blob == vault.small {
        assert!(opened.is_ok_and(|text| *text == SMALL));
    } else {
        assert!(opened.is_err());
        // Before the body nothing is let out, and no more is accepted from whoever wants to change it.
        let changed = Header::parse(&blob).ok().map(|header| header.len());
        let header = changed.and_then(|length| blob.get(..length));
        let genuine = header.is_some_and(|header| vault.small.starts_with(header));
        let (rng, add) = (&mut ChaCha20Rng::from_seed([1; 32]), []);
        let resealed = reseal(&blob, &vault.unlock, &vault.context, |_| true, &add, rng);
        assert_eq!(resealed.is_ok(), genuine);
    }
}

/// In pieces of any size a stream ends as the whole does, and what it lets out is the beginning of the payload. The first byte
/// says how large the pieces are, the second what is cut from the end, the rest is laid over the blob.
pub fn vault_stream(data: &[u8]) {
    let vault = vault();
    let [piece, cut, data @ ..] = data else {
        return;
    };
    let mut blob = mixed(&vault.large, data);
    blob.truncate(blob.len().saturating_sub(usize::from(*cut) * 20));
    let whole = open(&blob, &vault.unlock, &vault.context).map(|text| text.to_vec());
    let mut opener = Opener::new(&vault.unlock, &vault.context);
    let mut out = Vec::new();
    let streamed = (|| {
        for mut input in blob.chunks(usize::from(*piece) * 33 + 1) {
            while let Some(text) = opener.push(&mut input)? {
                out.extend_from_slice(text);
            }
        }
        out.extend_from_slice(&opener.finish()?);
        Ok::<_, OpenError>(())
    })();
    assert_eq!(whole.is_ok(), blob == vault.large);
    assert_eq!(whole.as_ref().err(), streamed.as_ref().err());
    let pattern: Vec<u8> = (0..=250).cycle().take(out.len()).collect();
    assert_eq!(out, pattern);
    if let Ok(mut reader) = SeekReader::open(&blob, &vault.unlock, &vault.context) {
        let ended = reader.payload_len();
        assert!(ended.is_ok() || whole.is_err());
        let mut part = [0; 50];
        if let Ok(read) = reader.read_at(4090, &mut part) {
            let expected: Vec<u8> = (0..=250).cycle().skip(4090).take(read).collect();
            assert_eq!(part.get(..read), Some(expected.as_slice()));
        }
    }
}

/// Older blobs and files open if and only if they are what was written.
pub fn vault_legacy(data: &[u8]) {
    let vault = vault();
    let _ = raw12::open(&vault.key, data);
    let _ = lumera::open(&vault.key, data, None);
    let _ = pyagent::blob_in_content(&String::from_utf8_lossy(data));
    let _ = lumera::check_address(&lumera::address(data), data);
    let (blob, metadata) = &vault.lumera;
    let received = mixed(blob, data);
    let opened = lumera::open(&vault.key, &received, Some(metadata));
    assert_eq!(opened.is_ok(), received == *blob);
    for file in [data, &mixed(&vault.aegis, data)] {
        if let Ok(reader) = aegis::FileReader::open(&vault.key, file) {
            let chunks: Result<Vec<_>, _> = reader.collect();
            assert!(chunks.is_err() || file == vault.aegis);
        }
    }
}

/// Metadata that read are read again as they were written; keys and contexts never panic.
pub fn vault_metadata(data: &[u8]) {
    if let Ok(metadata) = lumera::CryptoResult::from_json(data) {
        let json = metadata.to_json(lumera::Form::Line);
        let again = lumera::CryptoResult::from_json(json.as_bytes());
        let mut expected = metadata;
        expected.nonce = None;
        assert_eq!(again, Ok(expected));
    }
    let _ = lumera::keys_from_json(data);
    let _ = lumera::key_from_text(data);
    let _ = lumera::plugin_key_from_text(data);
    let _ = aegis::key_from_text(data);
    let _ = pyagent::KeyFile::from_json(data);
    if let Ok(text) = str::from_utf8(data) {
        let _ = lumera::path_in_folder(text);
    }
    let context = Context::from_bytes(data);
    if let Ok(pairs) = context.pairs() {
        assert_eq!(Context::from_pairs(pairs), Ok(context.clone()));
    }
}

const SMALL: &[u8] = b"what is in it";

struct Vault {
    key: DataKey,
    unlock: Unlock<'static>,
    context: Context,
    small: Vec<u8>,
    large: Vec<u8>,
    lumera: (Vec<u8>, lumera::CryptoResult),
    aegis: Vec<u8>,
}

#[expect(clippy::expect_used, reason = "all inputs are constants")]
fn vault() -> &'static Vault {
    static VAULT: OnceLock<Vault> = OnceLock::new();
    VAULT.get_or_init(|| {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = DataKey::from_bytes(&[2; 32]);
        let recipient = RecipientPrivateKey::generate(&mut rng);
        let context = Context::from_bytes(*b"tenant=a;id=1");
        let cost = Argon2Params::LEAST;
        let to = [
            Recipient::direct("k1"),
            Recipient::key("r1", recipient.public_key()),
            Recipient::passphrase_with("p1", "correct horse", cost),
        ];
        let sealing = Sealing::new(&key, &to).context(&context);
        let small = seal(SMALL, &sealing, &mut rng).expect("a blob");
        let payload: Vec<u8> = (0..=250).cycle().take(4096 + 50).collect();
        let to = [Recipient::direct("k1")];
        let sealing = Sealing::new(&key, &to)
            .context(&context)
            .suite(Suite::ChaCha20Poly1305)
            .chunk_size(ChunkSize::LEAST);
        let large = seal(&payload, &sealing, &mut rng).expect("a blob");
        let header = br#"{"original_filename":"a","timestamp":1,"version":1,"total_size":13}"#;
        let mut aegis = Vec::new();
        for part in [header.as_slice(), SMALL] {
            let blob = raw12::seal(&key, part, &mut rng);
            let length = u32::try_from(blob.len()).expect("a short one");
            aegis.extend_from_slice(&length.to_le_bytes());
            aegis.extend_from_slice(&blob);
        }
        // Costs that a fuzzer can wait for.
        let unlock = Unlock::new()
            .private_key("r1", recipient)
            .passphrase("correct horse")
            .limits(PassphraseLimits::new(64, 3, 2))
            .direct("k1", key.clone());
        let lumera = lumera::seal(&key, "k", SMALL, &mut rng);
        Vault {
            key,
            unlock,
            context,
            small,
            large,
            lumera,
            aegis,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turned_bit_closes_a_blob_a_stream_and_what_is_older() {
        let vault = vault();
        let turn = |bit: usize| {
            let mut turn = vec![0; bit / 8 + 1];
            turn[bit / 8] = 1 << (bit % 8);
            turn
        };
        for body in [vault_open, vault_legacy] {
            body(&[]);
            for bit in 0..vault.small.len() * 8 {
                body(&turn(bit));
            }
        }
        for bit in (0..vault.large.len() * 8).step_by(997) {
            vault_stream(&[&[200, 0], turn(bit).as_slice()].concat());
        }
        for cut in 0..=255 {
            vault_stream(&[cut, cut]);
        }
    }
}
