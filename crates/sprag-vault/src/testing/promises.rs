//! What `docs/VAULT.md` promises, beyond what the vectors hold.

use std::cell::RefCell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Mutex;

use rand_core::Rng;
use zeroize::Zeroizing;

use super::{TestKms, pattern, rng, stream};
use crate::{
    Argon2Params, ChunkSize, Context, DataKey, FormatError, Header, Kms, KmsError, OpenError,
    OpenReader, Opener, PassphraseLimits, ReadAt, Recipient, RecipientKey, RecipientPrivateKey,
    RekeyError, ResealError, SealError, SealWriter, Sealer, Sealing, SeekError, SeekReader, Slot,
    SlotKind, Suite, Unlock, open, rekey, reseal, seal,
};

const CHUNK: usize = 4096;

fn key(byte: u8) -> DataKey {
    DataKey::from_bytes(&[byte; 32])
}

fn context() -> Context {
    Context::from_pairs([("user", "alice"), ("record", "mem_1")]).unwrap()
}

fn unlock() -> Unlock<'static> {
    Unlock::new().direct("k1", key(2))
}

fn sealed_as(text: &[u8], suite: Suite) -> Vec<u8> {
    let (key, context) = (key(2), context());
    let to = [Recipient::direct("k1")];
    let sealing = Sealing::new(&key, &to)
        .context(&context)
        .suite(suite)
        .chunk_size(ChunkSize::LEAST);
    seal(text, &sealing, &mut rng()).unwrap()
}

fn sealed(text: &[u8]) -> Vec<u8> {
    sealed_as(text, Suite::Aes256Gcm)
}

fn header_len(blob: &[u8]) -> usize {
    Header::parse(blob).unwrap().len()
}

/// How it ends whole and in pieces, which must agree, and what the stream let out.
fn ends(blob: &[u8]) -> (Vec<u8>, Result<(), OpenError>) {
    let whole = open(blob, &unlock(), &context());
    let (out, ended) = stream(Opener::new(&unlock(), &context()), blob, 1000);
    assert_eq!(whole.clone().map(|_| ()), ended);
    if let Ok(text) = whole {
        assert_eq!(*text, out);
    }
    (out, ended)
}

#[test]
fn every_length_around_a_chunk_opens_whole_and_in_pieces_of_any_size() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for length in [
            0, 1, 15, 16, 17, 4095, 4096, 4097, 8191, 8192, 8193, 12_288, 20_000,
        ] {
            let text = pattern(length);
            let blob = sealed_as(&text, suite);
            let chunks = length.div_ceil(CHUNK).max(1);
            assert_eq!(blob.len(), 122 + length + 16 * chunks);
            for piece in [1, 16, 4095, 4096, 4112, 4113, 100_000] {
                let (out, ended) = stream(Opener::new(&unlock(), &context()), &blob, piece);
                assert_eq!((ended, out == text), (Ok(()), true), "{length} in {piece}");
            }
            assert_eq!(*open(&blob, &unlock(), &context()).unwrap(), text);
        }
    }
}

#[test]
fn any_flipped_bit_of_a_blob_closes_it() {
    let text = b"what is in it";
    let blob = sealed(text);
    let mut ends_seen = Vec::new();
    for bit in 0..blob.len() * 8 {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (out, ended) = ends(&flipped);
        assert!(out.is_empty(), "bit {bit}");
        ends_seen.push(ended.unwrap_err().code());
    }
    for code in ["FORMAT", "WRONG_KEY", "CONTEXT_OR_HEADER", "DAMAGED"] {
        assert!(ends_seen.contains(&code), "{code}");
    }
}

#[test]
fn a_blob_cut_anywhere_is_noticed_and_lets_out_whole_chunks_only() {
    let text = pattern(2 * CHUNK + 100);
    let blob = sealed(&text);
    let header = header_len(&blob);
    let near_edges = |cut: &usize| {
        let within = cut.saturating_sub(header) % (CHUNK + 16);
        !(20..=CHUNK - 4).contains(&within)
    };
    for cut in (0..blob.len()).filter(near_edges) {
        let (out, ended) = ends(&blob[..cut]);
        let (body, within) = (
            cut.saturating_sub(header),
            cut.saturating_sub(header) % (CHUNK + 16),
        );
        let expected = if cut < header {
            OpenError::Format(FormatError::Short)
        } else if within < 16 {
            OpenError::Truncated
        } else {
            OpenError::Damaged
        };
        assert_eq!(ended, Err(expected), "cut at {cut}");
        let whole = (body.saturating_sub(1)) / (CHUNK + 16) * CHUNK;
        assert_eq!(out, text[..whole], "cut at {cut}");
    }
}

