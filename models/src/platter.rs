//! A disk in memory.

use std::collections::BTreeMap;

use crate::backend::{BackendError, RowMap};
use crate::commit::Disk;
use crate::rows::Visit;
use crate::sync::{Arc, Mutex};
use crate::sys::lock;

/// A disk that knows what is only written, and what is synced, and may fail at a write.
#[derive(Default)]
pub(crate) struct Platter {
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) written: u64,
    pub(crate) flushed: u64,
    pub(crate) synced: u64,
    pub(crate) writes: usize,
    pub(crate) fails_at: Option<usize>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<Platter>>);

impl Disk for Fake {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(lock(&self.0).rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let names: Vec<_> = {
            let platter = lock(&self.0);
            let below = platter.rows.range(prefix.to_vec()..);
            below
                .map(|(name, _)| name.clone())
                .take_while(|name| name.starts_with(prefix))
                .collect()
        };
        for name in names {
            // Row by row, as a database reads.
            let value = lock(&self.0).rows.get(&name).cloned();
            if let Some(value) = value
                && visit(&name, &value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        {
            let mut platter = lock(&self.0);
            platter.writes += 1;
            if platter.fails_at == Some(platter.writes) {
                return Err(BackendError::Full);
            }
            assert!(
                sequence > platter.written || platter.synced == 0,
                "groups are written in order"
            );
        }
        // Row by row, as a database writes.
        for (name, value) in rows {
            let mut platter = lock(&self.0);
            match value {
                Some(value) => drop(platter.rows.insert(name.clone(), value.clone())),
                None => drop(platter.rows.remove(name)),
            }
        }
        lock(&self.0).written = sequence;
        Ok(())
    }

    fn flush(&self) -> Result<(), BackendError> {
        let mut platter = lock(&self.0);
        platter.flushed = platter.written;
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        let mut platter = lock(&self.0);
        platter.synced = platter.flushed;
        Ok(())
    }
}
