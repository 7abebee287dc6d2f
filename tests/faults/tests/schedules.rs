//! A fixed number of schedules, and rules broken on purpose to see them fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_faults::run::{Verdict, run};
use sealfold_faults::sabotage::Sabotage;
use std::sync::atomic::{AtomicU64, Ordering};

/// The schedules that every test run plays.
const SCHEDULES: u64 = 150;
/// The schedules in which a broken rule must be noticed.
const ENOUGH: u64 = 60;

/// Runs seeds on all processors until one is wanted.
fn first(
    from: u64,
    count: u64,
    sabotage: Option<Sabotage>,
    wanted: fn(&Verdict) -> bool,
) -> Option<Verdict> {
    let next = AtomicU64::new(0);
    let found = std::sync::Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while found.lock().unwrap().is_none() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let verdict = run(from + number, sabotage);
                    if wanted(&verdict) {
                        *found.lock().unwrap() = Some(verdict);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn failed(verdict: &Verdict) -> bool {
    !verdict.violations.is_empty()
}

#[test]
fn every_invariant_holds_in_every_schedule() {
    if let Some(verdict) = first(1, SCHEDULES, None, failed) {
        let trace = verdict.trace.join("\n");
        panic!(
            "`make soak SEED={}` plays it again:\n{trace}\n{:#?}",
            verdict.seed, verdict.violations
        );
    }
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    // A wild one: the more happens, the more could differ.
    for seed in [3, 8, 12] {
        let (one, other) = (run(seed, None), run(seed, None));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.releases, other.releases);
    }
}

/// With a broken rule, some schedule among the first ends in a violation that
/// has this in its words.
fn expect_noticed(sabotage: Sabotage, words: &[&str]) {
    let mut from = 1;
    while from <= ENOUGH {
        let verdict = first(from, ENOUGH + 1 - from, Some(sabotage), failed);
        let verdict = verdict.unwrap_or_else(|| panic!("nobody noticed {sabotage:?}"));
        let says = |violation: &String| words.iter().any(|word| violation.contains(word));
        if verdict.violations.iter().any(says) {
            return;
        }
        from = verdict.seed + 1;
    }
    panic!("{sabotage:?} was noticed by nothing that says {words:?}");
}

#[test]
fn a_site_that_forgets_its_binding_is_noticed() {
    expect_noticed(Sabotage::SitesForget, &["two releases", "state-restored", "not-committed"]);
}

#[test]
fn a_host_that_acknowledges_before_it_has_synced_is_noticed() {
    expect_noticed(Sabotage::DisksLie, &["lost:"]);
}

#[test]
fn an_update_that_counts_twice_is_noticed() {
    expect_noticed(Sabotage::Doubled, &["expected ["]);
}

#[test]
fn an_update_of_another_round_is_noticed() {
    expect_noticed(Sabotage::Foreign, &["expected ["]);
}

#[test]
fn a_log_that_forgets_is_noticed() {
    expect_noticed(
        Sabotage::LogForgets,
        &["log-forked", "log-shortened", "the auditor finds", "lost:"],
    );
}
