//! What no receipt is given for, by name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::{MAX_HEAD, MAX_JSON};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::terms::RoundKind;
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, MultiSigned, Signed, SigningKey, seal};
use sealfold_tests::hostile_host::{Enclave, HostileHost};
use sealfold_tests::http;
use sealfold_tests::site::{self, Sealed, Site};
use sealfold_tests::study::{Options, Study};

struct World {
    host: HostileHost,
    enclave: Enclave,
    study: Study,
    offer: Signed<Offer>,
}

impl World {
    fn new(options: &Options) -> Self {
        let host = HostileHost::new();
        let enclave = host.enclave("enclave");
        let study = Study::new(options);
        let offer = enclave.offer(&study.first_offer()).unwrap();
        Self { host, enclave, study, offer }
    }

    fn good(&self, site: usize) -> Sealed {
        let values = vec![1.0; self.study.parameters()];
        self.study.sites[site].seal(&self.offer, self.study.terms(), &values)
    }

    fn refusal(&self, update: &Sealed) -> Refusal {
        self.enclave.admit(&self.host.door, &self.offer, update).unwrap_err()
    }

    fn check(&self, update: &Sealed) -> Check {
        self.refusal(update).check
    }
}

#[test]
fn a_stranger_and_a_site_that_did_not_approve() {
    let world = World::new(&Options::default());
    let stranger = Site::numbered(77);
    let update = stranger.seal(&world.offer, world.study.terms(), &[0.0; 1000]);
    assert_eq!(world.check(&update), Check::Site);
    // A listed site under another key.
    let impostor = Site { key: SigningKey::generate().unwrap(), ..Site::numbered(0) };
    let update = impostor.seal(&world.offer, world.study.terms(), &[0.0; 1000]);
    assert_eq!(world.check(&update), Check::Signature);
    // A listed site whose signature the manifest lacks.
    let study = Study::new(&Options::default());
    let mut signed =
        MultiSigned::sign(study.manifest.statement().clone(), &study.sites[0].key).unwrap();
    study.sites[1..3].iter().for_each(|site| signed.add_signature(&site.key).unwrap());
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let partly = Study { sites: study.sites, manifest: signed };
    let offer = enclave.offer(&partly.first_offer()).unwrap();
    let update = partly.sites[3].seal(&offer, world.study.terms(), &[0.0; 1000]);
    let refusal = enclave.admit(&host.door, &offer, &update).unwrap_err();
    assert_eq!(refusal.check, Check::SiteApproval);
    assert!(refusal.to_string().contains("sealfold study approve"), "{refusal}");
}

#[test]
fn a_wrong_layout() {
    let world = World::new(&Options::default());
    let site = &world.study.sites[0];
    for length in [0, 1, 3999, 4001, 20_384] {
        let update = site.seal_plain(&world.offer, &vec![0; length]);
        assert_eq!(world.check(&update), Check::Layout, "{length}");
    }
    // After all these the site's place is still free.
    assert!(world.enclave.admit(&world.host.door, &world.offer, &world.good(0)).is_ok());
}

#[test]
fn values_that_are_no_numbers_wherever_they_stand() {
    let world = World::new(&Options {
        parameters: 200_000,
        aggregation: "rule = \"median\"".into(),
        accepts: vec!["selective-rule"],
        ..Options::default()
    });
    let places = [0, 1, 4095, 4096, 65_535, 65_536, 131_072, 199_999];
    for (place, bad) in
        places.iter().zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN].iter().cycle())
    {
        let mut values = vec![1.0; 200_000];
        values[*place] = *bad;
        let bytes: Vec<u8> = values.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
        let update = world.study.sites[0].seal_plain(&world.offer, &bytes);
        let refusal = world.refusal(&update);
        assert_eq!(refusal.check, Check::Finite, "{bad} at {place}");
        assert!(!refusal.to_string().contains(&place.to_string()), "{refusal}");
    }
}

