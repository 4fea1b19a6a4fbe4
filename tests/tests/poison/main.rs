//! Work that kills its worker, messages that nobody can read, long jobs and many replays: each does no harm but to
//! itself.
//!
//! `WARREN_TEST_SEED` repeats the chances of a run, `WARREN_TEST_ROWS=10,18` runs some rows alone.

mod fairness;
mod messages;
mod replays;
mod tasks;

use std::time::Duration;

use warren_tests::{
    cases::Cases,
    faults::{
        table::{Row, Table},
        world::World,
    },
};

/// Few attempts and losses, so that what dies dies soon; devices enough that nobody waits for leases of the dead.
const SETTINGS: &str = "
[batch-embedding]
work = { max_attempts = 2 }
leases = { longest_pass_s = 3 }
[batch-embedding-2]
work = { max_attempts = 2 }
leases = { longest_pass_s = 3 }
[coordinator]
devices = [{ name = \"cpu\", max_concurrent = 64 }]
reaper = { max_losses = 3 }
";

#[test]
fn what_does_harm_does_it_to_itself_alone() {
    let world = World::with(SETTINGS);
    let (mut cases, mut table) = (Cases::new(), Table::default());
    type Body = fn(&World) -> Row;
    let rows: [(u32, &str, Body); 4] = [
        (17, "short jobs behind a long one", fairness::short_jobs_behind_a_long_one),
        (10, "tasks that kill their workers", tasks::poison),
        (11, "messages that nobody can read", messages::malformed),
        (18, "many letters replayed, and the leader killed", replays::many_letters),
    ];
    let wanted = std::env::var("WARREN_TEST_ROWS").ok();
    let wanted = |row: u32| wanted.as_ref().is_none_or(|rows| rows.split(',').any(|one| one.trim().parse() == Ok(row)));
    for (number, about, body) in rows.into_iter().filter(|(number, ..)| wanted(*number)) {
        cases.case(&format!("{number} {about}"), || {
            let row = body(&world);
            rests(&world);
            table.0.push(Row { number, name: about.to_owned(), ..row });
        });
    }
    table.0.sort_by_key(|row| row.number);
    println!("{table}");
    cases.finish();
    world.stop();
}

/// Nothing is under way any more, everything is ready, and the ledger balances.
fn rests(world: &World) {
    world.stack.until_ready();
    let rest = world.at_rest(Duration::from_secs(60));
    rest.unwrap_or_else(|last| panic!("outbox and leases are not empty: {last:?}"));
    world.stack.balances();
}

/// The number that a query finds.
fn number(world: &World, sql: &str) -> u64 {
    let found = world.runtime.block_on(world.facts.number(sql)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    u64::try_from(found).expect("a count")
}
