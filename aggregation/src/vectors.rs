//! The test vectors in `aggregation/vectors/`: a whole fold, number by number.
//! With `SEALFOLD_WRITE_VECTORS=1` they are written instead of compared.

use crate::accumulate::weighted_sum;
use crate::exact_sum::ExactSum;
use crate::optimiser::{Dtype, Optimiser, TensorStep};
use crate::rule::Rule;
use crate::{norm, weights};
use serde_json::{Value, json};

/// The plaintext of a chunk, over which the squares are added.
const CHUNK: usize = 16 << 10;

/// Values whose sums and products are rounded: value i is
/// ((31 i + 17 step) mod 251 - 125) / 7, rounded to binary32.
fn values(count: u16, step: u16) -> Vec<u8> {
    let value = |i: u16| {
        let whole = (u32::from(i) * 31 + u32::from(step) * 17) % 251;
        (f32::from(u8::try_from(whole).unwrap()) - 125.0) / 7.0
    };
    (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
}

fn norm(tensors: &[u8]) -> f64 {
    let mut sum = ExactSum::new();
    tensors.chunks(CHUNK).for_each(|chunk| sum.add(norm::inspect(chunk).sum_of_squares));
    sum.to_f64().sqrt()
}

/// A binary64 as its bits, so that no reader of JSON rounds it.
pub fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

pub fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn fold(name: &str, rule: Rule, examples: &[u64], largest: f64, learning_rate: f64) -> Value {
    let count = 40;
    let updates: Vec<_> = (1..).take(examples.len()).map(|site| values(count, site)).collect();
    let norms: Vec<_> = updates.iter().map(|update| norm(update)).collect();
    let shares = weights::bounded(examples, largest).unwrap();
    let factors = rule.factors(&shares, &norms).unwrap();
    let rows: Vec<_> = updates.iter().map(Vec::as_slice).collect();
    let mut aggregate = vec![0; updates[0].len()];
    weighted_sum(&factors, &rows, &mut aggregate).unwrap();
    let base = values(count, 0);
    let mut next = base.clone();
    let step = TensorStep::new(Optimiser::FedAvg { learning_rate }, Dtype::Float32).unwrap();
    step.apply(0, &mut next, &aggregate, &mut []).unwrap();
    let clip = match rule {
        Rule::NormClippedMean { clip } => Some(bits(clip)),
        _ => None,
    };
    let site = |i: usize| {
        json!({
            "examples": examples[i], "tensors": hex(&updates[i]), "norm": bits(norms[i]),
            "share": bits(shares[i]), "factor": bits(factors[i]),
        })
    };
    let sites: Vec<_> = (0..examples.len()).map(site).collect();
    json!({
        "rule": name, "clip": clip, "largest_weight_share": bits(largest),
        "learning_rate": bits(learning_rate), "sites": sites, "base": hex(&base),
        "aggregate": hex(&aggregate), "next": hex(&next),
    })
}

#[test]
fn the_folds_numbers_have_vectors_that_hold() {
    let clipped = Rule::NormClippedMean { clip: 65.0 };
    let long: Vec<_> = [4096, 4097, 10_000]
        .iter()
        .map(|count| json!({ "count": count, "norm": bits(norm(&values(*count, 0))) }))
        .collect();
    let vectors = json!({
        "folds": [
            fold("weighted-mean", Rule::WeightedMean, &[303, 294, 200, 123], 0.5, 1.0),
            // One share is cut, and the second only after the first.
            fold("weighted-mean", Rule::WeightedMean, &[1000, 500, 7, 9], 0.4, 0.1),
            fold("norm-clipped-mean", clipped, &[303, 294, 200, 123], 0.3, 1.0),
        ],
        "norms": long,
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/fold.json");
    if std::env::var_os("SEALFOLD_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&vectors).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(kept, vectors);
    // The second fold cuts two shares, and the third scales some updates only.
    let of = |fold: usize, what: &str| -> Vec<String> {
        let sites = kept["folds"][fold]["sites"].as_array().unwrap();
        sites.iter().map(|site| site[what].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of(1, "share")[..2], [bits(0.4), bits(0.4)]);
    let scaled = of(2, "share").iter().zip(of(2, "factor")).filter(|(a, b)| *a != b).count();
    assert!((1..4).contains(&scaled), "{scaled}");
}
