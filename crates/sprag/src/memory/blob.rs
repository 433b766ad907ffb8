//! The blob of a record (`docs/MEMORY.md`, *Blobs*): one direct slot with an empty key id, padded, bound to its place.
//!
//! ```text
//! payload = plaintext ‖ 80 ‖ zeros, to Padmé lengths of at least 160 bytes
//! plaintext = 1 ‖ u32 n ‖ n numbers, f32 little-endian ‖ JSON                       n = 0: no embedding; a chat has none
//! ```

use rand_core::CryptoRng;
use sprag_crypto::sha256;
use sprag_session::memory::{RecordId, Space};
use sprag_vault::{
    Context, DataKey, FormatError, Header, OpenError, Recipient, Sealing, Unlock, open, seal,
};
use sprag_wire::{Padding, pad, unpad};
use zeroize::Zeroizing;

use super::fault::Fault;
use super::record::WithoutEmbedding;
use super::{Chat, InvalidRecord, MAX_DIMENSIONS, MAX_RECORD, Memory};
use crate::Error;

/// The form of what is inside. Part of the context.
const SCHEMA: u8 = 1;

/// A key of 32 bytes, of one record and revision.
pub(crate) type RecordKey = Zeroizing<[u8; 32]>;

/// A record that is sealed.
pub(crate) struct SealedRecord {
    pub(crate) revision: u64,
    pub(crate) key: RecordKey,
    pub(crate) name: [u8; 32],
    pub(crate) blob: Vec<u8>,
}

/// What a memory is inside of its blob.
pub(crate) fn encode_memory(memory: &Memory) -> Result<Zeroizing<Vec<u8>>, Fault> {
    memory.check_fields()?;
    let embedding = memory.embedding.as_deref().unwrap_or_default();
    encode(embedding, &WithoutEmbedding(memory))
}

/// What a chat is inside of its blob.
pub(crate) fn encode_chat(chat: &Chat) -> Result<Zeroizing<Vec<u8>>, Fault> {
    chat.check_fields()?;
    encode(&[], chat)
}

fn encode(embedding: &[f32], json: &impl serde::Serialize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // Measured first, so that the text is never moved, which would leave a copy behind.
    let length = measure(embedding, json)?;
    let count = u32::try_from(embedding.len()).map_err(|_| InvalidRecord::Dimensions)?;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(length));
    plaintext.push(SCHEMA);
    plaintext.extend_from_slice(&count.to_be_bytes());
    for number in embedding {
        plaintext.extend_from_slice(&number.to_le_bytes());
    }
    serde_json::to_writer(&mut *plaintext, json).map_err(|_| InvalidRecord::Json)?;
    Ok(plaintext)
}

/// How long a record will be, if it is not too long.
pub(super) fn measure(
    embedding: &[f32],
    json: &impl serde::Serialize,
) -> Result<usize, InvalidRecord> {
    let mut length = Count(5 + 4 * embedding.len());
    serde_json::to_writer(&mut length, json).map_err(|_| InvalidRecord::Json)?;
    match length.0 {
        length if length > MAX_RECORD => Err(InvalidRecord::Size),
        length => Ok(length),
    }
}

struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The memory inside of an opened blob. It is what a device of the account wrote, so what does not fit is its error.
pub(crate) fn decode_memory(plaintext: &[u8]) -> Result<Memory, Fault> {
    let (embedding, json) = decode(plaintext)?;
    let mut memory: Memory = serde_json::from_slice(json).map_err(|_| Fault::Damaged)?;
    if memory.embedding.is_some() {
        return Err(Fault::Damaged);
    }
    memory.embedding = embedding;
    memory.check_fields().map_err(|_| Fault::Damaged)?;
    Ok(memory)
}

/// The chat inside of an opened blob.
pub(crate) fn decode_chat(plaintext: &[u8]) -> Result<Chat, Fault> {
    let (None, json) = decode(plaintext)? else {
        return Err(Fault::Damaged);
    };
    let chat: Chat = serde_json::from_slice(json).map_err(|_| Fault::Damaged)?;
    chat.check_fields().map_err(|_| Fault::Damaged)?;
    Ok(chat)
}

