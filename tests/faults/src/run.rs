//! One schedule from its seed to its verdict.

use crate::invariants::violations;
use crate::sabotage::Sabotage;
use crate::schedule::{Kind, abandon, act, give_up};
use crate::world::World;
use std::collections::BTreeSet;

/// Looks around after the faults have ended until all is done; more mean that
/// it never will be.
const PATIENCE: u32 = 400;

/// What a schedule came to.
#[derive(Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// The kind of world.
    pub kind: Kind,
    /// What happened, in order.
    pub trace: Vec<String>,
    /// The releases of all instances.
    pub releases: usize,
    /// What does not hold.
    pub violations: Vec<String>,
}

/// Runs the schedule of a seed.
#[must_use]
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Verdict {
    play(World::new(seed, sabotage), seed)
}

/// Runs the schedule of a seed, and prints what happens while it does.
#[must_use]
pub fn follow(seed: u64, sabotage: Option<Sabotage>) -> Verdict {
    let world = World::new(seed, sabotage);
    world.fate.follow();
    play(world, seed)
}

fn play(mut world: World, seed: u64) -> Verdict {
    let kind = Kind::draw(&world);
    world.fate.note(format!("{kind:?}"));
    world.fate.set(kind.weather);
    for _ in 0..kind.acts {
        act(&mut world, &kind);
    }
    settle(&mut world);
    let violations = violations(&world);
    let releases = world.ledger.lock().unwrap().releases.len();
    Verdict { seed, kind, trace: world.fate.trace(), releases, violations }
}

/// Ends the faults, and lets everything come to rest.
fn settle(world: &mut World) {
    world.fate.note("the faults end");
    world.calm();
    world.enclaves.deliver_late();
    world.network.deliver_late();
    // A machine that was to be killed is.
    world.crash_host();
    for site in &mut world.sites {
        site.restart();
    }
    for look in 0..PATIENCE {
        world.start_host();
        if !world.enclaves.is_up() {
            world.enclaves.start();
        }
        world.conduct(20);
        for site in &mut world.sites {
            for _ in 0..20 {
                if !site.step() {
                    break;
                }
            }
        }
        world.conduct(20);
        if world.sites.iter().all(|site| site.is_done || site.ended.is_some()) {
            return;
        }
        world.pass(if look % 4 == 3 { 120_000 } else { 1_000 });
        if look % 4 == 3 {
            operate(world);
        }
    }
}

/// What operator and approvers do when the host says that it waits for them.
fn operate(world: &mut World) {
    let waits = world.network.machine.lock().unwrap().waiting_for().unwrap_or_default();
    if waits.contains("approvers") {
        abandon(world);
    }
    // Sites that are bound to an earlier offer ask the approvers.
    let mut bound = BTreeSet::new();
    for site in world.sites.iter().filter(|site| site.waiting_for.contains("bound-to-another")) {
        let round = site.next_round();
        bound.extend(site.bound_to(round).map(|offer| (round, offer)));
    }
    for (round, offer) in bound {
        give_up(world, round, offer);
    }
    if waits.contains("restart the enclave") || waits.contains("a new enclave instance") {
        world.enclaves.stop();
        world.enclaves.start();
    }
}
