//! The mark: a commit that the store surely got to.
//!
//! ```text
//! home/MARK    "SPRAG\0mk"(8) ‖ store id(16) ‖ commit sequence u64 ‖ SHA-256 of all of the above, its first 16 bytes
//! ```
//!
//! It is written, but not synced, after each group of commits that is durable: it never runs ahead of the database, and a
//! database that ends before it has lost its end. A log that was cut, or a page of it that went back to what it was, can
//! open as a state of before, which is whole; without the mark nobody would tell it from the newest. The mark is no
//! secret, and no proof against somebody who changes both.

use std::path::Path;

use sprag_crypto::sha256;

use crate::backend::{BackendError, RowMap};
use crate::commit::Disk;
use crate::rows::Visit;
use crate::sys::{InPlace, lock, read_file};

/// The name of the file.
pub(crate) const MARK: &str = "MARK";

const MAGIC: &[u8; 8] = b"SPRAG\0mk";
const CONTENT: usize = 8 + 16 + 8;
const LEN: usize = CONTENT + 16;

/// The commit that the mark of a store names; `None` if there is none, or it is another store's, or damaged.
pub(crate) fn read(home: &Path, store_id: &[u8; 16]) -> Option<u64> {
    let bytes = read_file(&home.join(MARK), 1 << 10).ok()??;
    let bytes: &[u8; LEN] = bytes.as_slice().try_into().ok()?;
    let (content, check) = bytes.split_first_chunk::<CONTENT>()?;
    let (name, sequence) = content.split_last_chunk::<8>()?;
    let right = sha256(&[content]).starts_with(check);
    let ours = name.strip_prefix(MAGIC)? == store_id;
    (right && ours).then(|| u64::from_be_bytes(*sequence))
}

fn encode(store_id: &[u8; 16], sequence: u64) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], store_id, &sequence.to_be_bytes()].concat();
    let check = sha256(&[&bytes]);
    bytes.extend(check.iter().take(16));
    bytes
}

/// A database whose commits are marked. The mark is a precaution: it fails in silence, as on a full disk.
pub(crate) struct Marked {
    disk: Box<dyn Disk>,
    store_id: [u8; 16],
    file: std::sync::Mutex<(Option<InPlace>, u64)>,
}

impl Marked {
    /// Marks in a directory from the next commit on.
    pub(crate) fn new(disk: Box<dyn Disk>, home: &Path, store_id: [u8; 16]) -> Self {
        let file = InPlace::open(&home.join(MARK)).ok();
        Self {
            disk,
            store_id,
            file: std::sync::Mutex::new((file, 0)),
        }
    }
}

impl Disk for Marked {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.disk.get(key)
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        self.disk.scan(prefix, visit)
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        self.disk.apply(sequence, rows)?;
        lock(&self.file).1 = sequence;
        Ok(())
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.disk.flush()
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.disk.sync()?;
        let marked = lock(&self.file);
        if let (Some(file), sequence) = &*marked {
            let _ = file.write(&encode(&self.store_id, *sequence));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_that_of_its_store_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| std::fs::write(dir.path().join(MARK), bytes).unwrap();
        assert_eq!(read(dir.path(), &[7; 16]), None);
        let good = encode(&[7; 16], 1_234);
        assert_eq!(good.len(), LEN);
        write(&good);
        assert_eq!(read(dir.path(), &[7; 16]), Some(1_234));
        assert_eq!(read(dir.path(), &[8; 16]), None);
        for at in 0..LEN {
            let mut bad = good.clone();
            bad[at] ^= 1;
            write(&bad);
            assert_eq!(read(dir.path(), &[7; 16]), None, "{at}");
        }
        write(&good[..LEN - 1]);
        assert_eq!(read(dir.path(), &[7; 16]), None);
    }
}
