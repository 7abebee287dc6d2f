//! The test vectors in `aggregation/vectors/fold.json`: whole folds on the
//! integer grid, number by number. With `SEALFOLD_WRITE_VECTORS=1` they are
//! written instead of compared.

use crate::format::Format;
use crate::integer::{IntegerRow, Term, Words, clip_factor, sum_of_squares, words_for};
use crate::optimiser::{Dtype, Optimiser, TensorStep};
use crate::quantise::{read_integers, read_sums};
use serde_json::{Value, json};

/// The values of an update of a fold.
const COUNT: u16 = 40;
/// The plaintext of a chunk, over which the squares are added.
const CHUNK: usize = 16 << 10;
const FORMATS: [Format; 3] = [Format::Int8, Format::Int16, Format::Int32];

/// ((31 i + 17 site) mod 251 - 125).
fn whole(i: u16, site: u16) -> i32 {
    i32::try_from((u32::from(i) * 31 + u32::from(site) * 17) % 251).unwrap() - 125
}

/// The base model: value i is whole(i, 0) / 7, rounded to binary32.
fn base() -> Vec<u8> {
    (0..COUNT).flat_map(|i| (whole(i, 0) as f32 / 7.0).to_le_bytes()).collect()
}

/// The integers of an update, which nearly fill their format: value i is
/// whole(i, site) times 1, 262 or 17,000,000.
fn integers(format: Format, count: u16, site: u16) -> Vec<i32> {
    let times = match format {
        Format::Int8 => 1,
        Format::Int16 => 262,
        _ => 17_000_000,
    };
    (0..count).map(|i| whole(i, site) * times).collect()
}

fn bytes(format: Format, integers: &[i32]) -> Vec<u8> {
    integers.iter().flat_map(|value| value.to_le_bytes()[..format.width()].to_vec()).collect()
}

/// The sum of the squares, and the norm in steps.
fn length(format: Format, sent: &[u8]) -> (u128, f64) {
    let squares = sent.chunks(CHUNK).map(|chunk| sum_of_squares(format, chunk).unwrap()).sum();
    (squares, (squares as f64).sqrt())
}

/// A binary64 as its bits, so that no reader of JSON rounds it.
pub fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

pub fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// What a fold is of.
struct Study {
    format: Format,
    weights: &'static [u32],
    /// In units of the model, as the step.
    clip: Option<f64>,
    step: f64,
    learning_rate: f64,
}

fn fold(study: &Study, updates: &[Vec<i32>]) -> Value {
    let Study { format, weights, clip, step, learning_rate } = *study;
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let words = words_for(total, format.bound().unwrap().into()).unwrap();
    let mut row = IntegerRow::new(words);
    row.reset(COUNT.into());
    let site = |(weight, integers): (&u32, &Vec<i32>)| {
        let sent = bytes(format, integers);
        let (squares, norm) = length(format, &sent);
        let factor = clip.map(|clip| clip_factor(norm, clip / step));
        let term = factor.map_or(Term::whole(*weight), |factor| Term::new(*weight, factor));
        row.add(0, term.unwrap(), format, &sent).unwrap();
        json!({
            "weight": weight, "integers": integers, "sent": hex(&sent),
            "sum_of_squares": squares.to_string(), "norm": bits(norm), "factor": factor.map(bits),
        })
    };
    let sites: Vec<_> = weights.iter().zip(updates).map(site).collect();
    let mut written = vec![0; usize::from(COUNT) * words.width()];
    row.write(words, &mut written).unwrap();
    let mut sums = vec![0; COUNT.into()];
    read_integers(words, &written, &mut sums).unwrap();
    let scale = step / total as f64;
    let mut aggregate = vec![0.0; COUNT.into()];
    read_sums(words, &written, scale, &mut aggregate).unwrap();
    let aggregate: Vec<_> = aggregate.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut next = base();
    let fed_avg = TensorStep::new(Optimiser::FedAvg { learning_rate }, Dtype::Float32).unwrap();
    fed_avg.apply(0, &mut next, &aggregate, &mut []).unwrap();
    json!({
        "rule": if clip.is_some() { "norm-clipped-mean" } else { "weighted-mean" },
        "format": format.name(), "step": bits(step), "clip": clip.map(bits), "sites": sites,
        "words": 8 * words.width(), "sums": sums, "written": hex(&written), "scale": bits(scale),
        "aggregate": hex(&aggregate), "learning_rate": bits(learning_rate),
        "base": hex(&base()), "next": hex(&next),
    })
}

