//! What is kept of a vector between two starts (`docs/SEARCH.md`, "Stored form").
//!
//! ```text
//! 1 ‖ u16 n, the dimensions ‖ f32 scale ‖ n codes of one byte, two's complement ‖ n × f32, the vector, or nothing
//! ```
//!
//! Integers and floats are big-endian. The length says whether the vector is there.

use zeroize::Zeroizing;

use crate::SearchError;
use crate::code::{MAX_DIMENSIONS, check_dimensions, is_code, length, quantise};

const VERSION: u8 = 1;
const HEAD: usize = 7;

/// Code and scale of a vector, in 7 + n bytes.
///
/// # Errors
///
/// If the vector has too few or too many dimensions, a number that is not finite, or no direction.
pub fn encode(vector: &[f32]) -> Result<Zeroizing<Vec<u8>>, SearchError> {
    write(vector, false)
}

/// Code and scale of a vector, and the vector itself, in 7 + 5n bytes: for [`decode_vector`], and for an index that keeps
/// vectors.
///
/// # Errors
///
/// If the vector has too few or too many dimensions, a number that is not finite, or no direction.
pub fn encode_with_vector(vector: &[f32]) -> Result<Zeroizing<Vec<u8>>, SearchError> {
    write(vector, true)
}

fn write(vector: &[f32], whole: bool) -> Result<Zeroizing<Vec<u8>>, SearchError> {
    check_dimensions(vector.len())?;
    let dimensions =
        u16::try_from(vector.len()).map_err(|_| SearchError::BadDimensions(vector.len()))?;
    let length = length(vector)?;
    let mut code = Zeroizing::new(vec![0; vector.len()]);
    let scale = quantise(vector, length, &mut code);
    // With room for all of it, so that nothing stays behind where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + 5 * vector.len()));
    bytes.push(VERSION);
    bytes.extend(dimensions.to_be_bytes());
    bytes.extend(scale.to_be_bytes());
    bytes.extend(code.iter().map(|c| c.cast_unsigned()));
    if whole {
        for x in vector {
            bytes.extend(x.to_be_bytes());
        }
    }
    Ok(bytes)
}

/// The vector that a stored form of [`encode_with_vector`] holds; `None` for one of [`encode`].
///
/// # Errors
///
/// [`SearchError::UnknownVersion`] or [`SearchError::Malformed`].
pub fn decode_vector(bytes: &[u8]) -> Result<Option<Vec<f32>>, SearchError> {
    let stored = Stored::parse(bytes)?;
    Ok(stored
        .vector
        .map(|vector| vector.iter().map(number).collect()))
}

/// A stored form in its parts.
pub(crate) struct Stored<'a> {
    pub(crate) scale: f32,
    /// Bytes of codes.
    pub(crate) code: &'a [u8],
    pub(crate) vector: Option<&'a [[u8; 4]]>,
}

impl<'a> Stored<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, SearchError> {
        let (&version, rest) = bytes.split_first().ok_or(SearchError::Malformed)?;
        if version != VERSION {
            return Err(SearchError::UnknownVersion(version));
        }
        let (dimensions, rest) = rest.split_first_chunk().ok_or(SearchError::Malformed)?;
        let dimensions = usize::from(u16::from_be_bytes(*dimensions));
        let (scale, rest) = rest.split_first_chunk().ok_or(SearchError::Malformed)?;
        let scale = f32::from_be_bytes(*scale);
        let (code, rest) = rest
            .split_at_checked(dimensions)
            .filter(|_| (1..=MAX_DIMENSIONS).contains(&dimensions))
            .ok_or(SearchError::Malformed)?;
        let vector = match rest.as_chunks::<4>() {
            ([], []) => None,
            (numbers, []) if numbers.len() == dimensions => Some(numbers),
            _ => return Err(SearchError::Malformed),
        };
        let stored = Self {
            scale,
            code,
            vector,
        };
        stored.check()?;
        Ok(stored)
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.code.len()
    }

    /// Only what [`encode`] or [`encode_with_vector`] would write is read.
    fn check(&self) -> Result<(), SearchError> {
        let mut code = Zeroizing::new(vec![0; self.code.len()]);
        self.copy_code(&mut code);
        let mut sound = is_code(&code, self.scale);
        if let Some(vector) = self.vector.filter(|_| sound) {
            let vector = Zeroizing::new(vector.iter().map(number).collect::<Vec<f32>>());
            let mut again = Zeroizing::new(vec![0; code.len()]);
            let length = length(&vector).map_err(|_| SearchError::Malformed)?;
            let scale = quantise(&vector, length, &mut again);
            sound = *again == *code && scale.to_bits() == self.scale.to_bits();
        }
        if sound {
            Ok(())
        } else {
            Err(SearchError::Malformed)
        }
    }

    pub(crate) fn copy_code(&self, code: &mut [i8]) {
        for (code, byte) in code.iter_mut().zip(self.code) {
            *code = byte.cast_signed();
        }
    }
}