#[test]
fn chunks_that_are_dropped_repeated_swapped_or_spliced_are_noticed() {
    let text = pattern(3 * CHUNK + 100);
    let blob = sealed(&text);
    let (header, body) = blob.split_at(header_len(&blob));
    let chunks: Vec<_> = body.chunks(CHUNK + 16).collect();
    let other = {
        let (key, context) = (key(2), context());
        let to = [Recipient::direct("k1")];
        let sealing = Sealing::new(&key, &to)
            .context(&context)
            .chunk_size(ChunkSize::LEAST);
        let mut rng = rng();
        let _ = rng.next_u64();
        seal(&text, &sealing, &mut rng).unwrap()
    };
    let strange: Vec<_> = other[header.len()..].chunks(CHUNK + 16).collect();
    let arrangements: [(&str, Vec<&[u8]>, usize); 8] = [
        ("first dropped", vec![chunks[1], chunks[2], chunks[3]], 0),
        ("middle dropped", vec![chunks[0], chunks[2], chunks[3]], 1),
        (
            "repeated",
            vec![chunks[0], chunks[0], chunks[1], chunks[2], chunks[3]],
            1,
        ),
        (
            "swapped",
            vec![chunks[0], chunks[2], chunks[1], chunks[3]],
            1,
        ),
        (
            "last first",
            vec![chunks[3], chunks[0], chunks[1], chunks[2]],
            0,
        ),
        (
            "first of another",
            vec![strange[0], chunks[1], chunks[2], chunks[3]],
            0,
        ),
        (
            "last of another",
            vec![chunks[0], chunks[1], chunks[2], strange[3]],
            3,
        ),
        (
            "last twice",
            vec![chunks[0], chunks[1], chunks[2], chunks[3], chunks[3]],
            3,
        ),
    ];
    for (what, arrangement, whole) in arrangements {
        let spliced = [header, &arrangement.concat()].concat();
        let (out, ended) = ends(&spliced);
        assert_eq!(ended, Err(OpenError::Damaged), "{what}");
        assert_eq!(out, text[..whole * CHUNK], "{what}");
    }
    // The whole body of another blob under the same key.
    let (out, ended) = ends(&[header, &other[header.len()..]].concat());
    assert_eq!((out.len(), ended), (0, Err(OpenError::Damaged)));
}

#[test]
fn what_a_server_makes_of_the_wrong_key_context_and_version_are_distinct_errors() {
    let blob = sealed(b"text");
    let opened = |unlock: &Unlock<'_>, context: &Context| open(&blob, unlock, context).unwrap_err();
    let stranger = Unlock::new().direct("k1", key(3));
    assert_eq!(opened(&stranger, &context()), OpenError::WrongKey);
    let other = Context::from_pairs([("user", "alice"), ("record", "mem_2")]).unwrap();
    assert_eq!(opened(&unlock(), &other), OpenError::ContextOrHeader);
    assert_eq!(
        opened(&unlock(), &Context::none()),
        OpenError::ContextOrHeader
    );
    for (at, value, error) in [
        (0, 0x09, FormatError::TextMode),
        (1, b'e', FormatError::Magic),
        (8, 2, FormatError::Version(2)),
        (9, 3, FormatError::Suite(3)),
        (10, 1, FormatError::Flags),
        (12, 25, FormatError::ChunkSize),
        (15, 1, FormatError::Flags),
        (82, 0, FormatError::Slots),
    ] {
        let mut foreign = blob.clone();
        foreign[at] = value;
        assert_eq!(ends(&foreign).1, Err(OpenError::Format(error)));
    }
    assert!(Header::parse(&blob).unwrap().shows_context());
}

