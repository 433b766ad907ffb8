//! What names and opens an attachment: a few bytes in a message.

use sprag_session::ProtocolError;
use sprag_vault::{Context, DataKey};
use sprag_wire::padme;

use crate::Error;

/// The largest attachment, in bytes: 100 MiB.
///
/// Its parts lie sealed in rows of the store until the server has them, and at the receiver until they are forgotten. At
/// 100 MiB they are about 27,000 rows: a quarter of those from which on a store counts its rows beside the work. What is
/// larger belongs into a file of one's own, sealed with `sprag-vault`.
pub const MAX_ATTACHMENT: u64 = 100 << 20;

/// Bytes of each part but the last.
pub(super) const PART: usize = 4 << 20;
/// A media type and a file name have at most so many bytes.
const TEXT: usize = 255;
const VERSION: u8 = 1;
/// Header of a blob with one direct slot of an empty id, and bytes of a chunk and its tag.
const HEADER: usize = 120;
pub(super) const CHUNK: usize = 1 << 16;
const TAG: usize = 16;

/// Names an attachment and opens it. Whoever has it can read the attachment: it belongs into a message, and nowhere else.
#[derive(Clone)]
pub struct Attachment {
    media_type: String,
    file_name: String,
    size: u64,
    key: DataKey,
    parts: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}

impl Attachment {
    /// All of it, if it can be of this version.
    pub(super) fn new(
        about: &About,
        size: u64,
        key: DataKey,
        parts: Vec<[u8; 32]>,
    ) -> Option<Self> {
        (count_of(size)? == parts.len()).then(|| Self {
            media_type: about.media_type.clone(),
            file_name: about.file_name.clone(),
            size,
            key,
            parts,
        })
    }

