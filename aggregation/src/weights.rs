//! The sites' shares of the rules that weight whole updates.

use crate::{Error, Result};

/// Each site's weight over the weights of all. The total is exact and each
/// quotient is rounded once, so that a site's share does not depend on the order
/// of the list, and the shares sum to 1 up to rounding.
///
/// # Errors
/// [`Error::Empty`] without a site or for a site without weight.
pub fn shares(weights: &[u32]) -> Result<Vec<f64>> {
    if weights.is_empty() {
        return Err(Error::Empty { what: "sites" });
    }
    if weights.contains(&0) {
        return Err(Error::Empty { what: "weight of a site" });
    }
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    Ok(weights.iter().map(|weight| f64::from(*weight) / total as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_by_hand() {
        assert_eq!(shares(&[1, 1, 2]).unwrap(), [0.25, 0.25, 0.5]);
        assert_eq!(shares(&[7]).unwrap(), [1.0]);
        assert_eq!(shares(&[u32::MAX; 4]).unwrap(), [0.25; 4]);
        assert_eq!(shares(&[1, 2]).unwrap(), [1.0 / 3.0, 2.0 / 3.0]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(shares(&[]), Err(Error::Empty { what: "sites" }));
        assert_eq!(shares(&[1, 0]), Err(Error::Empty { what: "weight of a site" }));
    }

    proptest! {
        #[test]
        fn all_make_one_and_go_with_their_sites(weights in prop::collection::vec(1u32.., 1..30)) {
            let found = shares(&weights).unwrap();
            prop_assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let reversed: Vec<_> = weights.iter().rev().copied().collect();
            let expected: Vec<_> = found.into_iter().rev().collect();
            prop_assert_eq!(shares(&reversed).unwrap(), expected);
        }
    }
}
