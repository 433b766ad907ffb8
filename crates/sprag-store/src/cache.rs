//! Rows that were read lately, opened.
//!
//! A step of a session reads the same few rows as the step before it. Each would cost a lookup in the database, a key
//! derivation and a decryption, and when it is written a second lookup and a hash over what it held, for the digest.
//!
//! Whoever reads this memory reads the store's keys beside it. A row that is written or deleted is wiped here.

use std::collections::HashMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::blind::Inner;
use crate::sealed::Sum;

/// Bytes of names and values kept at most. Beyond it the cache starts anew.
const MAX_BYTES: usize = 1 << 20;

/// What is known of a row.
pub(crate) struct Known {
    pub(crate) inner: Option<Inner>,
    pub(crate) value: Zeroizing<Vec<u8>>,
    pub(crate) mark: Sum,
}

/// Rows by their physical names. It holds only rows that are there, as they were submitted last.
#[derive(Default)]
pub(crate) struct Cache {
    rows: HashMap<Vec<u8>, Known>,
    bytes: usize,
    /// Counts submissions.
    submissions: u64,
}

impl Cache {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Known> {
        self.rows.get(key)
    }

    /// To be asked for before a row is read from the backend, and given back with what was read.
    pub(crate) fn submissions(&self) -> u64 {
        self.submissions
    }

    /// Keeps a row that was read, unless something was submitted meanwhile: then it may be outdated.
    pub(crate) fn keep(&mut self, submissions: u64, key: Vec<u8>, known: Known) {
        if submissions != self.submissions {
            return;
        }
        let size = size(&key, &known.value);
        if self.bytes.saturating_add(size) > MAX_BYTES {
            self.clear();
        }
        self.drop_row(&key);
        self.bytes = self.bytes.saturating_add(size);
        self.rows.insert(key, known);
    }

    /// To be called for all rows of a batch once the backend has it. Rows that nobody read are not taken in: most of them
    /// are written once.
    pub(crate) fn submitted<'v>(
        &mut self,
        rows: impl Iterator<Item = (&'v [u8], Option<(&'v [u8], Sum)>)>,
    ) {
        self.submissions = self.submissions.wrapping_add(1);
        for (key, written) in rows {
            match (self.rows.get_mut(key), written) {
                (Some(known), Some((value, mark))) => {
                    let before = known.value.len();
                    known.value = Zeroizing::new(value.to_vec());
                    known.mark = mark;
                    self.bytes = self
                        .bytes
                        .saturating_sub(before)
                        .saturating_add(value.len());
                }
                (Some(_), None) => self.drop_row(key),
                (None, _) => {}
            }
        }
    }

    /// Wipes everything, and takes in nothing that is being read now.
    pub(crate) fn close(&mut self) {
        self.submissions = self.submissions.wrapping_add(1);
        self.clear();
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }

    fn drop_row(&mut self, key: &[u8]) {
        if let Some(known) = self.rows.remove(key) {
            self.bytes = self.bytes.saturating_sub(size(key, &known.value));
        }
    }
}

fn size(key: &[u8], value: &[u8]) -> usize {
    key.len().saturating_add(value.len())
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &[u8]) -> Known {
        Known {
            inner: None,
            value: Zeroizing::new(value.to_vec()),
            mark: Sum::default(),
        }
    }

    fn value(cache: &Cache, key: &[u8]) -> Option<Vec<u8>> {
        cache.get(key).map(|known| known.value.to_vec())
    }

    #[test]
    fn what_was_read_before_a_submission_is_not_kept_after_it() {
        let mut cache = Cache::default();
        let before = cache.submissions();
        cache.submitted([(&b"other"[..], None)].into_iter());
        cache.keep(before, b"row".to_vec(), row(b"old"));
        assert_eq!(value(&cache, b"row"), None);
        cache.keep(cache.submissions(), b"row".to_vec(), row(b"new"));
        assert_eq!(value(&cache, b"row").unwrap(), b"new");
    }

    #[test]
    fn rows_follow_what_is_written_and_go_with_what_is_deleted() {
        let mut cache = Cache::default();
        cache.keep(0, b"row".to_vec(), row(b"1"));
        let written = Some((&b"two"[..], Sum::default()));
        cache.submitted([(&b"row"[..], written), (b"unread", written)].into_iter());
        assert_eq!(value(&cache, b"row").unwrap(), b"two");
        assert_eq!(value(&cache, b"unread"), None);
        assert_eq!(cache.bytes, 6);
        cache.submitted([(&b"row"[..], None), (b"unread", None)].into_iter());
        assert_eq!((value(&cache, b"row"), cache.bytes), (None, 0));
    }

    #[test]
    fn it_never_grows_beyond_its_limit() {
        let mut cache = Cache::default();
        for number in 0..1_000_u32 {
            cache.keep(0, number.to_be_bytes().to_vec(), row(&[0; 3_900]));
            assert!(cache.bytes <= MAX_BYTES && !cache.rows.is_empty());
        }
    }
}