/// AES-GCM and ChaCha20-Poly1305 open one ciphertext under two keys that somebody chose; the commitment does not.
#[test]
fn one_blob_opens_under_one_key_only() {
    let (mut opened, blob) = (0, sealed(b"text"));
    for byte in 0..=255 {
        let unlock = Unlock::new().direct("k1", key(byte));
        match open(&blob, &unlock, &context()) {
            Ok(_) => opened += 1,
            Err(error) => assert_eq!(error, OpenError::WrongKey),
        }
    }
    assert_eq!(opened, 1);
    // The commitment of another key in its place: that key then finds a header that is not its own.
    let core = Header::parse(&blob).unwrap().core().clone();
    let mut forged = blob.clone();
    forged[48..80].copy_from_slice(&key(3).commitment(&core.salt, core.suite));
    let both = Unlock::new().direct("k1", key(2)).direct("k1", key(3));
    assert_eq!(
        open(&forged, &both, &context()),
        Err(OpenError::ContextOrHeader)
    );
}

#[test]
fn two_blobs_of_one_payload_have_nothing_in_common_behind_the_core() {
    let (key, to) = (key(2), [Recipient::direct("k1")]);
    let mut rng = rng();
    let one = seal(&pattern(100), &Sealing::new(&key, &to), &mut rng).unwrap();
    let two = seal(&pattern(100), &Sealing::new(&key, &to), &mut rng).unwrap();
    assert_eq!(one[..16], two[..16]);
    for part in [16..48, 48..80, 90..122, 122..200] {
        assert_ne!(one[part.clone()], two[part]);
    }
}

#[test]
fn recipients_come_and_go_and_the_payload_is_not_touched() {
    let mut rng = rng();
    let (bob, carol) = (
        RecipientPrivateKey::generate(&mut rng),
        RecipientPrivateKey::generate(&mut rng),
    );
    let blob = sealed(&pattern(9000));
    let add = [
        Recipient::key("bob", bob.public_key()),
        Recipient::passphrase_with("words", "correct horse", Argon2Params::LEAST),
    ];
    let shared = reseal(&blob, &unlock(), &context(), |_| true, &add, &mut rng).unwrap();
    let body = |blob: &[u8]| blob[header_len(blob)..].to_vec();
    assert_eq!(body(&shared), body(&blob));
    let of_bob = Unlock::new().private_key("bob", bob);
    let words = Unlock::new().passphrase("correct horse");
    for unlock in [&unlock(), &of_bob, &words] {
        assert_eq!(*open(&shared, unlock, &context()).unwrap(), pattern(9000));
    }
    // Bob puts Carol in and everybody else out.
    let add = [Recipient::key("carol", carol.public_key())];
    let passed_on = reseal(&shared, &of_bob, &context(), |_| false, &add, &mut rng).unwrap();
    assert_eq!(body(&passed_on), body(&blob));
    assert_eq!(Header::parse(&passed_on).unwrap().slots().len(), 1);
    let of_carol = Unlock::new().private_key("carol", carol);
    assert_eq!(
        *open(&passed_on, &of_carol, &context()).unwrap(),
        pattern(9000)
    );
    for unlock in [&unlock(), &of_bob, &words] {
        // By its own means; who kept the key or the old header reads on, as the text says.
        assert_eq!(
            open(&passed_on, unlock, &context()),
            Err(OpenError::WrongKey)
        );
    }
    assert!(
        open(
            &[&shared[..header_len(&shared)], &body(&passed_on)].concat(),
            &of_bob,
            &context()
        )
        .is_ok()
    );
}

#[test]
fn only_who_opens_a_blob_may_reseal_it_and_a_refusal_makes_nothing() {
    let blob = sealed(b"text");
    let reseal = |unlock: &Unlock<'_>, context: &Context, keep: bool, add: &[Recipient<'_>]| {
        reseal(&blob, unlock, context, |_| keep, add, &mut rng())
    };
    let stranger = Unlock::new().direct("k1", key(3));
    let open = ResealError::Open;
    assert_eq!(
        reseal(&stranger, &context(), true, &[]),
        Err(open(OpenError::WrongKey))
    );
    assert_eq!(
        reseal(&unlock(), &Context::none(), true, &[]),
        Err(open(OpenError::ContextOrHeader))
    );
    assert_eq!(
        reseal(&unlock(), &context(), false, &[]),
        Err(ResealError::Seal(SealError::NoRecipient))
    );
    let many = vec![Recipient::direct("k1"); 16];
    assert!(reseal(&unlock(), &context(), false, &many).is_ok());
    assert_eq!(
        reseal(&unlock(), &context(), true, &many),
        Err(ResealError::Seal(SealError::TooManyRecipients))
    );
    assert_eq!(reseal(&unlock(), &context(), true, &[]).unwrap(), blob);
}