fn decode(plaintext: &[u8]) -> Result<(Option<Vec<f32>>, &[u8]), Fault> {
    let Some((&SCHEMA, rest)) = plaintext.split_first() else {
        return Err(Fault::Damaged);
    };
    let (count, rest) = rest.split_first_chunk().ok_or(Fault::Damaged)?;
    let count = usize::try_from(u32::from_be_bytes(*count)).map_err(|_| Fault::Damaged)?;
    if count > MAX_DIMENSIONS {
        return Err(Fault::Damaged);
    }
    let (numbers, json) = rest.split_at_checked(4 * count).ok_or(Fault::Damaged)?;
    if count == 0 {
        return Ok((None, json));
    }
    let (numbers, _) = numbers.as_chunks::<4>();
    let numbers = numbers.iter().map(|number| f32::from_le_bytes(*number));
    Ok((Some(numbers.collect()), json))
}

/// What the blob of a record is bound to.
fn context(space: &Space, id: &RecordId, schema: u8, revision: u64) -> Result<Context, Error> {
    let (schema, revision) = (schema.to_string(), revision.to_string());
    Context::from_pairs([
        ("app", space.app().as_bytes()),
        ("user", space.user().as_bytes()),
        ("agent", space.agent().unwrap_or_default().as_bytes()),
        ("kind", space.kind().name().as_bytes()),
        ("record", id.as_bytes()),
        ("schema", schema.as_bytes()),
        ("revision", revision.as_bytes()),
    ])
    .map_err(|_| Error::internal("a context of names that were checked"))
}

/// Seals a record under a fresh key.
pub(crate) fn seal_record(
    space: &Space,
    id: &RecordId,
    revision: u64,
    plaintext: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<SealedRecord, Error> {
    let key = DataKey::generate(rng);
    let to = [Recipient::direct("")];
    let context = context(space, id, SCHEMA, revision)?;
    let payload = pad(plaintext, Padding::Padme);
    let blob = seal(&payload, &Sealing::new(&key, &to).context(&context), rng)
        .map_err(|_| Error::internal("a record that is not sealed"))?;
    Ok(SealedRecord {
        revision,
        key: Zeroizing::new(*key.as_bytes()),
        name: sha256(&[&blob]),
        blob,
    })
}

/// What the log says of the newest revision of a record.
pub(crate) struct Newest<'a> {
    pub(crate) revision: u64,
    pub(crate) key: &'a [u8; 32],
    pub(crate) name: &'a [u8; 32],
}

