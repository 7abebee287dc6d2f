//! What a hostile host tries, played against a real enclave; each ends in the
//! named refusal and in no aggregate.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::Phase;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Check;
use sealfold_protocol::{Digest, MultiSigned, Signed, SigningKey, seal};
use sealfold_tests::hostile_host::{Enclave, HostileHost};
use sealfold_tests::misbehaviour::seal_again;
use sealfold_tests::site::{self, Sealed};
use sealfold_tests::study::{Options, Study};
use std::time::Duration;

struct World {
    host: HostileHost,
    enclave: Enclave,
    study: Study,
    offer: Signed<Offer>,
    sealed: Vec<Sealed>,
}

impl World {
    /// All updates are admitted.
    fn admitted(options: &Options) -> Self {
        let host = HostileHost::new();
        let enclave = host.enclave("enclave");
        let study = Study::new(options);
        let offer = enclave.offer(&study.first_offer()).unwrap();
        let terms = study.terms().clone();
        let sealed: Vec<_> = study
            .sites
            .iter()
            .zip(1u8..)
            .map(|(site, value)| {
                let values = vec![f32::from(value); study.parameters()];
                let update = site.seal(&offer, &terms, &values);
                enclave.admit(&host.door, &offer, &update).unwrap();
                update
            })
            .collect();
        Self { host, enclave, study, offer, sealed }
    }

    fn commit(&self, sites: impl Iterator<Item = usize>) {
        let roster = self.enclave.roster(&self.offer).unwrap();
        for i in sites {
            let commit = self.study.sites[i].commit(&roster, self.sealed[i].header.digest());
            self.enclave.commit(&commit).unwrap();
        }
    }

    fn released(&self) -> bool {
        self.enclave.status().release.is_some()
    }
}

#[test]
fn one_corrupted_record_in_the_middle_of_a_fold_discloses_nothing() {
    let world = World::admitted(&Options { parameters: 500_000, ..Options::default() });
    world.commit(0..4);
    let victim = *world.sealed[1].header.digest().as_bytes();
    let middle = seal::record_range(world.sealed[1].header.statement().plain_length, 4).start;
    world.host.door.tamper(move |request, bytes| {
        if request.object == victim && request.offset == middle {
            bytes[1000] ^= 1;
        }
    });
    let refusal = world.enclave.release(&world.offer).unwrap_err();
    assert_eq!(refusal.check, Check::Record);
    assert!(refusal.to_string().contains("site-001"), "{refusal}");
    assert!(!world.released());
    // A smaller roster stands, and nobody has committed to it.
    world.host.door.behave();
    let roster = world.enclave.roster(&world.offer).unwrap();
    assert_eq!(roster.statement().members.len(), 3);
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Commits);
    world.commit([0, 2, 3].into_iter());
    let release = world.enclave.release(&world.offer).unwrap();
    let object = world.host.door.object(&release.statement().object);
    let plain = world.study.sites[0].open(&release, &object);
    let roster = roster.statement();
    let values = site::mean(world.study.terms(), roster.sites(), &plain);
    assert!((values[0] - 8.0 / 3.0).abs() < 1e-6);
}

#[test]
fn a_colluding_site_that_swaps_its_bytes_between_admission_and_fold() {
    let world = World::admitted(&Options { parameters: 200_000, ..Options::default() });
    world.commit(0..4);
    // The site kept its key: other values, sealed under the same header, open.
    let plain = site::plain(world.study.terms(), 1, &vec![1000.0; 200_000]);
    let update = &world.sealed[2];
    // The salt decides the keys, so the host must serve the new header too,
    // and it was read at admission only: the old keys do not open the new bytes.
    let other = site::seal_bytes(&update.key, &update.header.digest(), &plain);
    world.host.door.put(*update.header.digest().as_bytes(), other);
    let refusal = world.enclave.release(&world.offer).unwrap_err();
    assert_eq!(refusal.check, Check::Record);
    assert!(!world.released());
}

#[test]
fn a_colluding_site_that_seals_other_bytes_under_the_very_keys_of_its_update() {
    let world = World::admitted(&Options { parameters: 200_000, ..Options::default() });
    world.commit(0..4);
    let mut values = vec![3.0; 200_000];
    values[150_000] = 3.5;
    let plain = site::plain(world.study.terms(), 1, &values);
    let update = &world.sealed[2];
    // What it may not do, and what nobody can stop it from doing: use its
    // object's keys and nonces twice.
    let context = update.header.digest();
    let other = seal_again(&update.key, context.as_bytes(), &plain, &update.bytes[..24]);
    assert_eq!(other[..seal::HEADER], update.bytes[..seal::HEADER]);
    assert_ne!(other, update.bytes);
    world.host.door.put(*update.header.digest().as_bytes(), other);
    let refusal = world.enclave.release(&world.offer).unwrap_err();
    assert_eq!(refusal.check, Check::Admission);
    assert!(refusal.to_string().contains("site-002"), "{refusal}");
    assert!(!world.released());
    assert_eq!(world.enclave.roster(&world.offer).unwrap().statement().members.len(), 3);
}

