//! Secrets laid open: for published vectors and diagnosis, never for an application.

use core::fmt;

use sprag_crypto::{Features, Mode, SessionId, TranscriptHash};
use zeroize::Zeroize;

use crate::header_key::HeaderKey;
use crate::session::Session;
use crate::state::Role;

pub use crate::message_key::MessageKey;

/// All that a session knows, in plain fields named as in the published vectors (`session`). **Secret.** Wiped on drop.
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of the protocol, §4.1")]
pub struct SessionState {
    pub sid: SessionId,
    pub th: TranscriptHash,
    pub role: Role,
    pub mode: Mode,
    pub features: Features,
    pub rk: [u8; 32],
    pub cks: Option<[u8; 32]>,
    pub hks: Option<[u8; 32]>,
    pub ckr: Option<[u8; 32]>,
    pub hkr: Option<[u8; 32]>,
    pub nhks: [u8; 32],
    pub nhkr: [u8; 32],
    pub ns: u32,
    pub nr: u32,
    pub pn: u32,
    /// −1: no sending chain yet.
    pub i_s: i64,
    pub c: u32,
    /// Clamped.
    pub ratchet_private: [u8; 32],
    /// Chain index and header key, ascending.
    pub old: Vec<(u32, [u8; 32])>,
}

impl SessionState {
    /// The `kid` (§4.2) of the current or an old receiving chain: what the vectors call the chain index of a skipped
    /// key.
    #[must_use]
    pub fn kid(&self, chain: u32) -> Option<[u8; 8]> {
        let current = self.c.checked_sub(1).filter(|index| *index == chain);
        let key = match current {
            Some(_) => self.hkr.as_ref()?,
            None => &self.old.iter().find(|(index, _)| *index == chain)?.1,
        };
        Some(HeaderKey::from_bytes(key).chain_id())
    }
}

impl Drop for SessionState {
    fn drop(&mut self) {
        self.rk.zeroize();
        self.cks.zeroize();
        self.hks.zeroize();
        self.ckr.zeroize();
        self.hkr.zeroize();
        self.nhks.zeroize();
        self.nhkr.zeroize();
        self.ratchet_private.zeroize();
        for (_, key) in &mut self.old {
            key.zeroize();
        }
    }
}

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionState").finish_non_exhaustive()
    }
}

impl Session {
    /// Lays the session open. **Secret**: for vectors and diagnosis.
    #[must_use]
    pub fn export(&self) -> SessionState {
        let state = &*self.0;
        let sending = state.sending.as_ref();
        let receiving = state.receiving.as_ref();
        SessionState {
            sid: state.constants.session,
            th: state.constants.transcript,
            role: state.constants.role,
            mode: state.constants.mode,
            features: state.constants.features,
            rk: *state.root.as_bytes(),
            cks: sending.map(|chain| *chain.key.as_bytes()),
            hks: sending.map(|chain| *chain.header_key.as_bytes()),
            ckr: receiving.map(|chain| *chain.key.as_bytes()),
            hkr: receiving.map(|chain| *chain.header_key.as_bytes()),
            nhks: *state.next_sending_header.as_bytes(),
            nhkr: *state.next_receiving_header.as_bytes(),
            ns: sending.map_or(0, |chain| chain.next),
            nr: receiving.map_or(0, |chain| chain.next),
            pn: state.previous_length,
            i_s: state.sending_index().map_or(-1, i64::from),
            c: state.received,
            ratchet_private: *state.own.private.to_bytes(),
            old: self
                .old_chains()
                .map(|(index, key)| (index, *key.as_bytes()))
                .collect(),
        }
    }
}
