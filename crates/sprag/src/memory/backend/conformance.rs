//! What every backend promises, as one test.

use super::{MemoryBackend, blob_name};

/// A blob by its number, and its name.
pub(crate) fn blob(number: u32) -> (String, Vec<u8>) {
    let bytes = [&number.to_be_bytes()[..], &[7; 300]].concat();
    (blob_name(&sprag_crypto::sha256(&[&bytes])), bytes)
}

/// Goes through all four calls; the backend is empty before and after.
pub(crate) fn check(backend: &dyn MemoryBackend) {
    assert_eq!(backend.list(None).unwrap(), []);
    let mut blobs: Vec<_> = (0..40).map(blob).collect();
    let (absent, _) = blob(1_000);
    assert_eq!(backend.get(&absent).unwrap(), None);
    backend.delete(&absent).unwrap();
    for (name, bytes) in &blobs {
        backend.put(name, bytes).unwrap();
        assert_eq!(backend.get(name).unwrap().as_ref(), Some(bytes));
    }
    // To put what is there already changes nothing.
    backend.put(&blobs[0].0, &blobs[0].1).unwrap();
    blobs.sort();
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = backend.list(after.as_deref()).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        listed.extend(page.into_iter().map(|blob| blob.name));
    }
    let names: Vec<_> = blobs.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed, names);
    // From the middle, whether or not that one is there.
    let rest = backend.list(Some(&names[20])).unwrap();
    assert_eq!(rest[0].name, names[21]);
    assert!(rest[0].put_at.is_some_and(|at| at > 1_600_000_000_000));
    backend.delete(&names[20]).unwrap();
    assert_eq!(backend.list(Some(&names[20])).unwrap()[0].name, names[21]);
    for name in &names {
        backend.delete(name).unwrap();
        assert_eq!(backend.get(name).unwrap(), None);
    }
    assert_eq!(backend.list(None).unwrap(), []);
}