#[test]
fn a_slot_of_a_type_that_is_not_known_here_stays_when_others_change() {
    let unknown = Slot::new(9, b"u1", vec![1, 2, 3]);
    let (key, to) = (
        key(2),
        [Recipient::slot(unknown.clone()), Recipient::direct("k1")],
    );
    let blob = seal(b"text", &Sealing::new(&key, &to), &mut rng()).unwrap();
    let keep = |slot: &Slot| slot.kind() != SlotKind::Direct;
    let add = [Recipient::direct("k2")];
    let none = Context::none();
    let resealed = reseal(&blob, &unlock(), &none, keep, &add, &mut rng()).unwrap();
    let header = Header::parse(&resealed).unwrap();
    assert_eq!(header.slots()[0], unknown);
    assert_eq!(header.slots()[0].kind(), SlotKind::Unknown(9));
    assert_eq!(header.slots()[1].id(), b"k2");
}

#[test]
fn a_rekeyed_blob_is_closed_to_whoever_had_the_old_key_or_header() {
    let blob = sealed(&pattern(9000));
    let (old, new) = (key(2), key(5));
    let to = [Recipient::direct("k2")];
    let context = context();
    let sealing = |key| {
        Sealing::new(key, &to)
            .context(&context)
            .chunk_size(ChunkSize::LEAST)
    };
    let mut rng = rng();
    assert_eq!(
        rekey(&blob, &unlock(), &context, &sealing(&old), &mut rng),
        Err(RekeyError::SameKey)
    );
    let rekeyed = rekey(&blob, &unlock(), &context, &sealing(&new), &mut rng).unwrap();
    let everything_old = Unlock::new().direct("k1", key(2)).direct("k2", key(2));
    assert_eq!(
        open(&rekeyed, &everything_old, &context),
        Err(OpenError::WrongKey)
    );
    let body = &rekeyed[header_len(&rekeyed)..];
    let old_header = [&blob[..header_len(&blob)], body].concat();
    assert_eq!(
        open(&old_header, &everything_old, &context),
        Err(OpenError::Damaged)
    );
    let opened = open(&rekeyed, &Unlock::new().direct("k2", key(5)), &context);
    assert_eq!(*opened.unwrap(), pattern(9000));
    // A damaged one is not passed on.
    let mut damaged = blob.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(
        rekey(&damaged, &unlock(), &context, &sealing(&new), &mut rng),
        Err(RekeyError::Open(OpenError::Damaged))
    );
}