#[test]
fn a_roster_below_the_smallest_is_never_released() {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(&Options { deadlines: [1, 1, 4], ..Options::default() });
    let offer = enclave.offer(&study.first_offer()).unwrap();
    let terms = study.terms().clone();
    for site in &study.sites[..2] {
        let update = site.seal(&offer, &terms, &[1.0; 1000]);
        enclave.admit(&host.door, &offer, &update).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(enclave.roster(&offer).unwrap_err().check, Check::SmallestRoster);
    assert_eq!(enclave.release(&offer).unwrap_err().check, Check::Phase);
    // At the deadline the keys are erased, and nothing is admitted any more.
    std::thread::sleep(Duration::from_millis(4200));
    assert_eq!(enclave.status().phase, Phase::Closed);
    let late = study.sites[2].seal(&offer, &terms, &[1.0; 1000]);
    let refusal = enclave.admit(&host.door, &offer, &late).unwrap_err();
    assert!(matches!(refusal.check, Check::Deadline | Check::Phase), "{refusal}");
    assert_eq!(enclave.offer(&study.first_offer()).map(|o| o.digest()).ok(), Some(offer.digest()));
}

#[test]
fn a_release_before_every_commit_and_commits_that_are_none() {
    let world = World::admitted(&Options::default());
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Phase);
    let roster = world.enclave.roster(&world.offer).unwrap();
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Commits);
    world.commit(0..3);
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Commits);
    let stranger = site::Site::numbered(50);
    let commit = stranger.commit(&roster, world.sealed[3].header.digest());
    assert_eq!(world.enclave.commit(&commit).unwrap_err().check, Check::Site);
    let impostor = site::Site { key: SigningKey::generate().unwrap(), ..site::Site::numbered(3) };
    let commit = impostor.commit(&roster, world.sealed[3].header.digest());
    assert_eq!(world.enclave.commit(&commit).unwrap_err().check, Check::Signature);
    // The right site, another update.
    let commit = world.study.sites[3].commit(&roster, world.sealed[0].header.digest());
    assert_eq!(world.enclave.commit(&commit).unwrap_err().check, Check::Roster);
    assert!(!world.released());
}

#[test]
fn a_second_offer_of_one_instance_for_one_round() {
    let world = World::admitted(&Options::default());
    let again = world.enclave.offer(&world.study.first_offer()).unwrap();
    assert_eq!(again.digest(), world.offer.digest());
    let mut other = world.study.first_offer();
    other.base = Digest::new([8; 32]);
    assert_eq!(world.enclave.offer(&other).unwrap_err().check, Check::OneOffer);
    assert!(!world.released());
}

#[test]
fn rounds_beyond_the_agreed_number() {
    let world = World::admitted(&Options::default());
    let mut other = world.study.first_offer();
    other.round = world.study.terms().rounds + 1;
    assert_eq!(world.enclave.offer(&other).unwrap_err().check, Check::Rounds);
    other.round = 0;
    assert_eq!(world.enclave.offer(&other).unwrap_err().check, Check::Rounds);
}

#[test]
fn two_enclaves_for_one_round_share_no_commit() {
    let world = World::admitted(&Options::default());
    let other = world.host.enclave("other");
    let theirs = other.offer(&world.study.first_offer()).unwrap();
    assert_ne!(theirs.digest(), world.offer.digest());
    // What was sealed to one instance is nothing to the other.
    let refusal = other.admit(&world.host.door, &theirs, &world.sealed[0]).unwrap_err();
    assert_eq!(refusal.check, Check::Offer);
    let terms = world.study.terms().clone();
    for site in &world.study.sites {
        let update = site.seal(&theirs, &terms, &[1.0; 1000]);
        other.admit(&world.host.door, &theirs, &update).unwrap();
    }
    let roster = world.enclave.roster(&world.offer).unwrap();
    other.roster(&theirs).unwrap();
    let commit = world.study.sites[0].commit(&roster, world.sealed[0].header.digest());
    assert_eq!(other.commit(&commit).unwrap_err().check, Check::Roster);
}

