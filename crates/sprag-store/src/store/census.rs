//! Counting the rows over: before a store opens if it is small, beside its work if it is large.
//!
//! Beside the work, the count goes through the names in parts, each under the lock of the state, so that nothing is
//! submitted meanwhile. What changes between two parts is added to the count if its name was passed already; what was
//! not passed will be met as it is then. So at the end the count must be the digest of that moment.

#![cfg_attr(
    target_arch = "wasm32",
    allow(dead_code, reason = "without threads all is counted at once")
)]

use std::ops::ControlFlow;

use super::Inner;
use crate::backend::Backend;
use crate::error::StoreError;
use crate::sealed::{Digest, META_KEY, Sealer, Sum};
use crate::sync::COUNTED_PART;
#[cfg(not(target_arch = "wasm32"))]
use crate::sync::{Arc, Weak};
#[cfg(not(target_arch = "wasm32"))]
use crate::sys;
use crate::sys::lock;

pub(super) const WRONG: StoreError = StoreError::Damaged("rows are missing, added or outdated");

/// Counts all rows at once.
pub(super) fn census(
    backend: &(impl Backend + ?Sized),
    sealer: &Sealer,
) -> Result<Digest, StoreError> {
    let mut found = Digest::default();
    add_below(backend, sealer, &[], &mut found)?;
    Ok(found)
}

/// Adds the rows below a prefix, and says how many there are.
fn add_below(
    backend: &(impl Backend + ?Sized),
    sealer: &Sealer,
    prefix: &[u8],
    found: &mut Digest,
) -> Result<usize, StoreError> {
    let mut count = 0;
    backend.scan(prefix, &mut |key, sealed| {
        if key != META_KEY {
            let table = key.first().copied().unwrap_or_default();
            found.add(table, sealer.mark(key, sealed));
        }
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// A count that goes on beside the work.
#[derive(Default)]
pub(super) struct Count {
    found: Digest,
    /// Rows whose name begins with less than these two bytes are counted. At 65,536 all are.
    passed: u32,
}

impl Count {
    /// A row changes from one mark to another.
    pub(super) fn changed(&mut self, key: &[u8], old: Option<Sum>, new: Option<Sum>) {
        let table = key.first().copied().unwrap_or_default();
        if key == META_KEY || place_of(key) >= self.passed {
            return;
        }
        if let Some(old) = old {
            self.found.subtract(table, old);
        }
        if let Some(new) = new {
            self.found.add(table, new);
        }
    }

    fn is_complete(&self) -> bool {
        self.passed > u32::from(u16::MAX)
    }

    /// Counts a part.
    fn go_on(
        &mut self,
        backend: &(impl Backend + ?Sized),
        sealer: &Sealer,
    ) -> Result<(), StoreError> {
        let mut rows = 0;
        while rows < COUNTED_PART && !self.is_complete() {
            let [table, second] = u16::try_from(self.passed).unwrap_or(u16::MAX).to_be_bytes();
            if second == 0 {
                // Most tables are empty. The row that is named by its table alone belongs to the first part.
                let mut first = None;
                backend.scan(&[table], &mut |key, sealed| {
                    first = Some((key.len() == 1).then(|| sealer.mark(key, sealed)));
                    ControlFlow::Break(())
                })?;
                match first {
                    None => {
                        self.passed += 256;
                        continue;
                    }
                    Some(Some(mark)) if table != 0 => self.found.add(table, mark),
                    Some(_) => {}
                }
            }
            rows += add_below(backend, sealer, &[table, second], &mut self.found)?;
            self.passed += 1;
        }
        Ok(())
    }
}

/// The first two bytes of a name as a number; a missing one is 0.
fn place_of(key: &[u8]) -> u32 {
    let byte = |at| u32::from(key.get(at).copied().unwrap_or_default());
    byte(0) << 8 | byte(1)
}

impl Inner {
    /// Whether no count is under way.
    pub(super) fn is_counted(&self) -> bool {
        lock(&self.state).count.is_none()
    }

    /// Counts a part; says whether there is more to count.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn count_part(&self) -> Result<bool, StoreError> {
        self.ready()?;
        let mut state = lock(&self.state);
        self.ready()?;
        let live = self.live();
        let Some(mut count) = state.count.take() else {
            // A renewal has counted meanwhile.
            return Ok(false);
        };
        self.watched(count.go_on(&*live.backend, &live.sealer))?;
        if !count.is_complete() {
            state.count = Some(count);
            return Ok(true);
        }
        if count.found != state.meta.digest {
            self.found_damage();
            return Err(WRONG);
        }
        Ok(false)
    }
}

/// Counts on a thread of its own, until all is counted or the store is gone.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn beside(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let store: Weak<Inner> = Arc::downgrade(inner);
    let spawned = sys::spawn("sprag-census", move || {
        // Held only while a part is counted: the store ends with its last handle.
        while let Some(inner) = store.upgrade() {
            match inner.count_part() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "rows could not be counted over");
                    return;
                }
            }
            drop(inner);
            sys::pause();
        }
    });
    match spawned {
        Ok(()) => Ok(()),
        // Then it is counted here.
        Err(_) => {
            while inner.count_part()? {}
            Ok(())
        }
    }
}
