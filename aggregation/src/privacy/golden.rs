//! Golden-section search for the least value of a function with one valley.

use libm::sqrt;
use std::ops::Range;

/// Where `of` is least within a range, after so many steps, each of which
/// narrows the range to 0.618 of what it was.
pub fn least(range: Range<f64>, steps: u32, of: impl Fn(f64) -> f64) -> f64 {
    let golden = (sqrt(5.0) - 1.0) / 2.0;
    let (mut low, mut high) = (range.start, range.end);
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_left, mut at_right) = (of(left), of(right));
    for _ in 0..steps {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - golden * (high - low);
            at_left = of(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + golden * (high - low);
            at_right = of(right);
        }
    }
    if at_left <= at_right { left } else { right }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valley_is_found_wherever_it_lies() {
        for valley in [-2.9, -1.0, 0.0, 0.3, 2.9] {
            let found = least(-3.0..3.0, 60, |x| (x - valley).abs());
            assert!((found - valley).abs() < 1e-9, "{found} {valley}");
        }
    }
}