/// Three sites saw one log, the fourth another.
fn one_saw_another_log() -> World {
    let world = World::admitted(&Options { deadlines: [60, 2, 600], ..Options::default() });
    let roster = world.enclave.roster(&world.offer).unwrap();
    world.commit(0..3);
    let header = world.sealed[3].header.digest();
    let commit = world.study.sites[3].commit_at(&roster, header, Digest::new([1; 32]));
    assert_eq!(world.enclave.commit(&commit).unwrap_err().check, Check::Checkpoint);
    world
}

#[test]
fn commits_with_different_checkpoints() {
    let world = one_saw_another_log();
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Commits);
    // The host cannot change its mind about the log.
    let roster = world.enclave.roster(&world.offer).unwrap();
    let other = Digest::new([1; 32]);
    let refusal = world.enclave.checkpoint(roster.digest(), other).unwrap_err();
    assert_eq!(refusal.check, Check::Checkpoint);
    assert_eq!(world.enclave.checkpoint(other, other).unwrap_err().check, Check::Roster);
    assert!(!world.released());
}

#[test]
fn one_site_that_vetoes_by_naming_a_wrong_checkpoint() {
    let world = one_saw_another_log();
    assert!(!world.released());
    // It is dropped like one that did not commit at all; the rest go on.
    std::thread::sleep(Duration::from_millis(2100));
    let smaller = world.enclave.roster(&world.offer).unwrap();
    assert_eq!(smaller.statement().members.len(), 3);
    world.commit(0..3);
    world.enclave.release(&world.offer).unwrap();
}

#[test]
fn a_roster_member_dropped_and_a_commit_replayed_to_the_smaller_roster() {
    let world = World::admitted(&Options { deadlines: [60, 1, 600], ..Options::default() });
    let first = world.enclave.roster(&world.offer).unwrap();
    world.commit(0..3);
    std::thread::sleep(Duration::from_millis(1100));
    let smaller = world.enclave.roster(&world.offer).unwrap();
    assert_ne!(smaller.digest(), first.digest());
    assert_eq!(smaller.statement().members.len(), 3);
    // Whoever committed to the sum of four has not committed to that of three.
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Commits);
    for i in 0..3 {
        let old = world.study.sites[i].commit(&first, world.sealed[i].header.digest());
        assert_eq!(world.enclave.commit(&old).unwrap_err().check, Check::Roster);
    }
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Commits);
    assert!(!world.released());
}

#[test]
fn two_rosters_folded_by_one_instance() {
    let world = World::admitted(&Options { deadlines: [60, 1, 600], ..Options::default() });
    world.commit(0..4);
    let release = world.enclave.release(&world.offer).unwrap();
    // Time goes by, and the host asks for a roster without one of them.
    std::thread::sleep(Duration::from_millis(1100));
    let roster = world.enclave.roster(&world.offer).unwrap();
    assert_eq!(roster.statement().members.len(), 4);
    let commit = world.study.sites[0].commit(&roster, world.sealed[0].header.digest());
    assert_eq!(world.enclave.commit(&commit).unwrap_err().check, Check::Phase);
    let update = world.sealed[0].header.envelope();
    let refusal = world.enclave.admit_header(&world.offer, update).unwrap_err();
    assert_eq!(refusal.check, Check::Phase);
    // There is one release, however often it is asked for.
    assert_eq!(world.enclave.release(&world.offer).unwrap().digest(), release.digest());
}

#[test]
fn two_disjoint_rosters_for_one_round() {
    // A study that would allow them is none.
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(&Options { sites: 6, smallest_roster: 4, ..Options::default() });
    let mut split = study.manifest.statement().clone();
    split.terms.quorum.smallest_roster = 3;
    let mut signed = MultiSigned::sign(split, &study.sites[0].key).unwrap();
    study.sites[1..].iter().for_each(|site| signed.add_signature(&site.key).unwrap());
    let mut request = study.first_offer();
    request.manifests = vec![Envelope(signed.envelope().unwrap())];
    assert_eq!(enclave.offer(&request).unwrap_err().check, Check::Manifest);
    assert_eq!(enclave.status().phase, Phase::Idle);
}

#[test]
fn a_dead_door_is_the_hosts_affair_and_the_round_goes_on_when_it_answers() {
    let world = World::admitted(&Options { parameters: 300_000, ..Options::default() });
    world.commit(0..4);
    let bytes = world.sealed[0].bytes.clone();
    let name = *world.sealed[0].header.digest().as_bytes();
    world.host.door.put(name, bytes[..1000].to_vec());
    let refusal = world.enclave.release(&world.offer).unwrap_err();
    assert_eq!(refusal.check, Check::Door);
    assert!(!world.released());
    world.host.door.put(name, bytes);
    assert!(world.enclave.release(&world.offer).is_ok());
}

