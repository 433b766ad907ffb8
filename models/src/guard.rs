//! The guard of the store (`store/watch.rs`): the committer wakes it, callers ask it, a close ends it.

use crate::anchor::{Anchor, AnchorError, AnchorRecord};
use crate::renewal::rng;
use crate::rows::{Changes, RowName, Rows};
use crate::store::{Standing, Store};
use crate::sync::{Arc, Condvar, Mutex, PoisonError, thread};
use crate::sys::lock;

/// An anchor in memory, and a bell that rings when it is written.
#[derive(Default)]
struct Stone {
    record: Mutex<Option<AnchorRecord>>,
    written: Condvar,
}

fn watermark(record: Option<&AnchorRecord>) -> u64 {
    // Before the code that authenticates it; see `anchor.rs`.
    record.map_or(0, |record| {
        let at = AnchorRecord::LEN - 32;
        u64::from_be_bytes(record.as_bytes()[at - 8..at].try_into().unwrap())
    })
}

impl Anchor for Stone {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        Ok(*lock(&self.record))
    }

    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
        let mut before = lock(&self.record);
        assert!(
            watermark(before.as_ref()) <= watermark(Some(record)),
            "the anchor was set back"
        );
        *before = Some(*record);
        self.written.notify_all();
        Ok(())
    }
}

/// Commits that nobody tells the guard of but the committer, questions by two threads, and a close.
pub fn watches(asks: bool) {
    let stone = Arc::new(Stone::default());
    let store = Store::in_memory(rng()).unwrap();
    let begun = store.guard(Arc::clone(&stone) as Arc<dyn Anchor>).unwrap();
    assert!(matches!(begun, Standing::InReach { .. }));
    let threads: Vec<_> = (0..2_u32)
        .map(|writer| {
            let store = store.clone();
            thread::spawn(move || {
                for n in 0..2_u32 {
                    let mut changes = Changes::new();
                    changes.put(
                        RowName::plain(2, writer.to_be_bytes()),
                        n.to_be_bytes().to_vec(),
                    );
                    let number = store.commit_blocking(changes).unwrap();
                    if asks {
                        match store.check_anchor().unwrap() {
                            Standing::InReach { watermark } => assert!(watermark >= number),
                            other => panic!("{other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let last = store.commit_sequence();
    // A wake-up that is lost leaves everybody asleep here.
    let mut record = lock(&stone.record);
    while watermark(record.as_ref()) < last {
        let waited = stone.written.wait(record);
        record = waited.unwrap_or_else(PoisonError::into_inner);
    }
    drop(record);
    assert!(
        store
            .get(&RowName::plain(2, 0_u32.to_be_bytes()))
            .unwrap()
            .is_some()
    );
    let mut changes = Changes::new();
    changes.put(RowName::plain(2, [9]), vec![9]);
    let number = store.commit_blocking(changes).unwrap();
    let closing = store.clone();
    let other = thread::spawn(move || closing.close().unwrap());
    store.close().unwrap();
    other.join().unwrap();
    assert_eq!(
        watermark(lock(&stone.record).as_ref()),
        number,
        "closed before the anchor knew"
    );
}
