//! A generator that draws what a vector says, in its order.

use std::collections::VecDeque;
use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// Gives back the draws of one step. A draw of another length, or one too many, is remembered as a mistake: a generator
/// cannot fail.
#[derive(Debug, Default)]
pub struct ReplayRng {
    draws: VecDeque<(String, Vec<u8>)>,
    mistake: Option<String>,
}

impl ReplayRng {
    /// The draws of a step, as kind and bytes.
    pub fn new(draws: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self {
            draws: draws.into_iter().collect(),
            mistake: None,
        }
    }

    /// What did not go as the vector says, the draws left over included.
    pub fn finish(self) -> Result<(), String> {
        match (self.mistake, self.draws.front()) {
            (Some(mistake), _) => Err(mistake),
            (None, Some((kind, _))) => Err(format!("{kind} was not drawn")),
            (None, None) => Ok(()),
        }
    }
}

impl TryRng for ReplayRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        match self.draws.pop_front() {
            Some((_, bytes)) if bytes.len() == out.len() => out.copy_from_slice(&bytes),
            Some((kind, bytes)) => {
                let lengths = (bytes.len(), out.len());
                self.mistake.get_or_insert(format!(
                    "{kind}: {} bytes given, {} drawn",
                    lengths.0, lengths.1
                ));
            }
            None => {
                self.mistake
                    .get_or_insert(format!("{} bytes drawn beyond the vector", out.len()));
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for ReplayRng {}

/// Draws from another generator and keeps what it drew, for making vectors.
#[derive(Debug)]
pub struct RecordingRng<R> {
    rng: R,
    draws: Vec<Vec<u8>>,
}

impl<R> RecordingRng<R> {
    /// Records the draws from `rng`.
    pub fn new(rng: R) -> Self {
        Self {
            rng,
            draws: Vec::new(),
        }
    }

    /// The draws since the last call.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.draws)
    }
}

impl<R: TryRng<Error = Infallible>> TryRng for RecordingRng<R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.rng.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.rng.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.rng.try_fill_bytes(out)?;
        self.draws.push(out.to_vec());
        Ok(())
    }
}

impl<R: TryCryptoRng<Error = Infallible>> TryCryptoRng for RecordingRng<R> {}
