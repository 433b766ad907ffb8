//! Rows of equal length that leave nothing behind.

use zeroize::{DefaultIsZeroes, Zeroize};

/// How many rows of so many bytes are a block, of 1 MiB about. With smaller ones the scan waits for memory: with 64 KiB it takes
/// a third longer. What is not used of a block is address space only, where the system gives zeros when they are asked for.
pub(crate) fn depth(bytes: usize) -> usize {
    (1024 * 1024 / bytes.max(1)).max(1)
}

/// Rows of `stride` numbers, in blocks that never move: a vector that grew would leave a copy of its contents where it was.
/// What is removed is wiped, and so is everything in the end.
pub(crate) struct Rows<T: DefaultIsZeroes> {
    blocks: Vec<Box<[T]>>,
    stride: usize,
    /// Rows in a block.
    depth: usize,
    len: usize,
}

impl<T: DefaultIsZeroes> Rows<T> {
    /// `stride` and `depth` are at least 1.
    pub(crate) fn new(stride: usize, depth: usize) -> Self {
        Self {
            blocks: Vec::new(),
            stride,
            depth,
            len: 0,
        }
    }

    /// A row of zeros at the end.
    pub(crate) fn push(&mut self) -> Option<&mut [T]> {
        if self.len == self.blocks.len() * self.depth {
            let block = vec![T::default(); self.stride * self.depth];
            self.blocks.push(block.into_boxed_slice());
        }
        self.len += 1;
        self.get_mut(self.len - 1)
    }

    fn place(&self, number: usize) -> Option<(usize, usize)> {
        let start = number % self.depth * self.stride;
        (number < self.len).then_some((number / self.depth, start))
    }

    pub(crate) fn get(&self, number: usize) -> Option<&[T]> {
        let (block, start) = self.place(number)?;
        self.blocks.get(block)?.get(start..start + self.stride)
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut [T]> {
        let (block, start) = self.place(number)?;
        self.blocks
            .get_mut(block)?
            .get_mut(start..start + self.stride)
    }

    /// Puts the last row in the place of this one, and wipes what the last one leaves.
    pub(crate) fn swap_remove(&mut self, number: usize) {
        let Some(last) = self.len.checked_sub(1).filter(|last| number <= *last) else {
            return;
        };
        let (from, to) = (last / self.depth, number / self.depth);
        let (last_start, start) = (
            last % self.depth * self.stride,
            number % self.depth * self.stride,
        );
        if from == to {
            if let Some(block) = self.blocks.get_mut(to) {
                block.copy_within(last_start..last_start + self.stride, start);
            }
        } else if let Ok([from, to]) = self.blocks.get_disjoint_mut([from, to]) {
            let rows = from.get(last_start..last_start + self.stride);
            let place = to.get_mut(start..start + self.stride);
            if let (Some(row), Some(place)) = (rows, place) {
                place.copy_from_slice(row);
            }
        }
        if let Some(row) = self.get_mut(last) {
            row.zeroize();
        }
        self.len = last;
        // All of it has been wiped, row by row. One is kept, so that a record that comes and goes allocates nothing.
        self.blocks.truncate(self.len / self.depth + 1);
    }

    pub(crate) fn clear(&mut self) {
        for block in &mut self.blocks {
            block.zeroize();
        }
        self.blocks.clear();
        self.len = 0;
    }

    /// All rows, in order, as parts that hold whole rows.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[T]> {
        let row = self.stride;
        let full = self.depth * row;
        self.blocks.iter().enumerate().map(move |(number, block)| {
            let left = (self.len * row).saturating_sub(number * full);
            block.get(..left.min(full)).unwrap_or(&[])
        })
    }

    /// Everything that the blocks hold, in use or not.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }
}

impl<T: DefaultIsZeroes> Drop for Rows<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIDE: usize = 100;

    /// Rows that say their own number, two in a block.
    fn rows(count: u8) -> Rows<u8> {
        let mut rows = Rows::new(STRIDE, 2);
        for number in 0..count {
            rows.push().unwrap().fill(number + 1);
        }
        rows
    }

    #[test]
    fn the_last_row_takes_the_place_of_a_removed_one() {
        let mut rows = rows(5);
        rows.swap_remove(1);
        let order: Vec<u8> = (0..5)
            .filter_map(|n| rows.get(n))
            .map(|row| row[0])
            .collect();
        assert_eq!(order, [1, 5, 3, 4]);
        let parts: Vec<u8> = rows
            .parts()
            .flat_map(|part| part.chunks(STRIDE))
            .map(|row| row[9])
            .collect();
        assert_eq!(parts, order);
    }

    #[test]
    fn nothing_of_a_removed_row_is_left_in_memory() {
        for number in 0..5 {
            let mut rows = rows(5);
            rows.swap_remove(number);
            let gone = u8::try_from(number).unwrap() + 1;
            assert!(rows.memory().all(|x| *x != gone), "{number}");
            let left = rows.memory().filter(|x| **x != 0).count();
            assert_eq!(left, 4 * (STRIDE));
        }
    }

    #[test]
    fn blocks_that_hold_nothing_are_given_back() {
        let mut rows = rows(6);
        for _ in 0..6 {
            rows.swap_remove(0);
        }
        rows.swap_remove(0);
        assert!(rows.get(0).is_none());
        assert_eq!(rows.blocks.len(), 1);
        assert!(rows.memory().all(|x| *x == 0));
    }
}