#[test]
fn what_the_format_forbids_is_not_written() {
    let data_key = key(2);
    let made =
        |to: &[Recipient<'_>]| seal(b"", &Sealing::new(&data_key, to), &mut rng()).map(|_| ());
    assert_eq!(made(&[]), Err(SealError::NoRecipient));
    let many = vec![Recipient::direct("k"); 17];
    assert_eq!(made(&many), Err(SealError::TooManyRecipients));
    assert_eq!(made(&many[1..]), Ok(()));
    let words = vec![Recipient::passphrase_with("", "w", Argon2Params::LEAST); 5];
    assert_eq!(made(&words), Err(SealError::TooManyRecipients));
    assert_eq!(made(&words[1..]), Ok(()));
    assert_eq!(
        made(&[Recipient::passphrase("", "")]),
        Err(SealError::EmptyPassphrase)
    );
    let dear = Argon2Params::new(1024 * 1024, 5, 1).unwrap();
    let dear = Recipient::passphrase_with("", "w", dear);
    assert_eq!(made(&[dear]), Err(SealError::PassphraseCost));
    let zero = RecipientKey::from_bytes([0; 32]);
    assert_eq!(
        made(&[Recipient::key("", zero)]),
        Err(SealError::InvalidRecipient)
    );
    let long = "k".repeat(65_536);
    assert_eq!(
        made(&[Recipient::direct(&long)]),
        Err(SealError::TooManyRecipients)
    );
    let half = "k".repeat(32_768);
    assert_eq!(
        made(&[Recipient::direct(&half), Recipient::direct(&half)]),
        Err(SealError::TooManyRecipients)
    );
    let most = "k".repeat(65_535 - 6);
    assert_eq!(made(&[Recipient::direct(&most)]), Ok(()));
    assert_eq!(
        made(&[Recipient::wrapped("", &long)]),
        Err(SealError::TooManyRecipients)
    );
    let asked = Mutex::default();
    let down = TestKms {
        kek: None,
        iv: [0; 12],
        asked: &asked,
    };
    assert_eq!(
        made(&[Recipient::kms("k", &down)]),
        Err(SealError::Kms(KmsError::Unreachable))
    );
}

#[test]
fn the_longest_header_is_read_from_pieces() {
    let key = key(2);
    let id = "k".repeat(65_535 - 6);
    let to = [Recipient::direct(&id)];
    let blob = seal(b"text", &Sealing::new(&key, &to), &mut rng()).unwrap();
    assert_eq!(header_len(&blob), crate::MAX_HEADER);
    let unlock = Unlock::new().direct(&id, key.clone());
    let none = Context::none();
    let (out, ended) = stream(Opener::new(&unlock, &none), &blob, 999);
    assert_eq!((out.as_slice(), ended), (b"text".as_slice(), Ok(())));
}

/// What somebody else wrapped, by a service that answers later than a call can wait.
#[test]
fn a_key_service_may_be_asked_beforehand() {
    struct Answers(Vec<(Vec<u8>, Vec<u8>)>);
    impl Kms for Answers {
        fn wrap_key(&self, _: &[u8], _: &DataKey) -> Result<Vec<u8>, KmsError> {
            Err(KmsError::Refused)
        }
        fn unwrap_key(&self, _: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
            let known = self.0.iter().find(|(known, _)| known == wrapped);
            known
                .map(|(_, key)| Zeroizing::new(key.clone()))
                .ok_or(KmsError::Refused)
        }
    }
    let data_key = key(2);
    let to = [Recipient::wrapped("kms", b"wrapped key")];
    let blob = seal(b"text", &Sealing::new(&data_key, &to), &mut rng()).unwrap();
    let header = Header::parse(&blob).unwrap();
    assert_eq!(header.slots()[0].kind(), SlotKind::Kms);
    let answers = Answers(vec![(header.slots()[0].body().to_vec(), vec![2; 32])]);
    let unlock = Unlock::new().kms("kms", &answers);
    assert_eq!(*open(&blob, &unlock, &Context::none()).unwrap(), b"text");
}

#[test]
fn callers_own_limits_keep_a_passphrase_slot_from_being_tried() {
    let data_key = key(2);
    let cost = Argon2Params::new(16, 2, 2).unwrap();
    let to = [Recipient::passphrase_with("", "words", cost)];
    let blob = seal(b"text", &Sealing::new(&data_key, &to), &mut rng()).unwrap();
    let opened = |limits| {
        let unlock = Unlock::new().passphrase("words").limits(limits);
        open(&blob, &unlock, &Context::none()).map(|_| ())
    };
    assert_eq!(opened(PassphraseLimits::FORMAT), Ok(()));
    assert_eq!(opened(PassphraseLimits::new(16, 2, 2)), Ok(()));
    for limits in [(15, 2, 2), (16, 1, 2), (16, 2, 1)] {
        let limits = PassphraseLimits::new(limits.0, limits.1, limits.2);
        assert_eq!(opened(limits), Err(OpenError::Limit));
    }
}

#[test]
fn input_that_was_left_behind_is_an_error_and_no_shorter_blob() {
    let (key, to) = (key(2), [Recipient::direct("k1")]);
    let sealing = Sealing::new(&key, &to).chunk_size(ChunkSize::LEAST);
    let mut sealer = Sealer::new(&sealing, &mut rng()).unwrap();
    let text = pattern(CHUNK + 1);
    let mut input = text.as_slice();
    let header = sealer.push(&mut input).unwrap().unwrap().to_vec();
    assert_eq!(Header::parse(&header).unwrap().len(), header.len());
    assert_eq!(sealer.push(&mut input).unwrap().unwrap().len(), CHUNK + 16);
    assert_eq!(sealer.finish(), Err(SealError::InputLeft));
    // Without any input, or with the header alone taken out, there is an empty payload.
    let whole = Sealer::new(&sealing, &mut rng()).unwrap().finish().unwrap();
    assert_eq!(whole, seal(b"", &sealing, &mut rng()).unwrap());
    let mut sealer = Sealer::new(&sealing, &mut rng()).unwrap();
    let mut blob = sealer.push(&mut [].as_slice()).unwrap().unwrap().to_vec();
    blob.extend_from_slice(&sealer.finish().unwrap());
    assert_eq!(blob, whole);
}

#[test]
fn a_writer_and_a_reader_carry_a_payload_and_rekey_it_in_passing() {
    let (one, two, context) = (key(2), key(5), context());
    let (to_one, to_two) = ([Recipient::direct("k1")], [Recipient::direct("k2")]);
    let sealing = Sealing::new(&one, &to_one).context(&context);
    let mut writer = SealWriter::new(Vec::new(), &sealing, &mut rng()).unwrap();
    let text = pattern(300_000);
    for piece in text.chunks(777) {
        writer.write_all(piece).unwrap();
    }
    let blob = writer.finish().unwrap();
    assert_eq!(blob, seal(&text, &sealing, &mut rng()).unwrap());

    let unlock = unlock();
    let mut reader = OpenReader::new(blob.as_slice(), &unlock, &context);
    let sealing = Sealing::new(&two, &to_two)
        .context(&context)
        .suite(Suite::ChaCha20Poly1305);
    let mut writer = SealWriter::new(Vec::new(), &sealing, &mut rng()).unwrap();
    assert_eq!(io::copy(&mut reader, &mut writer).unwrap(), 300_000);
    let rekeyed = writer.finish().unwrap();
    let of_two = Unlock::new().direct("k2", key(5));
    assert_eq!(*open(&rekeyed, &of_two, &context).unwrap(), text);

    // Without an end, or with a flipped bit, it is an error at the place, every time.
    let mut damaged = blob;
    let at = damaged.len() - 70_000;
    damaged[at] ^= 1;
    for (bytes, whole, error) in [
        (&damaged[..], 196_608, OpenError::Damaged),
        (&damaged[..122 + 65_552], 0, OpenError::Truncated),
    ] {
        let mut reader = OpenReader::new(bytes, &unlock, &context);
        let mut out = Vec::new();
        let failed = reader.read_to_end(&mut out).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
        assert_eq!(OpenReader::<&[u8]>::error(&failed), Some(error));
        assert_eq!(out, text[..whole]);
        let again = reader.read(&mut [0; 10]).unwrap_err();
        assert_eq!(OpenReader::<&[u8]>::error(&again), Some(error));
    }
}

#[test]
fn an_error_of_the_source_can_be_tried_again_and_loses_nothing() {
    /// Fails every second time and gives seven bytes otherwise.
    struct Shaky<'a>(&'a [u8], bool);
    impl Read for Shaky<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let length = to.len().min(7);
            self.0.read(&mut to[..length])
        }
    }
    let text = pattern(5000);
    let blob = sealed(&text);
    let (unlock, context) = (unlock(), context());
    let mut reader = OpenReader::new(Shaky(&blob, false), &unlock, &context);
    let (mut out, mut part, mut failures) = (Vec::new(), [0; 1000], 0);
    loop {
        match reader.read(&mut part) {
            Ok(0) => break,
            Ok(read) => out.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => failures += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(out == text && failures > 700);
}

#[test]
fn parts_are_read_from_any_place_and_only_their_chunks_are_opened() {
    struct Counting<'a>(&'a [u8], RefCell<Vec<u64>>);
    impl ReadAt for Counting<'_> {
        fn len(&self) -> io::Result<u64> {
            ReadAt::len(self.0)
        }
        fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
            self.1.borrow_mut().push(offset);
            // In short pieces, as a network gives them.
            let length = to.len().min(1500);
            self.0.read_at(offset, &mut to[..length])
        }
    }
    let text = pattern(10 * CHUNK + 5);
    let blob = sealed(&text);
    let (unlock, context) = (unlock(), context());
    let source = Counting(&blob, RefCell::default());
    let mut reader = SeekReader::open(&source, &unlock, &context).unwrap();
    source.1.borrow_mut().clear();
    let mut part = [0; 100];
    assert_eq!(reader.read_at(3 * 4096 + 10, &mut part).unwrap(), 100);
    assert_eq!(part, text[3 * CHUNK + 10..][..100]);
    assert!(
        source
            .1
            .borrow()
            .iter()
            .all(|offset| (122 + 3 * 4112..122 + 4 * 4112).contains(offset))
    );
    // Over an edge in two steps, and up to the end.
    assert_eq!(reader.read_at(4 * 4096 - 1, &mut part).unwrap(), 1);
    assert_eq!(reader.read_at(10 * 4096, &mut part).unwrap(), 5);
    assert_eq!(reader.read_at(10 * 4096 + 5, &mut part).unwrap(), 0);
    assert_eq!(reader.read_at(u64::MAX, &mut part).unwrap(), 0);
    assert_eq!(reader.read_at(0, &mut []).unwrap(), 0);

    let mut rng = rng();
    for _ in 0..300 {
        let position = rng.next_u64() % 41_000;
        let at = reader.seek(SeekFrom::Start(position)).unwrap();
        let mut out = Vec::new();
        reader
            .by_ref()
            .take(rng.next_u64() % 9000)
            .read_to_end(&mut out)
            .unwrap();
        let from = usize::try_from(at).unwrap().min(text.len());
        assert_eq!(out, text[from..][..out.len()]);
    }
    assert_eq!(reader.seek(SeekFrom::End(-5)).unwrap(), 10 * 4096);
    assert_eq!(reader.seek(SeekFrom::Current(2)).unwrap(), 10 * 4096 + 2);
    assert!(reader.seek(SeekFrom::Current(-50_000)).is_err());
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    assert_eq!(out, text[10 * CHUNK + 2..]);
}

