//! What the tests share: the published vectors, a generator that replays, a key service.

mod promises;
mod vectors;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Mutex;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{DataKey, Kms, KmsError, OpenError, Opener};

pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

pub(crate) fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/vault.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn hex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

pub(crate) fn bytes32(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}

/// Byte i is i mod 251, as in the vectors.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Gives these bytes and no others; whoever draws more panics.
pub(crate) struct Replay(pub(crate) Vec<u8>);

impl TryRng for Replay {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("only bytes are drawn")
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("only bytes are drawn")
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Replay {}

/// `iv 12 ‖ AES-256-GCM(kek, iv, data key)`, or down if there is no kek; remembers what it was asked.
pub(crate) struct TestKms<'a> {
    pub(crate) kek: Option<[u8; 32]>,
    pub(crate) iv: [u8; 12],
    pub(crate) asked: &'a Mutex<Vec<String>>,
}

impl Kms for TestKms<'_> {
    fn wrap_key(&self, _: &[u8], key: &DataKey) -> Result<Vec<u8>, KmsError> {
        let kek = self.kek.ok_or(KmsError::Unreachable)?;
        let mut wrapped = self.iv.to_vec();
        wrapped.extend_from_slice(key.as_bytes());
        sprag_crypto::seal_in_place(&kek, &self.iv, b"", &mut wrapped, 12);
        Ok(wrapped)
    }

    fn unwrap_key(&self, id: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        self.asked
            .lock()
            .unwrap()
            .push(String::from_utf8(id.to_vec()).unwrap());
        let kek = self.kek.ok_or(KmsError::Unreachable)?;
        let (iv, sealed) = wrapped.split_first_chunk().ok_or(KmsError::Refused)?;
        sprag_crypto::open(&kek, iv, b"", sealed).map_err(|_| KmsError::Refused)
    }
}

/// Pushes the blob in pieces of this length: what was let out, and how it ended.
pub(crate) fn stream(
    mut opener: Opener<'_>,
    blob: &[u8],
    piece: usize,
) -> (Vec<u8>, Result<(), OpenError>) {
    let mut out = Vec::new();
    for mut input in blob.chunks(piece) {
        loop {
            match opener.push(&mut input) {
                Ok(Some(text)) => out.extend_from_slice(text),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(opener.push(&mut [1; 9].as_slice()).err(), Some(error));
                    assert_eq!(opener.finish().err(), Some(error));
                    return (out, Err(error));
                }
            }
        }
    }
    match opener.finish() {
        Ok(last) => {
            out.extend_from_slice(&last);
            (out, Ok(()))
        }
        Err(error) => (out, Err(error)),
    }
}
