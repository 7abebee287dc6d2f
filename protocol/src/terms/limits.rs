//! What terms must not say, although each number alone is one: what an enclave, a
//! site or a library would find out too late.

use super::tests::{channel, select, terms};
use super::*;
use sealfold_aggregation::integer::Words;

fn check(change: impl FnOnce(&mut Terms)) -> Result<()> {
    let mut changed = terms();
    change(&mut changed);
    changed.check()
}

/// The field that is refused, and the number that would do.
fn told(change: impl FnOnce(&mut Terms)) -> (String, String) {
    match check(change) {
        Err(Error::Manifest { field, expected, .. }) => (field, expected),
        other => panic!("{other:?}"),
    }
}

fn refused(change: impl FnOnce(&mut Terms)) -> String {
    told(change).0
}

fn noise() -> Noise {
    Noise { clip: 1.0, step: 1e-5, noise_multiplier: 30.0, adaptive_clip: None }
}

fn private(terms: &mut Terms, privacy: Privacy) {
    terms.aggregation.rule = Rule::Sum;
    (terms.aggregation.norm_limit, terms.aggregation.divisor) = (None, Some(4.0));
    terms.model.tensors[0].step = None;
    terms.privacy = privacy;
}

fn site(change: impl FnOnce(&mut Noise)) -> impl FnOnce(&mut Terms) {
    let mut noise = noise();
    change(&mut noise);
    |terms| private(terms, Privacy::Site(noise))
}

fn patient(change: impl FnOnce(&mut Noise)) -> impl FnOnce(&mut Terms) {
    let mut noise = noise();
    change(&mut noise);
    |terms| private(terms, Privacy::Patient(noise))
}

#[test]
fn every_rule_names_its_field() {
    assert_eq!(refused(|t| t.rounds = 0), "study.rounds");
    assert_eq!(refused(|t| t.approval.required = 2), "approval.required");
    assert_eq!(refused(|t| t.sites[1].name = t.sites[0].name.clone()), "site.name");
    assert_eq!(refused(|t| t.sites[1].signing_key = t.sites[0].signing_key), "site.signing_key");
    assert_eq!(refused(|t| t.sites[0].name = "Big Site".into()), "site.name");
    assert_eq!(refused(|t| t.aggregation.clip = Some(1.0)), "aggregation.clip");
    assert_eq!(refused(|t| t.aggregation.rule = Rule::NormClippedMean), "aggregation.clip");
    assert_eq!(refused(|t| t.aggregation.norm_limit = Some(f64::NAN)), "aggregation.norm_limit");
    for shape in [vec![1 << 40, 2], vec![u64::MAX, 2], vec![0]] {
        assert_eq!(refused(|t| t.model.tensors[0].shape = shape), "model.tensor.shape");
    }
    assert_eq!(refused(|t| t.model.tensors.clear()), "model.tensor");
    assert_eq!(refused(|t| t.deadlines.round_seconds = 100), "deadlines.round_seconds");
    assert_eq!(refused(|t| t.quorum.smallest_roster = 5), "quorum.smallest_roster");
    assert_eq!(refused(|t| t.quorum.smallest_roster = 2), "accepts");
}

/// The enclave takes the steps while it holds a round's keys.
#[test]
fn steps_are_bounded() {
    let median = |steps: usize| {
        move |terms: &mut Terms| {
            select(terms, Rule::GeometricMedian);
            terms.aggregation.smoothing = Some(1e-6);
            terms.aggregation.steps = Some(steps);
        }
    };
    check(median(1000)).unwrap();
    assert_eq!(refused(median(1001)), "aggregation.steps");
    // One site with half of all weights is the median.
    let heavy = |weight: u32| {
        move |terms: &mut Terms| {
            median(10)(terms);
            terms.sites[2].weight = weight;
        }
    };
    check(heavy(1)).unwrap();
    assert_eq!(refused(heavy(2)), "site.weight");
    let clipping = |terms: &mut Terms| {
        select(terms, Rule::CentredClipping);
        (terms.aggregation.clip, terms.aggregation.steps) = (Some(1.0), Some(usize::MAX));
    };
    assert_eq!(refused(clipping), "aggregation.steps");
}