    /// From what [`to_bytes`](Self::to_bytes) gave: out of a message, so from whoever sent it.
    ///
    /// # Errors
    /// `unsupported_version`; `malformed`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
        if *version != VERSION {
            return Err(ProtocolError::UnsupportedVersion.into());
        }
        Self::read(rest).ok_or_else(malformed)
    }

    fn read(rest: &[u8]) -> Option<Self> {
        let (key, rest) = rest.split_first_chunk::<32>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (media_type, rest) = text(rest)?;
        let (file_name, rest) = text(rest)?;
        let (parts, rest) = rest.as_chunks::<32>();
        let about = About::new(media_type, file_name).ok()?;
        let key = DataKey::from_bytes(key);
        (rest.is_empty()).then_some(())?;
        Self::new(&about, u64::from_be_bytes(*size), key, parts.to_vec())
    }

    /// The bytes to be put into a message: 43 and the two texts, and 32 for each 4 MiB; at most 1.4 kB.
    ///
    /// ```text
    /// 01 ‖ key (32) ‖ size (8) ‖ u8 length ‖ media type ‖ u8 length ‖ file name ‖ SHA-256 of each part (32 each)
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let texts = self.media_type.len().saturating_add(self.file_name.len());
        let names = self.parts.len().saturating_mul(32);
        // Of its full size from the start, so that the key is not left behind.
        let mut bytes = Vec::with_capacity(texts.saturating_add(names).saturating_add(43));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for text in [&self.media_type, &self.file_name] {
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend(self.parts.iter().flatten());
        bytes
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What its sender says that it is, as `image/png`; may be empty.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What its sender calls it; may be empty. No path: it has no `/`, no `\`, no control characters, and is not `.` or
    /// `..`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    pub(super) fn names(&self) -> &[[u8; 32]] {
        &self.parts
    }

    pub(super) fn key(&self) -> DataKey {
        self.key.clone()
    }

    pub(super) fn context(&self) -> Result<Context, Error> {
        context(&self.media_type, &self.file_name)
    }
}

/// What the caller says of it, checked.
#[derive(Debug)]
pub(super) struct About {
    media_type: String,
    file_name: String,
}

impl About {
    pub(super) fn new(media_type: &str, file_name: &str) -> Result<Self, Error> {
        let is_short = |text: &str| text.len() <= TEXT && !text.chars().any(char::is_control);
        let is_path = file_name.contains(['/', '\\']) || matches!(file_name, "." | "..");
        if !is_short(media_type) || !is_short(file_name) || is_path {
            return Err(Error::bad_input());
        }
        Ok(Self {
            media_type: media_type.to_owned(),
            file_name: file_name.to_owned(),
        })
    }

    pub(super) fn context(&self) -> Result<Context, Error> {
        context(&self.media_type, &self.file_name)
    }
}

/// What the blob of an attachment is bound to.
fn context(media_type: &str, file_name: &str) -> Result<Context, Error> {
    Context::from_pairs([
        ("kind", "attachment"),
        ("media_type", media_type),
        ("name", file_name),
        ("schema", "1"),
    ])
    .map_err(|_| Error::internal("a context of an attachment"))
}

fn malformed() -> Error {
    ProtocolError::Malformed.into()
}

/// One length byte and as much text.
fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// How long the payload of an attachment of `size` bytes is: the bytes, one `0x80`, and zeros up to a Padmé length.
pub(super) fn padded(size: u64) -> Option<usize> {
    let size = usize::try_from(size).ok()?;
    (size as u64 <= MAX_ATTACHMENT).then(|| padme(size.saturating_add(1)))
}

/// How many parts an attachment of `size` bytes has.
fn count_of(size: u64) -> Option<usize> {
    let padded = padded(size)?;
    let sealed = padded
        .checked_add(padded.div_ceil(CHUNK).checked_mul(TAG)?)?
        .checked_add(HEADER)?;
    Some(sealed.div_ceil(PART))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;

    fn attachment(size: u64, parts: usize) -> Option<Attachment> {
        let about = About::new("image/png", "cat.png").unwrap();
        Attachment::new(
            &about,
            size,
            DataKey::from_bytes(&[7; 32]),
            vec![[9; 32]; parts],
        )
    }

    fn code(bytes: &[u8]) -> &'static str {
        Attachment::from_bytes(bytes).unwrap_err().code()
    }

    #[test]
    fn descriptor_is_written_as_the_text_says_and_read_back() {
        let bytes = attachment(5, 1).unwrap().to_bytes();
        let mut expected = vec![1];
        expected.extend([7; 32]);
        expected.extend(5u64.to_be_bytes());
        expected.extend(b"\x09image/png\x07cat.png");
        expected.extend([9; 32]);
        assert_eq!(bytes, expected);
        let read = Attachment::from_bytes(&bytes).unwrap();
        assert_eq!(read.size(), 5);
        assert_eq!(read.media_type(), "image/png");
        assert_eq!(read.file_name(), "cat.png");
        assert_eq!(read.to_bytes(), bytes);
        assert!(!format!("{read:?}").contains('7'), "{read:?}");
    }

    #[test]
    fn number_of_parts_follows_from_the_size() {
        // The padded length is 4 MiB less what the form adds, at most.
        let header = 120 + 64 * 16;
        for (size, parts) in [
            (0, 1),
            (1, 1),
            (1 << 20, 1),
            (PART as u64 - header - (1 << 17), 1),
            (PART as u64 - 1, 2),
            (PART as u64, 2),
            (MAX_ATTACHMENT - 1, 26),
        ] {
            assert!(
                attachment(size, parts).is_some(),
                "{size}: {:?}",
                count_of(size)
            );
            assert!(attachment(size, parts - 1).is_none());
            assert!(attachment(size, parts + 1).is_none());
        }
        let most = count_of(MAX_ATTACHMENT).unwrap();
        assert!(attachment(MAX_ATTACHMENT, most).is_some());
        assert!(attachment(MAX_ATTACHMENT + 1, most).is_none());
        assert!(attachment(u64::MAX, most).is_none());
    }

    #[test]
    fn bytes_that_are_no_descriptor_are_refused() {
        let good = attachment(5, 1).unwrap().to_bytes();
        for end in 0..good.len() {
            assert_eq!(code(&good[..end]), "malformed", "{end}");
        }
        assert_eq!(code(&[&good[..], &[0]].concat()), "malformed");
        assert_eq!(code(&[&good[..], &[0; 32]].concat()), "malformed");
        for version in [0, 2, 255] {
            let other = [&[version], &good[1..]].concat();
            assert_eq!(code(&other), "unsupported_version");
        }
        // Another size has another number of parts, or none.
        for place in 33..37 {
            let mut large = good.clone();
            large[place] = 1;
            assert_eq!(code(&large), "malformed");
        }
    }

    #[test]
    fn names_that_are_paths_or_control_a_terminal_are_refused() {
        let long = "a".repeat(256);
        for name in [
            "a/b",
            "..",
            ".",
            "\\x",
            "a\\b",
            "a\nb",
            "a\0",
            "\u{1b}[2J",
            &long,
        ] {
            assert_eq!(
                About::new("", name).unwrap_err().code(),
                "bad_input",
                "{name:?}"
            );
        }
        for media_type in ["a\rb", &long] {
            assert_eq!(About::new(media_type, "").unwrap_err().code(), "bad_input");
        }
        About::new("", "").unwrap();
        About::new("text/plain; charset=utf-8", "...").unwrap();
        // Also from a sender who did not ask this code.
        let bytes = attachment(5, 1).unwrap().to_bytes();
        let at = bytes
            .windows(7)
            .position(|text| text == b"cat.png")
            .unwrap();
        for name in [b"../.png", b"cat\npng", b"cat\xffpng"] {
            let mut bytes = bytes.clone();
            bytes[at..at + 7].copy_from_slice(name);
            assert_eq!(code(&bytes), "malformed");
        }
    }
}
