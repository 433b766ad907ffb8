//! Each model in many orders. A failure prints the order; `shuttle::replay` runs it again.

use sprag_models::committer;

/// Orders that are tried of each model: all of them together take some seconds.
const ORDERS: usize = 800;

fn tried(model: impl Fn() + Send + Sync + 'static) {
    shuttle::check_pct(model, ORDERS, 3);
}

fn at_random(model: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(model, ORDERS);
}

#[test]
fn batches_are_answered_once_in_order_and_not_before_they_are_synced() {
    at_random(|| committer::commits(None, false));
    tried(|| committer::commits(None, false));
}

#[test]
fn a_disk_that_fails_answers_everybody_and_what_is_durable_is_a_beginning() {
    for write in 1..=3 {
        at_random(move || committer::commits(Some(write), false));
    }
}

#[test]
fn a_close_in_the_midst_answers_everybody() {
    at_random(|| committer::commits(None, true));
    tried(|| committer::commits(None, true));
}

#[test]
fn two_closes_both_wait_for_what_is_lazy() {
    at_random(committer::closes);
}
