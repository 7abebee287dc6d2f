//! `vectors/rules.json`: the rules as Flower and numpy compute them.

use super::coordinate::Columns;
use super::{Combination, Rule, reference_gram};
use crate::accumulate::weighted_sum;
use serde_json::Value;

/// The largest difference: honest values are below 4, and the aggregate is
/// rounded to binary32.
const TOLERANCE: f64 = 1e-6;

fn rule(of: &Value) -> Rule {
    let count = |name: &str| usize::try_from(of[name].as_u64().unwrap()).unwrap();
    let number = |name: &str| of[name].as_f64().unwrap();
    match of["rule"].as_str().unwrap() {
        "median" => Rule::Median,
        "trimmed-mean" => Rule::TrimmedMean { trim: count("trim") },
        "krum" => Rule::Krum { byzantine: count("byzantine") },
        "multi-krum" => {
            Rule::MultiKrum { byzantine: count("byzantine"), selected: count("selected") }
        }
        "bulyan" => Rule::Bulyan { byzantine: count("byzantine") },
        "geometric-median" => {
            Rule::GeometricMedian { smoothing: number("smoothing"), steps: count("steps") }
        }
        "centred-clipping" => {
            Rule::CentredClipping { radius: number("radius"), steps: count("steps") }
        }
        other => panic!("no such rule: {other}"),
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.iter().map(byte).collect()
}

/// The aggregate, as the enclave makes it.
fn fold(rule: Rule, shares: &[f64], updates: &[Vec<u8>]) -> Vec<f32> {
    let values: Vec<Vec<f32>> = updates
        .iter()
        .map(|u| u.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect())
        .collect();
    let gram = reference_gram(&values);
    let mut out = vec![0; updates[0].len()];
    let rows: Vec<_> = updates.iter().map(Vec::as_slice).collect();
    match rule.combine(shares, Some(&gram)).unwrap() {
        Combination::Sum(factors) => weighted_sum(&factors, &rows, &mut out).unwrap(),
        Combination::Coordinates(coordinates) => {
            coordinates.combine(&mut Columns::new(), &rows, &mut out).unwrap();
        }
    }
    out.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

#[test]
fn flower_and_numpy_agree() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/rules.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for (place, case) in cases.iter().enumerate() {
        let updates: Vec<_> = case["updates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|update| from_hex(update.as_str().unwrap()))
            .collect();
        let shares: Vec<f64> = serde_json::from_value(case["shares"].clone()).unwrap();
        for of in case["rules"].as_array().unwrap() {
            let expected: Vec<f64> = serde_json::from_value(of["aggregate"].clone()).unwrap();
            let found = fold(rule(of), &shares, &updates);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let difference = (f64::from(*found) - expected).abs();
                assert!(
                    difference <= TOLERANCE,
                    "case {place}, {:?}: {found} beside {expected}",
                    rule(of)
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 4 * 10 * 40);
}