#[test]
fn a_round_that_is_over_leaves_neither_key_nor_plaintext_in_the_enclaves_memory() {
    let options = Options { parameters: 200_000, readers: "sites", ..Options::default() };
    let world = World::admitted(&options);
    world.commit(0..4);
    let memory = |bytes: &[u8]| world.enclave.server.memory_holds(bytes);
    // A fold that fails first: its key and its rows are nobody's either.
    let victim = *world.sealed[3].header.digest().as_bytes();
    let length = world.sealed[3].header.statement().plain_length;
    let last = seal::record_range(length, seal::record_count(length) - 1).start;
    world.host.door.tamper(move |request, bytes| {
        if request.object == victim && request.offset == last {
            bytes[0] ^= 1;
        }
    });
    assert_eq!(world.enclave.release(&world.offer).unwrap_err().check, Check::Record);
    // Values and sums in steps of 2^-13; the sum of three and of all four.
    let whole = |value: i32| (value << 13).to_le_bytes().repeat(16);
    for value in [1, 2, 3, 4, 6, 10] {
        assert!(!memory(&whole(value)), "a row or a record of {value}");
    }
    world.host.door.behave();
    world.commit(0..3);
    let release = world.enclave.release(&world.offer).unwrap();
    // What is public is found, so the search sees what there is.
    assert!(memory(world.offer.envelope()));
    for (sealed, site) in world.sealed.iter().zip(&world.study.sites) {
        assert!(!memory(sealed.key.as_bytes()), "the key of the update of {}", site.name);
    }
    let opening = world.study.sites[0].opening(&release);
    assert!(!memory(opening.key.as_bytes()), "the key of the aggregate");
    assert!(!memory(opening.blinding.as_bytes()), "the blinding of the aggregate");
    for value in [1, 2, 3, 4, 6, 10] {
        assert!(!memory(&whole(value)), "a record or a row of {value}");
    }
}

/// A site cannot say how many examples it has: an update is its values, and what
/// each site weighs is what all signed.
#[test]
fn a_site_that_would_weigh_more_than_was_signed() {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let weights = vec![1, 2, 3, 3];
    let study = Study::new(&Options { weights, smallest_roster: 4, ..Options::default() });
    let offer = enclave.offer(&study.first_offer()).unwrap();
    let greedy = &study.sites[0];
    // The preamble of version 0.1.0, in which a site named its examples.
    for more in [8, 16 << 10] {
        let plain = site::plain(study.terms(), 1, &[1.0; 1000]);
        let longer = greedy.seal_plain(&offer, &[vec![0xff; more], plain].concat());
        let refusal = enclave.admit(&host.door, &offer, &longer).unwrap_err();
        assert_eq!(refusal.check, Check::Layout);
    }
    let update = |(i, site): (usize, &site::Site)| {
        let value = if i == 0 { 9.0 } else { 0.0 };
        let update = site.seal(&offer, study.terms(), &[value; 1000]);
        enclave.admit(&host.door, &offer, &update).unwrap();
        update
    };
    let sealed: Vec<_> = study.sites.iter().enumerate().map(update).collect();
    let world = World { host, enclave, study, offer, sealed };
    world.commit(0..4);
    let release = world.enclave.release(&world.offer).unwrap();
    let object = world.host.door.object(&release.statement().object);
    // One ninth, as was signed.
    let values = site::released(&world.study, 4, &release, &object);
    assert!(values.iter().all(|v| v.to_bits() == 1f32.to_bits()), "{:?}", &values[..3]);
}

/// The trainer of attack 1: a value so large that nobody takes the step, and the
/// base stays for a second release on it.
#[test]
fn a_value_that_would_stop_the_model() {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(&Options::default());
    let offer = enclave.offer(&study.first_offer()).unwrap();
    // The largest number of steps that there is, in one coordinate.
    let mut plain = vec![0; 4000];
    for value in [i32::MAX, i32::MIN] {
        plain[400..404].copy_from_slice(&value.to_le_bytes());
        let update = study.sites[0].seal_plain(&offer, &plain);
        let refusal = enclave.admit(&host.door, &offer, &update).unwrap_err();
        assert_eq!(refusal.check, Check::NormLimit);
    }
    assert!(enclave.status().release.is_none());
}
