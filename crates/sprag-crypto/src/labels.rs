//! Every label that enters a derivation, a signature or an associated datum. ASCII, without terminator.

/// Signed prekeys ("The protocol", §1.1).
pub const PREKEY: &[u8] = b"Sprag/1 prekey";
/// Signed device lists (§1.2).
pub const DEVICE_LIST: &[u8] = b"Sprag/1 device list";
/// Transcript of the handshake (§3).
pub const TRANSCRIPT: &[u8] = b"Sprag/1 transcript";
/// Output of the handshake (§3).
pub const HANDSHAKE: &[u8] = b"Sprag/1 handshake";
/// Root step of the ratchet (§4.2).
pub const RATCHET: &[u8] = b"Sprag/1 ratchet";
/// Key and nonce of one message (§4.2).
pub const MESSAGE: &[u8] = b"Sprag/1 message";
/// Name of a chain among the skipped keys (§4.2).
pub const CHAIN: &[u8] = b"Sprag/1 chain";
/// Associated data of a header (§4.3).
pub const HEADER: &[u8] = b"Sprag/1 header";
/// Associated data of a body (§4.3).
pub const BODY: &[u8] = b"Sprag/1 body";
/// Key of the origin seal (§5).
pub const ORIGIN: &[u8] = b"Sprag/1 origin";
/// Proof of a linked device (§6.1).
pub const LINK: &[u8] = b"Sprag/1 link";
/// Key that names an account's objects ("Memories", *Keys*).
pub const NAMES: &[u8] = b"Sprag/1 names";
/// Key of a space (there).
pub const SPACE: &[u8] = b"Sprag/1 space";
/// Id of a generation (there).
pub const GENERATION: &[u8] = b"Sprag/1 generation";
/// Heads of key logs: signature and seal ("Memories", *Heads*).
pub const HEAD: &[u8] = b"Sprag/1 head";
/// Segments of key logs ("Memories", *Segments*).
pub const SEGMENT: &[u8] = b"Sprag/1 segment";
/// Key under which a pair of devices names frames in its reports (`docs/REPORT.md`).
pub const REPORT: &[u8] = b"Sprag/1 report";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_ascii_and_distinct() {
        let all = [
            PREKEY,
            DEVICE_LIST,
            TRANSCRIPT,
            HANDSHAKE,
            RATCHET,
            MESSAGE,
            CHAIN,
            HEADER,
            BODY,
            ORIGIN,
            LINK,
            NAMES,
            SPACE,
            GENERATION,
            HEAD,
            SEGMENT,
            REPORT,
        ];
        for (at, label) in all.iter().enumerate() {
            assert!(label.starts_with(b"Sprag/1 ") && label.is_ascii());
            assert!(!all[..at].contains(label));
        }
    }
}
