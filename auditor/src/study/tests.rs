use super::*;
use sealfold_protocol::SigningKey;
use sealfold_protocol::bytes::Random;
use sealfold_protocol::release::Disclosure;
use sealfold_protocol::seal::RoundSecret;
use sealfold_protocol::terms::Amends;

#[test]
fn two_platforms_have_two_clocks() {
    let at = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
    assert!(is_before(at(999), "nitro", (at(1000), "nitro")));
    assert!(!is_before(at(1000), "nitro", (at(1000), "nitro")));
    // A token of the same second, without its milliseconds; and a minute.
    assert!(!is_before(at(1000), "confidential-space", (at(1407), "nitro")));
    assert!(!is_before(at(0), "nitro", (at(60_000), "confidential-space")));
    assert!(is_before(at(0), "nitro", (at(60_001), "confidential-space")));
}

/// A study of one training round and one evaluation round, and what its enclave
/// says.
struct Example {
    study: Study,
    policy: Policy,
    instance: SigningKey,
}

fn digest(byte: u8) -> Digest {
    Digest::new([byte; 32])
}

fn signed(manifest: Manifest) -> MultiSigned<Manifest> {
    let keys: Vec<_> = (1..5).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect();
    let mut signed = MultiSigned::sign(manifest, &keys[0]).unwrap();
    keys[1..].iter().for_each(|key| signed.add_signature(key).unwrap());
    signed
}

impl Example {
    fn new() -> Self {
        let text = include_str!("../../../study/example.toml");
        let text = text.replace("rounds = 20", "rounds = 1");
        let manifest = Manifest::from_toml(&format!("{text}\n[evaluation]\nbins = 10\n")).unwrap();
        assert_eq!(manifest.terms.last_round(), 2);
        Self {
            study: Study::begin(signed(manifest)).unwrap(),
            policy: Policy::from_toml(Policy::example()).unwrap(),
            instance: SigningKey::from_seed(&[9; 32]).unwrap(),
        }
    }

    /// An offer of a round from a base, under the manifest in force.
    fn offer(&mut self, round: u32, base: Digest) -> (Digest, Vec<Finding>) {
        let offer = Offer {
            study: self.study.id(),
            manifest: self.study.chain().current().digest(),
            round,
            base,
            previous: self.study.last.as_ref().map(|last| last.release),
            clip: None,
            update_key: RoundSecret::from_seed(&[7; 32]).public_key().unwrap(),
            instance_key: self.instance.verifying_key(),
        };
        let (offer, mut findings) = (Signed::sign(offer, &self.instance).unwrap(), Vec::new());
        let digest = offer.digest();
        self.study.offer(0, offer, None, &self.policy, &mut findings);
        (digest, findings)
    }

    /// A release under an offer; only what is found about its length.
    fn release(&mut self, offer: Digest, plain_length: u64) -> (RoundKind, Vec<String>) {
        let round = self.study.round.as_ref().unwrap();
        let statement = round.offers[&offer].offer.statement();
        let release = Release {
            study: statement.study,
            manifest: statement.manifest,
            round: statement.round,
            offer,
            roster: digest(3),
            base: statement.base,
            previous: statement.previous,
            aggregate: digest(4),
            object: Random::new([5; 32]),
            plain_length,
            below_clip: None,
            disclosure: Disclosure::Sites(Vec::new()),
        };
        let mut findings = Vec::new();
        let release = Signed::sign(release, &self.instance).unwrap();
        let released = self.study.release(1, release, &mut findings).unwrap();
        let is_of_length = |finding: &Finding| finding.expected.contains(" bytes");
        let found = findings.into_iter().filter(is_of_length).map(|finding| finding.expected);
        (released.kind, found.collect())
    }

    fn amend(&mut self, rounds: u32) {
        let current = self.study.chain().current();
        let mut manifest = current.statement().clone();
        manifest.terms.rounds = rounds;
        let (study, predecessor) = (self.study.id(), current.digest());
        manifest.terms.amends = Some(Amends { study, predecessor });
        let mut findings = Vec::new();
        self.study.manifest(signed(manifest), &self.policy, &mut findings);
        assert!(findings.iter().all(|finding| finding.check != Check::Manifest), "{findings:?}");
    }
}

fn expected(findings: &[Finding]) -> Vec<&str> {
    assert!(findings.iter().all(|finding| finding.check == Check::Chain), "{findings:?}");
    findings.iter().map(|finding| finding.expected.as_str()).collect()
}

#[test]
fn an_aggregate_is_as_long_as_the_terms_make_it() {
    for (wrong, found) in [(0, vec![]), (4, vec!["release"])] {
        let mut example = Example::new();
        let terms = example.study.chain().current().statement().terms.clone();
        let lengths =
            [RoundKind::Training, RoundKind::Evaluation].map(|kind| terms.aggregate_length(kind));
        assert_eq!(lengths, [4 * (12 + 20), 4 * 20]);
        let bases = [digest(0), digest(8)];
        for ((round, base), length) in (1..).zip(bases).zip(lengths) {
            let (offer, findings) = example.offer(round, base);
            assert!(findings.is_empty(), "{findings:?}");
            let (kind, of_length) = example.release(offer, length + wrong);
            assert_eq!(kind, terms.kind(round));
            assert_eq!(of_length.len(), found.len(), "{of_length:?}");
        }
    }
}

#[test]
fn an_evaluation_round_leaves_the_model_as_it_is() {
    let mut example = Example::new();
    for (round, base) in [(1, digest(0)), (2, digest(8))] {
        let (offer, findings) = example.offer(round, base);
        assert!(findings.is_empty(), "{findings:?}");
        example.release(offer, 0);
    }
    // Two rounds are all that there are, until the study goes on.
    let (_, findings) = example.offer(3, digest(8));
    assert_eq!(expected(&findings), ["a round up to 2"]);
    example.amend(3);
    let (_, findings) = example.offer(3, digest(6));
    assert_eq!(expected(&findings), [format!("base model {}", digest(8))]);
    let (_, findings) = example.offer(3, digest(8));
    assert_eq!(expected(&findings), [""; 0]);
}

/// What only measures costs as much as what trains.
#[test]
fn an_evaluation_round_is_charged() {
    let text = include_str!("../../../study/example.toml")
        .replace("rounds = 20", "rounds = 1")
        .replace("rule = \"weighted-mean\"\nnorm_limit = 5.0", "rule = \"sum\"\ndivisor = 100.0")
        .replace(
            "unit = \"none\"",
            "unit = \"patient\"\nepsilon = 8.0\ndelta = 1e-5\nclip = 1.0\nstep = 0.000244140625\n\
             noise_multiplier = 2.0",
        );
    let manifest = Manifest::from_toml(&format!("{text}\n[evaluation]\nbins = 10\n")).unwrap();
    let mut account = Account::open(&manifest).unwrap();
    for round in 1..=manifest.terms.last_round() {
        account.release(Place { leaf: 1, round, time: None }, &mut Vec::new());
        let spent = account.spent().unwrap();
        let expected = manifest.spent(round).unwrap().unwrap();
        assert!(spent.epsilon.total_cmp(&expected.epsilon).is_eq());
    }
    assert_eq!(account.spent().unwrap().releases, 2);
}
