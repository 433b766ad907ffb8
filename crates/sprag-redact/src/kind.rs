//! What can be found, and how often it was.

use std::fmt;
use std::ops::AddAssign;

/// A kind of what is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A private key.
    PrivateKey,
    /// What an HTTP request proves its sender with.
    AuthHeader,
    /// A token, an API key or a password.
    Token,
    /// The number of a payment card.
    Card,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// An address of the Internet.
    Ip,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; COUNT] = [
        Self::PrivateKey,
        Self::AuthHeader,
        Self::Token,
        Self::Card,
        Self::Email,
        Self::Phone,
        Self::Ip,
    ];

    /// Its name, as it stands in what replaces it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::AuthHeader => "auth-header",
            Self::Token => "token",
            Self::Card => "card",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Ip => "ip",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What replaces it: `[redacted:` with its name and `]`.
    #[must_use]
    pub fn marker(self) -> &'static str {
        match self {
            Self::PrivateKey => "[redacted:private-key]",
            Self::AuthHeader => "[redacted:auth-header]",
            Self::Token => "[redacted:token]",
            Self::Card => "[redacted:card]",
            Self::Email => "[redacted:email]",
            Self::Phone => "[redacted:phone]",
            Self::Ip => "[redacted:ip]",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) const COUNT: usize = 7;

/// How many were replaced, of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; COUNT]);

impl Counts {
    /// Those of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or(0)
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Whether nothing was replaced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Counts one more: for redactors of your own.
    pub fn add(&mut self, kind: Kind) {
        if let Some(count) = self.0.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// The kinds that were found, with how many.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        let counts = Kind::ALL.into_iter().zip(self.0);
        counts.filter(|(_, count)| *count > 0)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_place_name_and_marker() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            assert_eq!(kind.marker(), format!("[redacted:{kind}]"));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("Email"), None);
    }

    #[test]
    fn counts_add_up() {
        let mut counts = Counts::default();
        assert!(counts.is_empty());
        counts.add(Kind::Email);
        counts.add(Kind::Email);
        counts.add(Kind::Ip);
        counts += counts;
        assert_eq!(
            counts.iter().collect::<Vec<_>>(),
            [(Kind::Email, 4), (Kind::Ip, 2)]
        );
        assert_eq!(counts.total(), 6);
    }
}
