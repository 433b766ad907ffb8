//! Codes: one byte for each dimension, and what one code and one query have in common.

use zeroize::Zeroizing;

use crate::SearchError;

/// Most dimensions of a vector.
pub const MAX_DIMENSIONS: usize = 4096;

/// What the innermost loop takes at once. Rows of codes are padded with zeros to a multiple. Measured: with fewer the sums are
/// gathered too often, with more the compiler runs out of registers.
pub(crate) const LANES: usize = 32;

/// The largest code of a vector, whose largest number gets it.
const LARGEST_CODE: f64 = 127.0;

pub(crate) fn check_dimensions(dimensions: usize) -> Result<(), SearchError> {
    match dimensions {
        1..=MAX_DIMENSIONS => Ok(()),
        _ => Err(SearchError::BadDimensions(dimensions)),
    }
}

/// The length of a vector; refuses what has no direction.
pub(crate) fn length(vector: &[f32]) -> Result<f64, SearchError> {
    if !vector.iter().all(|x| x.is_finite()) {
        return Err(SearchError::NotFinite);
    }
    // In f64 neither the largest nor the smallest f32 squared is lost.
    let squares: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if squares > 0.0 {
        Ok(squares.sqrt())
    } else {
        Err(SearchError::Zero)
    }
}

fn largest(vector: &[f32]) -> f64 {
    f64::from(vector.iter().fold(0.0_f32, |most, x| most.max(x.abs())))
}

/// Writes the code of a vector of that length into `code`, and gives its scale: code times scale is nearly the vector with its
/// length made 1.
pub(crate) fn quantise(vector: &[f32], length: f64, code: &mut [i8]) -> f32 {
    let most = largest(vector);
    let factor = LARGEST_CODE / most;
    for (code, x) in code.iter_mut().zip(vector) {
        *code = narrow(f64::from(*x) * factor);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "in [1/127/64, 1/127]: rounded, never out of range"
    )]
    let scale = (most / length / LARGEST_CODE) as f32;
    scale
}

/// Rounded to the nearest, halves away from zero. (`round` is a call on processors of 2003, and an insert does hundreds.)
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded; at most 127 in size, for the largest number gets that"
)]
fn narrow(x: f64) -> i8 {
    (x + 0.5_f64.copysign(x)) as i8
}

/// Whether code and scale can be those of a vector: only then is what they give as a cosine near one.
pub(crate) fn is_code(code: &[i8], scale: f32) -> bool {
    let most = code.iter().map(|c| c.unsigned_abs()).max();
    if most != Some(127) || !scale.is_finite() || scale <= 0.0 {
        return false;
    }
    let squares: i64 = code.iter().map(|c| i64::from(*c) * i64::from(*c)).sum();
    let scale = f64::from(scale);
    let length = (squares as f64).sqrt() * scale;
    let rounding = (code.len() as f64).sqrt() * scale / 2.0;
    (length - 1.0).abs() <= rounding + 1e-5
}

/// A query, at 16 bits for each dimension: that costs the scan nothing, and halves the error of 8.
pub(crate) struct Query {
    numbers: Zeroizing<Vec<i16>>,
    scale: f64,
}

impl Query {
    /// `stride` is the length of the rows that it will be compared with.
    pub(crate) fn new(vector: &[f32], stride: usize) -> Result<Self, SearchError> {
        let length = length(vector)?;
        let most = largest(vector) / length;
        // No sum of products, of whichever dimensions, is beyond 2^30: by Cauchy and Schwarz it is at most the length of the
        // query times that of the code, and the latter is at most 127 times the root of their number.
        let bound = f64::from(1_u32 << 30) / (LARGEST_CODE * (vector.len() as f64).sqrt());
        let factor = (32_766.0 / most).min(bound);
        let mut numbers = Zeroizing::new(vec![0; stride]);
        for (number, x) in numbers.iter_mut().zip(vector) {
            *number = widen(f64::from(*x) / length * factor);
        }
        let scale = 1.0 / factor;
        Ok(Self { numbers, scale })
    }

    /// Times the scales of both, the cosine with a row.
    #[inline]
    pub(crate) fn dot(&self, row: &[i8]) -> i32 {
        dot(&self.numbers, row)
    }

    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded; at most 32,766 in size"
)]
fn widen(x: f64) -> i16 {
    (x + 0.5_f64.copysign(x)) as i16
}

/// Written for the vectoriser: on x86-64 it becomes `pmaddwd`, on aarch64 `smlal`, on the oldest processors of either.
#[inline]
fn dot(query: &[i16], row: &[i8]) -> i32 {
    let (query, _) = query.as_chunks::<LANES>();
    let (row, _) = row.as_chunks::<LANES>();
    let mut sum = 0_i32;
    for (query, row) in query.iter().zip(row) {
        let products = query.iter().zip(row);
        sum += products
            .map(|(q, c)| i32::from(*q) * i32::from(*c))
            .sum::<i32>();
    }
    sum
}

/// The cosine of two vectors of the same number of dimensions.
pub(crate) fn cosine(one: &[f32], one_length: f64, other: &[f32], other_length: f64) -> f32 {
    let products = one.iter().zip(other);
    let sum: f64 = products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    narrow_cosine(sum / one_length / other_length)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what is wanted"
)]
pub(crate) fn narrow_cosine(x: f64) -> f32 {
    x.clamp(-1.0, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(vector: &[f32]) -> (Vec<i8>, f32) {
        let mut code = vec![0; vector.len()];
        let scale = quantise(vector, length(vector).unwrap(), &mut code);
        (code, scale)
    }

    #[test]
    fn the_largest_number_gets_the_largest_code() {
        let (code, scale) = code_of(&[0.5, -1.0, 0.25]);
        assert_eq!(code, [64, -127, 32]);
        assert!(is_code(&code, scale));
    }

    #[test]
    fn the_largest_and_the_smallest_floats_have_directions() {
        for size in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
            let (code, scale) = code_of(&[size, -size]);
            assert_eq!(code, [127, -127]);
            assert!((scale * 127.0 - 0.5_f32.sqrt()).abs() < 1e-6);
        }
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        assert_eq!(length(&[0.0, -0.0]), Err(SearchError::Zero));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(length(&[1.0, bad]), Err(SearchError::NotFinite));
        }
    }

    #[test]
    fn no_sum_overflows_with_the_most_dimensions_and_the_largest_numbers() {
        for vector in [
            vec![1.0_f32; MAX_DIMENSIONS],
            [vec![1.0_f32], vec![0.0; MAX_DIMENSIONS - 1]].concat(),
        ] {
            let (code, scale) = code_of(&vector);
            let query = Query::new(&vector, MAX_DIMENSIONS).unwrap();
            let cosine = f64::from(query.dot(&code)) * query.scale() * f64::from(scale);
            assert!((cosine - 1.0).abs() < 1e-4, "{cosine}");
        }
    }

    #[test]
    fn what_cannot_be_a_code_is_noticed() {
        let (code, scale) = code_of(&[0.6, -0.8, 0.1]);
        assert!(is_code(&code, scale));
        for bad in [
            scale * 2.0,
            scale / 2.0,
            -scale,
            0.0,
            f32::NAN,
            f32::INFINITY,
        ] {
            assert!(!is_code(&code, bad), "{bad}");
        }
        let mut smaller = code.clone();
        smaller[1] = -126;
        let mut larger = code.clone();
        larger[1] = -128;
        for bad in [smaller, larger, vec![0, 0, 0], vec![]] {
            assert!(!is_code(&bad, scale));
        }
    }
}
