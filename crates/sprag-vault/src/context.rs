//! What a caller ties a blob to (`docs/VAULT.md`, *Context*).

use std::fmt;

use crate::ContextError;

/// What a blob belongs to: authenticated, never stored in it. Who opens it must name the same, so that a server cannot hand
/// out one record in place of another.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Context(Vec<u8>);

impl fmt::Debug for Context {
    /// Names of users and records are nothing for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} bytes)", self.0.len())
    }
}

/// Name and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

impl Context {
    /// No context. Such a blob can be passed off as any other one under the same key.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Bytes as they are.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The recommended encoding: pairs sorted by the bytes of their names, each `u16 length ‖ name ‖ u32 length ‖ value`. The
    /// order in which they are given does not matter.
    ///
    /// # Errors
    /// [`ContextError::Repeated`], [`ContextError::TooLong`]
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, ContextError>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by(|(one, _), (other, _)| one.as_ref().cmp(other.as_ref()));
        let mut bytes = Vec::new();
        let mut before: Option<&[u8]> = None;
        for (name, value) in &pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            if before == Some(name) {
                return Err(ContextError::Repeated);
            }
            before = Some(name);
            let name_length = u16::try_from(name.len()).map_err(|_| ContextError::TooLong)?;
            let value_length = u32::try_from(value.len()).map_err(|_| ContextError::TooLong)?;
            bytes.extend_from_slice(&name_length.to_be_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&value_length.to_be_bytes());
            bytes.extend_from_slice(value);
        }
        Ok(Self(bytes))
    }

    /// The pairs, if these bytes are some in the encoding of [`from_pairs`](Self::from_pairs).
    ///
    /// # Errors
    /// [`ContextError::NotPairs`]: other bytes, or pairs that are repeated or not sorted.
    pub fn pairs(&self) -> Result<Vec<Pair<'_>>, ContextError> {
        let mut rest = self.0.as_slice();
        let mut pairs: Vec<Pair<'_>> = Vec::new();
        while !rest.is_empty() {
            let (pair, after) = pair(rest).ok_or(ContextError::NotPairs)?;
            if pairs.last().is_some_and(|before| before.0 >= pair.0) {
                return Err(ContextError::NotPairs);
            }
            pairs.push(pair);
            rest = after;
        }
        Ok(pairs)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `u64 length ‖ context bytes`, as it enters the MACs.
    pub(crate) fn parts(&self) -> ([u8; 8], &[u8]) {
        let length = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        (length.to_be_bytes(), &self.0)
    }
}

fn pair(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (value, rest) = rest.split_at_checked(length)?;
    Some(((name, value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_read_back() {
        let given = [("user", "b"), ("kind", "memory"), ("tenant", "a")];
        let context = Context::from_pairs(given).unwrap();
        let mut turned = given;
        turned.reverse();
        assert_eq!(context, Context::from_pairs(turned).unwrap());
        let names: Vec<_> = context.pairs().unwrap().iter().map(|pair| pair.0).collect();
        assert_eq!(names, [b"kind".as_slice(), b"tenant", b"user"]);
        assert_eq!(context.pairs().unwrap()[0].1, b"memory");
        assert!(Context::none().pairs().unwrap().is_empty());
    }

    #[test]
    fn what_stands_in_a_value_is_never_taken_for_another_pair() {
        let one = Context::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        for other in [
            Context::from_pairs([("a", "1b2")]).unwrap(),
            Context::from_pairs([("a1", ""), ("b", "2")]).unwrap(),
            Context::from_pairs([("a", "1"), ("b", "2"), ("c", "")]).unwrap(),
            Context::none(),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn repeated_and_overlong_names_are_refused() {
        assert_eq!(
            Context::from_pairs([("a", "1"), ("b", ""), ("a", "2")]),
            Err(ContextError::Repeated)
        );
        assert_eq!(
            Context::from_pairs([("a".repeat(65_536), "")]),
            Err(ContextError::TooLong)
        );
        assert!(Context::from_pairs([("a".repeat(65_535), "")]).is_ok());
    }

    #[test]
    fn other_bytes_are_no_pairs() {
        let good = Context::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        let bytes = good.as_bytes();
        for cut in [1, bytes.len() - 1, 9] {
            assert_eq!(
                Context::from_bytes(&bytes[..cut]).pairs(),
                Err(ContextError::NotPairs)
            );
        }
        let (first, second) = bytes.split_at(8);
        for wrong in [[second, first].concat(), [first, first].concat()] {
            assert_eq!(
                Context::from_bytes(wrong).pairs(),
                Err(ContextError::NotPairs)
            );
        }
    }
}
