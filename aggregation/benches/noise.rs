//! Samples a second on one core, beside the generator alone, which nothing that
//! draws from it can outrun. `cargo bench -p sealfold-aggregation --bench noise`

#![allow(missing_docs, clippy::unwrap_used, clippy::cast_precision_loss)]

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use sealfold_aggregation::noise::exact::Exact;
use sealfold_aggregation::noise::{DiscreteLaplace, Gaussian, Label, Seed};
use std::hint::black_box;
use std::time::Instant;

/// The values of a record of 256 KiB.
const ROW: usize = 64 << 10;

/// Runs of `work`, of which the fastest counts: other work shares the machine.
fn fastest(mut work: impl FnMut(u64)) -> f64 {
    let run = |run| {
        let start = Instant::now();
        work(run);
        start.elapsed().as_secs_f64()
    };
    (0..100).map(run).fold(f64::INFINITY, f64::min)
}

fn samples(name: &str, values: usize, add: impl Fn(u64, &mut [i64])) {
    let mut row = vec![0; values];
    let seconds = fastest(|number| {
        add(number, &mut row);
        black_box(&row);
    });
    println!("{name:32} {:8.1} million samples a second", values as f64 / seconds / 1e6);
}

fn main() {
    let seed = Seed::new([7; 32]);
    let mut bytes = vec![0u8; 1 << 20];
    let seconds = fastest(|_| {
        ChaCha20::new(&[7; 32].into(), &[0; 12].into()).write_keystream(&mut bytes);
        black_box(&bytes);
    });
    println!("{:32} {:8.2} GB/s", "ChaCha20", bytes.len() as f64 / seconds / 1e9);
    for sigma in [1.0, 10.0, 1e3, 3e4, 2.5e5, 4e5, 1e6, 1e9] {
        let gaussian = Gaussian::new(sigma).unwrap();
        samples(&format!("Gaussian, sigma {sigma:e}"), ROW, |row, values| {
            gaussian.add(&seed, Label::Aggregate, row, values).unwrap();
        });
    }
    let laplace = DiscreteLaplace::new(1, 1e-3).unwrap();
    samples("Laplace, scale 1000", ROW, |row, values| {
        laplace.add(&seed, Label::Aggregate, row, values).unwrap();
    });
    let exact = Exact::gaussian(1e6).unwrap();
    samples("exact Gaussian, sigma 1e6", 64, |row, values| {
        exact.add(&seed, Label::Aggregate, row, values).unwrap();
    });
}