/// Opens the newest blob of a record. `is_of_another` tells whether a hash is that of another record's newest blob.
pub(crate) fn open_record(
    space: &Space,
    id: &RecordId,
    newest: &Newest<'_>,
    blob: &[u8],
    is_of_another: impl FnOnce(&[u8; 32]) -> Result<bool, Error>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let key = DataKey::from_bytes(newest.key);
    let name = sha256(&[blob]);
    if name != *newest.name {
        return Err(match Header::parse(blob) {
            Err(_) => Fault::Damaged,
            // It is this revision, and was changed on its way.
            Ok(header) if header.commits_to(&key) => Fault::Damaged,
            Ok(_) if is_of_another(&name)? => Fault::Misplaced,
            Ok(_) => Fault::Stale,
        }
        .into());
    }
    let unlock = Unlock::new().direct("", key);
    let under = |schema| {
        let context = context(space, id, schema, newest.revision)?;
        Ok::<_, Error>(open(blob, &unlock, &context))
    };
    let payload = match under(SCHEMA)? {
        Ok(payload) => payload,
        Err(OpenError::Format(
            FormatError::Version(_) | FormatError::Suite(_) | FormatError::Flags,
        )) => return Err(Fault::Newer.into()),
        Err(OpenError::ContextOrHeader) => {
            for schema in SCHEMA.saturating_add(1)..=u8::MAX {
                if !matches!(under(schema)?, Err(OpenError::ContextOrHeader)) {
                    return Err(Fault::Newer.into());
                }
            }
            return Err(Fault::Misplaced.into());
        }
        Err(_) => return Err(Fault::Damaged.into()),
    };
    let plaintext = unpad(&payload).map_err(|_| Fault::Damaged)?;
    Ok(Zeroizing::new(plaintext.to_vec()))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use sprag_session::memory::SpaceKind;

    use super::*;
    use crate::memory::ChatMessage;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([7; 32])
    }

    fn space(user: &str) -> Space {
        Space::new("app", user, None, SpaceKind::Memory).unwrap()
    }

    fn id(id: &str) -> RecordId {
        RecordId::new(id).unwrap()
    }

    fn open_as(
        space: &Space,
        id: &RecordId,
        revision: u64,
        sealed: &SealedRecord,
        blob: &[u8],
    ) -> Result<Vec<u8>, &'static str> {
        let newest = Newest {
            revision,
            key: &sealed.key,
            name: &sealed.name,
        };
        open_record(space, id, &newest, blob, |_| Ok(false))
            .map(|plaintext| plaintext.to_vec())
            .map_err(|error| error.code())
    }

    #[test]
    fn memory_comes_back_with_every_bit_of_its_embedding() {
        let mut memory = Memory::new("content").id("a").title("b").tags(["c", "d"]);
        memory.embedding = Some(vec![0.1, -0.0, f32::MIN_POSITIVE, 1e-45, f32::MAX]);
        memory.metadata = Some(Json::parse("1.100000000000000000000000000001").unwrap());
        memory.extra = vec![("x".to_owned(), Json::parse("[1e999]").unwrap())];
        let plaintext = encode_memory(&memory).unwrap();
        assert_eq!(&plaintext[..9], [1, 0, 0, 0, 5, 0xcd, 0xcc, 0xcc, 0x3d]);
        let again = decode_memory(&plaintext).unwrap();
        assert_eq!(again, memory);
        let bits = |memory: &Memory| {
            let numbers = memory.embedding.clone().unwrap();
            numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&again), bits(&memory));
        let chat = Chat::new(vec![ChatMessage::new("user", "hi")]).id("c");
        assert_eq!(decode_chat(&encode_chat(&chat).unwrap()).unwrap(), chat);
    }

    use crate::memory::Json;

    #[test]
    fn what_no_writer_writes_is_not_read() {
        let good = encode_memory(&Memory::new("x").embedding(vec![1.0])).unwrap();
        assert!(decode_memory(&good).is_ok());
        let other_schema = [&[2], &good[1..]].concat();
        let too_many = [&[1, 0, 0, 0x10, 1][..], &good[5..]].concat();
        let twice = [&good[..9], br#"{"embedding":[1]}"#].concat();
        let zeros = [&[1, 0, 0, 0, 1, 0, 0, 0, 0], b"{}".as_slice()].concat();
        let long_title = [
            &[1, 0, 0, 0, 0][..],
            br#"{"title":""#,
            &[b'x'; 1_025],
            br#""}"#,
        ]
        .concat();
        for wrong in [
            &[][..],
            &good[..4],
            &good[..8],
            &good[..9],
            &good[..good.len() - 1],
            &other_schema,
            &too_many,
            &twice,
            &zeros,
            &long_title,
            b"\x01\0\0\0\0{}{}",
        ] {
            assert!(matches!(decode_memory(wrong), Err(Fault::Damaged)));
        }
        // A chat has no embedding.
        assert!(matches!(decode_chat(&good), Err(Fault::Damaged)));
    }

    #[test]
    fn record_beyond_16_mib_is_not_sealed() {
        let text = "x".repeat(MAX_RECORD);
        let chat = Chat::new(vec![ChatMessage::new("user", text)]);
        let refused = encode_chat(&chat).err().unwrap();
        assert!(matches!(refused, Fault::Invalid(InvalidRecord::Size)));
        let mut memory = Memory::new("");
        let big = Json::string(&"x".repeat(MAX_RECORD));
        memory.extra = vec![("x".to_owned(), big)];
        let refused = encode_memory(&memory).err().unwrap();
        assert!(matches!(refused, Fault::Invalid(InvalidRecord::Size)));
    }

    #[test]
    fn blob_opens_in_its_place_only() {
        let (space_a, id_a) = (space("ann"), id("a"));
        let sealed = seal_record(&space_a, &id_a, 3, b"hello", &mut rng()).unwrap();
        let as_is = |space: &Space, id: &RecordId, revision| {
            open_as(space, id, revision, &sealed, &sealed.blob)
        };
        assert_eq!(as_is(&space_a, &id_a, 3).as_deref(), Ok(&b"hello"[..]));
        assert_eq!(as_is(&space_a, &id("b"), 3), Err("blob_misplaced"));
        assert_eq!(as_is(&space_a, &id_a, 2), Err("blob_misplaced"));
        assert_eq!(as_is(&space("bob"), &id_a, 3), Err("blob_misplaced"));
        let chat = Space::new("app", "ann", None, SpaceKind::Chat).unwrap();
        assert_eq!(as_is(&chat, &id_a, 3), Err("blob_misplaced"));
        let agent = Space::new("app", "ann", Some("bot"), SpaceKind::Memory).unwrap();
        assert_eq!(as_is(&agent, &id_a, 3), Err("blob_misplaced"));
        let app = Space::new("other", "ann", None, SpaceKind::Memory).unwrap();
        assert_eq!(as_is(&app, &id_a, 3), Err("blob_misplaced"));
    }

    #[test]
    fn stale_damaged_misplaced_and_newer_blobs_are_told_apart() {
        let (space, id) = (space("ann"), id("a"));
        let mut rng = rng();
        let old = seal_record(&space, &id, 1, b"old", &mut rng).unwrap();
        let sealed = seal_record(&space, &id, 2, b"new", &mut rng).unwrap();
        let with = |blob: &[u8]| open_as(&space, &id, 2, &sealed, blob);
        assert_eq!(with(&old.blob), Err("blob_stale"));
        let newest = Newest {
            revision: 2,
            key: &sealed.key,
            name: &sealed.name,
        };
        let misplaced = open_record(&space, &id, &newest, &old.blob, |_| Ok(true));
        assert_eq!(misplaced.err().unwrap().code(), "blob_misplaced");
        assert_eq!(with(b"nothing of the kind"), Err("blob_damaged"));
        assert_eq!(with(&[]), Err("blob_damaged"));
        assert_eq!(
            with(&sealed.blob[..sealed.blob.len() - 1]),
            Err("blob_damaged")
        );
        assert_eq!(
            with(&[&sealed.blob[..], &[0]].concat()),
            Err("blob_damaged")
        );
        for position in [90, 120, sealed.blob.len() - 1] {
            let mut flipped = sealed.blob.clone();
            flipped[position] ^= 1;
            assert_eq!(with(&flipped), Err("blob_damaged"), "{position}");
        }
        // What a later version writes says so by its schema.
        let key = DataKey::from_bytes(&sealed.key);
        let context = context(&space, &id, 9, 2).unwrap();
        let to = [Recipient::direct("")];
        let sealing = Sealing::new(&key, &to).context(&context);
        let blob = seal(&pad(b"?", Padding::Padme), &sealing, &mut rng).unwrap();
        let newer = SealedRecord {
            revision: 2,
            key: sealed.key.clone(),
            name: sha256(&[&blob]),
            blob,
        };
        assert_eq!(
            open_as(&space, &id, 2, &newer, &newer.blob),
            Err("record_newer")
        );
    }

    #[test]
    fn size_of_a_blob_tells_little_of_the_record() {
        let sizes: std::collections::BTreeSet<_> = (0..140)
            .map(|length| {
                let plaintext = vec![b'x'; length];
                let sealed = seal_record(&space("ann"), &id("a"), 1, &plaintext, &mut rng());
                sealed.unwrap().blob.len()
            })
            .collect();
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [160 + 136]);
    }
}
