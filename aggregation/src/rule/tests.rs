//! Conditions, parameters, and what holds for all rules alike.

use super::*;
use proptest::prelude::*;

/// Every rule, with parameters for a roster of at least seven.
const RULES: [Rule; 7] = [
    Rule::Median,
    Rule::TrimmedMean { trim: 2 },
    Rule::GeometricMedian { smoothing: 1e-6, steps: 20 },
    Rule::CentredClipping { radius: 5.0, steps: 3 },
    Rule::Krum { byzantine: 1 },
    Rule::MultiKrum { byzantine: 1, selected: 3 },
    Rule::Bulyan { byzantine: 1 },
];

#[test]
fn sites_behind_a_value_are_counted() {
    let of = |sites| RULES.map(|rule| rule.sites_behind_a_value(sites));
    assert_eq!(of(9), [1, 5, 9, 9, 1, 3, 5]);
    assert_eq!(of(10), [2, 6, 10, 10, 1, 3, 6]);
    assert_eq!(of(0), [0; 7]);
    assert_eq!(Rule::Median.sites_behind_a_value(1), 1);
    assert_eq!(Rule::Bulyan { byzantine: usize::MAX }.sites_behind_a_value(9), 0);
}

#[test]
fn each_rule_takes_its_smallest_roster_and_none_below() {
    let least = [1, 5, 1, 1, 5, 6, 7];
    for (rule, least) in RULES.iter().zip(least) {
        rule.check(least).unwrap();
        let refused = rule.check(least - 1).unwrap_err();
        assert!(matches!(refused, Error::Sites { .. }), "{refused}");
    }
    let refused = Rule::Krum { byzantine: 1 }.check(4).unwrap_err().to_string();
    assert_eq!(refused, "krum: expected at least 5 sites (n >= 2f + 3), found 4");
    for byzantine in [usize::MAX, usize::MAX / 2, usize::MAX / 4] {
        assert!(Rule::Bulyan { byzantine }.check(1000).is_err());
        assert!(Rule::MultiKrum { byzantine, selected: usize::MAX }.check(1000).is_err());
    }
}

#[test]
fn steps_come_to_an_end() {
    Rule::GeometricMedian { smoothing: 1.0, steps: 1000 }.check(3).unwrap();
    for rule in [
        Rule::GeometricMedian { smoothing: 1.0, steps: 1001 },
        Rule::CentredClipping { radius: 1.0, steps: usize::MAX },
    ] {
        assert!(matches!(rule.check(9), Err(Error::OutOfRange { what: "steps", .. })), "{rule:?}");
    }
}

#[test]
fn parameters_that_cannot_be_are_refused() {
    for number in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::from_bits(1)] {
        for rule in [
            Rule::GeometricMedian { smoothing: number, steps: 1 },
            Rule::CentredClipping { radius: number, steps: 1 },
        ] {
            assert!(matches!(rule.check(9), Err(Error::Parameter { .. })), "{rule:?}");
        }
    }
    for rule in [
        Rule::GeometricMedian { smoothing: 1.0, steps: 0 },
        Rule::CentredClipping { radius: 1.0, steps: 0 },
        Rule::MultiKrum { byzantine: 1, selected: 0 },
    ] {
        assert!(matches!(rule.check(9), Err(Error::Empty { .. })), "{rule:?}");
    }
}

#[test]
fn what_a_rule_needs_is_asked_for() {
    let shares = [1.0 / 7.0; 7];
    for rule in RULES {
        let found = rule.combine(&shares, None);
        if rule.needs_gram() {
            assert_eq!(found, Err(Error::NoGram { rule: rule.name() }));
            let other = reference_gram(&vec![vec![1.0]; 8]);
            let found = rule.combine(&shares, Some(&other));
            assert!(matches!(found, Err(Error::Length { .. })));
        } else {
            found.unwrap();
        }
    }
    for share in [-0.1, f64::NAN, f64::INFINITY] {
        let found = Rule::Median.combine(&[1.0, share], None);
        assert!(matches!(found, Err(Error::Parameter { what: "share", .. })));
    }
}

proptest! {
    /// A permutation of the sites permutes the factors, to the bit.
    #[test]
    fn factors_go_with_their_sites(
        sites in prop::collection::vec((0.1..1f64, prop::collection::vec(-1e3f32..1e3, 9)), 7..12),
        seed: u64,
    ) {
        let mut order: Vec<_> = (0..sites.len()).collect();
        order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1));
        let factors = |order: &[usize], rule: Rule| {
            let updates: Vec<_> = order.iter().map(|i| sites[*i].1.clone()).collect();
            let shares: Vec<_> = order.iter().map(|i| sites[*i].0).collect();
            let gram = reference_gram(&updates);
            match rule.combine(&shares, Some(&gram)).unwrap() {
                Combination::Sum(factors) => factors,
                Combination::Coordinates(_) => Vec::new(),
            }
        };
        let sorted: Vec<_> = (0..sites.len()).collect();
        for rule in RULES {
            let expected = factors(&sorted, rule);
            for (found, site) in factors(&order, rule).iter().zip(&order) {
                prop_assert_eq!(found.to_bits(), expected[*site].to_bits(), "{:?}", rule);
            }
        }
    }
}
