//! How good predictions are.

use serde::Serialize;

/// A prediction for a held-out patient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The probability of the disease.
    pub probability: f64,
    /// Whether it was there.
    pub disease: bool,
}

/// The measures of one model at one hospital.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measures {
    /// The area under the ROC curve, mean over the splits.
    pub auc: f64,
    /// Its standard deviation over the splits.
    pub auc_spread: f64,
    /// The share of right answers at 0.5.
    pub accuracy: f64,
    /// The share of the ill who are found at 0.5.
    pub sensitivity: f64,
    /// The expected calibration error over ten bins: 0 is perfect.
    pub calibration: f64,
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The area under the ROC curve: how often an ill patient is ranked above a
/// healthy one, ties counting half (Mann and Whitney).
#[must_use]
pub fn auc(predictions: &[Prediction]) -> f64 {
    let mut sorted: Vec<_> = predictions.to_vec();
    sorted.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    let (mut below, mut twice) = (0usize, 0usize);
    for tied in sorted.chunk_by(|a, b| a.probability.total_cmp(&b.probability).is_eq()) {
        let ill = tied.iter().filter(|p| p.disease).count();
        let healthy = tied.len() - ill;
        twice += ill * (2 * below + healthy);
        below += healthy;
    }
    share(twice, 2 * below * (sorted.len() - below))
}

/// The points of the ROC curve: false positive rate, true positive rate.
#[must_use]
pub fn roc(predictions: &[Prediction]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<_> = predictions.to_vec();
    sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let ill = sorted.iter().filter(|p| p.disease).count();
    let healthy = sorted.len() - ill;
    let (mut hits, mut alarms) = (0, 0);
    let mut points = vec![(0.0, 0.0)];
    for tied in sorted.chunk_by(|a, b| a.probability.total_cmp(&b.probability).is_eq()) {
        let found = tied.iter().filter(|p| p.disease).count();
        hits += found;
        alarms += tied.len() - found;
        points.push((share(alarms, healthy), share(hits, ill)));
    }
    points
}

/// The expected calibration error over ten bins of equal width.
#[must_use]
pub fn calibration_error(predictions: &[Prediction]) -> f64 {
    let mut bins = [(0usize, 0.0, 0usize); 10];
    for prediction in predictions {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bin = &mut bins[((prediction.probability * 10.0) as usize).min(9)];
        bin.0 += 1;
        bin.1 += prediction.probability;
        bin.2 += usize::from(prediction.disease);
    }
    let error = |(count, sum, ill): &(usize, f64, usize)| {
        if *count == 0 { 0.0 } else { (sum - *ill as f64).abs() }
    };
    bins.iter().map(error).sum::<f64>() / predictions.len().max(1) as f64
}

/// The measures over several splits; calibration over all their predictions.
#[must_use]
pub fn measure(splits: &[Vec<Prediction>]) -> Measures {
    let count = splits.len().max(1) as f64;
    let mean =
        |of: &dyn Fn(&[Prediction]) -> f64| splits.iter().map(|s| of(s)).sum::<f64>() / count;
    let mean_auc = mean(&auc);
    let variance = mean(&|s| (auc(s) - mean_auc).powi(2));
    let right = |p: &&Prediction| (p.probability > 0.5) == p.disease;
    let accuracy = mean(&|s| share(s.iter().filter(right).count(), s.len()));
    let sensitivity = mean(&|s| {
        let ill: Vec<_> = s.iter().filter(|p| p.disease).collect();
        share(ill.iter().filter(|p| p.probability > 0.5).count(), ill.len())
    });
    let calibration = calibration_error(&splits.concat());
    Measures { auc: mean_auc, auc_spread: variance.sqrt(), accuracy, sensitivity, calibration }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(count: u64) -> Vec<Prediction> {
        (0..count)
            .map(|i| {
                let x = (i * 2_654_435_761 % 97) / 7;
                Prediction { probability: x as f64 / 14.0, disease: (i * 31 + x * 5) % 17 > 8 }
            })
            .collect()
    }

    #[test]
    fn auc_is_what_counting_pairs_gives() {
        let predictions = predictions(60);
        let (mut wins, mut pairs) = (0.0, 0.0);
        for ill in predictions.iter().filter(|p| p.disease) {
            for healthy in predictions.iter().filter(|p| !p.disease) {
                pairs += 1.0;
                wins += match ill.probability.total_cmp(&healthy.probability) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        assert!((auc(&predictions) - wins / pairs).abs() < 1e-12);
        // The curve's area by trapezoids is the same.
        let area: f64 =
            roc(&predictions).windows(2).map(|w| (w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0).sum();
        assert!((area - wins / pairs).abs() < 1e-12);
    }

    #[test]
    fn perfect_predictions_measure_as_such() {
        let perfect: Vec<_> = [false, true, true]
            .map(|disease| Prediction { probability: f64::from(u8::from(disease)), disease })
            .to_vec();
        let measures = measure(&[perfect]);
        assert_eq!((measures.auc, measures.accuracy, measures.sensitivity), (1.0, 1.0, 1.0));
        assert_eq!(measures.calibration, 0.0);
    }
}