/// Ten million patients of another hospital, or one, in a study whose release
/// tells each hospital's counts apart.
#[test]
fn counts_in_another_hospitals_evaluation() {
    // The counts lie in the first chunk of values, over the border of two
    // records, or in the third.
    for parameters in [10, 65_536 - 10, 130_000] {
        let world = World::new(&Options {
            parameters,
            rounds: 1,
            aggregation: "rule = \"sum\"\ndivisor = 100".to_owned(),
            privacy: "unit = \"patient\"\nclip = 2\nstep = 0.0000152587890625\n\
                      noise_multiplier = 0.7\nepsilon = 20\ndelta = 1e-5"
                .to_owned(),
            model: ["", "[evaluation]\nbins = 4\nper_site = true", ""],
            ..Options::default()
        });
        let length = world.study.terms().values(RoundKind::Training);
        let length = usize::try_from(length).unwrap();
        let of = |place: usize, value: i32| {
            let mut values = vec![0; length];
            values[parameters - 1] = 7;
            values[place] = value;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            world.study.sites[1].seal_plain(&world.offer, &bytes)
        };
        // Each site has eight counts, and site 1 the second eight.
        for (place, value) in [(0, 1_310_720_000), (7, 1), (16, -1), (31, 1 << 24)] {
            let refusal = world.refusal(&of(parameters + place, value));
            assert_eq!(refusal.check, Check::Channel, "{parameters}, {place}: {refusal}");
            assert!(!refusal.to_string().contains(&value.to_string()), "{refusal}");
        }
        for place in [8, 15] {
            let own = of(parameters + place, 1_310_720_000);
            let admitted = world.enclave.admit(&world.host.door, &world.offer, &own);
            // The site has one place: the second of the two comes too late.
            let other = admitted.err().map(|refusal| refusal.check);
            assert_eq!(other, (place == 15).then_some(Check::OneUpdate), "{parameters}, {place}");
        }
    }
}

#[test]
fn a_channel_out_of_its_range() {
    let world = World::new(&Options {
        parameters: 10,
        model: ["", "[evaluation]\nbins = 2\nmost = 500", ""],
        ..Options::default()
    });
    let with = |place: usize, count: i32| {
        let mut plain = site::plain(world.study.terms(), 1, &[1.0; 10]);
        plain[40 + 4 * place..][..4].copy_from_slice(&count.to_le_bytes());
        world.study.sites[0].seal_plain(&world.offer, &plain)
    };
    for (place, count) in [(0, 501), (3, -1), (1, i32::MAX), (2, i32::MIN)] {
        let refusal = world.refusal(&with(place, count));
        assert_eq!(refusal.check, Check::Channel, "{place}, {count}");
        assert!(!refusal.to_string().contains(&count.to_string()), "{refusal}");
    }
    assert!(world.enclave.admit(&world.host.door, &world.offer, &with(3, 500)).is_ok());
}

#[test]
fn a_norm_beyond_the_limit_is_told_to_its_site_only() {
    let aggregation = "rule = \"weighted-mean\"\nnorm_limit = 3.0\nstep = 0.0009765625";
    let world = World::new(&Options {
        aggregation: aggregation.into(),
        parameters: 4,
        ..Options::default()
    });
    let site = &world.study.sites[0];
    let update = site.seal(&world.offer, world.study.terms(), &[2.0; 4]);
    let refusal = world.refusal(&update);
    assert_eq!(refusal.check, Check::NormLimit);
    assert!(!refusal.found.contains('4'), "{refusal}");
    let info = Refusal::seal_info(&update.header.digest());
    let sealed = refusal.sealed.unwrap();
    let finding = seal::unseal(&site.release_seed, &info, b"", &sealed).unwrap();
    assert_eq!((finding.len(), finding.trim_ascii_end()), (512, &b"4"[..]));
    assert!(seal::unseal(&world.study.sites[1].release_seed, &info, b"", &sealed).is_err());
    let short = site.seal(&world.offer, world.study.terms(), &[1.5; 4]);
    assert!(world.enclave.admit(&world.host.door, &world.offer, &short).is_ok());
}

