//! A text as the matchers see it: bytes with sentinels, and what was found last.

use std::cell::Cell;

use crate::Kind;

/// What is to be replaced: `start..end`, at character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Found {
    pub(crate) fn new(kind: Kind, start: usize, end: usize) -> Self {
        Self { kind, start, end }
    }
}

/// A text that is gone through from left to right. Matchers look back and ahead by bounded numbers of bytes, or by runs that are
/// remembered here, so that the whole is linear.
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    /// Where what was found last ended: the next byte has a marker before it.
    pub(crate) barrier: usize,
    /// Where the run of base64url around the place ends, and whether a JSON Web Token goes on behind it, to where.
    pub(crate) run: Cell<usize>,
    pub(crate) jwt_tail: Cell<(usize, Option<usize>)>,
    /// Where the run that can be the local part of an address ends, and the address that it is of, if of any.
    pub(crate) mail: Cell<(usize, Option<usize>)>,
    /// The next `-----BEGIN` and `-----END` behind a place.
    pub(crate) begin: Cell<Next>,
    pub(crate) end: Cell<Next>,
}

/// A place that was searched for from another one; all between are without.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    from: usize,
    at: Option<usize>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let never = Cell::new(Next {
            from: 1,
            at: Some(0),
        });
        Self {
            text,
            barrier: usize::MAX,
            run: Cell::new(0),
            jwt_tail: Cell::new((usize::MAX, None)),
            mail: Cell::new((0, None)),
            begin: never.clone(),
            end: never,
        }
    }

    /// The byte there; NUL behind the end.
    pub(crate) fn at(&self, place: usize) -> u8 {
        #[cfg(test)]
        count(1);
        self.text.as_bytes().get(place).copied().unwrap_or(0)
    }

    /// The byte before; NUL at the beginning, `]` behind what was found.
    pub(crate) fn before(&self, place: usize) -> u8 {
        if place == self.barrier {
            return b']';
        }
        place.checked_sub(1).map_or(0, |before| self.at(before))
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end.min(self.text.len())).unwrap_or("")
    }

    /// As `slice`, without the character that the end cuts.
    pub(crate) fn clipped(&self, start: usize, mut end: usize) -> &'a str {
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.slice(start, end)
    }

    pub(crate) fn starts_with(&self, place: usize, prefix: &str) -> bool {
        let bytes = self.text.as_bytes().get(place..);
        bytes.is_some_and(|bytes| bytes.starts_with(prefix.as_bytes()))
    }

    /// As `starts_with`, of ASCII in any case.
    pub(crate) fn starts_with_any_case(&self, place: usize, prefix: &str) -> bool {
        let bytes = self.text.as_bytes().get(place..place + prefix.len());
        bytes.is_some_and(|bytes| bytes.eq_ignore_ascii_case(prefix.as_bytes()))
    }

    /// The end of the run of such bytes.
    pub(crate) fn run_of(&self, place: usize, of: impl Fn(u8) -> bool) -> usize {
        let mut end = place;
        while end < self.text.len() && of(self.at(end)) {
            end += 1;
        }
        end
    }

    /// As `run_of`, of at most so many bytes.
    pub(crate) fn short_run_of(&self, place: usize, most: usize, of: impl Fn(u8) -> bool) -> usize {
        let mut end = place;
        while end < self.text.len() && end - place < most && of(self.at(end)) {
            end += 1;
        }
        end
    }

    /// Up to so many bytes before the place, from a character boundary and behind what was found.
    pub(crate) fn back(&self, place: usize, most: usize) -> &'a str {
        #[cfg(test)]
        count(most);
        let mut start = place.saturating_sub(most);
        if self.barrier <= place {
            start = start.max(self.barrier);
        }
        while !self.text.is_char_boundary(start) {
            start += 1;
        }
        self.slice(start, place)
    }

    /// The next place of `needle`, from `place` on. Asked for ascending places.
    pub(crate) fn next(&self, memory: &Cell<Next>, place: usize, needle: &str) -> Option<usize> {
        let known = memory.get();
        if known.from <= place && known.at.is_none_or(|at| place <= at) {
            return known.at;
        }
        let rest = self.text.get(place..).unwrap_or("");
        let at = rest.find(needle).map(|at| place + at);
        #[cfg(test)]
        count(at.unwrap_or(self.text.len()) - place);
        memory.set(Next { from: place, at });
        at
    }
}

#[cfg(test)]
thread_local!(static STEPS: Cell<usize> = const { Cell::new(0) });

/// How many bytes were looked at.
#[cfg(test)]
pub(crate) fn steps() -> usize {
    STEPS.get()
}

#[cfg(test)]
fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// A letter or digit of ASCII, or `_`: what words and identifiers are made of.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(crate) fn is_base64url(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

pub(crate) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
