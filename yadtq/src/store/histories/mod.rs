//! Random histories of tasks, played on the Redis scripts and on the store in memory: answers, records, TTLs and messages must be the
//! same, to the ms, and the same again if a call is sent twice.
//!
//! Both have the clock of the test: the scripts run on a [`Stage`]. What Redis alone can hold, keys of others, must give a clear
//! error and stay as it is.
#![allow(clippy::unwrap_used)]

mod steps;
mod world;

use proptest::{collection::vec, prelude::*};
use tokio::runtime::Runtime;

use self::{
    steps::{Step, base, step},
    world::World,
};
use super::redis::stage::Stage;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    base().prop_flat_map(|base| vec(step(base), 1..40))
}

fn play(cases: u32, is_sent_twice: bool) {
    let runtime = Runtime::new().unwrap();
    let stage = runtime.block_on(Stage::new());
    let config = ProptestConfig { cases, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut world = World::new(&stage).await;
            for step in &steps {
                world.play(step, is_sent_twice).await;
            }
        });
    });
}

#[test]
fn the_scripts_and_the_store_in_memory_agree() {
    play(200, false);
}

/// fred sends a call again if the connection breaks before the answer.
#[test]
fn a_call_that_is_sent_twice_gives_the_same_answer_and_changes_nothing_more() {
    play(100, true);
}