/// The host counts the reads at its door and the bytes of the answer: where a
/// norm passed the limit, and by how much, cannot be told from either.
#[test]
fn a_refused_norm_is_read_to_its_end_like_an_admitted_one() {
    let aggregation = "rule = \"weighted-mean\"\nnorm_limit = 3.0\nstep = 0.00006103515625";
    let world = World::new(&Options {
        aggregation: aggregation.into(),
        parameters: 500_000,
        ..Options::default()
    });
    let mut seen = Vec::new();
    // Far too long in the first record, just too long in the last, and fine.
    for (place, value) in [(0, 30_000.0), (499_999, 3.1), (0, 2.9)] {
        let mut values = vec![0.0; 500_000];
        values[place] = value;
        let update = world.study.sites[0].seal(&world.offer, world.study.terms(), &values);
        let before = world.host.door.reads();
        let outcome = world.enclave.admit(&world.host.door, &world.offer, &update);
        let reads = world.host.door.reads() - before;
        let refusal = outcome.err().map(|refusal| {
            let sealed = refusal.sealed.as_ref().unwrap().clone();
            (refusal.check, refusal.expected, refusal.found, refusal.next, sealed)
        });
        seen.push((reads, refusal));
    }
    let [(first, far), (second, near), (third, none)] = &seen[..] else { unreachable!() };
    assert!(first == second && second == third && *first > 4, "{first}, {second}, {third}");
    assert!(none.is_none());
    let (far, near) = (far.as_ref().unwrap(), near.as_ref().unwrap());
    assert_eq!((far.0, &far.1, &far.2), (Check::NormLimit, &near.1, &near.2));
    assert_eq!(far.3, near.3);
    assert_eq!(far.4.ciphertext.len(), near.4.ciphertext.len());
    assert!(world.enclave.status().release.is_none());
}

#[test]
fn another_round_study_or_offer() {
    let world = World::new(&Options::default());
    let site = &world.study.sites[0];
    let header = world.good(0).header;
    let with = |change: fn(&mut UpdateHeader)| {
        let mut statement = header.statement().clone();
        change(&mut statement);
        let signed = Signed::sign(statement, &site.key).unwrap();
        world.enclave.admit_header(&world.offer, signed.envelope()).unwrap_err().check
    };
    assert_eq!(with(|h| h.round = 2), Check::Round);
    assert_eq!(with(|h| h.study = Digest::new([1; 32])), Check::Round);
    assert_eq!(with(|h| h.offer = Digest::new([1; 32])), Check::Offer);
    // An update that was made for another instance's offer of the same round.
    let other = world.host.enclave("other");
    let theirs = other.offer(&world.study.first_offer()).unwrap();
    let update = site.seal(&theirs, world.study.terms(), &[0.0; 1000]);
    assert_eq!(world.check(&update), Check::Offer);
}

#[test]
fn an_update_of_a_round_that_is_over() {
    let world = World::new(&Options::default());
    let old = world.good(0);
    let (mut next, first) = (world.study.first_offer(), Digest::new([7; 32]));
    (next.round, next.previous) = (2, Some(first));
    let offer = world.enclave.offer(&next).unwrap();
    assert_eq!(offer.statement().round, 2);
    let refusal = world.refusal(&old);
    assert_eq!(refusal.check, Check::Round);
    assert!(refusal.expected.starts_with("round 2 of"), "{refusal}");
    assert!(refusal.found.starts_with("round 1 of"), "{refusal}");
    // The old round's key is gone, so its update opens for nobody, whatever
    // header the site puts before it now.
    let mut statement = old.header.statement().clone();
    (statement.round, statement.offer) = (2, offer.digest());
    let header = Signed::sign(statement, &world.study.sites[0].key).unwrap();
    let again = Sealed { header, bytes: old.bytes, key: old.key };
    assert_eq!(world.check(&again), Check::Encapsulation);
    // The old round does not come back.
    let refusal = world.enclave.offer(&world.study.first_offer()).unwrap_err();
    assert_eq!(refusal.check, Check::OneOffer);
}

#[test]
fn one_update_a_site_and_the_same_receipt_for_the_same() {
    let world = World::new(&Options::default());
    let update = world.good(0);
    let first = world.enclave.admit(&world.host.door, &world.offer, &update).unwrap();
    let again = world.enclave.admit(&world.host.door, &world.offer, &update).unwrap();
    assert_eq!(first.digest(), again.digest());
    assert_eq!(world.check(&world.good(0)), Check::OneUpdate);
}

