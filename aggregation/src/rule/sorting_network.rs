//! Sorting networks: comparisons that are decided before the values are known.
//!
//! A network is a list of comparators (low, high), low < high: after one, the
//! smaller of the two values stands at `low`. The list depends on the number of
//! values alone, so what is read and written does not depend on the values.

use std::ops::Range;

/// Comparators, in their order.
pub(super) type Network = Vec<(usize, usize)>;

/// The network that sorts so many values: merge exchange (Batcher, 1968, as
/// Knuth gives it for any number of values, *The Art of Computer Programming*
/// 3, 5.2.2, algorithm M), about `n log2(n)² / 4` comparators.
pub(super) fn merge_exchange(values: usize) -> Network {
    let mut network = Vec::new();
    let highest = values.next_power_of_two() / 2;
    let mut spread = highest;
    while spread > 0 {
        let (mut stride, mut residue, mut distance) = (highest, 0, spread);
        loop {
            let lows = (0..values.saturating_sub(distance)).filter(|i| i & spread == residue);
            network.extend(lows.map(|low| (low, low + distance)));
            if stride == spread {
                break;
            }
            distance = stride - spread;
            stride /= 2;
            residue = spread;
        }
        spread /= 2;
    }
    network
}

/// Leaves out the comparators that only move values outside the wanted places.
pub(super) fn prune(network: &Network, values: usize, wanted: Range<usize>) -> Network {
    let mut matters: Vec<_> = (0..values).map(|place| wanted.contains(&place)).collect();
    let mut kept: Network = Vec::new();
    for &(low, high) in network.iter().rev() {
        if matters[low] || matters[high] {
            (matters[low], matters[high]) = (true, true);
            kept.push((low, high));
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(network: &Network, values: &mut [u32]) {
        for &(low, high) in network {
            if values[low] > values[high] {
                values.swap(low, high);
            }
        }
    }

    /// Whoever sorts all zeros and ones sorts everything (Knuth, 5.3.4).
    #[test]
    fn all_zeros_and_ones_are_sorted() {
        for count in 0..=14usize {
            let network = merge_exchange(count);
            assert!(network.iter().all(|(low, high)| low < high && *high < count));
            for bits in 0u32..1 << count {
                let mut values: Vec<_> = (0..count).map(|i| bits >> i & 1).collect();
                run(&network, &mut values);
                assert!(values.is_sorted(), "{bits:b} of {count}");
            }
        }
    }

    #[test]
    fn the_sizes_are_those_of_the_book() {
        let sizes = [1, 2, 3, 4, 5, 8, 10, 16].map(|count| merge_exchange(count).len());
        assert_eq!(sizes, [0, 1, 3, 5, 9, 19, 31, 63]);
    }

    proptest! {
        #[test]
        fn many_values_are_sorted_and_the_wanted_ones_suffice(
            values in prop::collection::vec(0u32..300, 1..220), from: prop::sample::Index,
            to: prop::sample::Index,
        ) {
            let network = merge_exchange(values.len());
            let mut sorted = values.clone();
            run(&network, &mut sorted);
            prop_assert!(sorted.is_sorted());
            let (from, to) = (from.index(values.len()), to.index(values.len()));
            let wanted = from.min(to)..from.max(to) + 1;
            let pruned = prune(&network, values.len(), wanted.clone());
            prop_assert!(pruned.len() <= network.len());
            let mut partly = values.clone();
            run(&pruned, &mut partly);
            prop_assert_eq!(&partly[wanted.clone()], &sorted[wanted]);
        }
    }
}
