//! A payload of any length passes in constant memory. `SPRAG_VAULT_GIB=10` and `--release` make it long.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(target_os = "linux")]

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sprag_vault::{Context, DataKey, Opener, Recipient, Sealer, Sealing, Unlock};

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_payload_of_any_length_passes_in_the_memory_of_its_chunks() {
    let gib: u64 = std::env::var("SPRAG_VAULT_GIB").map_or(0, |gib| gib.parse().unwrap());
    let length = if gib == 0 { 16 << 20 } else { gib << 30 };
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let key = DataKey::generate(&mut rng);
    let to = [Recipient::direct("k1")];
    let (unlock, context) = (Unlock::new().direct("k1", key.clone()), Context::none());
    let mut sealer = Sealer::new(&Sealing::new(&key, &to), &mut rng).unwrap();
    let mut opener = Opener::new(&unlock, &context);
    let text: Vec<u8> = (0..=250).cycle().take(251 * 4096).collect();
    let before = peak();
    let (mut sent, mut opened, mut right) = (0, 0, true);
    let mut receive = |opener: &mut Opener<'_>, mut piece: &[u8]| {
        while let Some(out) = opener.push(&mut piece).unwrap() {
            right &= out[0] == text[usize::try_from(opened % text.len() as u64).unwrap()];
            opened += out.len() as u64;
        }
        opened
    };
    while sent < length {
        let mut input = text.as_slice();
        while let Some(piece) = sealer.push(&mut input).unwrap() {
            receive(&mut opener, piece);
        }
        sent += text.len() as u64;
    }
    let so_far = receive(&mut opener, &sealer.finish().unwrap());
    let last = opener.finish().unwrap();
    assert!(right && so_far + last.len() as u64 == sent && sent >= length);
    let used = peak() - before;
    assert!(used < 4 * 1024, "{used} KiB for {length} bytes");
    assert!(peak() < 64 * 1024, "{} KiB", peak());
}
