//! The sites' shares of the mean.

use crate::{Error, Result};

/// The shares of sites with so many examples each: in proportion, but none
/// above `largest`; what a large site may not have goes to the others in
/// proportion. The shares sum to 1 up to rounding, and a site's share does not
/// depend on the order of the list.
///
/// # Errors
/// [`Error::Empty`] without a site or for a site without examples;
/// [`Error::Share`] if the shares cannot make 1.
pub fn bounded(examples: &[u64], largest: f64) -> Result<Vec<f64>> {
    let sites = examples.len();
    if sites == 0 {
        return Err(Error::Empty { what: "sites" });
    }
    if examples.contains(&0) {
        return Err(Error::Empty { what: "examples of a site" });
    }
    // A share of exactly 1/n, rounded down, is meant to be enough.
    if !(largest.is_finite() && largest * sites as f64 >= 1.0 - 1e-9) {
        return Err(Error::Share { share: largest, sites });
    }
    let mut sorted = examples.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let total: u128 = sorted.iter().map(|n| u128::from(*n)).sum();
    let (mut capped, mut rest, mut mass) = (0, total, 1.0);
    while capped < sites && mass * (sorted[capped] as f64 / rest as f64) > largest {
        // Sites of one size are capped together.
        let size = sorted[capped];
        while capped < sites && sorted[capped] == size {
            capped += 1;
            rest -= u128::from(size);
        }
        mass = (1.0 - capped as f64 * largest).max(0.0);
    }
    let smallest_capped = capped.checked_sub(1).map(|last| sorted[last]);
    let share = |n: &u64| match smallest_capped {
        Some(size) if *n >= size => largest,
        _ => mass * (*n as f64 / rest as f64),
    };
    Ok(examples.iter().map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_by_hand() {
        assert_eq!(bounded(&[1, 1, 2], 1.0).unwrap(), [0.25, 0.25, 0.5]);
        assert_eq!(bounded(&[100, 1, 1], 0.5).unwrap(), [0.5, 0.25, 0.25]);
        // The second is over the bound only after the first was cut.
        assert_eq!(bounded(&[100, 50, 1, 1], 0.4).unwrap()[..2], [0.4, 0.4]);
        assert_eq!(bounded(&[7, 7], 0.5).unwrap(), [0.5, 0.5]);
        assert!(bounded(&[7, 8, 9], 1.0 / 3.0).is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(bounded(&[], 1.0), Err(Error::Empty { what: "sites" }));
        assert_eq!(bounded(&[1, 0], 1.0), Err(Error::Empty { what: "examples of a site" }));
        assert_eq!(bounded(&[1, 1], 0.4), Err(Error::Share { share: 0.4, sites: 2 }));
        assert!(bounded(&[1, 1], f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn no_share_is_above_the_bound_and_all_make_one(
            examples in prop::collection::vec(1u64..1 << 40, 1..30), slack in 0.0..1.0f64,
        ) {
            let least = 1.0 / examples.len() as f64;
            let largest = least + slack * (1.0 - least);
            let shares = bounded(&examples, largest).unwrap();
            prop_assert!(shares.iter().all(|share| *share <= largest && *share >= 0.0));
            let sum: f64 = shares.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-6, "{}", sum);
            // More examples never give less.
            for (a, share_a) in examples.iter().zip(&shares) {
                for (b, share_b) in examples.iter().zip(&shares) {
                    prop_assert!(a > b || share_a <= share_b);
                }
            }
            let mut pairs: Vec<_> = examples.iter().copied().zip(shares).collect();
            pairs.sort_by_key(|pair| pair.0);
            let sorted: Vec<_> = pairs.iter().map(|pair| pair.0).collect();
            let expected: Vec<_> = pairs.iter().map(|pair| pair.1).collect();
            prop_assert_eq!(bounded(&sorted, largest).unwrap(), expected);
        }
    }
}