#[test]
fn sealed_bytes_that_are_missing_cut_changed_swapped_or_repeated() {
    let world = World::new(&Options { parameters: 200_000, ..Options::default() });
    let update = world.good(0);
    let admit = |bytes: Vec<u8>| {
        world.host.door.put(*update.header.digest().as_bytes(), bytes);
        let header = update.header.envelope();
        world.enclave.admit_header(&world.offer, header).unwrap_err().check
    };
    // Nothing there yet: the host's affair, and passing.
    let refusal = world.enclave.admit_header(&world.offer, update.header.envelope()).unwrap_err();
    assert_eq!(refusal.check, Check::Door);
    assert!(refusal.is_passing());
    let whole = update.bytes.clone();
    assert_eq!(admit(whole[..whole.len() - 1].to_vec()), Check::Door);
    assert_eq!(admit(whole[..300_000].to_vec()), Check::Door);
    for place in [seal::HEADER, 20_000, 300_000, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        assert_eq!(admit(changed), Check::Record, "{place}");
    }
    let mut salted = whole.clone();
    salted[0] ^= 1;
    assert_eq!(admit(salted), Check::Encapsulation);
    let record = |j| {
        let range = seal::record_range(update.header.statement().plain_length, j);
        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
    };
    let mut repeated = whole.clone();
    repeated.copy_within(record(0), record(1).start);
    assert_eq!(admit(repeated.clone()), Check::Record);
    repeated[record(0)].copy_from_slice(&whole[record(1)]);
    assert_eq!(admit(repeated), Check::Record);
    // The site loses nothing by it.
    assert!(world.enclave.admit(&world.host.door, &world.offer, &update).is_ok());
}

#[test]
fn a_genuine_header_with_the_hosts_own_encapsulation_behind_it() {
    let world = World::new(&Options::default());
    let genuine = world.good(0);
    // The host encapsulates a key of its own and seals what it likes under the
    // site's header.
    let info = Offer::seal_info(&world.offer.digest());
    let (encapsulation, key) =
        seal::encapsulate(&world.offer.statement().update_key, &info).unwrap();
    let plain = site::plain(world.study.terms(), 1, &[666.0; 1000]);
    let bytes = site::seal_bytes(&key, &genuine.header.digest(), &plain);
    world.host.door.put(*genuine.header.digest().as_bytes(), bytes);
    let header = genuine.header.envelope();
    let refusal = world.enclave.admit_header(&world.offer, header).unwrap_err();
    assert_eq!(refusal.check, Check::Encapsulation);
    // Nor can it put its encapsulation into the header.
    let mut statement = genuine.header.statement().clone();
    statement.encapsulation = encapsulation;
    let forged = Signed::sign(statement, &SigningKey::generate().unwrap()).unwrap();
    let refusal = world.enclave.admit_header(&world.offer, forged.envelope()).unwrap_err();
    assert_eq!(refusal.check, Check::Signature);
}

#[test]
fn oversized_and_malformed_requests() {
    let world = World::new(&Options::default());
    let long = world.enclave.admit_header(&world.offer, &vec![0; 20_000]).unwrap_err();
    assert_eq!(long.check, Check::Size);
    let odd = world.enclave.admit_header(&world.offer, b"nonsense").unwrap_err();
    assert_eq!(odd.check, Check::Encoding);
    let mut changed = world.good(0).header.envelope().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let refusal = world.enclave.admit_header(&world.offer, &changed).unwrap_err();
    assert_eq!(refusal.check, Check::Signature);
    let post = |body: &[u8]| {
        http::send(&world.enclave.endpoint, "POST", "/v1/updates", &[], body).unwrap()
    };
    assert_eq!(post(b"{}").status, 400);
    assert_eq!(post(&vec![b' '; MAX_JSON + 1]).status, 413);
    let head = |length: usize| {
        let headers = [("x-long", &*"a".repeat(length))];
        http::send(&world.enclave.endpoint, "GET", "/v1/status", &headers, b"")
    };
    assert_eq!(head(MAX_HEAD - 100).unwrap().status, 200);
    for length in [MAX_HEAD + 1, 60_000] {
        let reply = head(length).unwrap();
        let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, refusal.check), (413, Check::Size), "{length}");
    }
    // Beyond what is read of a head, the HTTP library ends the connection.
    for length in [100_000, 3_000_000] {
        let status = head(length).map_or(431, |reply| reply.status);
        assert!([413, 431].contains(&status), "{length}: {status}");
    }
    let route = http::send(&world.enclave.endpoint, "GET", "/v1/secrets", &[], b"").unwrap();
    assert_eq!(route.status, 404);
    // It still serves.
    assert!(world.enclave.admit(&world.host.door, &world.offer, &world.good(0)).is_ok());
}
