//! Many records at once.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does the same to each record and gives each its own outcome, in the order of the records: one that fails, or even
/// panics, is the only one that fails.
///
/// With the feature `rayon` the records are shared among the threads of its pool; without it they are done one after
/// the other.
///
/// ```
/// use sprag_keys::{BatchError, batch};
///
/// let outcomes = batch(&["1", "two", "3"], |text| text.parse::<u32>());
/// assert_eq!(outcomes[0].as_ref().ok(), Some(&1));
/// assert!(matches!(outcomes[1], Err(BatchError::Record(_))));
/// assert_eq!(outcomes[2].as_ref().ok(), Some(&3));
/// ```
pub fn batch<T: Sync, O: Send, E: Send>(
    records: &[T],
    each: impl Fn(&T) -> Result<O, E> + Sync,
) -> Vec<Result<O, BatchError<E>>> {
    let guarded = |record: &T| match catch_unwind(AssertUnwindSafe(|| each(record))) {
        Ok(outcome) => outcome.map_err(BatchError::Record),
        Err(_) => Err(BatchError::Panicked),
    };
    #[cfg(feature = "rayon")]
    {
        use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
        records.par_iter().map(guarded).collect()
    }
    #[cfg(not(feature = "rayon"))]
    records.iter().map(guarded).collect()
}

/// Why one record of a batch was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// What was to be done with it failed.
    #[error("{0}")]
    Record(E),
    /// What was to be done with it panicked.
    #[error("record made its handler panic")]
    Panicked,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_record_has_its_own_outcome_in_its_own_place() {
        let records: Vec<usize> = (0..10_000).collect();
        let done = AtomicUsize::new(0);
        let outcomes = batch(&records, |record| {
            done.fetch_add(1, Ordering::Relaxed);
            match record % 7 {
                0 => Err(*record),
                _ => Ok(record * 2),
            }
        });
        assert_eq!(done.into_inner(), records.len());
        assert_eq!(outcomes.len(), records.len());
        for (record, outcome) in records.iter().zip(outcomes) {
            match outcome {
                Ok(doubled) => assert!(record % 7 != 0 && doubled == record * 2),
                Err(error) => assert!(record % 7 == 0 && error == BatchError::Record(*record)),
            }
        }
    }

    #[test]
    fn a_panic_at_one_record_costs_no_other() {
        let outcomes = batch(&[1, 0, 2], |record| {
            assert_ne!(*record, 0, "this panic is part of the test");
            Ok::<_, ()>(10 / record)
        });
        assert_eq!(outcomes, [Ok(10), Err(BatchError::Panicked), Ok(5)]);
    }

    #[test]
    fn no_record_makes_no_outcome() {
        assert_eq!(batch(&[(); 0], |()| Ok::<_, ()>(())), []);
    }
}
