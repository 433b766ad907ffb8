//! How two processes of one user begin to talk: each looks who the other one's user is, then both prove that they know
//! the key of the store, and from then on all is sealed.
//!
//! ```text
//! guest   "SPRAG\0io" ‖ version u8 (1) ‖ nonce(32)
//! host    "SPRAG\0io" ‖ version u8 (1) ‖ nonce(32) ‖ proof of the host(32)
//! guest   proof of the guest(32)
//! host    frame: the number of its process
//! ```
//!
//! Proofs and frames are those of `sprag::store::ProofKey`. What a fake gets is a proof for nonces that one of the two drew
//! itself: good for nothing else, and it tells nothing of the key. All of it takes at most [`PATIENCE`].

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use sprag::store::{PROOF_LEN, ProofChannel, ProofKey, ProofNonces, ProofSide};
use zeroize::Zeroizing;

use super::call::Fault;
use super::frame::{MAX_FRAME, read_frame, write_frame};
use super::peer;
use crate::sys;

const MAGIC: &[u8; 8] = b"SPRAG\0io";
const VERSION: u8 = 1;
/// How long a beginning takes at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The most that can be said at once, in bytes: a frame without its seal.
pub(super) const MAX_SAID: usize = MAX_FRAME - 32;

/// Why nobody talks.
#[derive(Debug)]
pub(super) enum Refused {
    /// The other side ended, or said nothing.
    Gone,
    /// The other side's process runs for another user.
    OtherUser,
    /// The other side does not know the key of the store.
    WrongKey,
    /// The other side is of another version.
    Version,
    /// We do not know the key of the store.
    Ours(Fault),
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A conversation that has begun.
pub(super) struct Line {
    stream: UnixStream,
    channel: ProofChannel,
}

impl Line {
    /// Says something; all of it is gone when this returns.
    pub(super) fn say(&mut self, content: &[u8]) -> io::Result<()> {
        let sealed = self.channel.seal(content, &mut sys::rng());
        write_frame(&mut self.stream, &sealed)
    }

    /// What the other side says next; `None` if it ended.
    pub(super) fn hear(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(frame) = read_frame(&mut self.stream)? else {
            return Ok(None);
        };
        let content = self.channel.open(&frame);
        content
            .map(Some)
            .ok_or_else(|| ErrorKind::InvalidData.into())
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// Who may be at the other end, and how it is found out.
#[derive(Clone, Copy)]
pub(super) struct Trust {
    /// How long either side waits for the other one to begin.
    pub(super) patience: Duration,
    pub(super) uid_of: fn(&UnixStream) -> io::Result<u32>,
    pub(super) ours: u32,
}

impl Trust {
    pub(super) fn kernel() -> Self {
        Self {
            patience: PATIENCE,
            uid_of: peer::uid,
            ours: peer::ours(),
        }
    }

    fn check(self, stream: &UnixStream) -> Result<(), Refused> {
        if (self.uid_of)(stream)? == self.ours {
            Ok(())
        } else {
            Err(Refused::OtherUser)
        }
    }
}

/// Begins as who asks. Says with it which process answers.
pub(super) fn as_guest(
    stream: UnixStream,
    key: &ProofKey,
    trust: Trust,
) -> Result<(Line, u32), Refused> {
    trust.check(&stream)?;
    let mut timed = Timed::begin(&stream, trust);
    let guest: [u8; PROOF_LEN] = sys::random();
    timed.write_all(&greeting(&guest))?;
    let host = greeted(&mut timed)?;
    let nonces = ProofNonces { guest, host };
    let mut proof = [0; PROOF_LEN];
    timed.read_exact(&mut proof)?;
    if !key.is_proof(ProofSide::Host, &nonces, &proof) {
        return Err(Refused::WrongKey);
    }
    timed.write_all(&key.prove(ProofSide::Guest, &nonces))?;
    let mut channel = key.channel(ProofSide::Guest, &nonces);
    let ready = read_frame(&mut timed)?.ok_or(Refused::Gone)?;
    let ready = channel.open(&ready).ok_or(Refused::WrongKey)?;
    let process = ready.as_slice().try_into().map_err(|_| Refused::Version)?;
    timed.end()?;
    Ok((Line { stream, channel }, u32::from_be_bytes(process)))
}

/// Begins as who answers.
pub(super) fn as_host(
    stream: UnixStream,
    key: impl FnOnce() -> Result<ProofKey, Refused>,
    trust: Trust,
) -> Result<Line, Refused> {
    trust.check(&stream)?;
    let mut timed = Timed::begin(&stream, trust);
    let guest = greeted(&mut timed)?;
    let host: [u8; PROOF_LEN] = sys::random();
    let nonces = ProofNonces { guest, host };
    let key = key()?;
    timed.write_all(&greeting(&host))?;
    timed.write_all(&key.prove(ProofSide::Host, &nonces))?;
    let mut proof = [0; PROOF_LEN];
    timed.read_exact(&mut proof)?;
    if !key.is_proof(ProofSide::Guest, &nonces, &proof) {
        return Err(Refused::WrongKey);
    }
    let channel = key.channel(ProofSide::Host, &nonces);
    timed.end()?;
    let mut line = Line { stream, channel };
    line.say(&std::process::id().to_be_bytes())?;
    Ok(line)
}

fn greeting(nonce: &[u8; PROOF_LEN]) -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION], nonce].concat()
}

