//! The payload, chunk by chunk (`docs/VAULT.md`, *Chunks*). What may be released is decided here and nowhere else.

use sprag_crypto::{ChunkKey, NONCE};
use zeroize::Zeroize;

use crate::header::{Core, TAG};
use crate::key::HeaderKey;
use crate::{Context, DataKey, OpenError, SealError};

/// Chunks that a blob may have.
pub(crate) const MAX_CHUNKS: u64 = 1 << 32;

/// The keys of one payload.
pub(crate) struct Body {
    key: ChunkKey,
    ad: [u8; 32],
    chunk: usize,
}

/// What follows a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The chunk is full, and there is at least a byte behind it.
    More,
    /// The input ends.
    End,
}

impl Body {
    pub(crate) fn new(core: &Core, key: &DataKey, header: &HeaderKey, context: &Context) -> Self {
        Self {
            key: key.chunk_key(&core.salt, core.suite),
            ad: header.body_ad(&core.encode(), context),
            chunk: core.chunk_size.bytes(),
        }
    }

    /// Bytes of payload in a full chunk.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Bytes of a full chunk with its tag.
    pub(crate) fn sealed_chunk(&self) -> usize {
        self.chunk.saturating_add(TAG)
    }

    /// Encrypts a chunk in place and gives its tag. Only a last one may be shorter than full, or empty if it is the only one.
    pub(crate) fn seal(
        &self,
        index: u64,
        last: bool,
        text: &mut [u8],
    ) -> Result<[u8; TAG], SealError> {
        if index >= MAX_CHUNKS {
            return Err(SealError::TooLong);
        }
        Ok(self.key.seal(&nonce(index, last), &self.ad, text))
    }

    /// Opens `ciphertext ‖ tag` in place and gives the length of the text, which may be released. On an error nothing may, and
    /// nothing is left: what opened on the way to it is wiped.
    pub(crate) fn open(
        &self,
        index: u64,
        sealed: &mut [u8],
        follows: Follows,
    ) -> Result<usize, OpenError> {
        let judged = self.judge(index, sealed, follows);
        if judged.is_err() {
            sealed.zeroize();
        }
        judged
    }

    fn judge(&self, index: u64, sealed: &mut [u8], follows: Follows) -> Result<usize, OpenError> {
        if index >= MAX_CHUNKS {
            return Err(OpenError::Damaged);
        }
        let (text, tag) = sealed
            .split_last_chunk_mut::<TAG>()
            .ok_or(OpenError::Truncated)?;
        // A chunk that does not open is left as it was, so that it can be tried with the other flag.
        let mut opens = |last| {
            let nonce = nonce(index, last);
            self.key.open(&nonce, &self.ad, text, tag).is_ok()
        };
        match follows {
            Follows::More if opens(false) => Ok(text.len()),
            Follows::More if opens(true) => Err(OpenError::Trailing),
            Follows::End if opens(true) => {
                if text.is_empty() && index != 0 {
                    Err(OpenError::Damaged)
                } else {
                    Ok(text.len())
                }
            }
            Follows::End if opens(false) => Err(OpenError::Truncated),
            _ => Err(OpenError::Damaged),
        }
    }
}

/// The index as 11 bytes, then whether it is the last.
fn nonce(index: u64, last: bool) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    let index = index.to_be_bytes();
    let bytes = [0; 3]
        .iter()
        .chain(&index)
        .chain(if last { &[1] } else { &[0] });
    nonce
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkSize, Suite};

    fn body() -> Body {
        let key = DataKey::from_bytes(&[2; 32]);
        let core = Core::new(Suite::Aes256Gcm, ChunkSize::LEAST, false, [3; 32], [4; 32]);
        let header = key.header_key(&core.salt, core.suite);
        Body::new(&core, &key, &header, &Context::none())
    }

    #[test]
    fn nonces_are_the_index_and_the_flag() {
        assert_eq!(nonce(0, false), [0; 12]);
        assert_eq!(nonce(1, true), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(
            nonce(0x0102_0304_0506_0708, false),
            [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0]
        );
    }

    #[test]
    fn there_are_2_to_the_32_chunks_and_no_more() {
        let body = body();
        let mut text = vec![9; 20];
        let tag = body.seal(MAX_CHUNKS - 1, true, &mut text).unwrap();
        text.extend_from_slice(&tag);
        assert_eq!(
            body.seal(MAX_CHUNKS, true, &mut [9; 20]),
            Err(SealError::TooLong)
        );
        assert_eq!(
            body.open(MAX_CHUNKS, &mut text.clone(), Follows::End),
            Err(OpenError::Damaged)
        );
        assert_eq!(body.open(MAX_CHUNKS - 1, &mut text, Follows::End), Ok(20));
        assert_eq!(text[..20], [9; 20]);
    }

    #[test]
    fn whatever_opens_on_the_way_to_an_error_is_wiped() {
        let body = body();
        let sealed = |last| {
            let mut text = vec![9; 4096];
            let tag = body.seal(0, last, &mut text).unwrap();
            [text, tag.to_vec()].concat()
        };
        for (last, follows, error) in [
            (true, Follows::More, OpenError::Trailing),
            (false, Follows::End, OpenError::Truncated),
        ] {
            let mut chunk = sealed(last);
            assert_eq!(body.open(0, &mut chunk, follows), Err(error));
            assert_eq!(chunk, [0; 4112]);
        }
        let mut empty = body.seal(1, true, &mut []).unwrap();
        assert_eq!(
            body.open(1, &mut empty, Follows::End),
            Err(OpenError::Damaged)
        );
    }
}
