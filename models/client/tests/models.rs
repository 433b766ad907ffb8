//! Each model in many orders. A failure prints the order; `shuttle::replay` runs it again.

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use sprag_models_client::clients;

/// Orders that are tried of each model, of two kinds each: all of them together take some seconds.
const ORDERS: usize = 60;

fn tried(model: impl Fn() + Send + Sync + Copy + 'static) {
    clients::prepare();
    in_orders(RandomScheduler::new(ORDERS), model);
    in_orders(PctScheduler::new(3, ORDERS), model);
}

fn in_orders(orders: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // What runs here is not optimised, and has keys on its stack.
    config.stack_size = 1 << 20;
    Runner::new(orders, config).run(model);
}

#[test]
fn a_result_is_there_once_and_not_before_it_is_durable_and_callbacks_may_call_again() {
    tried(clients::results);
}

#[test]
fn whoever_watches_hears_of_every_change_and_of_the_end() {
    tried(clients::watchers);
    in_orders(RandomScheduler::new(4 * ORDERS), clients::watcher);
    in_orders(PctScheduler::new(3, 4 * ORDERS), clients::watcher);
}

#[test]
fn a_close_beside_steps_answers_each_and_nobody_hears_of_it_before_it_is_done() {
    tried(clients::closes);
}

#[test]
fn a_client_that_is_opened_again_while_others_wait_forgets_nobody() {
    tried(|| clients::reopens(1));
    tried(|| clients::reopens(2));
}

#[test]
fn upkeep_that_two_ask_for_at_once_tells_both_however_it_ends() {
    tried(|| clients::upkeeps(false));
    tried(|| clients::upkeeps(true));
}
