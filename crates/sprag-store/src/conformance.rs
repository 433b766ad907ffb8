//! What every [`Backend`] and every [`Sink`] must do, as checks to be run in the tests of whoever writes one.
//!
//! ```
//! use sprag_store::{MemoryBackend, conformance};
//!
//! # fn main() -> Result<(), conformance::Violation> {
//! conformance::backend(MemoryBackend::new)?;
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::backend::{BACKEND_TABLES, Backend, BackendError, Batch, MAX_SEALED};
use crate::error::StoreError;
use crate::sink::{Image, Sink};

/// A rule that was broken, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(&'static str);

type Check = Result<(), Violation>;
type Answer = Receiver<Result<u64, StoreError>>;

/// Far more than any commit takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks a backend. `fresh` makes an empty one at each call.
///
/// # Errors
///
/// The first rule that is broken.
pub fn backend<B: Backend>(mut fresh: impl FnMut() -> B) -> Check {
    reads_see_what_was_submitted(&fresh())?;
    scans_are_bounded_and_ordered(&fresh())?;
    batches_take_effect_in_order(&fresh())?;
    lazy_batches_ride_along(&fresh())?;
    fence_holds(&fresh(), Batch::after(7))?;
    fence_holds(&fresh(), Batch::after(0))?;
    for batch in bad_batches() {
        bad_batch_is_refused(&fresh(), batch)?;
    }
    close_is_final(&fresh())
}

/// Checks a backend that keeps rows. Each call of `open` opens the same place, empty at first.
///
/// # Errors
///
/// The first rule that is broken.
pub fn durable_backend<B: Backend>(mut open: impl FnMut() -> B) -> Check {
    let first = open();
    answered(
        &submit(
            &first,
            batch(0, &[(b"\x01a", Some(b"1")), (b"\x01b", Some(b"2"))]),
        ),
        1,
    )?;
    answered(&submit(&first, batch(1, &[(b"\x01a", None)])), 2)?;
    let lazy = submit(&first, batch(2, &[(b"\x01c", Some(b"3"))]).lazy());
    holds(first.close().is_ok(), "close of a sound backend succeeds")?;
    answered(&lazy, 3)?;
    drop(first);

    let second = open();
    let expected = [
        (b"\x01b".to_vec(), b"2".to_vec()),
        (b"\x01c".to_vec(), b"3".to_vec()),
    ];
    holds(
        scan(&second, b"")? == BTreeMap::from(expected),
        "rows are there after the next open",
    )?;
    answered(&submit(&second, batch(3, &[(b"\x01d", Some(b"4"))])), 4)?;
    holds(second.close().is_ok(), "close of a sound backend succeeds")?;
    drop(second);

    let third = open();
    let stale = submit(&third, batch(3, &[(b"\x01d", Some(b"5"))]));
    refused(
        &stale,
        "a batch that follows an old one is refused after the next open",
        |error| matches!(error, StoreError::StoreInUse),
    )?;
    drop(third);
    let fourth = open();
    holds(
        value(&fourth, b"\x01d")? == Some(b"4".to_vec()),
        "a refused batch leaves no trace",
    )
}

/// Checks a sink. Each call of `open` opens the same place, empty at first.
///
/// # Errors
///
/// The first rule that is broken.
pub fn sink<S: Sink>(mut open: impl FnMut() -> S) -> Check {
    const LOADS: Violation = Violation("a sound sink loads");
    let first = open();
    let second = open();
    holds(
        first.load().map_err(|_| LOADS)?.rows.is_empty(),
        "a fresh sink is empty",
    )?;
    let append = |sink: &S, batch: Batch| {
        let (tell, told) = channel();
        sink.append(batch, Box::new(move |result| drop(tell.send(result))));
        told
    };
    answered(&append(&first, batch(0, &[(b"\x09x", Some(b"1"))])), 1)?;
    refused(
        &append(&second, batch(0, &[(b"\x09x", Some(b"2"))])),
        "a second writer is refused",
        |error| matches!(error, StoreError::StoreInUse),
    )?;
    let loaded = second.load().map_err(|_| LOADS)?;
    holds(
        loaded.sequence == 1,
        "a sink knows the number of its last batch",
    )?;
    holds(
        loaded
            .rows
            .get(b"\x09x".as_slice())
            .is_some_and(|value| value == b"1"),
        "what the first writer wrote stays",
    )?;
    // From here on as a backend, whose batches number on from an image of what is there.
    let image = Image::load(open()).map_err(|_| LOADS)?;
    answered(
        &submit(
            &image,
            batch(1, &[(b"\x09x", None), (b"\x09y", Some(b"3"))]),
        ),
        2,
    )?;
    holds(image.close().is_ok(), "close of a sound sink succeeds")?;
    let loaded = open().load().map_err(|_| LOADS)?;
    holds(
        loaded.sequence == 2 && loaded.rows == BTreeMap::from([(b"\x09y".to_vec(), b"3".to_vec())]),
        "rows are there after the next open",
    )
}

