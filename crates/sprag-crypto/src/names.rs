//! Public names and flags of the protocol that enter derivations.

use std::fmt;
use std::ops::{BitAnd, BitOr};

use crate::kdf::sha256;

macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, ")")
            }
        }
    };
}

bytes_newtype!(
    /// `SID`, 16 bytes: names a session ("The protocol", §3).
    SessionId,
    16
);
bytes_newtype!(
    /// `TH`, 32 bytes: hash of the transcript, a session's associated data ("The protocol", §3).
    TranscriptHash,
    32
);
bytes_newtype!(
    /// 16 random bytes, drawn for each message; they name its frame ("The protocol", §4.3 and §2.3).
    Salt,
    16
);

impl SessionId {
    /// The id of the session that the encoded handshake `h` begins: `SHA-256(H)[0..16]`.
    #[must_use]
    pub fn of_handshake(h: &[u8]) -> Self {
        let hash = sha256(&[h]);
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

/// How a handshake is made ("The protocol", §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Mode {
    /// X25519 and ML-KEM-1024: the default.
    Pqxdh = 1,
    /// X25519 alone: only where both sides ask for it.
    X3dh = 2,
}

/// Feature bits, announced by each side and never chosen ("The protocol", §1.1). Unknown bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u32);

impl Features {
    /// No feature.
    pub const NONE: Self = Self(0);
    /// Bit 0: speaks the post-quantum ratchet.
    pub const PQ_RATCHET: Self = Self(1);
    /// Bit 1: as responder accepts handshakes of mode 2.
    pub const ACCEPTS_X3DH: Self = Self(1 << 1);
    /// Bit 2: reserved for the next version.
    pub const SPRAG_2: Self = Self(1 << 2);

    /// From the 32 bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The 32 bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_is_the_first_half_of_the_hash() {
        let id = SessionId::of_handshake(b"abc");
        assert_eq!(
            format!("{id:?}"),
            "SessionId(ba7816bf8f01cfea414140de5dae2223)"
        );
        assert_ne!(id, SessionId::of_handshake(b"abd"));
    }

    #[test]
    fn features_in_force_are_those_of_both_and_unknown_bits_are_kept() {
        let ours = Features::PQ_RATCHET | Features::ACCEPTS_X3DH | Features::from_bits(1 << 31);
        let theirs = Features::ACCEPTS_X3DH | Features::SPRAG_2;
        assert_eq!(ours & theirs, Features::ACCEPTS_X3DH);
        assert_eq!(ours.bits(), 0x8000_0003);
        assert!(ours.contains(Features::PQ_RATCHET) && ours.contains(Features::NONE));
        assert!(!theirs.contains(Features::PQ_RATCHET));
        assert!(!theirs.contains(ours));
    }

    #[test]
    fn modes_have_their_numbers() {
        assert_eq!((Mode::Pqxdh as u8, Mode::X3dh as u8), (1, 2));
    }
}
