//! What must hold after every schedule.

use crate::hospital::share;
use crate::machine::at_once;
use crate::world::{ROUNDS, SMALLEST_ROSTER, World};
use sealfold_attestation::Policy;
use sealfold_attestation::log::SignedCheckpoint;
use sealfold_audit::copy::LogCopy;
use sealfold_audit::given::Kept;
use sealfold_audit::replay::Replay;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::release::Release;
use sealfold_protocol::{Digest, MultiSigned, Signed};
use std::collections::BTreeSet;
use std::path::Path;

/// Everything that does not hold.
#[must_use]
pub fn violations(world: &World) -> Vec<String> {
    let mut found = world.ledger.lock().unwrap().violations.clone();
    one_release(world, &mut found);
    sums(world, &mut found);
    nothing_lost(world, &mut found);
    log(world, &mut found);
    sites(world, &mut found);
    found
}

fn members(roster: &Signed<sealfold_protocol::roster::Roster>) -> BTreeSet<String> {
    roster.statement().members.iter().map(|member| member.site.clone()).collect()
}

/// The offers that enough approvers have given up, as far as the host knows.
fn abandoned(world: &World) -> BTreeSet<Digest> {
    let approval = &world.study.terms().approval;
    let machine = world.network.machine.lock().unwrap();
    let kept = at_once(machine.shelf.dump("studies"));
    let abandonments = kept.iter().filter(|(name, _)| name.contains("/abandonments/"));
    abandonments
        .filter_map(|(_, bytes)| MultiSigned::<Abandonment>::open(bytes).ok())
        .filter(|signed| signed.expect_approvals(&approval.approvers, approval.required).is_ok())
        .map(|signed| signed.statement().offer)
        .collect()
}

/// At most one release a round in the world, unless its offer was abandoned,
/// which counts as released; and no two on one base that a few sites tell apart.
fn one_release(world: &World, found: &mut Vec<String>) {
    let abandoned = abandoned(world);
    let seen = world.ledger.lock().unwrap();
    let releases: Vec<_> = seen.releases.values().collect();
    for (place, one) in releases.iter().enumerate() {
        for other in &releases[place + 1..] {
            let (a, b) = (one.release.statement(), other.release.statement());
            let given_up = |offer: &Digest| abandoned.contains(offer);
            if a.round == b.round && !given_up(&a.offer) && !given_up(&b.offer) {
                found.push(format!("two releases of round {} in the world", a.round));
            }
            if a.base != b.base {
                continue;
            }
            let (ours, theirs) = (members(&one.roster), members(&other.roster));
            let difference = ours.symmetric_difference(&theirs).count();
            if difference > 0 && difference < SMALLEST_ROSTER {
                found.push(format!(
                    "two releases on one base, of {ours:?} and of {theirs:?}, {difference} apart"
                ));
            }
        }
    }
}

/// Each release is the sum over its roster: every member's power of two once, in
/// the place of its round, and nobody else's.
fn sums(world: &World, found: &mut Vec<String>) {
    let seen = world.ledger.lock().unwrap();
    for observed in seen.releases.values() {
        let (release, roster) = (&observed.release, members(&observed.roster));
        let round = release.statement().round;
        if roster.len() < SMALLEST_ROSTER {
            found.push(format!("round {round} was released for {roster:?}"));
        }
        let Some(aggregate) = &observed.aggregate else {
            found.push(format!("lost: the aggregate of round {round}, which was finished"));
            continue;
        };
        let sum = sum(world, release, aggregate, roster.len());
        let mut expected = vec![0.0; ROUNDS as usize];
        expected[round as usize - 1] = world
            .study
            .sites
            .iter()
            .enumerate()
            .filter(|(_, site)| roster.contains(&site.name))
            .map(|(number, _)| share(number))
            .sum();
        if sum != expected {
            found.push(format!("round {round}, {roster:?}: expected {expected:?}, found {sum:?}"));
        }
    }
}

/// The sum that a mean of so many equal weights is of.
fn sum(world: &World, release: &Signed<Release>, aggregate: &[u8], sites: usize) -> Vec<f32> {
    let mean = sealfold_tests::site::released(&world.study, sites, release, aggregate);
    let sites = f32::from(u8::try_from(sites).unwrap());
    mean.into_iter().map(|value| (value * sites * 1024.0).round() / 1024.0).collect()
}

/// What the host acknowledged is there: commits in its store and its log.
fn nothing_lost(world: &World, found: &mut Vec<String>) {
    let machine = world.network.machine.lock().unwrap();
    let kept = at_once(machine.shelf.dump("studies"));
    let seen = world.ledger.lock().unwrap();
    for (name, envelope) in &seen.commits {
        if kept.get(name) != Some(envelope) {
            found.push(format!(
                "lost: an acknowledged commit of {}",
                name.rsplit('/').next().unwrap()
            ));
        }
    }
}

/// The log is what its checkpoint says, holds whatever sites have seen of it,
/// and an auditor finds nothing unsafe in it.
fn log(world: &World, found: &mut Vec<String>) {
    let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
    write_log(world, folder.path());
    let policy = Policy::from_toml(&world.policy).unwrap();
    let key = policy.log().unwrap();
    let kept: Vec<_> = world
        .sites
        .iter()
        .filter_map(|site| {
            let checkpoint = SignedCheckpoint::open(&site.kept_checkpoint()?, key);
            Some(Kept { name: site.link.site.clone(), checkpoint: checkpoint.unwrap() })
        })
        .collect();
    let copy = LogCopy::new(folder.path());
    let replay = Replay::new(&copy, &policy, 100);
    match replay.run(&kept, jiff::Timestamp::now(), &mut |_, _| {}) {
        Ok(report) => {
            for finding in report.findings.iter().take(usize::try_from(report.safety).unwrap()) {
                found.push(format!("the auditor finds: {finding:?}"));
            }
        }
        Err(error) => found.push(format!("the log cannot be replayed: {error}")),
    }
}

fn write_log(world: &World, folder: &Path) {
    let machine = world.network.machine.lock().unwrap();
    for (name, bytes) in at_once(machine.shelf.dump("log")) {
        let path = folder.join(name.strip_prefix("log/").unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Every site has come to the study's end, or says by name why it cannot.
fn sites(world: &World, found: &mut Vec<String>) {
    for site in &world.sites {
        if let Some(error) = &site.ended {
            found.push(format!("{} has stopped: {error}", site.link.site));
        }
    }
    let explained = |text: &str| text.contains("roster-too-close");
    let is_explained = world.sites.iter().any(|site| explained(&site.waiting_for));
    for site in world.sites.iter().filter(|site| !site.is_done && site.ended.is_none()) {
        if !is_explained {
            let (name, round) = (&site.link.site, site.next_round());
            found.push(format!("{name} is stuck in round {round}: {}", site.waiting_for));
        }
    }
}