fn reads_see_what_was_submitted(backend: &impl Backend) -> Check {
    holds(
        value(backend, b"\x01a")?.is_none(),
        "a fresh backend is empty",
    )?;
    let put = submit(
        backend,
        batch(0, &[(b"\x01a", Some(b"1")), (b"\x01b", Some(b""))]),
    );
    holds(
        value(backend, b"\x01a")? == Some(b"1".to_vec()),
        "a get sees what was submitted",
    )?;
    holds(
        value(backend, b"\x01b")? == Some(Vec::new()),
        "an empty value is a value",
    )?;
    holds(
        scan(backend, b"")?.len() == 2,
        "a scan sees what was submitted",
    )?;
    answered(&put, 1)?;
    holds(
        value(backend, b"\x01a")? == Some(b"1".to_vec()),
        "a get sees what is durable",
    )?;
    let delete = submit(backend, batch(1, &[(b"\x01a", None), (b"\x01zz", None)]));
    holds(value(backend, b"\x01a")?.is_none(), "a get sees a deletion")?;
    holds(scan(backend, b"")?.len() == 1, "a scan sees a deletion")?;
    answered(&delete, 2)?;
    holds(
        value(backend, b"\x01a")?.is_none(),
        "a deleted row stays deleted",
    )?;
    answered(&submit(backend, Batch::after(2)), 3)?;
    let largest = vec![7; MAX_SEALED];
    answered(&submit(backend, batch(3, &[(b"\x01a", Some(&largest))])), 4)?;
    holds(
        value(backend, b"\x01a")? == Some(largest),
        "the largest value comes back",
    )
}

fn scans_are_bounded_and_ordered(backend: &impl Backend) -> Check {
    let keys: [&[u8]; 6] = [
        b"\x01",
        b"\x01a",
        b"\x01b",
        b"\x01b\x00",
        b"\x01b\xff",
        b"\x02",
    ];
    let mut rows = Batch::after(0);
    for key in keys {
        rows.put(key.to_vec(), key.to_vec());
    }
    answered(&submit(backend, rows), 1)?;
    // What is durable and what is not come from different places; they must come as one.
    let pending = submit(
        backend,
        batch(1, &[(b"\x01b\x01", Some(b"")), (b"\x01b\x00", None)]),
    );
    let mut seen = Vec::new();
    let outcome = backend.scan(b"\x01b", &mut |key, _| {
        seen.push(key.to_vec());
        ControlFlow::Continue(())
    });
    holds(outcome.is_ok(), "a scan succeeds")?;
    let expected: [&[u8]; 3] = [b"\x01b", b"\x01b\x01", b"\x01b\xff"];
    holds(
        seen == expected,
        "a scan visits what begins with its prefix, in order, with whole names",
    )?;
    answered(&pending, 2)?;
    holds(
        scan(backend, b"\x03")?.is_empty(),
        "a scan of nothing visits nothing",
    )?;

    let mut visits = 0;
    let outcome = backend.scan(b"", &mut |_, _| {
        visits += 1;
        ControlFlow::Break(())
    });
    holds(
        outcome.is_ok() && visits == 1,
        "a scan ends when the visitor says so",
    )?;
    let mut nested = Ok(0);
    let outcome = backend.scan(b"\x02", &mut |_, _| {
        nested = scan(backend, b"").and_then(|rows| value(backend, b"\x01").map(|_| rows.len()));
        ControlFlow::Continue(())
    });
    holds(
        outcome.is_ok() && nested == Ok(6),
        "a visitor may get and scan",
    )
}

fn batches_take_effect_in_order(backend: &impl Backend) -> Check {
    let (tell, told) = channel();
    for n in 0..200_u64 {
        let tell = tell.clone();
        let value = n.to_be_bytes();
        let batch = batch(n, &[(b"\x01same", Some(&value))]);
        backend.submit(batch, Box::new(move |result| drop(tell.send(result))));
    }
    drop(tell);
    for n in 0..200_u64 {
        answered(&told, n + 1)?;
    }
    holds(told.recv().is_err(), "a completion is called once")?;
    let last = 199_u64.to_be_bytes().to_vec();
    holds(
        value(backend, b"\x01same")? == Some(last),
        "the last batch has the last word",
    )
}

fn lazy_batches_ride_along(backend: &impl Backend) -> Check {
    let first = submit(backend, batch(0, &[(b"\x01a", Some(b"1"))]).lazy());
    let second = submit(backend, batch(1, &[(b"\x01b", Some(b"2"))]).lazy());
    holds(
        value(backend, b"\x01a")? == Some(b"1".to_vec()),
        "a get sees what was submitted lazily",
    )?;
    answered(&submit(backend, batch(2, &[(b"\x01a", None)])), 3)?;
    holds(
        first
            .recv_timeout(PATIENCE)
            .is_ok_and(|result| result.is_ok()),
        "a lazy batch is answered with the next",
    )?;
    holds(
        second
            .recv_timeout(PATIENCE)
            .is_ok_and(|result| result.is_ok()),
        "a lazy batch is answered with the next",
    )?;
    holds(
        scan(backend, b"")?.len() == 1,
        "lazy batches keep their order",
    )
}

