//! What is wrong with a vector, a query or a stored form.

/// A vector, query or stored form that was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// An index or embedder has 1 to 4,096 dimensions.
    #[error("vectors have 1 to 4096 dimensions, not {0}")]
    BadDimensions(usize),
    /// The vector has another number of dimensions than the index: another model made it.
    #[error("vector has {got} dimensions, the index has {expected}")]
    OtherDimensions {
        /// Those of the vector.
        got: usize,
        /// Those of the index.
        expected: usize,
    },
    /// A number of the vector is infinite or not a number.
    #[error("vector has a number that is not finite")]
    NotFinite,
    /// All numbers of the vector are zero, so it points nowhere.
    #[error("vector is zero")]
    Zero,
    /// The threshold is not a number. It is a cosine: -1 lets everything through, 1 only the same direction.
    #[error("threshold is not a number")]
    BadThreshold,
    /// The stored form was written by a later version. Update.
    #[error("stored form has version {0}, which is not known")]
    UnknownVersion(u8),
    /// The stored form is damaged.
    #[error("stored form of a vector is damaged")]
    Malformed,
    /// The stored form has no vector, and the index keeps vectors. Insert the vector itself.
    #[error("stored form has a code only, and the index keeps vectors")]
    NoVector,
    /// The index has as many records as it can number, which are 2^32 - 1.
    #[error("index is full")]
    Full,
}
