//! The test vectors in `aggregation/vectors/optimisers.json`, which numpy made
//! (`optimisers.py` beside it): model and state, bit for bit, round by round.

use super::{Adaptive, Dtype, Optimiser, TensorStep};
use serde_json::Value;

fn bits(value: &Value) -> f64 {
    f64::from_bits(u64::from_str_radix(value.as_str().unwrap(), 16).unwrap())
}

fn hex(value: &Value) -> Vec<u8> {
    let (digits, _) = value.as_str().unwrap().as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.iter().map(byte).collect()
}

fn optimiser(case: &Value) -> Optimiser {
    let learning_rate = bits(&case["learning_rate"]);
    let adaptive = || Adaptive {
        learning_rate,
        beta1: bits(&case["beta1"]),
        beta2: bits(&case["beta2"]),
        tau: bits(&case["tau"]),
    };
    match case["optimiser"].as_str().unwrap() {
        "fed-avg" => Optimiser::FedAvg { learning_rate },
        "fed-avg-m" => Optimiser::FedAvgM { learning_rate, momentum: bits(&case["momentum"]) },
        "fed-adagrad" => Optimiser::FedAdagrad(adaptive()),
        "fed-yogi" => Optimiser::FedYogi(adaptive()),
        "fed-adam" => Optimiser::FedAdam(adaptive()),
        other => panic!("{other}"),
    }
}

#[test]
fn numpy_has_the_same_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/optimisers.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let step = TensorStep::new(optimiser(case), Dtype::Float32).unwrap();
        let mut model = hex(&case["base"]);
        let mut state = vec![0; model.len() / 4 * step.state_width()];
        step.begin(&mut state).unwrap();
        for (round, expected) in case["rounds"].as_array().unwrap().iter().enumerate() {
            let before = model.clone();
            step.apply(0, &mut model, &hex(&expected["aggregate"]), &mut state).unwrap();
            assert_eq!(model, hex(&expected["next"]), "{} round {round}", case["optimiser"]);
            assert_eq!(state, hex(&expected["state"]), "{} round {round}", case["optimiser"]);
            assert_ne!(model, before);
        }
    }
}