#[test]
fn weights_are_whole_numbers_that_the_rule_uses() {
    check(|t| t.sites[0].weight = 2).unwrap();
    for weight in [0, MAX_WEIGHT + 1] {
        assert_eq!(refused(|t| t.sites[0].weight = weight), "site.weight");
    }
    let uneven = |rule: Rule| {
        move |terms: &mut Terms| {
            select(terms, rule);
            terms.sites[1].weight = 2;
        }
    };
    assert_eq!(refused(uneven(Rule::Median)), "site.weight");
    let summed = |terms: &mut Terms| {
        patient(|_| ())(terms);
        terms.sites[1].weight = 2;
    };
    assert_eq!(refused(summed), "site.weight");
}

/// A site that has most of the weight is what a release shows.
#[test]
fn a_dominant_weight_is_named() {
    let weights = |weights: [u32; 4], colluders: usize, roster: usize| {
        move |terms: &mut Terms| {
            terms.quorum = Quorum { smallest_roster: roster, colluders };
            terms.sites.iter_mut().zip(weights).for_each(|(site, weight)| site.weight = weight);
            terms.model.tensors[0].step = Some(2f64.powi(-20));
        }
    };
    assert_eq!(refused(weights([1000, 1, 1, 1], 1, 4)), "accepts");
    // Without the colluder of weight 3 the other of 3 has half of 6, not more.
    check(weights([3, 3, 1, 2], 1, 4)).unwrap();
    assert_eq!(refused(weights([4, 4, 1, 2], 1, 4)), "accepts");
    check(weights([4, 4, 1, 2], 0, 4)).unwrap();
    // Three of four: the lightest two may be the others.
    assert_eq!(refused(weights([4, 4, 1, 2], 0, 3)), "accepts");
    let named = |terms: &mut Terms| {
        weights([1000, 1, 1, 1], 1, 4)(terms);
        terms.accepts = vec![Weakness::DominantWeight];
    };
    check(named).unwrap();
    assert_eq!(refused(|t| t.accepts = vec![Weakness::DominantWeight]), "accepts");
}

/// Selective rules are named, all of them, and only without noise.
#[test]
fn selective_rules_are_named() {
    let unnamed = |terms: &mut Terms| {
        select(terms, Rule::Median);
        terms.accepts.clear();
    };
    assert_eq!(refused(unnamed), "accepts");
    check(|t| select(t, Rule::Median)).unwrap();
    let integers = |terms: &mut Terms| {
        select(terms, Rule::Median);
        terms.aggregation.update_type = UpdateType::Int32;
    };
    assert_eq!(refused(integers), "aggregation.update_type");
    let floats = |terms: &mut Terms| terms.aggregation.update_type = UpdateType::Float32;
    assert_eq!(refused(floats), "aggregation.update_type");
    let twice = |terms: &mut Terms| terms.accepts = vec![Weakness::OverlappingStudies; 2];
    assert_eq!(refused(twice), "accepts");
    check(|t| t.accepts = vec![Weakness::ChangingAttendance, Weakness::OverlappingStudies])
        .unwrap();
    let exempt = |terms: &mut Terms| {
        site(|_| ())(terms);
        terms.accepts = vec![Weakness::ChangingAttendance];
    };
    assert_eq!(refused(exempt), "accepts");
}

/// Without a bound one site ends the study; a step has to suit the bound.
#[test]
fn a_mean_has_a_bound_and_a_step_that_suits_it() {
    assert_eq!(refused(|t| t.aggregation.norm_limit = None), "aggregation.norm_limit");
    let step = |step: Option<f64>| move |terms: &mut Terms| terms.model.tensors[0].step = step;
    let field = "model.tensor \"weights\" step";
    for bad in [None, Some(0.0), Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)] {
        assert_eq!(refused(step(bad)), field);
    }
    // 12 values of 5 / sqrt(12) each: at least 50 steps, at most 2^31 - 1.
    let least = 5.0 / 12f64.sqrt() / f64::from(i32::MAX);
    let most = 5.0 / 12f64.sqrt() / 50.0;
    for fine in [least, most] {
        check(step(Some(fine))).unwrap();
    }
    let (found, expected) = told(step(Some(most * 1.001)));
    assert!(found == field && expected.starts_with(&format!("at most {most}")), "{expected}");
    let (found, expected) = told(step(Some(least * 0.999)));
    assert!(found == field && expected.starts_with(&format!("at least {least}")), "{expected}");
}

