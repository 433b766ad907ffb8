//! What takes as long as a passphrase, a reader or a writer takes, beside the steps.

use crate::Error;
use crate::notifier::Notifier;
use crate::pending::Pending;
#[cfg(not(target_family = "wasm"))]
use crate::sys;

/// Does something slow on a thread of its own, of this name; where there are none, at once.
pub(crate) fn aside<T: Send + 'static>(
    name: &'static str,
    notifier: Notifier,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Pending<T> {
    #[cfg(target_family = "wasm")]
    {
        let _ = name;
        Pending::ready(notifier, work())
    }
    #[cfg(not(target_family = "wasm"))]
    {
        let (completer, pending) = Pending::new(notifier.clone());
        if sys::spawn(name, move || completer.complete(work())) {
            pending
        } else {
            Pending::ready(notifier, Err(Error::internal("the system gives no thread")))
        }
    }
}
