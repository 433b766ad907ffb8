//! Concatenation on the stack.

/// `parts` one after the other. What is missing to `N` stays zero, what is too much is left out; every caller's
/// parts are arrays whose lengths sum to `N`.
pub(crate) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut joined = [0; N];
    let mut rest = joined.as_mut_slice();
    for part in parts {
        let Some((slot, tail)) = core::mem::take(&mut rest).split_at_mut_checked(part.len()) else {
            debug_assert!(false, "the parts are longer than their sum");
            break;
        };
        slot.copy_from_slice(part);
        rest = tail;
    }
    debug_assert!(rest.is_empty(), "the parts are shorter than their sum");
    joined
}

/// The first `N` bytes of a longer string that is not secret.
pub(crate) fn prefix<const N: usize>(bytes: &[u8]) -> [u8; N] {
    debug_assert!(bytes.len() >= N, "shorter than its prefix");
    let mut prefix = [0; N];
    for (to, from) in prefix.iter_mut().zip(bytes) {
        *to = *from;
    }
    prefix
}
