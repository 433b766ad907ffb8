//! Rows as the layers above see them: named in clear, values in clear, nothing of disks or seals.
//!
//! The policy of Sprag is pure: it reads [`Rows`], gathers [`Changes`] in a [`Staged`] view, and hands these to the
//! store as one atomic batch.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use zeroize::Zeroizing;

use crate::StoreError;

/// The largest value of a row, in bytes, before it is sealed. Sealed it stays below 4,096 bytes, beyond which sled
/// begins to write files that it neither syncs nor collects.
pub const MAX_ROW: usize = 3_900;

/// The longest suffix of a row name, in bytes.
pub const MAX_SUFFIX: usize = 255;

/// The table of the store itself. Nobody else writes there.
pub const META_TABLE: u8 = 0x00;

/// The name of a row: a table, perhaps an owner, and a suffix.
///
/// An owner (a user, a device) is never stored in clear: the store blinds it. Suffixes are stored as they are, and must
/// not tell who talks to whom. Numbers in a suffix are big-endian and of fixed width, so that scans come in order. A
/// table holds either owned rows or rows without an owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowName {
    table: u8,
    owner: Option<Vec<u8>>,
    suffix: Vec<u8>,
}

impl RowName {
    /// A row that belongs to nobody in particular.
    #[must_use]
    pub fn plain(table: u8, suffix: impl Into<Vec<u8>>) -> Self {
        Self {
            table,
            owner: None,
            suffix: suffix.into(),
        }
    }

    /// A row of an owner, whose name is blinded in the store.
    #[must_use]
    pub fn owned(table: u8, owner: impl Into<Vec<u8>>, suffix: impl Into<Vec<u8>>) -> Self {
        Self {
            table,
            owner: Some(owner.into()),
            suffix: suffix.into(),
        }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> u8 {
        self.table
    }

    /// The owner, in clear.
    #[must_use]
    pub fn owner(&self) -> Option<&[u8]> {
        self.owner.as_deref()
    }

    /// The suffix.
    #[must_use]
    pub fn suffix(&self) -> &[u8] {
        &self.suffix
    }

    /// The name in the same table and of the same owner whose suffix is this one's with `more` behind it.
    #[must_use]
    pub fn join(&self, more: &[u8]) -> Self {
        let mut name = self.clone();
        name.suffix.extend_from_slice(more);
        name
    }

    /// Whether a scan of this prefix visits all owners of a table.
    pub(crate) fn is_whole_table(&self) -> bool {
        self.owner.is_none() && self.suffix.is_empty()
    }

    /// What a scan of this prefix says of the row `name`: the suffix behind the prefix, or nothing if the row is not
    /// below it.
    pub(crate) fn strip<'n>(&self, name: &'n RowName) -> Option<&'n [u8]> {
        let same_owner = self.owner == name.owner || self.is_whole_table();
        if self.table == name.table && same_owner {
            name.suffix.strip_prefix(self.suffix.as_slice())
        } else {
            None
        }
    }
}

impl fmt::Debug for RowName {
    /// Tells the table and the suffix, never the owner.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowName")
            .field("table", &self.table)
            .field("owned", &self.owner.is_some())
            .field("suffix", &self.suffix)
            .finish()
    }
}

/// Rows to put and rows to delete, to be applied together or not at all. The last word on a row counts.
#[derive(Clone, Default)]
pub struct Changes(BTreeMap<RowName, Option<Zeroizing<Vec<u8>>>>);

impl Changes {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row, whatever it held.
    pub fn put(&mut self, name: RowName, value: impl Into<Zeroizing<Vec<u8>>>) {
        self.0.insert(name, Some(value.into()));
    }

    /// Deletes a row, if it is there.
    pub fn delete(&mut self, name: RowName) {
        self.0.insert(name, None);
    }