/// The nonce of the other side's greeting.
fn greeted(timed: &mut Timed<'_>) -> Result<[u8; PROOF_LEN], Refused> {
    let mut magic = [0; MAGIC.len()];
    timed.read_exact(&mut magic)?;
    let mut version = [0; 1];
    timed.read_exact(&mut version)?;
    if magic != *MAGIC || version != [VERSION] {
        return Err(Refused::Version);
    }
    let mut nonce = [0; PROOF_LEN];
    timed.read_exact(&mut nonce)?;
    Ok(nonce)
}

/// A stream on which all together has to be over in time, however slowly the other side sends it.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    fn begin(stream: &'a UnixStream, trust: Trust) -> Self {
        Self {
            stream,
            until: Instant::now() + trust.patience,
        }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }

    fn end(self) -> io::Result<()> {
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        let mut stream = self.stream;
        stream.read(bytes)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        let mut stream = self.stream;
        stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use sprag::store::StoreKeys;

    use super::*;

    fn key() -> ProofKey {
        StoreKeys::generate(&mut sys::rng()).proof_key()
    }

    /// Both sides at once: what the guest got, and what the host got.
    fn meet(
        guest: (&ProofKey, Trust),
        host: (&ProofKey, Trust),
    ) -> (Result<(Line, u32), Refused>, Result<Line, Refused>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let host = scope.spawn(move || as_host(theirs, || Ok(host.0.clone()), host.1));
            let guest = as_guest(ours, guest.0, guest.1);
            (guest, host.join().unwrap())
        })
    }

    fn foreign() -> Trust {
        Trust {
            uid_of: |_| Ok(peer::ours() + 1),
            ..Trust::kernel()
        }
    }

    #[test]
    fn two_processes_of_one_user_with_one_key_talk() {
        let (key, trust) = (key(), Trust::kernel());
        let (guest, host) = meet((&key, trust), (&key, trust));
        let ((mut guest, process), mut host) = (guest.unwrap(), host.unwrap());
        assert_eq!(process, std::process::id());
        guest.say(b"question").unwrap();
        assert_eq!(host.hear().unwrap().unwrap().as_slice(), b"question");
        host.say(b"answer").unwrap();
        assert_eq!(guest.hear().unwrap().unwrap().as_slice(), b"answer");
        drop(guest);
        assert!(host.hear().unwrap().is_none());
    }

    #[test]
    fn each_side_refuses_the_process_of_another_user_before_it_says_anything() {
        let (key, trust) = (key(), Trust::kernel());
        let (guest, host) = meet((&key, foreign()), (&key, trust));
        assert!(matches!(guest, Err(Refused::OtherUser)));
        assert!(matches!(host, Err(Refused::Gone)));
        let (guest, host) = meet((&key, trust), (&key, foreign()));
        assert!(matches!(host, Err(Refused::OtherUser)));
        assert!(matches!(guest, Err(Refused::Gone)));
    }

    #[test]
    fn a_host_with_another_key_gets_no_proof_of_the_guest() {
        let trust = Trust::kernel();
        let (guest, host) = meet((&key(), trust), (&key(), trust));
        assert!(matches!(guest, Err(Refused::WrongKey)));
        assert!(matches!(host, Err(Refused::Gone)));
    }

    /// What a host with the key makes of a guest that sends `proof` for its nonces.
    fn host_against(
        proof: impl FnOnce(&ProofNonces, [u8; PROOF_LEN]) -> [u8; PROOF_LEN],
    ) -> Refused {
        let key = key();
        let (mut guest, host) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let known = key.clone();
            let host = scope.spawn(move || as_host(host, || Ok(known), Trust::kernel()));
            guest.write_all(&greeting(&[1; 32])).unwrap();
            let mut said = [0; 9 + 32 + 32];
            guest.read_exact(&mut said).unwrap();
            let nonces = ProofNonces {
                guest: [1; 32],
                host: said[9..41].try_into().unwrap(),
            };
            let proof = proof(&nonces, said[41..].try_into().unwrap());
            guest.write_all(&proof).unwrap();
            host.join().unwrap().err().unwrap()
        })
    }

    #[test]
    fn a_guest_without_the_key_is_refused_and_so_is_one_that_sends_back_what_it_heard() {
        let refused = host_against(|nonces, _| key().prove(ProofSide::Guest, nonces));
        assert!(matches!(refused, Refused::WrongKey));
        let refused = host_against(|_, heard| heard);
        assert!(matches!(refused, Refused::WrongKey));
    }

    #[test]
    fn one_that_says_nothing_or_says_it_too_slowly_is_let_go() {
        let trust = Trust {
            patience: Duration::from_millis(30),
            ..Trust::kernel()
        };
        for said in [&b""[..], b"SPRAG\0io\x01"] {
            let (mut guest, host) = UnixStream::pair().unwrap();
            guest.write_all(said).unwrap();
            let (ended, ends) = std::sync::mpsc::channel();
            thread::spawn(move || {
                let met = as_host(host, || panic!("asked for the key"), trust);
                ended.send(matches!(met, Err(Refused::Gone))).unwrap();
            });
            let let_go = ends.recv_timeout(Duration::from_secs(20));
            assert!(let_go.expect("it waits for ever"));
        }
    }

    #[test]
    fn garbage_another_version_and_silence_are_refused() {
        for (said, refused) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "Version"),
            (b"SPRAG\0io\x02", "Version"),
            (b"SPRAG\0io\x01short", "Gone"),
            (b"", "Gone"),
        ] {
            let (mut guest, host) = UnixStream::pair().unwrap();
            guest.write_all(said).unwrap();
            guest.shutdown(std::net::Shutdown::Write).unwrap();
            let met = as_host(host, || panic!("asked for the key"), Trust::kernel());
            assert_eq!(format!("{:?}", met.err().unwrap()), refused);
        }
    }
}