fn fence_holds(backend: &impl Backend, stranger: Batch) -> Check {
    answered(&submit(backend, batch(0, &[(b"\x01a", Some(b"1"))])), 1)?;
    refused(
        &submit(backend, stranger),
        "a batch that does not follow is refused",
        |error| matches!(error, StoreError::StoreInUse),
    )?;
    is_poisoned(backend, 1)
}

fn bad_batches() -> Vec<Batch> {
    let large = vec![0; MAX_SEALED + 1];
    let names: [(&[u8], &[u8]); 3] = [(b"\x01a", &large), (b"", b"1"), (&[BACKEND_TABLES], b"1")];
    names
        .into_iter()
        .map(|(key, value)| batch(0, &[(b"\x01ok", Some(b"1")), (key, Some(value))]))
        .collect()
}

fn bad_batch_is_refused(backend: &impl Backend, bad: Batch) -> Check {
    refused(
        &submit(backend, bad),
        "a batch with a bad row is refused as a whole",
        |error| matches!(error, StoreError::TooLarge | StoreError::BadName),
    )?;
    is_poisoned(backend, 0)
}

fn is_poisoned(backend: &impl Backend, last: u64) -> Check {
    let poisoned = |error| matches!(error, BackendError::Poisoned);
    holds(
        backend.get(b"\x01a").is_err_and(poisoned),
        "a poisoned backend refuses gets",
    )?;
    let outcome = backend.scan(b"", &mut |_, _| ControlFlow::Continue(()));
    holds(
        outcome.is_err_and(poisoned),
        "a poisoned backend refuses scans",
    )?;
    let next = submit(backend, batch(last, &[(b"\x01a", Some(b"2"))]));
    refused(&next, "a poisoned backend refuses batches", |error| {
        matches!(error, StoreError::Poisoned)
    })?;
    holds(
        backend.close().is_err(),
        "the close of a poisoned backend says so",
    )
}

fn close_is_final(backend: &impl Backend) -> Check {
    let put = submit(backend, batch(0, &[(b"\x01a", Some(b"1"))]).lazy());
    holds(backend.close().is_ok(), "close of a sound backend succeeds")?;
    answered(&put, 1)?;
    holds(backend.close().is_ok(), "a second close is fine")?;
    let closed = |error| matches!(error, BackendError::Closed);
    holds(
        backend.get(b"\x01a").is_err_and(closed),
        "a closed backend refuses gets",
    )?;
    let outcome = backend.scan(b"", &mut |_, _| ControlFlow::Continue(()));
    holds(outcome.is_err_and(closed), "a closed backend refuses scans")?;
    let next = submit(backend, batch(1, &[(b"\x01a", Some(b"2"))]));
    refused(&next, "a closed backend refuses batches", |error| {
        matches!(error, StoreError::Closed)
    })
}

fn batch(follows: u64, rows: &[(&[u8], Option<&[u8]>)]) -> Batch {
    let mut batch = Batch::after(follows);
    for (key, value) in rows {
        match value {
            Some(value) => batch.put(key.to_vec(), value.to_vec()),
            None => batch.delete(key.to_vec()),
        }
    }
    batch
}

fn submit(backend: &impl Backend, batch: Batch) -> Answer {
    let (tell, told) = channel();
    backend.submit(batch, Box::new(move |result| drop(tell.send(result))));
    told
}

fn answered(answer: &Answer, sequence: u64) -> Check {
    match answer.recv_timeout(PATIENCE) {
        Ok(Ok(number)) => holds(
            number == sequence,
            "a completion tells the number of its batch",
        ),
        Ok(Err(_)) => Err(Violation("a sound batch is committed")),
        Err(_) => Err(Violation("a batch is answered, in order")),
    }
}

fn refused(answer: &Answer, rule: &'static str, expected: impl Fn(&StoreError) -> bool) -> Check {
    match answer.recv_timeout(PATIENCE) {
        Ok(Err(error)) if expected(&error) => Ok(()),
        _ => Err(Violation(rule)),
    }
}

fn value(backend: &impl Backend, key: &[u8]) -> Result<Option<Vec<u8>>, Violation> {
    backend.get(key).map_err(|_| Violation("a get succeeds"))
}

fn scan(backend: &impl Backend, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Violation> {
    let mut rows = BTreeMap::new();
    let outcome = backend.scan(prefix, &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    outcome
        .map(|()| rows)
        .map_err(|_| Violation("a scan succeeds"))
}

fn holds(condition: bool, rule: &'static str) -> Check {
    if condition {
        Ok(())
    } else {
        Err(Violation(rule))
    }
}
