//! A whole world from one seed: clients, their stores, a server, and a network that may drop, duplicate, reorder, delay
//! and corrupt. It runs in one thread; the same seed gives the same world, so a bug is a number.
//!
//! ```
//! use sprag_tests::world::{Weather, World};
//!
//! let mut world = World::new(7);
//! let (alice, bob) = (world.join("alice"), world.join("bob"));
//! world.send(alice, "bob", b"hello");
//! world.settle();
//! assert_eq!(world.heard(bob), [("alice".to_owned(), b"hello".to_vec())]);
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::store::{Image, Store, StoreKeys};
use sprag::{
    Client, Failure, InboxId, Key, Message, MessageId, Received, Refusal, Surroundings, Task,
    Transport,
};
use sprag_crypto::{AccountKeyPair, Features, IdentityKeyPair, sha256};
use sprag_directory::{Directory, DirectoryError, MemoryStorage, ServerEpoch};
use sprag_session::hazmat::random_pre_keys_are_not_here as _;
use sprag_wire::{DeviceAddress, DeviceId, Envelope, UserId};

use crate::shelf::Shelf;