/// Words are as wide as the largest sum needs, and no sum leaves 64 bits.
#[test]
fn sums_fit_their_words() {
    let words = |change: fn(&mut Terms)| {
        let mut terms = terms();
        change(&mut terms);
        terms.check().unwrap();
        terms.words(RoundKind::Training)
    };
    assert_eq!(words(|_| ()), Words::Bits32);
    assert_eq!(words(|t| t.sites[..3].iter_mut().for_each(|s| s.weight = 2)), Words::Bits64);
    assert_eq!(words(|t| patient(|_| ())(t)), Words::Bits64);
    // 100,000 steps of a clip and 40 times 30 of them, for four sites.
    assert_eq!(words(|t| site(|_| ())(t)), Words::Bits32);
    assert_eq!(words(|t| site(|n| n.step = 1e-7)(t)), Words::Bits64);
    assert_eq!(words(|t| select(t, Rule::Median)), Words::Bits32);
    let clipped = |terms: &mut Terms| {
        terms.aggregation.rule = Rule::NormClippedMean;
        (terms.aggregation.clip, terms.aggregation.norm_limit) = (Some(1.0), None);
    };
    let mut all = terms();
    clipped(&mut all);
    all.check().unwrap();
    assert_eq!(all.largest_value(), (1 << 26) + 1);
}

#[test]
fn channels_are_ones_that_a_sum_can_hold() {
    let with = |channels: Vec<Channel>| move |terms: &mut Terms| terms.channels = channels;
    check(with(vec![channel("a", 3, 5), channel("b", 1, i64::from(i32::MAX))])).unwrap();
    assert_eq!(refused(with(vec![channel("a", 3, 5), channel("a", 1, 5)])), "channel.name");
    assert_eq!(refused(with(vec![channel("weights", 3, 5)])), "channel.name");
    assert_eq!(refused(with(vec![channel("", 3, 5)])), "channel.name");
    assert_eq!(refused(with(vec![channel("a", 0, 5)])), "channel \"a\" length");
    assert_eq!(refused(with(vec![channel("a", u64::MAX, 5)])), "channel.length");
    assert_eq!(refused(with(vec![channel("a", 1, 0)])), "channel \"a\" range");
    let (field, expected) = told(with(vec![channel("a", 1, 1 << 31)]));
    assert!(field == "channel \"a\" range" && expected.contains("a step of 1.00"), "{expected}");
    let narrow = |terms: &mut Terms| {
        terms.aggregation.update_type = UpdateType::Int16;
        terms.model.tensors[0].step = Some(1e-3);
        terms.channels = vec![channel("a", 1, 65_534)];
    };
    let (_, expected) = told(narrow);
    assert!(expected.contains("a step of 2 would do"), "{expected}");
    let selective = |terms: &mut Terms| {
        select(terms, Rule::Median);
        terms.channels = vec![channel("a", 1, 1 << 30)];
    };
    let (_, expected) = told(selective);
    assert!(expected.contains("within 32 bits: a step of 2.0"), "{expected}");
    let unit_site = |terms: &mut Terms| {
        site(|_| ())(terms);
        terms.channels = vec![channel("a", 1, 5)];
    };
    assert_eq!(refused(unit_site), "channel");
    let mut apart = channel("a", 1, 5);
    apart.per_site = true;
    assert_eq!(refused(with(vec![apart.clone()])), "accepts");
    let named = |terms: &mut Terms| {
        (terms.channels, terms.accepts) = (vec![apart], vec![Weakness::PerSiteMetrics]);
    };
    check(named).unwrap();
}

