//! Every rule on one core and on two, for few sites and for many, and the
//! privacy noise, each beside the cipher or the generator alone.

use crate::figures::Bench;
use crate::limits::Limits;
use crate::{Round, folded};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use sealfold_aggregation::noise::{Gaussian, Label, Seed};
use sealfold_tests::study::Options;
use std::hint::black_box;

/// A limit that no update here comes near.
const LIMIT: &str = "norm_limit = 16384.0";

/// The rules with the fewest sites that they take.
fn rules() -> [(&'static str, usize, String); 12] {
    let narrow = |name: &str| format!("{LIMIT}\nupdate_type = \"{name}\"");
    [
        ("weighted-mean", 1, LIMIT.to_owned()),
        ("weighted-mean, int16", 1, narrow("int16")),
        ("weighted-mean, int8", 1, narrow("int8")),
        ("weighted-mean, 64-bit words", 1, format!("{LIMIT}\nstep = 0.00001")),
        ("norm-clipped-mean", 1, "clip = 16384.0".to_owned()),
        ("median", 1, String::new()),
        ("trimmed-mean", 3, "trim = 1".to_owned()),
        ("geometric-median", 3, "smoothing = 1e-6\nsteps = 8".to_owned()),
        ("centred-clipping", 1, "clip = 1e9\nsteps = 3".to_owned()),
        ("krum", 5, "byzantine = 1".to_owned()),
        ("multi-krum", 6, "byzantine = 1\nkeep = 3".to_owned()),
        ("bulyan", 7, "byzantine = 1".to_owned()),
    ]
}

pub fn measure(bench: &mut Bench, limits: [Limits; 2]) {
    let one_core = limits[0].cipher;
    for (sites, millions) in [(4, 10), (10, 10), (50, 2)] {
        for (rule, least, parameters) in rules() {
            if sites < least {
                continue;
            }
            let round = Round::under(Options {
                sites,
                smallest_roster: sites,
                parameters: millions * 1_000_000,
                aggregation: format!(
                    "rule = \"{}\"\n{parameters}",
                    rule.split(',').next().unwrap()
                ),
                accepts: if parameters.contains(&LIMIT[..10]) || rule.starts_with("norm") {
                    Vec::new()
                } else {
                    vec!["selective-rule"]
                },
                ..Options::default()
            });
            let plan = round.plan(2);
            let width = match rule {
                "weighted-mean, int16" => 2,
                "weighted-mean, int8" => 1,
                _ => 4,
            };
            let bytes = (sites * millions * width * 1_000_000) as f64;
            for (threads, limits) in [1, 2].into_iter().zip(limits) {
                let name = format!(
                    "{rule}, {sites} x {millions} M values of {width} bytes, {threads} thread(s)"
                );
                let speed = folded(bench, &name, bytes, limits, (&round, &plan), threads);
                let aim = match rule {
                    "weighted-mean" if sites == 10 => 0.75,
                    "median" | "trimmed-mean" if sites == 10 => 0.5,
                    _ => continue,
                };
                // The aims are shares of one core's cipher; two cores 1.8 times.
                let times = if threads == 1 { 1.0 } else { 1.8 };
                let one = Some(("AES-256-GCM alone, 1 thread", one_core));
                let name = format!("{name}, beside one core's cipher");
                bench.note(&name, speed, "GB/s", one);
                bench.aim(&name, aim * times);
            }
        }
    }
    noise(bench);
}

/// Samples of the width that 25 million parameters need, beside the generator
/// that all of them are made from: 64 bits each at least.
fn noise(bench: &mut Bench) {
    let samples = 1 << 16;
    let mut stream = vec![0; samples * 8];
    let seconds = bench.seconds("limit: ChaCha20 alone, 1 thread", || {
        ChaCha20::new(&[3; 32].into(), &[0; 12].into()).write_keystream(&mut stream);
        black_box(&stream);
    });
    let limit = samples as f64 / seconds / 1e6;
    let (seed, mut row) = (Seed::new([4; 32]), 0);
    for sigma in [1e3, 2.5e5, 1e6] {
        let gaussian = Gaussian::new(sigma).unwrap();
        let mut sums = vec![0; samples];
        let name = format!("discrete Gaussian, sigma {sigma}, 1 thread");
        let seconds = bench.seconds(&name, || {
            row += 1;
            gaussian.add(&seed, Label::Aggregate, row, &mut sums).unwrap();
        });
        let limit = Some(("64 bits of ChaCha20 a sample", limit));
        bench.note(&name, samples as f64 / seconds / 1e6, "M/s", limit);
        bench.aim(&name, 50.0 / limit.map_or(1.0, |limit| limit.1));
    }
}