/// Sites' numbers as [`integers`] makes them, the most negative integer, which
/// only a hostile site sends, among the last one's.
fn updates(format: Format, sites: usize) -> Vec<Vec<i32>> {
    let mut updates: Vec<_> = (1..).take(sites).map(|site| integers(format, COUNT, site)).collect();
    updates[sites - 1][3] = -format.largest().unwrap() - 1;
    updates
}

fn folds() -> Vec<Value> {
    let mut folds = Vec::new();
    for format in FORMATS {
        let step = 10.0 / f64::from(format.largest().unwrap());
        let largest = f64::from(format.largest().unwrap());
        let study =
            |clip, weights, learning_rate| Study { format, weights, clip, step, learning_rate };
        let updates = updates(format, 4);
        folds.push(fold(&study(None, &[1; 4], 1.0), &updates));
        folds.push(fold(&study(None, &[303, 294, 200, 123], 0.1), &updates));
        // Three of the four updates are longer than this.
        let lengths = updates.iter().map(|update| length(format, &bytes(format, update)).1);
        let clip = lengths.fold(f64::INFINITY, f64::min) * step * 1.001;
        folds.push(fold(&study(Some(clip), &[303, 294, 200, 123], 1.0), &updates));
        // Half of each, so that odd integers are ties, where nothing else is.
        let even = vec![vec![3; COUNT.into()]; 4];
        let clip = length(format, &bytes(format, &even[0])).1 * step / 2.0;
        folds.push(fold(&study(Some(clip), &[7; 4], 1.0), &even));
        // Two sites send opposite integers, as large as they can be.
        let mut hostile = even;
        hostile[1] = vec![largest as i32; COUNT.into()];
        hostile[2] = vec![-largest as i32; COUNT.into()];
        folds.push(fold(&study(None, &[9; 4], 1.0), &hostile));
    }
    folds
}

#[test]
fn the_folds_numbers_have_vectors_that_hold() {
    let mut norms = Vec::new();
    for format in FORMATS {
        for count in [4096, 4097, 10_000] {
            let (squares, norm) = length(format, &bytes(format, &integers(format, count, 0)));
            norms.push(json!({
                "format": format.name(), "count": count,
                "sum_of_squares": squares.to_string(), "norm": bits(norm),
            }));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/fold.json");
    if std::env::var_os("SEALFOLD_WRITE_VECTORS").is_some() {
        // A line for each, so that a difference is found.
        let lines =
            |all: &[Value]| all.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
        let (folds, norms) = (lines(&folds()), lines(&norms));
        let text = format!("{{\"folds\": [\n{folds}\n], \"norms\": [\n{norms}\n]}}\n");
        std::fs::write(path, text).unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(kept, json!({ "folds": folds(), "norms": norms }));
    // Both words occur, some updates are clipped and others not, and two hostile
    // sites leave the sum of the others.
    let words: Vec<_> = folds().iter().map(|fold| fold["words"].as_u64().unwrap()).collect();
    assert!(words.contains(&(8 * Words::Bits32.width() as u64)) && words.contains(&64));
    let one = bits(1.0);
    let of = |fold: &Value| {
        fold["sites"].as_array().unwrap().iter().filter(|s| s["factor"] == one).count()
    };
    assert_eq!(of(&kept["folds"][2]), 1);
    assert_eq!(kept["folds"][4]["sums"], json!(vec![9 * (3 + 3); COUNT.into()]));
}
