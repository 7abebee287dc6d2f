//! Repeated stratified splits: who trains and who is held out.

use crate::cohort::Patient;

/// The share of patients who are held out, of each class.
const HELD_OUT: f64 = 0.3;

/// One split of a hospital's patients, by their place in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Who trains.
    pub training: Vec<usize>,
    /// Who is held out.
    pub held_out: Vec<usize>,
}

/// Split number `replica` of a hospital: decided by its name and the number
/// alone, so that trainer and evaluation agree without a file.
#[must_use]
pub fn split(hospital: &str, patients: &[Patient], replica: usize) -> Split {
    let (mut training, mut held_out) = (Vec::new(), Vec::new());
    for disease in [false, true] {
        let mut class: Vec<usize> =
            (0..patients.len()).filter(|i| patients[*i].disease == disease).collect();
        class.sort_by_key(|place| mix(hospital, replica, *place));
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let cut = (class.len() as f64 * HELD_OUT).round() as usize;
        held_out.extend_from_slice(&class[..cut]);
        training.extend_from_slice(&class[cut..]);
    }
    training.sort_unstable();
    held_out.sort_unstable();
    Split { training, held_out }
}

/// A number that looks random, from FNV-1a and the finaliser of `SplitMix64`.
pub(crate) fn mix(name: &str, replica: usize, place: usize) -> u64 {
    let mut hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    for number in [replica as u64, place as u64] {
        hash = hash.wrapping_add(number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_on_one_side_and_both_classes_on_both() {
        let patients: Vec<_> =
            (0..123).map(|i| Patient { inputs: vec![], disease: i >= 8 }).collect();
        for replica in 0..20 {
            let split = split("switzerland", &patients, replica);
            let mut all = [split.training.clone(), split.held_out.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..123).collect::<Vec<_>>());
            let healthy = |places: &[usize]| places.iter().filter(|i| **i < 8).count();
            assert_eq!((healthy(&split.training), healthy(&split.held_out)), (6, 2));
        }
        assert_ne!(split("a", &patients, 0), split("a", &patients, 1));
        assert_ne!(split("a", &patients, 0), split("b", &patients, 0));
    }
}
