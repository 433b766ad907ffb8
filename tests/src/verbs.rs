//! All verbs of a client, for what must hold of each.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_errors_doc,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::time::Duration;

use sprag::{Client, Error, Failure, InboxId, Key, MessageId, Pending, TaskId};

/// Longer than anything takes.
pub const SOON: Duration = Duration::from_secs(20);

/// A verb that waits to be called.
pub type Verb<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// Every verb, begun, with its name. What they are called with is of no matter.
#[must_use]
pub fn every_verb(client: &Client) -> Vec<(&'static str, Verb<'_>)> {
    /// The three bounds of rule 1.
    fn checked<T: Send + 'static>(pending: Pending<T>) -> Pending<T>
    where
        Pending<T>: Send + Future<Output = Result<T, Error>> + 'static,
    {
        pending
    }
    macro_rules! verbs {
        ($($name:ident($($argument:expr),*)),* $(,)?) => {
            vec![$((
                stringify!($name),
                Box::new(move || {
                    let pending = checked(client.start().$name($($argument),*));
                    match pending.wait_timeout(SOON) {
                        Ok(result) => result.map(|_| ()),
                        Err(_) => panic!("{} hangs", stringify!($name)),
                    }
                }) as Verb<'_>
            )),*]
        };
    }
    verbs!(
        send_encrypted_message("bob", b"hello"),
        send_encrypted_message_as(MessageId::from_bytes([1; 16]), "bob", b"hello"),
        receive_encrypted_message(b"noise"),
        inbox(),
        acknowledge(InboxId::new(1)),
        tasks(),
        supply(TaskId::new(1_000), b"noise"),
        done(TaskId::new(1_000)),
        failed(TaskId::new(1_000), &Failure::NoSuchUser),
        retry(TaskId::new(1_000)),
        status(MessageId::from_bytes([2; 16])),
        contact("bob"),
        safety_number("bob"),
        changed_safety_number("bob"),
        compare_safety_number("bob", b"noise"),
        events(0),
        health(),
        is_quiet(),
        set_quiet(true),
        server_epoch(&[1; 16]),
        expire(),
    )
}

/// Those that need more than an open client to succeed, or have no second form.
#[must_use]
pub fn further_verbs(client: &Client) -> Vec<(&'static str, Result<(), Error>)> {
    vec![
        ("user", client.user().map(|_| ())),
        ("device", client.device().map(|_| ())),
        ("new_message_id", client.new_message_id().map(|_| ())),
        ("accept", client.accept("bob")),
        ("reset", client.reset("bob")),
        ("renew", client.renew()),
        ("change_key", client.change_key(Key::raw([9; 32]))),
        ("changed", soon(client.start().changed(0)).map(|_| ())),
        ("supply_pre_key_state", client.supply_pre_key_state(b"")),
        // The blocking forms.
        (
            "send_encrypted_message",
            client.send_encrypted_message("bob", b"x").map(|_| ()),
        ),
        (
            "receive_encrypted_message",
            client.receive_encrypted_message(b"x").map(|_| ()),
        ),
        ("inbox", client.inbox().map(|_| ())),
        ("tasks", client.tasks().map(|_| ())),
        ("expire", client.expire()),
    ]
}

/// What a verb gives, but not after the end of patience.
pub fn soon<T: Send + 'static>(pending: Pending<T>) -> Result<T, Error> {
    pending.wait_timeout(SOON).expect("a verb hangs")
}
