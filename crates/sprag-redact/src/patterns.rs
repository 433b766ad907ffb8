//! The default redactor: goes through a text once, and asks at each place what begins there.

use std::borrow::Cow;
use std::fmt;

use crate::kind::COUNT;
use crate::redactor::whole;
use crate::text::{Found, Text, is_word};
use crate::{
    Counts, Kind, Redacted, Redactor, cards, headers, mail, names, net, phones, private_keys,
    tokens,
};

/// A replacement can make a boundary where there was none, so what remains is looked through again. It was never seen to
/// find anything a third time.
const PASSES: usize = 4;

/// Finds what has one of the usual forms. All kinds are on at first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Patterns {
    on: [bool; COUNT],
}

impl Patterns {
    /// Looks for all kinds.
    #[must_use]
    pub fn new() -> Self {
        Self { on: [true; COUNT] }
    }

    /// Looks for these kinds only.
    #[must_use]
    pub fn only(kinds: &[Kind]) -> Self {
        Self {
            on: Kind::ALL.map(|kind| kinds.contains(&kind)),
        }
    }

    /// Leaves a kind alone.
    #[must_use]
    pub fn without(mut self, kind: Kind) -> Self {
        if let Some(on) = self.on.get_mut(kind as usize) {
            *on = false;
        }
        self
    }

    /// Whether a kind is looked for.
    #[must_use]
    pub fn looks_for(&self, kind: Kind) -> bool {
        self.on.get(kind as usize).copied().unwrap_or(false)
    }

    /// What begins at a place, if anything. Names stand before their values, so they have a say first.
    fn find(&self, text: &Text<'_>, place: usize) -> Option<Found> {
        let wanted = |found: &Found| self.looks_for(found.kind);
        let byte = text.at(place);
        let first = match byte {
            b'-' => private_keys::block(text, place).or_else(|| names::flag(text, place)),
            b':' => names::separator(text, place)
                .filter(wanted)
                .or_else(|| headers::password_in_url(text, place)),
            b'=' => names::separator(text, place),
            b' ' => names::verb(text, place),
            b'+' | b'(' => phones::find(text, place),
            _ => None,
        };
        if let Some(found) = first.filter(wanted) {
            return Some(found);
        }
        if byte < 0x21 {
            return None;
        }
        let address = mail::find(text, place).filter(wanted);
        if address.is_some() || is_word(text.before(place)) {
            return address;
        }
        let matchers = [
            headers::find,
            tokens::find,
            private_keys::lines,
            cards::find,
            net::find,
            phones::find,
        ];
        let begins_here = byte.is_ascii_alphanumeric() || byte == b':';
        let mut matchers = matchers.iter().take(if begins_here { 6 } else { 0 });
        matchers.find_map(|find| find(text, place).filter(wanted))
    }

    /// The text with what was found replaced, or nothing if nothing was.
    fn pass(&self, text: &str, counts: &mut Counts) -> Option<String> {
        let mut view = Text::new(text);
        let mut result = String::new();
        // What stands before has been copied.
        let mut copied = 0;
        let mut place = 0;
        while place < text.len() {
            if let Some(end) = marker(&view, place) {
                place = end;
                view.barrier = end;
            } else if let Some(found) = self.find(&view, place) {
                result.push_str(text.get(copied..found.start).unwrap_or(""));
                result.push_str(found.kind.marker());
                counts.add(found.kind);
                place = found.end.max(place + 1);
                copied = place;
                view.barrier = place;
            } else {
                place += 1;
            }
        }
        if copied == 0 && result.is_empty() {
            return None;
        }
        result.push_str(text.get(copied..).unwrap_or(""));
        Some(result)
    }
}

/// The end of a marker that begins there.
fn marker(text: &Text<'_>, place: usize) -> Option<usize> {
    if text.at(place) != b'[' {
        return None;
    }
    let marker = Kind::ALL.map(Kind::marker);
    let marker = marker
        .iter()
        .find(|marker| text.starts_with(place, marker))?;
    Some(place + marker.len())
}

impl Default for Patterns {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = Kind::ALL.into_iter().filter(|kind| self.looks_for(*kind));
        f.write_str("Patterns ")?;
        f.debug_set().entries(on).finish()
    }
}

impl Redactor for Patterns {
    fn redact(&self, text: &str) -> Redacted {
        let mut counts = Counts::default();
        let mut text = Cow::Borrowed(text);
        for _ in 0..PASSES {
            match self.pass(&text, &mut counts) {
                Some(next) => text = Cow::Owned(next),
                None => break,
            }
        }
        Redacted::new(text.into_owned(), counts)
    }

    fn redact_field(&self, name: &str, text: &str) -> Redacted {
        match names::field(name, text) {
            Some(kind) if self.looks_for(kind) => whole(kind),
            _ => self.redact(text),
        }
    }
}

#[cfg(test)]
mod tests;