#[test]
fn a_seek_from_the_end_checks_the_end_first() {
    let text = pattern(3 * CHUNK);
    let blob = sealed(&text);
    let (unlock, context) = (unlock(), context());
    let failed = |bytes: &[u8]| {
        let mut reader = SeekReader::open(bytes, &unlock, &context).unwrap();
        let length = reader.payload_len().unwrap_err();
        assert!(reader.seek(SeekFrom::End(0)).is_err());
        // Whole chunks before it are still authentic, and what is behind them is not called the end.
        let mut part = [0; 10];
        assert_eq!(reader.read_at(5, &mut part).unwrap(), 10);
        assert_eq!(part, text[5..15]);
        assert!(reader.read_at(50_000, &mut part).is_err());
        match length {
            SeekError::Open(error) => error,
            SeekError::Io(error) => panic!("{error}"),
        }
    };
    assert_eq!(failed(&blob[..122 + 2 * 4112]), OpenError::Truncated);
    assert_eq!(failed(&blob[..122 + 2 * 4112 + 15]), OpenError::Truncated);
    assert_eq!(failed(&blob[..blob.len() - 1]), OpenError::Damaged);
    assert_eq!(failed(&[&blob[..], &[0]].concat()), OpenError::Truncated);
}

#[test]
fn nothing_secret_is_printed() {
    let (data_key, to) = (
        key(2),
        [Recipient::passphrase_with(
            "p",
            "correct horse",
            Argon2Params::LEAST,
        )],
    );
    let sealing = Sealing::new(&data_key, &to);
    let unlock = Unlock::new().passphrase("correct horse");
    let none = Context::none();
    let blob = seal(b"text", &sealing, &mut rng()).unwrap();
    let header = Header::parse(&blob).unwrap();
    assert_eq!(format!("{:?}", context()), "Context(32 bytes)");
    let shown = format!(
        "{sealing:?} {unlock:?} {to:?} {:?} {:?} {:?}",
        Sealer::new(&sealing, &mut rng()).unwrap(),
        Opener::new(&unlock, &none),
        SeekReader::open(&blob, &unlock, &none).unwrap(),
    );
    assert_eq!(
        shown,
        "Sealing { .. } Unlock { .. } [Recipient { .. }] Sealer { .. } Opener { .. } SeekReader { .. }"
    );
    let slot = format!("{:?}", header.slots()[0]);
    assert!(
        slot.contains("85 bytes") && slot.contains("\"p\""),
        "{slot}"
    );
}

#[test]
fn errors_say_nothing_but_what_happened() {
    for text in [
        OpenError::WrongKey.to_string(),
        OpenError::Damaged.to_string(),
        OpenError::Format(FormatError::Version(7)).to_string(),
        SealError::Kms(KmsError::Refused).to_string(),
        RekeyError::SameKey.to_string(),
    ] {
        assert!(
            !text.ends_with('.') && text.starts_with(char::is_lowercase),
            "{text}"
        );
    }
}

#[test]
fn everything_may_go_to_another_thread() {
    fn travels<T: Send + Sync>() {}
    travels::<Unlock<'_>>();
    travels::<Recipient<'_>>();
    travels::<Sealing<'_>>();
    travels::<Sealer>();
    travels::<Opener<'_>>();
    travels::<SeekReader<Vec<u8>>>();
}
