//! Terms for tests, and what is common to tests of terms.

use super::*;
use crate::SigningKey;
use crate::seal::RoundSecret;

/// Four sites' signing keys, in the order of their names.
pub(crate) fn keys() -> Vec<SigningKey> {
    (1..5).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect()
}

/// Terms of four sites that check.
pub(crate) fn terms() -> Terms {
    let site = |(i, key): (usize, &SigningKey)| Site {
        name: format!("site-{i}"),
        signing_key: key.verifying_key(),
        release_key: RoundSecret::from_seed(&[100 + u8::try_from(i).unwrap(); 32])
            .public_key()
            .unwrap(),
        weight: 1,
    };
    let tensor = Tensor {
        name: "weights".to_owned(),
        shape: vec![3, 4],
        dtype: Dtype::Float32,
        step: Some(2f64.powi(-26)),
        role: TensorRole::default(),
    };
    let approvers = keys().iter().map(SigningKey::verifying_key).collect();
    Terms {
        amends: None,
        rounds: 20,
        model: Model { initial: Digest::new([0; 32]), tensors: vec![tensor] },
        aggregation: Aggregation {
            rule: Rule::WeightedMean,
            clip: None,
            trim: None,
            byzantine: None,
            keep: None,
            smoothing: None,
            steps: None,
            divisor: None,
            norm_limit: Some(5.0),
            update_type: UpdateType::Int32,
        },
        privacy: Privacy::None {},
        channels: Vec::new(),
        quorum: Quorum { smallest_roster: 3, colluders: 0 },
        accepts: Vec::new(),
        deadlines: Deadlines { upload_seconds: 60, commit_seconds: 60, round_seconds: 600 },
        readers: Readers::Sites,
        approval: Approval { required: 3, approvers },
        sites: keys().iter().enumerate().map(site).collect(),
    }
}

/// A channel of so many values from 0 to `most` steps.
pub(crate) fn channel(name: &str, length: u64, most: i64) -> Channel {
    Channel { name: name.to_owned(), length, step: 1.0, least: 0, most, per_site: false }
}

/// The study's rule becomes a selective one, by name.
pub(crate) fn select(terms: &mut Terms, rule: Rule) {
    let aggregation = &mut terms.aggregation;
    (aggregation.rule, aggregation.update_type) = (rule, UpdateType::Float32);
    terms.model.tensors[0].step = None;
    terms.accepts = vec![Weakness::SelectiveRule];
}

#[test]
fn these_terms_check_and_come_back() {
    terms().check().unwrap();
    let bytes = crate::encoding::to_vec(&terms()).unwrap();
    assert_eq!(crate::encoding::from_slice::<Terms>("terms", &bytes, 1 << 20).unwrap(), terms());
}

/// Place after place of every site, each once, whatever there is beside the model.
#[test]
fn sections_have_no_gap_and_no_place_twice() {
    let mut terms = terms();
    let second = Tensor { name: "b".into(), step: Some(1e-3), ..terms.model.tensors[0].clone() };
    let third = Tensor { name: "c".into(), ..second.clone() };
    terms.model.tensors.extend([second, third]);
    terms.channels = vec![channel("counts", 6, 100), channel("loss", 1, 9)];
    terms.channels[0].per_site = true;
    terms.accepts = vec![Weakness::PerSiteMetrics];
    terms.check().unwrap();
    assert_eq!((terms.last_round(), terms.kind(20)), (21, RoundKind::Training));
    assert_eq!(terms.kind(21), RoundKind::Evaluation);
    for kind in [RoundKind::Training, RoundKind::Evaluation] {
        let before = if kind == RoundKind::Training { 36 } else { 0 };
        assert_eq!(terms.values(kind), before + 4 * 6 + 1);
        for (number, site) in terms.sites.iter().enumerate() {
            let sections = terms.sections(kind, &site.name);
            let mut end = 0;
            for (places, _) in &sections {
                assert_eq!(places.start, end);
                end = places.end;
            }
            assert_eq!(end, terms.values(kind));
            let own: Vec<_> =
                sections.iter().filter(|(_, s)| *s == Section::Channel(0, 100)).collect();
            let first = before + 6 * number as u64;
            assert_eq!(own.len(), 1);
            assert_eq!(own[0].0, first..first + 6);
        }
    }
    let steps: Vec<_> = terms.sections(RoundKind::Training, "site-0");
    assert_eq!(steps[0], (0..12, Section::Model(Some(2f64.powi(-26)))));
    assert_eq!(steps[1], (12..36, Section::Model(Some(1e-3))));
}
