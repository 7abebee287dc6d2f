//! The test vectors in `aggregation/vectors/formats.json`: values as they
//! travel, on a grid, clipped by a site, and a sample of patients. With
//! `SEALFOLD_WRITE_VECTORS=1` they are written instead of compared.

use crate::clipping::ClippedSum;
use crate::format::{Codec, Format};
use crate::poisson::{Rate, sample};
use crate::quantise::{quantise, widen};
use crate::vectors::{bits, hex};
use serde_json::{Value, json};

/// Of several sizes, with ties, subnormals and zeros of both signs.
const VALUES: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -2.5,
    0.1,
    1.5,
    2.5,
    1.000_488_3,
    -0.003,
    6.0e-8,
    1.0e-7,
    -3.0,
    3.1,
    0.046_875,
];

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn travelled(format: Format) -> Value {
    let codec = Codec::new(format).unwrap();
    let mut sent = vec![0; VALUES.len() * format.width()];
    codec.encode(0, &VALUES, &mut sent).unwrap();
    let mut got = vec![0; VALUES.len() * 4];
    codec.decode(&sent, &mut got).unwrap();
    json!({ "format": format.name(), "sent": hex(&sent), "decoded": hex(&got) })
}

fn on_the_grid(format: Format, multiplier: f64) -> Value {
    let mut sent = vec![0; VALUES.len() * format.width()];
    let squares = quantise(format, multiplier, &VALUES, &mut sent).unwrap();
    let mut integers = [0; VALUES.len()];
    widen(format, &sent, &mut integers).unwrap();
    json!({
        "format": format.name(), "multiplier": bits(multiplier),
        "integers": integers, "sent": hex(&sent), "squared_error": bits(squares),
    })
}

fn patient(clip: f64, step: f64, gradient: &[f32]) -> Value {
    let mut sum = ClippedSum::new(clip, step, gradient.len()).unwrap();
    let bound = sum.bound();
    sum.add(gradient).unwrap();
    json!({
        "clip": bits(clip), "step": bits(step), "gradient": hex(&bytes(gradient)),
        "bound": bound, "integers": sum.finish().unwrap(),
    })
}

fn drawn(round: u64, q: f64, patients: u32) -> Value {
    let seed: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let rate = Rate::new(q).unwrap();
    json!({
        "seed": hex(&seed), "round": round, "q": bits(q),
        "threshold": format!("{:x}", rate.in_2_64ths()),
        "patients": patients, "sample": sample(&seed, round, rate, patients),
    })
}

#[test]
fn what_sites_compute_has_vectors_that_hold() {
    let vectors = json!({
        "values": hex(&bytes(&VALUES)),
        "formats": [
            travelled(Format::Bfloat16),
            travelled(Format::Float16),
        ],
        "grids": [
            // Ties, and a step that is no power of two.
            on_the_grid(Format::Int8, 1.0),
            on_the_grid(Format::Int8, 40.0),
            on_the_grid(Format::Int16, 0.3 / 0.001),
            on_the_grid(Format::Int32, 1e8),
        ],
        "patients": [
            // Short enough, scaled, and on so coarse a grid that little is left.
            patient(10.0, 0.001, &VALUES),
            patient(1.0005, 0.001, &VALUES.map(|value| value * 1e30)),
            patient(3.0, 1.0, &VALUES),
            // Too long four times, and rounded toward zero.
            patient(10.0, 1.0, &[&[3.2][..], &[0.9; 105], &[0.501; 18]].concat()),
        ],
        "samples": [drawn(1, 0.25, 100), drawn(2, 0.25, 100), drawn(1, 1.0, 3)],
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/formats.json");
    if std::env::var_os("SEALFOLD_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&vectors).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(kept, vectors);
}
