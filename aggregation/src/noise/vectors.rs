//! The test vectors in `aggregation/vectors/noise.json`, made by the script
//! beside it: tables and samples, computed a second time in Python.

use super::exact::Exact;
use super::law::Law;
use super::steps::Steps;
use super::{DiscreteLaplace, Gaussian, Label, Seed, survival};
use serde_json::Value;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/noise.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The seed of the vectors.
fn seed() -> Seed {
    Seed::new(std::array::from_fn(|i| u8::try_from(i).unwrap()))
}

fn law(entry: &Value) -> Law {
    if let Some(sigma) = entry["sigma"].as_f64() {
        Law::gaussian(sigma).unwrap()
    } else {
        let (sensitivity, epsilon) = laplace(entry);
        Law::laplace(sensitivity, epsilon).unwrap()
    }
}

fn laplace(entry: &Value) -> (u32, f64) {
    let sensitivity = entry["sensitivity"].as_u64().unwrap();
    (u32::try_from(sensitivity).unwrap(), entry["epsilon"].as_f64().unwrap())
}

#[test]
fn thresholds_are_those_of_another_implementation() {
    for entry in vectors()["laws"].as_array().unwrap() {
        let law = law(entry);
        assert_eq!(u64::from(law.shift()), entry["shift"]);
        let hex = |value: &Value| u128::from_str_radix(value.as_str().unwrap(), 16).unwrap();
        let expected: Vec<_> = entry["thresholds"].as_array().unwrap().iter().map(hex).collect();
        assert_eq!(Steps::new(&law, law.shift()).thresholds(), expected);
    }
}

#[test]
fn samples_are_those_of_another_implementation() {
    let vectors = vectors();
    let row = vectors["row"].as_u64().unwrap();
    for entry in vectors["laws"].as_array().unwrap() {
        let expected = entry["samples"].as_array().unwrap().iter();
        let expected: Vec<_> = expected.map(|sample| sample.as_i64().unwrap()).collect();
        let mut found = vec![0; expected.len()];
        if let Some(sigma) = entry["sigma"].as_f64() {
            let gaussian = Gaussian::new(sigma).unwrap();
            gaussian.add(&seed(), Label::Aggregate, row, &mut found).unwrap();
        } else {
            let (sensitivity, epsilon) = laplace(entry);
            let laplace = DiscreteLaplace::new(sensitivity, epsilon).unwrap();
            laplace.add(&seed(), Label::Aggregate, row, &mut found).unwrap();
        }
        assert_eq!(found, expected, "{}", entry["shift"]);
    }
}

#[test]
fn the_polynomial_is_that_of_the_script() {
    let power = &vectors()["power_of_two"];
    assert_eq!(survival::POWER_OF_TWO[..], power["coefficients"].as_array().unwrap()[..]);
    assert!(power["log2_error"].as_f64().unwrap() < -28.0);
}

/// A number that any change of the samples changes.
fn digest(samples: &[i64]) -> u64 {
    samples.iter().fold(0xcbf2_9ce4_8422_2325, |digest: u64, sample| {
        (digest ^ sample.cast_unsigned()).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

#[test]
fn the_noise_of_a_seed_never_changes() {
    let mut found = Vec::new();
    for sigma in [0.3, 10.0, 1e3, 4e5, 1e9] {
        let mut samples = vec![0; 100_000];
        Gaussian::new(sigma).unwrap().add(&seed(), Label::Metrics, 9, &mut samples).unwrap();
        found.push(digest(&samples));
        let mut samples = vec![0; 500];
        let exact = Exact::gaussian(sigma).unwrap();
        exact.add(&seed(), Label::Metrics, 9, &mut samples).unwrap();
        found.push(digest(&samples));
    }
    let mut samples = vec![0; 500];
    let exact = Exact::laplace(1, 0.1).unwrap();
    exact.add(&seed(), Label::Metrics, 9, &mut samples).unwrap();
    found.push(digest(&samples));
    // Fast and exact in turn; the last is the exact Laplace.
    let expected = [
        0xe91d_57a4_692c_d0fe,
        0x7afd_d2f3_c445_75b0,
        0xa251_23b6_6cd5_cf60,
        0x2e7e_99b6_a44a_f11a,
        0xa0f9_c933_e94d_f924,
        0x0ae5_e846_6e35_3ff4,
        0x5d98_fc07_4d88_5faf,
        0x68a4_a642_3950_249b,
        0x8598_0d55_89e2_198e,
        0x6fbc_3d0e_cfed_5c34,
        0xa43a_3fc2_9466_fe33,
    ];
    assert_eq!(found, expected);
}
