//! The grid step of a mean whose manifest does not give one.

use crate::measured::power_of_two;
use sealfold_aggregation::format::Format;
use sealfold_protocol::terms::Terms;

/// How many steps a 32-bit value has on average, at least, in an update as long as
/// the norm limit, before narrow words are given up for a finer step.
const AVERAGE_32: f64 = 4096.0;
/// How many steps a 16-bit value has on average in an update as long as the norm
/// limit: 64 times less than the largest, and rounding moves the update by 0.1 %.
const AVERAGE_16: f64 = 512.0;

/// The step that suits terms without noise: a power of two, so that scaling by it
/// rounds nothing. None without a grid or without a bound on an update's length.
///
/// For 32 bits it is the smallest with which the words of a release have 32 bits;
/// or, for so large a model or such weights that rounding could then be felt, the
/// smallest with which an update as long as the limit fits.
pub(crate) fn default_step(terms: &Terms) -> Option<f64> {
    let limit = terms.norm_bound()?;
    let [least, _] = terms.step_range(limit);
    let average = |steps: f64| {
        #[allow(clippy::cast_precision_loss)] // a choice, not a sum
        let values = terms.model.parameters() as f64;
        power_of_two(limit / values.sqrt() / steps)
    };
    Some(match terms.aggregation.update_type.format() {
        Format::Int32 => {
            let weights: f64 = terms.sites.iter().map(|site| f64::from(site.weight)).sum();
            let most_steps = f64::from(i32::MAX) / weights.max(1.0) - 1.0;
            let narrow = power_of_two(limit / most_steps.max(1.0));
            let wide = power_of_two(limit / f64::from(i32::MAX));
            if narrow <= average(AVERAGE_32) { narrow } else { wide }
        }
        Format::Int16 => average(AVERAGE_16),
        Format::Int8 => power_of_two(least),
        _ => return None,
    })
}