    /// What becomes of a row: `None` if it is not touched, `Some(None)` if it is deleted.
    #[must_use]
    pub fn get(&self, name: &RowName) -> Option<Option<&[u8]>> {
        self.0
            .get(name)
            .map(|value| value.as_ref().map(|value| value.as_slice()))
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many rows are changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts later changes on top of these.
    pub fn merge(&mut self, later: Changes) {
        self.0.extend(later.0);
    }

    /// All changes, in the order of the names; `None` is a deletion.
    pub fn iter(&self) -> impl Iterator<Item = (&RowName, Option<&[u8]>)> {
        self.0
            .iter()
            .map(|(name, value)| (name, value.as_ref().map(|value| value.as_slice())))
    }

    /// Checks what a store checks: the sizes of names and values, and that nobody writes the store's own table.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] for a value above [`MAX_ROW`], [`StoreError::BadName`] for a name.
    pub fn check(&self) -> Result<(), StoreError> {
        for (name, value) in &self.0 {
            if name.table == META_TABLE || name.suffix.len() > MAX_SUFFIX {
                return Err(StoreError::BadName);
            }
            if value.as_ref().is_some_and(|value| value.len() > MAX_ROW) {
                return Err(StoreError::TooLarge);
            }
        }
        Ok(())
    }

    /// The changes below a prefix, in the order of the names, as a scan would name them.
    fn below<'c>(
        &'c self,
        prefix: &'c RowName,
    ) -> impl Iterator<Item = (&'c RowName, &'c [u8], Option<&'c [u8]>)> {
        below(&self.0, prefix).map(|(name, suffix, value)| {
            (name, suffix, value.as_ref().map(|value| value.as_slice()))
        })
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a scan calls for each row: with a name, or what is left of it, and the value. It may end the scan.
pub type Visit<'v> = &'v mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v);

/// A consistent view of rows.
pub trait Rows {
    /// The value of a row.
    ///
    /// # Errors
    ///
    /// Those of the store behind it.
    fn get(&self, name: &RowName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// Visits the rows below a prefix, but for those named in `except`.
    ///
    /// The visitor gets the rest of the suffix and the value, in the lexicographic order of the suffix. A prefix without
    /// owner and suffix is a whole table: in a table of owned rows this visits all rows of all owners, in any order, and
    /// the visitor does not learn whose they are; `except` is there for this case, so that a view can be laid over it.
    ///
    /// # Errors
    ///
    /// Those of the store behind it. The visitor may have seen rows by then.
    fn scan_except(
        &self,
        prefix: &RowName,
        except: &[&RowName],
        visit: Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Visits the rows below a prefix: see [`Rows::scan_except`].
    ///
    /// # Errors
    ///
    /// Those of the store behind it. The visitor may have seen rows by then.
    fn scan(&self, prefix: &RowName, visit: Visit<'_>) -> Result<(), StoreError> {
        self.scan_except(prefix, &[], visit)
    }
}

/// Rows in a map, without store, seal or disk: for tests, and for work on rows that are not to be kept.
#[derive(Clone, Default)]
pub struct MemoryRows(BTreeMap<RowName, Zeroizing<Vec<u8>>>);

impl MemoryRows {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies changes at once.
    pub fn apply(&mut self, changes: Changes) {
        for (name, value) in changes.0 {
            match value {
                Some(value) => self.0.insert(name, value),
                None => self.0.remove(&name),
            };
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&RowName, &[u8])> {
        self.0.iter().map(|(name, value)| (name, value.as_slice()))
    }
}

impl fmt::Debug for MemoryRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRows")
            .field("len", &self.0.len())
            .finish_non_exhaustive()
    }
}

impl Rows for MemoryRows {
    fn get(&self, name: &RowName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.0.get(name).cloned())
    }

