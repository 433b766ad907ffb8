//! Names and versions of keys.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::SourceError;

/// The name of a key: 1 to 64 bytes of `A-Z a-z 0-9 . _ : -`, the first of them a letter or a digit.
///
/// So a name is the same in a file name, in an environment variable and in the path of a URL, and leads nowhere else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The most bytes that a name has.
    pub const MAX: usize = 64;

    /// Takes a name.
    ///
    /// # Errors
    ///
    /// [`SourceError::BadId`] if it is none.
    pub fn new(name: &str) -> Result<Self, SourceError> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._:-".contains(&c);
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && name.len() <= Self::MAX && name.bytes().all(plain) {
            Ok(Self(name.to_owned()))
        } else {
            Err(SourceError::BadId)
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = SourceError;

    fn from_str(name: &str) -> Result<Self, SourceError> {
        Self::new(name)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({:?})", self.0)
    }
}

/// The number of a version of a key, from 1. A number is never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(NonZeroU32);

impl KeyVersion {
    /// The first version.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// From a number; `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyVersion({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_but_to_its_key() {
        for name in [
            "a",
            "main",
            "env:LUMERA_MEMORY_KEY",
            "2026-01.b",
            &"x".repeat(64),
        ] {
            assert_eq!(KeyId::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "../main",
            "a/b",
            "a\\b",
            "a b",
            "a%2fb",
            "a?version=1",
            "a\0",
            "a\n",
            "-a",
            "_a",
            "schlüssel",
            &"x".repeat(65),
        ] {
            assert!(
                matches!(KeyId::new(name), Err(SourceError::BadId)),
                "{name:?}"
            );
        }
    }

    #[test]
    fn versions_begin_with_one() {
        assert_eq!(KeyVersion::new(0), None);
        assert_eq!(KeyVersion::new(1), Some(KeyVersion::FIRST));
    }
}
