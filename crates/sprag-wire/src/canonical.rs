//! Strict decoding ("The protocol", §2.2): the bytes are the one canonical encoding, or nothing.

use prost::Message;

use crate::DecodeError;

/// Decodes a message whose encoding gives the input back.
///
/// prost writes known fields only, ascending, with shortest varints and without defaults: whatever else a proto3 parser
/// accepts differs from that.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    let message = M::decode(bytes).map_err(|_| DecodeError::Malformed)?;
    if message.encode_to_vec() == bytes {
        Ok(message)
    } else {
        Err(DecodeError::Malformed)
    }
}

/// Tags of the first three fields of bytes.
pub(crate) const FIELD_1: u8 = 1 << 3 | 2;
pub(crate) const FIELD_2: u8 = 2 << 3 | 2;
pub(crate) const FIELD_3: u8 = 3 << 3 | 2;

/// An array of exactly `N` bytes.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Malformed)
}

/// Takes a non-empty field of bytes with a one-byte tag off the front, canonical by construction.
pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8], tag: u8) -> Result<&'a [u8], DecodeError> {
    let (first, mut tail) = rest.split_first().ok_or(DecodeError::Malformed)?;
    if *first != tag {
        return Err(DecodeError::Malformed);
    }
    let length = take_length(&mut tail)?;
    let (field, tail) = tail
        .split_at_checked(length)
        .ok_or(DecodeError::Malformed)?;
    if field.is_empty() {
        return Err(DecodeError::Malformed);
    }
    *rest = tail;
    Ok(field)
}

/// A shortest varint below 2^28.
fn take_length(rest: &mut &[u8]) -> Result<usize, DecodeError> {
    let mut length = 0usize;
    for shift in [0, 7, 14, 21] {
        let (byte, tail) = rest.split_first().ok_or(DecodeError::Malformed)?;
        *rest = tail;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let shortest = *byte != 0 || shift == 0;
            return if shortest {
                Ok(length)
            } else {
                Err(DecodeError::Malformed)
            };
        }
    }
    Err(DecodeError::Malformed)
}

/// Bytes that a field of `length` bytes takes, with a tag of one byte.
pub(crate) fn field_size(length: usize) -> usize {
    length
        .saturating_add(prost::length_delimiter_len(length))
        .saturating_add(1)
}

/// Writes a field of bytes.
pub(crate) fn put_bytes(to: &mut Vec<u8>, tag: u8, field: &[u8]) {
    to.push(tag);
    put_length(to, field.len());
    to.extend_from_slice(field);
}

/// Writes a length.
pub(crate) fn put_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "seven bits and the continuation bit"
        )]
        to.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    to.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let field = take_bytes(&mut bytes, FIELD_1).ok()?.to_vec();
        Some((field, bytes.len()))
    }

    #[test]
    fn a_written_field_is_taken_off_the_front_at_every_width_of_length() {
        for length in [1, 127, 128, 16_383, 16_384, 1 << 20] {
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, FIELD_1, &vec![7; length]);
            assert_eq!(bytes.len(), field_size(length));
            bytes.push(9);
            assert_eq!(take(&bytes), Some((vec![7; length], 1)));
        }
    }

    #[test]
    fn fields_that_are_not_canonical_are_refused() {
        for bytes in [
            [].as_slice(),
            &[FIELD_1],
            &[FIELD_2, 1, 7],                         // another field
            &[FIELD_1, 0],                            // the default, written
            &[FIELD_1, 2, 7],                         // cut short
            &[FIELD_1, 0x81, 0, 7],                   // a longer varint than needed
            &[FIELD_1, 0x80],                         // a length without end
            &[FIELD_1, 0xff, 0xff, 0xff, 0xff, 1, 7], // a length beyond any frame
            &[FIELD_1 | 0x80, 0, 1, 7],               // a longer tag than needed
        ] {
            assert_eq!(take(bytes), None, "{bytes:?}");
        }
    }
}
