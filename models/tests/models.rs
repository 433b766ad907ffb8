//! Each model in many orders. A failure prints the order; `shuttle::replay` runs it again.

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use sprag_models::{committer, guard, renewal};

/// Orders that are tried of each model: all of them together take some seconds.
const ORDERS: usize = 800;
/// Of those with a whole store, whose steps cost more.
const FEW: usize = 80;

fn tried(model: impl Fn() + Send + Sync + 'static) {
    in_orders(PctScheduler::new(3, ORDERS), model);
}

fn at_random(model: impl Fn() + Send + Sync + 'static) {
    in_orders(RandomScheduler::new(ORDERS), model);
}

fn some(model: impl Fn() + Send + Sync + Copy + 'static) {
    in_orders(RandomScheduler::new(FEW), model);
    in_orders(PctScheduler::new(3, FEW), model);
}

fn in_orders(orders: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // What runs here is not optimised, and has keys on its stack.
    config.stack_size = 1 << 20;
    Runner::new(orders, config).run(model);
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

#[test]
fn renewals_beside_submits_and_reads_answer_everybody_and_no_completion_runs_meanwhile() {
    some(renewal::renewals);
}

#[test]
fn a_row_that_is_read_while_it_is_written_is_not_kept_as_it_was() {
    at_random(renewal::cached);
    tried(renewal::cached);
}

#[test]
fn a_close_beside_a_renewal_answers_everybody_and_leaves_a_whole_store() {
    some(|| renewal::closes(false));
}

#[test]
fn a_completion_may_close_the_store_while_it_is_renewed() {
    some(|| renewal::closes(true));
}

#[test]
fn a_disk_that_fails_beside_a_renewal_answers_everybody() {
    some(|| renewal::failures(1));
    some(|| renewal::failures(2));
}

#[test]
fn rows_that_change_while_they_are_counted_are_counted_right() {
    in_orders(RandomScheduler::new(FEW / 2), || renewal::counts(false));
    in_orders(RandomScheduler::new(FEW / 2), || renewal::counts(true));
}

#[test]
fn the_guard_hears_of_every_commit_answers_everybody_and_ends_with_the_store() {
    some(|| guard::watches(false));
    some(|| guard::watches(true));
}