    fn scan_except(
        &self,
        prefix: &RowName,
        except: &[&RowName],
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        for (name, suffix, value) in below(&self.0, prefix) {
            if !except.contains(&name) && visit(suffix, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Rows with changes laid over them: what the rows will be once the changes are committed.
pub struct Staged<'a> {
    base: &'a dyn Rows,
    changes: Changes,
}

impl<'a> Staged<'a> {
    /// A view of `base` without changes so far.
    #[must_use]
    pub fn new(base: &'a dyn Rows) -> Self {
        Self::with(base, Changes::new())
    }

    /// A view of `base` with changes laid over it.
    #[must_use]
    pub fn with(base: &'a dyn Rows, changes: Changes) -> Self {
        Self { base, changes }
    }

    /// Writes a row, whatever it held.
    pub fn put(&mut self, name: RowName, value: impl Into<Zeroizing<Vec<u8>>>) {
        self.changes.put(name, value);
    }

    /// Deletes a row, if it is there.
    pub fn delete(&mut self, name: RowName) {
        self.changes.delete(name);
    }

    /// Deletes all rows below a prefix, which may not be a whole table of owned rows.
    ///
    /// # Errors
    ///
    /// Those of the base.
    pub fn delete_below(&mut self, prefix: &RowName) -> Result<(), StoreError> {
        let mut names = Vec::new();
        self.scan(prefix, &mut |suffix, _| {
            names.push(prefix.join(suffix));
            ControlFlow::Continue(())
        })?;
        for name in names {
            self.changes.delete(name);
        }
        Ok(())
    }

    /// Puts later changes on top of this view's.
    pub fn merge(&mut self, later: Changes) {
        self.changes.merge(later);
    }

    /// The changes so far.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The changes, to be committed.
    #[must_use]
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl fmt::Debug for Staged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged")
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

impl Rows for Staged<'_> {
    fn get(&self, name: &RowName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        match self.changes.0.get(name) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(name),
        }
    }

    fn scan_except(
        &self,
        prefix: &RowName,
        except: &[&RowName],
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut hidden = except.to_vec();
        let mut ours = Vec::new();
        for (name, suffix, value) in self.changes.below(prefix) {
            hidden.push(name);
            if let Some(value) = value
                && !except.contains(&name)
            {
                ours.push((suffix, value));
            }
        }
        // Of one owner both sides come in order; of a whole table they need not, and then merging does no harm.
        let mut ours = ours.into_iter().peekable();
        let mut flow = ControlFlow::Continue(());
        self.base
            .scan_except(prefix, &hidden, &mut |suffix, value| {
                while flow.is_continue()
                    && let Some((suffix, value)) = ours.next_if(|(our, _)| *our < suffix)
                {
                    flow = visit(suffix, value);
                }
                if flow.is_continue() {
                    flow = visit(suffix, value);
                }
                flow
            })?;
        while flow.is_continue()
            && let Some((suffix, value)) = ours.next()
        {
            flow = visit(suffix, value);
        }
        Ok(())
    }
}

/// The entries of a map below a prefix, with the rest of their suffix.
fn below<'m, V>(
    map: &'m BTreeMap<RowName, V>,
    prefix: &'m RowName,
) -> impl Iterator<Item = (&'m RowName, &'m [u8], &'m V)> {
    // Names sort by table, owner (none first), suffix: what is below a prefix is one run that begins with it.
    map.range(prefix..)
        .map_while(move |(name, value)| prefix.strip(name).map(|suffix| (name, suffix, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rows: &dyn Rows, prefix: &RowName) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        rows.scan(prefix, &mut |suffix, value| {
            seen.push((suffix.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        seen
    }

    fn row(suffix: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (suffix.to_vec(), value.to_vec())
    }

    fn base() -> MemoryRows {
        let mut changes = Changes::new();
        changes.put(RowName::owned(0x12, "bob", [1, 0]), vec![10]);
        changes.put(RowName::owned(0x12, "bob", [1, 4]), vec![14]);
        changes.put(RowName::owned(0x12, "bob", [2, 0]), vec![20]);
        changes.put(RowName::owned(0x12, "bobby", [1, 0]), vec![99]);
        changes.put(RowName::plain(0x13, [1, 0]), vec![13]);
        let mut rows = MemoryRows::new();
        rows.apply(changes);
        rows
    }

    #[test]
    fn scan_stays_below_its_prefix_and_comes_in_order() {
        let rows = base();
        let bob = RowName::owned(0x12, "bob", []);
        assert_eq!(
            seen(&rows, &bob.join(&[1])),
            [row(&[0], &[10]), row(&[4], &[14])]
        );
        assert_eq!(seen(&rows, &bob).len(), 3);
        assert_eq!(seen(&rows, &RowName::plain(0x12, [])).len(), 4);
        assert_eq!(seen(&rows, &RowName::plain(0x12, [1])), []);
        assert_eq!(seen(&rows, &RowName::plain(0x13, [1])), [row(&[0], &[13])]);
        assert_eq!(seen(&rows, &RowName::plain(0x14, [])), []);
    }

    #[test]
    fn scan_ends_when_the_visitor_says_so() {
        let rows = base();
        let mut staged = Staged::new(&rows);
        staged.put(RowName::owned(0x12, "bob", [0]), vec![1]);
        for stop in 1..4 {
            let mut count = 0;
            staged
                .scan(&RowName::owned(0x12, "bob", []), &mut |_, _| {
                    count += 1;
                    if count == stop {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
                .unwrap();
            assert_eq!(count, stop);
        }
    }

    #[test]
    fn staged_changes_are_seen_in_order_and_leave_the_base_alone() {
        let rows = base();
        let bob = RowName::owned(0x12, "bob", []);
        let mut staged = Staged::new(&rows);
        staged.put(bob.join(&[1, 2]), vec![12]);
        staged.put(bob.join(&[1, 4]), vec![44]);
        staged.put(bob.join(&[9]), vec![90]);
        staged.delete(bob.join(&[1, 0]));
        staged.delete(bob.join(&[7]));
        assert_eq!(
            seen(&staged, &bob),
            [
                row(&[1, 2], &[12]),
                row(&[1, 4], &[44]),
                row(&[2, 0], &[20]),
                row(&[9], &[90])
            ]
        );
        assert!(staged.get(&bob.join(&[1, 0])).unwrap().is_none());
        assert_eq!(**staged.get(&bob.join(&[1, 4])).unwrap().unwrap(), [44]);
        assert_eq!(**rows.get(&bob.join(&[1, 4])).unwrap().unwrap(), [14]);

        let mut after = rows.clone();
        after.apply(staged.into_changes());
        assert_eq!(seen(&after, &bob).len(), 4);
    }

    #[test]
    fn staged_scan_of_a_whole_table_knows_the_owners_apart() {
        let rows = base();
        let mut staged = Staged::new(&rows);
        staged.delete(RowName::owned(0x12, "bobby", [1, 0]));
        staged.put(RowName::owned(0x12, "carol", [1, 0]), vec![77]);
        let mut values: Vec<_> = seen(&staged, &RowName::plain(0x12, []))
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        values.sort();
        assert_eq!(values, [vec![10], vec![14], vec![20], vec![77]]);

        let mut second = Staged::new(&staged);
        second.put(RowName::owned(0x12, "bobby", [1, 0]), vec![5]);
        second.delete(RowName::owned(0x12, "carol", [1, 0]));
        assert_eq!(seen(&second, &RowName::plain(0x12, [])).len(), 4);
    }

    #[test]
    fn delete_below_deletes_a_session_and_nothing_else() {
        let rows = base();
        let bob = RowName::owned(0x12, "bob", []);
        let mut staged = Staged::new(&rows);
        staged.put(bob.join(&[1, 9]), vec![19]);
        staged.delete_below(&bob.join(&[1])).unwrap();
        assert_eq!(seen(&staged, &bob), [row(&[2, 0], &[20])]);
        assert_eq!(staged.changes().len(), 3);
    }

    #[test]
    fn oversized_values_and_names_of_the_store_are_refused() {
        let check = |name: RowName, len: usize| {
            let mut changes = Changes::new();
            changes.put(name, vec![0; len]);
            changes.check()
        };
        check(RowName::plain(1, []), MAX_ROW).unwrap();
        check(RowName::plain(1, [7; MAX_SUFFIX]), 0).unwrap();
        assert!(matches!(
            check(RowName::plain(1, []), MAX_ROW + 1),
            Err(StoreError::TooLarge)
        ));
        assert!(matches!(
            check(RowName::plain(META_TABLE, [1]), 1),
            Err(StoreError::BadName)
        ));
        assert!(matches!(
            check(RowName::plain(1, [7; MAX_SUFFIX + 1]), 1),
            Err(StoreError::BadName)
        ));
    }

    #[test]
    fn debug_tells_no_owner_and_no_value() {
        let mut changes = Changes::new();
        changes.put(RowName::owned(1, "bob", [9]), b"secret".to_vec());
        assert_eq!(
            format!("{changes:?}"),
            "{RowName { table: 1, owned: true, suffix: [9] }}"
        );
    }
}