pub(crate) fn number(bytes: &[u8; 4]) -> f32 {
    f32::from_be_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: [f32; 3] = [0.5, -1.0, 0.25];

    #[test]
    fn the_stored_form_is_the_one_of_the_paper() {
        let bytes = encode(&VECTOR).unwrap();
        // 1 / sqrt(0.25 + 1 + 0.0625) / 127
        assert_eq!(bytes[..3], [1, 0, 3]);
        assert_eq!(bytes[3..7], [0x3b, 0xe1, 0x36, 0xf1]);
        assert_eq!(bytes[7..], [64, 129, 32]);
        let whole = encode_with_vector(&VECTOR).unwrap();
        assert_eq!(whole[..10], bytes[..]);
        assert_eq!(whole[10..14], [0x3f, 0, 0, 0]);
        assert_eq!(whole.len(), 7 + 5 * 3);
    }

    #[test]
    fn the_vector_comes_back_bit_for_bit_if_it_was_kept() {
        let whole = encode_with_vector(&VECTOR).unwrap();
        assert_eq!(decode_vector(&whole), Ok(Some(VECTOR.to_vec())));
        assert_eq!(decode_vector(&encode(&VECTOR).unwrap()), Ok(None));
    }

    #[test]
    fn what_was_not_written_so_is_refused() {
        for bytes in [
            encode(&VECTOR).unwrap(),
            encode_with_vector(&VECTOR).unwrap(),
        ] {
            for cut in 0..bytes.len() {
                // Whole forms contain short ones.
                if cut != 10 {
                    assert!(decode_vector(&bytes[..cut]).is_err(), "{cut}");
                }
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode_vector(&longer), Err(SearchError::Malformed));
            let mut other = bytes.to_vec();
            other[0] = 2;
            assert_eq!(decode_vector(&other), Err(SearchError::UnknownVersion(2)));
        }
    }

    #[test]
    fn a_code_that_is_not_the_one_of_its_vector_is_refused() {
        let bytes = encode_with_vector(&VECTOR).unwrap();
        for place in 3..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[place] ^= 1;
            // The last bits of the numbers of the vector are below what code and scale can tell.
            let told = place < 10 || (place - 10) % 4 < 1;
            if told {
                assert_eq!(decode_vector(&bad), Err(SearchError::Malformed), "{place}");
            }
        }
    }

    #[test]
    fn a_vector_without_direction_has_no_stored_form() {
        assert_eq!(encode(&[]).unwrap_err(), SearchError::BadDimensions(0));
        let long = vec![1.0; MAX_DIMENSIONS + 1];
        assert_eq!(encode(&long).unwrap_err(), SearchError::BadDimensions(4097));
        assert_eq!(encode(&[0.0]).unwrap_err(), SearchError::Zero);
        assert_eq!(encode(&[f32::NAN]).unwrap_err(), SearchError::NotFinite);
    }
}