#[test]
fn values_fit_the_grid_for_every_clip_that_a_round_may_have() {
    let adaptive = AdaptiveClip { quantile: 0.5, learning_rate: 0.2, count_noise: 10.0 };
    check(site(|_| ())).unwrap();
    check(patient(|_| ())).unwrap();
    check(site(|n| n.adaptive_clip = Some(adaptive))).unwrap();
    let fine = |adaptive: Option<AdaptiveClip>| {
        site(move |n| {
            (n.step, n.adaptive_clip) = (1e-9, adaptive);
        })
    };
    check(fine(None)).unwrap();
    assert_eq!(refused(fine(Some(adaptive))), "privacy.step");
    assert_eq!(refused(patient(|n| n.step = 1e-10)), "privacy.step");
    assert_eq!(refused(patient(|n| n.adaptive_clip = Some(adaptive))), "privacy.adaptive_clip");
    let narrow = |terms: &mut Terms| {
        patient(|_| ())(terms);
        terms.aggregation.update_type = UpdateType::Int16;
    };
    assert_eq!(refused(narrow), "aggregation.update_type");
}

#[test]
fn noise_can_be_drawn() {
    assert_eq!(refused(patient(|n| n.noise_multiplier = 1e-9)), "privacy.noise_multiplier");
    assert_eq!(refused(patient(|n| n.noise_multiplier = f64::NAN)), "privacy.noise_multiplier");
    let limit = |terms: &mut Terms| {
        patient(|_| ())(terms);
        terms.aggregation.norm_limit = Some(1.0);
    };
    assert_eq!(refused(limit), "aggregation.norm_limit");
}

/// The square of a smaller step would be 0, and of a larger limit infinite: an
/// update without a norm.
#[test]
fn no_parameter_vanishes_or_overflows_when_it_is_squared() {
    for scale in [1e-300, 1e-160, 1e160, 1e300] {
        let changed = |terms: &mut Terms| {
            let limit = terms.aggregation.norm_limit.unwrap();
            terms.aggregation.norm_limit = Some(limit * scale);
            for tensor in &mut terms.model.tensors {
                tensor.step = tensor.step.map(|step| step * scale);
            }
        };
        assert_eq!(refused(changed), "aggregation.norm_limit", "{scale}");
        let step = |terms: &mut Terms| terms.model.tensors[0].step = Some(scale);
        assert!(refused(step).ends_with("step"), "{scale}");
        assert_eq!(refused(patient(|noise| noise.clip = scale)), "privacy.clip");
    }
}

/// A change of terms.
type Change = fn(&mut Terms);

/// What was released under one rule can be combined with what is released under
/// another.
#[test]
fn amendments_leave_grid_weights_and_rule_as_they_are() {
    let (before, mut after) = (terms(), terms());
    (after.rounds, after.quorum.smallest_roster) = (30, 4);
    after.follows(&before).unwrap();
    let changes: [(_, Change); 5] = [
        ("steps of the tensors", |t| t.model.tensors[0].step = Some(1e-5)),
        ("update type", |t| t.aggregation.update_type = UpdateType::Int16),
        ("channels", |t| t.channels.push(channel("a", 1, 1))),
        ("aggregation", |t| t.aggregation.norm_limit = Some(4.0)),
        ("weight of a site", |t| t.sites[0].weight = 2),
    ];
    // Another name of the same key is the same site.
    let mut renamed = terms();
    "another".clone_into(&mut renamed.sites[0].name);
    renamed.follows(&before).unwrap();
    renamed.sites[0].weight = 2;
    assert!(matches!(renamed.follows(&before), Err(Error::Link { what: "weight of a site", .. })));
    for (place, (what, change)) in changes.into_iter().enumerate() {
        let mut after = terms();
        change(&mut after);
        match after.follows(&before) {
            Err(Error::Link { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
        let mut accepting = terms();
        accepting.accepts = vec![Weakness::ChangingAttendance];
        after.accepts = vec![Weakness::ChangingAttendance];
        assert_eq!(after.follows(&accepting).is_ok(), place >= 3, "{what}");
    }
}
