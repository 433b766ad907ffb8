//! Each write is done once, however often it is asked for.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Condvar, Mutex, PoisonError};

use super::call::{Answer, Call, CallId, Fault};
use crate::error::Exit;

/// Results that are remembered. Whoever asks again does it within seconds.
const REMEMBERED: usize = 4096;

/// The results of the last writes, by the ids of their calls.
#[derive(Default)]
pub(super) struct Once {
    slots: Mutex<Slots>,
    changed: Condvar,
    hasher: RandomState,
}

#[derive(Default)]
struct Slots {
    by_id: HashMap<CallId, Slot>,
    /// The oldest first; without those that are under way.
    order: VecDeque<CallId>,
}

struct Slot {
    /// Of the call, so that one id never stands for two.
    digest: u64,
    /// Nothing yet: it is under way.
    result: Option<Result<Answer, Fault>>,
}

impl Once {
    /// Does `work`, if it is not the repetition of a write: that waits for the first one, and gets its result.
    pub(super) fn run(
        &self,
        id: CallId,
        call: &Call,
        work: impl FnOnce() -> Result<Answer, Fault>,
    ) -> Result<Answer, Fault> {
        if !call.writes() {
            return work();
        }
        let digest = self.digest(call)?;
        let mut slots = self.lock();
        loop {
            match slots.by_id.entry(id) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Slot {
                        digest,
                        result: None,
                    });
                    break;
                }
                Entry::Occupied(slot) if slot.get().digest != digest => return Err(reused()),
                Entry::Occupied(slot) => {
                    if let Some(result) = &slot.get().result {
                        return result.clone();
                    }
                }
            }
            slots = (self.changed.wait(slots)).unwrap_or_else(PoisonError::into_inner);
        }
        drop(slots);
        // If the work panics, whoever waits for it does it.
        let mut under_way = UnderWay {
            once: self,
            id,
            result: None,
        };
        let result = work();
        under_way.result = Some(result.clone());
        result
    }

    fn digest(&self, call: &Call) -> Result<u64, Fault> {
        let bytes = serde_json::to_vec(call).map(zeroize::Zeroizing::new);
        let bytes = bytes.map_err(|_| Fault::bad_input("this cannot be written as JSON"))?;
        Ok(self.hasher.hash_one(bytes.as_slice()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reused() -> Fault {
    Fault::new(
        "call_id_reused",
        Exit::Failed,
        "another call had the same id",
    )
}

struct UnderWay<'a> {
    once: &'a Once,
    id: CallId,
    result: Option<Result<Answer, Fault>>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut slots = self.once.lock();
        match self.result.take() {
            None => {
                slots.by_id.remove(&self.id);
            }
            Some(result) => {
                if let Some(slot) = slots.by_id.get_mut(&self.id) {
                    slot.result = Some(result);
                }
                slots.order.push_back(self.id);
                if slots.order.len() > REMEMBERED
                    && let Some(oldest) = slots.order.pop_front()
                {
                    slots.by_id.remove(&oldest);
                }
            }
        }
        self.once.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;
    use sprag::memory::Memory;

    use crate::shared::call::Whose;

    fn whose() -> Whose {
        Whose {
            user: None,
            agent: None,
        }
    }

    fn store(content: &str) -> Call {
        Call::Store {
            whose: whose(),
            memory: Box::new(Memory::new(content)),
            redact: false,
        }
    }

    fn written(revision: u64) -> Result<Answer, Fault> {
        Ok(Answer::Written {
            id: "x".to_owned(),
            revision,
            redacted: Vec::new(),
        })
    }

    #[test]
    fn a_repeated_write_returns_the_first_result_and_a_repeated_read_a_new_one() {
        let once = Once::default();
        assert_eq!(once.run(CallId(1), &store("a"), || written(1)), written(1));
        assert_eq!(once.run(CallId(1), &store("a"), || written(2)), written(1));
        assert_eq!(once.run(CallId(2), &store("a"), || written(3)), written(3));
        let failed = Err(Fault::not_found("x"));
        assert_eq!(once.run(CallId(3), &store("a"), || failed.clone()), failed);
        assert_eq!(once.run(CallId(3), &store("a"), || written(4)), failed);
        let read = Call::Stats { whose: whose() };
        assert_eq!(once.run(CallId(9), &read, || written(1)), written(1));
        assert_eq!(once.run(CallId(9), &read, || written(2)), written(2));
    }

    #[test]
    fn one_id_never_stands_for_two_calls() {
        let once = Once::default();
        once.run(CallId(1), &store("a"), || written(1)).unwrap();
        let other = once.run(CallId(1), &store("b"), || panic!("done"));
        assert_eq!(other.unwrap_err().code, "call_id_reused");
    }

    #[test]
    fn many_at_once_do_it_once() {
        let once = Arc::new(Once::default());
        let (done, start) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(8)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (once, done, start) = (once.clone(), done.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    once.run(CallId(1), &store("a"), || {
                        written(done.fetch_add(1, Ordering::SeqCst).into())
                    })
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), written(0));
        }
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_write_that_panicked_can_be_asked_for_again() {
        let once = Arc::new(Once::default());
        let inner = once.clone();
        let died = thread::spawn(move || inner.run(CallId(1), &store("a"), || panic!("dies")));
        assert!(died.join().is_err());
        assert_eq!(once.run(CallId(1), &store("a"), || written(1)), written(1));
    }

    #[test]
    fn no_more_is_remembered_than_is_allowed() {
        let once = Once::default();
        for id in 0..5000 {
            once.run(CallId(id), &store("a"), || written(1)).unwrap();
        }
        let slots = once.lock();
        assert_eq!(slots.by_id.len(), REMEMBERED);
        assert_eq!(slots.order.len(), REMEMBERED);
        assert!(slots.by_id.contains_key(&CallId(4999)));
    }
}
