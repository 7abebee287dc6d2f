//! What a hostile site sends instead of its update.

use crate::split::mix;
use serde::Serialize;

/// An attack, the same in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// The honest update with the other sign.
    SignFlip,
    /// The same, [`SCALE`] times as long.
    Scaling,
    /// An update that was trained on wrong labels: the ill as healthy, and the
    /// healthy as ill.
    LabelFlip,
    /// Gaussian noise of standard deviation [`SPREAD`] in every value.
    Noise,
}

/// The length of a scaled update, in honest ones.
pub const SCALE: f64 = 10.0;
/// The noise of one value; honest ones are well below 1.
pub const SPREAD: f64 = 1.0;

impl Attack {
    /// All attacks.
    pub const ALL: [Self; 4] = [Self::SignFlip, Self::Scaling, Self::LabelFlip, Self::Noise];

    /// The head of its column.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::SignFlip => "sign flip",
            Self::Scaling => "scaling",
            Self::LabelFlip => "label flip",
            Self::Noise => "noise",
        }
    }

    /// Whether the site trains on wrong labels.
    #[must_use]
    pub fn flips_labels(self) -> bool {
        self == Self::LabelFlip
    }

    /// Turns an honest update into what is sent. The noise is decided by the
    /// site's name, the split and the round, so that a study can be repeated.
    pub fn corrupt(self, update: &mut [f64], site: &str, replica: usize, round: usize) {
        match self {
            Self::SignFlip => update.iter_mut().for_each(|value| *value = -*value),
            Self::Scaling => update.iter_mut().for_each(|value| *value *= -SCALE),
            Self::LabelFlip => {}
            Self::Noise => {
                let first = round * update.len();
                for (value, place) in update.iter_mut().zip(first..) {
                    *value = SPREAD * gaussian(mix(site, replica, place));
                }
            }
        }
    }
}

/// A standard Gaussian number from 64 random bits (Box and Muller, 1958).
fn gaussian(bits: u64) -> f64 {
    // 32 bits each for a radius, from a number above 0, and an angle.
    let radius = (-2.0 * (((bits >> 32) as f64 + 0.5) / 2f64.powi(32)).ln()).sqrt();
    let angle = (bits & 0xffff_ffff) as f64 / 2f64.powi(32) * std::f64::consts::TAU;
    radius * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_gaussian_and_can_be_repeated() {
        let mut noise = vec![0.0; 10_000];
        Attack::Noise.corrupt(&mut noise, "site", 3, 1);
        let mean = noise.iter().sum::<f64>() / 1e4;
        let variance = noise.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e4;
        let beyond = noise.iter().filter(|v| v.abs() > 1.96).count();
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((400..600).contains(&beyond), "{beyond}");
        let mut again = vec![0.0; 10_000];
        Attack::Noise.corrupt(&mut again, "site", 3, 1);
        assert_eq!(noise, again);
        Attack::Noise.corrupt(&mut again, "site", 3, 2);
        assert_ne!(noise, again);
    }

    #[test]
    fn the_others_by_hand() {
        let corrupted = |attack: Attack| {
            let mut update = vec![1.0, -2.0];
            attack.corrupt(&mut update, "site", 0, 0);
            update
        };
        assert_eq!(corrupted(Attack::SignFlip), [-1.0, 2.0]);
        assert_eq!(corrupted(Attack::Scaling), [-10.0, 20.0]);
        assert_eq!(corrupted(Attack::LabelFlip), [1.0, -2.0]);
    }
}
