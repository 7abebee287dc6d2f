//! What happens to a world, drawn from its seed: first the kind of world, then
//! one act after the other.

use crate::door::Trouble;
use crate::fate::Weather;
use crate::world::{SITES, World};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Digest, Signed};

/// The kind of a world.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// How many acts it has.
    pub acts: u64,
    /// The weather.
    pub weather: Weather,
    /// How often machines are killed, in percent of the acts.
    pub crashes: u8,
    /// Whether the operator runs several instances, and feeds them.
    pub several: bool,
    /// Whether the approvers abandon offers.
    pub abandons: bool,
    /// Whether disks fill up.
    pub fills: bool,
    /// A site that does one thing where the others do many.
    pub slow: Option<usize>,
}

impl Kind {
    /// Draws one.
    #[must_use]
    pub fn draw(world: &World) -> Self {
        let fate = &world.fate;
        let upto = |most: u64| u8::try_from(fate.below(most + 1)).unwrap();
        let weather = match fate.below(3) {
            0 => Weather::default(),
            1 => Weather {
                lost: upto(5),
                unanswered: upto(5),
                doubled: upto(5),
                late: upto(3),
                store: 0,
            },
            _ => Weather {
                lost: upto(15),
                unanswered: upto(15),
                doubled: upto(15),
                late: upto(10),
                store: upto(3),
            },
        };
        Self {
            acts: 30 + fate.below(90),
            weather,
            crashes: upto(8),
            several: fate.happens(50),
            abandons: fate.happens(40),
            fills: fate.happens(20),
            slow: fate.happens(30).then(|| fate.place(SITES)),
        }
    }
}

/// Draws one act and lets it happen.
pub fn act(world: &mut World, kind: &Kind) {
    let fate = world.fate.clone();
    if fate.happens(kind.crashes) {
        return crash(world);
    }
    match fate.below(100) {
        50..80 => {
            world.start_host();
            world.conduct(1 + u32::try_from(fate.below(6)).unwrap());
        }
        80..88 => world.pass(fate.below(20_000)),
        88 => world.pass(fate.below(900_000)),
        89..91 => late(world),
        91..93 => {
            let link = &world.sites[fate.place(SITES)].link;
            let cut = fate.happens(40);
            fate.note(format!("{}: {}", link.site, if cut { "cut off" } else { "connected" }));
            link.cut(cut);
        }
        93 if kind.fills => {
            let full = fate.happens(60);
            fate.note(format!("the host's disks {}", if full { "are full" } else { "have room" }));
            world.network.machine.lock().unwrap().power.fill(full);
        }
        94 => {
            let at = fate.below(40_000);
            world.trouble(if fate.happens(50) { Trouble::Cut(at) } else { Trouble::Flip(at) });
        }
        95..97 if kind.several => world.enclaves.start(),
        97 if kind.several => world.enclaves.switch(),
        98 if kind.several => world.enclaves.feed(),
        99 if kind.abandons => abandon(world),
        _ => site(world, kind),
    }
}

fn site(world: &mut World, kind: &Kind) {
    let number = world.fate.place(SITES);
    let steps = if kind.slow == Some(number) { 1 } else { 1 + world.fate.below(8) };
    for _ in 0..steps {
        if !world.sites[number].step() {
            break;
        }
    }
}

fn late(world: &World) {
    world.enclaves.deliver_late();
    world.network.deliver_late();
}

/// Something is killed: at once, or in the middle of what it does next.
fn crash(world: &mut World) {
    let fate = world.fate.clone();
    match fate.below(5) {
        0 => world.crash_host(),
        1 => {
            let writes = fate.below(12);
            fate.note(format!("the host will be killed at its write {writes}"));
            world.network.machine.lock().unwrap().power.fail_after(writes);
        }
        2 => {
            world.enclaves.stop();
            world.enclaves.start();
        }
        3 => {
            let number = fate.place(SITES);
            fate.note(format!("site {number} is restarted"));
            world.sites[number].restart();
        }
        _ => {
            let (number, requests) = (fate.place(SITES), fate.below(10));
            world.sites[number].link.fail_after(requests);
        }
    }
}

/// The approvers give up the offer that stands.
pub fn abandon(world: &mut World) {
    let round = world.sites.iter().map(crate::hospital::Hospital::next_round).max().unwrap_or(1);
    let Some(offer) = standing(world, round) else { return };
    give_up(world, round, offer.digest());
}

/// The approvers give up an offer.
pub fn give_up(world: &mut World, round: u32, digest: Digest) {
    let required = world.study.terms().approval.required;
    let mut complete = false;
    for number in 0..required {
        match world.sites[number].abandon(round, digest) {
            Ok(now) => complete |= now,
            Err(error) => world.fate.note(format!("no abandonment: {}", kind_of(&error))),
        }
    }
    world.fate.note(format!("round {round} is abandoned: {complete}"));
}

fn kind_of(error: &sealfold::Error) -> &'static str {
    match error {
        sealfold::Error::Host(_) => "the host refuses",
        sealfold::Error::Network { .. } => "the network",
        _ => "another reason",
    }
}

/// The offer that the host shows for a round.
#[must_use]
pub fn standing(world: &World, round: u32) -> Option<Signed<Offer>> {
    world.network.machine.lock().unwrap().offer(round)
}
