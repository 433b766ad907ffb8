//! Things longer than a row: a sequence number, then chunks.

use std::ops::ControlFlow;

use sprag_store::{MAX_ROW, Rows, Staged, StoreError};
use zeroize::Zeroizing;

use crate::tables;

/// Rows by the sequence number in their name, ascending.
pub(crate) type Numbered = Vec<(u64, Zeroizing<Vec<u8>>)>;

/// Writes `bytes` in chunks `first ..` under `sequence`.
pub(crate) fn put(rows: &mut Staged<'_>, table: u8, sequence: u64, first: u32, bytes: &[u8]) {
    for (number, chunk) in (first..).zip(bytes.chunks(MAX_ROW)) {
        rows.put(
            tables::chunk(table, sequence, number),
            Zeroizing::new(chunk.to_vec()),
        );
    }
}

/// Reads the chunks `first ..` under `sequence`, which hold `length` bytes together.
pub(crate) fn get(
    rows: &dyn Rows,
    table: u8,
    sequence: u64,
    first: u32,
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    for number in first.. {
        if bytes.len() >= length {
            break;
        }
        let chunk = rows.get(&tables::chunk(table, sequence, number))?;
        let chunk = chunk.filter(|chunk| !chunk.is_empty() && bytes.len() + chunk.len() <= length);
        bytes.extend_from_slice(&chunk.ok_or_else(|| StoreError::Damaged("chunk is missing"))?);
    }
    Ok(bytes)
}

/// Deletes the chunks `first ..` of something of `length` bytes.
pub(crate) fn delete(rows: &mut Staged<'_>, table: u8, sequence: u64, first: u32, length: usize) {
    let count = u32::try_from(length.div_ceil(MAX_ROW)).unwrap_or(u32::MAX);
    for number in first..first.saturating_add(count) {
        rows.delete(tables::chunk(table, sequence, number));
    }
}

/// The sequence numbers of all rows of a table whose suffix is a sequence and something of `rest` bytes that `wanted`
/// accepts, ascending.
pub(crate) fn sequences(
    rows: &dyn Rows,
    table: u8,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Numbered, StoreError> {
    let mut found = Vec::new();
    rows.scan(&tables::all(table), &mut |suffix, value| {
        if let Some((head, rest)) = suffix.split_first_chunk::<8>()
            && wanted(rest)
        {
            found.push((u64::from_be_bytes(*head), Zeroizing::new(value.to_vec())));
        }
        ControlFlow::Continue(())
    })?;
    found.sort_by_key(|(sequence, _)| *sequence);
    Ok(found)
}

/// The values of all rows of a table whose rows have owners.
pub(crate) fn values(rows: &dyn Rows, table: u8) -> Result<Vec<Zeroizing<Vec<u8>>>, StoreError> {
    let mut found = Vec::new();
    rows.scan(&tables::all(table), &mut |_, value| {
        found.push(Zeroizing::new(value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
