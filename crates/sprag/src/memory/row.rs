//! What the index keeps of a record: enough to list and to find it without its blob. A row of the store, sealed like all.
//!
//! ```text
//! 1 ‖ u64 created ‖ u64 updated ‖ u16 len ‖ id ‖ u16 len ‖ title ‖ u8 count ‖ tags, each u8 len ‖ tag ‖ u16 dimensions ‖ vector
//! vector: empty, or code and numbers as sprag-search encodes them
//! ```

use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::fault::Fault;
use super::{Chat, Memory};
use crate::Error;

const VERSION: u8 = 1;

/// What a row says.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub(crate) struct Row {
    pub(crate) created_at: u64,
    pub(crate) updated_at: u64,
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) tags: Vec<String>,
    /// Of the embedding; 0: there is none.
    pub(crate) dimensions: u16,
    /// As [`sprag_search::encode_with_vector`] gives it; empty if there is no embedding.
    pub(crate) vector: Vec<u8>,
}

impl Row {
    pub(crate) fn of_memory(memory: &Memory) -> Result<Self, Error> {
        let vector = match &memory.embedding {
            None => Vec::new(),
            Some(embedding) => sprag_search::encode_with_vector(embedding)
                .map_err(|_| Error::internal("an embedding that was checked"))?
                .to_vec(),
        };
        Ok(Self {
            created_at: memory.created_at,
            updated_at: memory.updated_at,
            id: memory.id.clone(),
            title: memory.title.clone(),
            tags: memory.tags.clone(),
            dimensions: u16::try_from(memory.embedding.as_ref().map_or(0, Vec::len))
                .map_err(|_| Error::internal("an embedding that was checked"))?,
            vector,
        })
    }

    pub(crate) fn of_chat(chat: &Chat) -> Self {
        Self {
            created_at: chat.created_at,
            updated_at: chat.updated_at,
            id: chat.id.clone(),
            title: chat.title.clone(),
            tags: Vec::new(),
            dimensions: 0,
            vector: Vec::new(),
        }
    }

    /// At most 32 KiB: everything in it has a limit.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let tags = self.tags.iter().map(|tag| 1 + tag.len()).sum::<usize>();
        let size = 24 + self.id.len() + self.title.len() + tags + self.vector.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(size));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.created_at.to_be_bytes());
        bytes.extend_from_slice(&self.updated_at.to_be_bytes());
        for text in [&self.id, &self.title] {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.push(u8::try_from(self.tags.len()).unwrap_or(u8::MAX));
        for tag in &self.tags {
            bytes.push(u8::try_from(tag.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(tag.as_bytes());
        }
        bytes.extend_from_slice(&self.dimensions.to_be_bytes());
        bytes.extend_from_slice(&self.vector);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        Self::read(bytes).ok_or(Fault::Damaged)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, rest) = bytes.split_first()? else {
            return None;
        };
        let (created_at, rest) = rest.split_first_chunk()?;
        let (updated_at, rest) = rest.split_first_chunk()?;
        let (id, rest) = long_text(rest)?;
        let (title, rest) = long_text(rest)?;
        let (&count, mut rest) = rest.split_first()?;
        let mut tags = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (&length, after) = rest.split_first()?;
            let (tag, after) = after.split_at_checked(usize::from(length))?;
            tags.push(str::from_utf8(tag).ok()?.to_owned());
            rest = after;
        }
        let (dimensions, rest) = rest.split_first_chunk()?;
        Some(Self {
            created_at: u64::from_be_bytes(*created_at),
            updated_at: u64::from_be_bytes(*updated_at),
            id,
            title,
            tags,
            dimensions: u16::from_be_bytes(*dimensions),
            vector: rest.to_vec(),
        })
    }
}

fn long_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((str::from_utf8(text).ok()?.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_says_what_the_record_does_and_fits() {
        let mut memory = Memory::new("x")
            .id("i".repeat(128))
            .title("t".repeat(1_024))
            .tags(vec!["é".repeat(64); 64])
            .embedding(vec![0.25; 4_096]);
        memory.created_at = 7;
        memory.updated_at = u64::MAX;
        let row = Row::of_memory(&memory).unwrap();
        let bytes = row.encode();
        assert!(bytes.len() < 32 << 10, "{}", bytes.len());
        assert!(Row::decode(&bytes).is_ok_and(|again| again == row));
        let vector = sprag_search::decode_vector(&row.vector).unwrap();
        assert_eq!(vector, memory.embedding);
        let chat = Row::of_chat(&Chat::default().id("c").title("t"));
        assert!(Row::decode(&chat.encode()).is_ok_and(|again| again == chat));
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let row = Row::of_memory(&Memory::new("x").id("ab").title("c").tags(["d"])).unwrap();
        let bytes = row.encode();
        for cut in 0..bytes.len() {
            assert!(Row::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut other = bytes.to_vec();
        other[0] = 2;
        assert!(Row::decode(&other).is_err());
        let mut not_text = bytes.to_vec();
        not_text[19] = 0xff;
        assert!(Row::decode(&not_text).is_err());
    }
}
