//! Channels: sums that ride beside the model, such as the counts of an
//! evaluation or a metric.
//!
//! A channel's values are whole numbers of steps. Each counts once, whatever the
//! sites' weights are and whatever the rule makes of the model: the aggregate of
//! a channel is the exact sum over the roster. What the sums mean is said in the
//! agreement.

use super::{MAX_NAME, Privacy, Terms, expect, expect_ordinary, expect_readable};
use crate::Result;
use sealfold_aggregation::integer::{Words, words_for};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most channels of a study.
const MAX_CHANNELS: usize = 128;
/// The most values of all channels together.
const MAX_VALUES: u64 = 1 << 20;

/// A few sums beside the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name; unlike any tensor's.
    pub name: String,
    /// The number of values of one site.
    pub length: u64,
    /// What one step is worth, in the channel's own unit.
    pub step: f64,
    /// The smallest value of a site, in steps; 0 or less. Without noise the
    /// enclave enforces it.
    pub least: i64,
    /// The largest value of a site, in steps; 0 or more.
    pub most: i64,
    /// Whether each site has values of its own in the aggregate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub per_site: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_false(value: &bool) -> bool {
    !value
}

impl Channel {
    /// The number of its values in an update and in an aggregate of a study
    /// with so many sites.
    #[must_use]
    pub fn values(&self, sites: usize) -> u64 {
        self.length.saturating_mul(if self.per_site { sites as u64 } else { 1 })
    }

    /// The largest magnitude of a site's value, in steps.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.least.unsigned_abs().max(self.most.unsigned_abs())
    }

    fn check(&self, terms: &Terms) -> Result<()> {
        let name = &self.name;
        let field = |part: &str| format!("channel {name:?} {part}");
        expect(&field("length"), self.length > 0, "1 or more", self.length)?;
        expect_ordinary(&field("step"), self.step)?;
        let holds = self.least <= 0 && self.most >= 0 && self.largest() > 0;
        let found = format!("{} to {} steps", self.least, self.most);
        expect(&field("range"), holds, "one with 0 in it, and more than 0", found)?;
        if terms.privacy.noise().is_some() {
            // What one patient may add is bounded by the clip, at the site.
            return Ok(());
        }
        let format = terms.aggregation.update_type.channel_format();
        let most = format.largest().unwrap_or(i32::MAX).unsigned_abs();
        #[allow(clippy::cast_precision_loss)] // a step that would do, not a bound
        let doing = |most: u64| self.step * self.largest() as f64 / most as f64;
        expect(
            &field("range"),
            self.largest() <= most.into(),
            format!(
                "at most {most} steps, as {} holds: a step of {} would do",
                format.name(),
                doing(most.into())
            ),
            self.largest(),
        )?;
        let sites = terms.sites.len() as u64;
        let fits = words_for(sites, self.largest());
        let is_float = !terms.aggregation.rule.is_exact();
        let fits = fits.is_some_and(|words| !is_float || words == Words::Bits32);
        let most = u64::from(i32::MAX.unsigned_abs()) / sites.max(1);
        expect(
            &field("range"),
            fits,
            format!("a sum over {sites} sites within 32 bits: a step of {} would do", doing(most)),
            self.largest(),
        )
    }
}

impl Terms {
    pub(super) fn check_channels(&self) -> Result<()> {
        let n = self.channels.len();
        expect("channel", n <= MAX_CHANNELS, format!("at most {MAX_CHANNELS}"), n)?;
        let mut names: BTreeSet<_> = self.model.tensors.iter().map(|t| t.name.as_str()).collect();
        for channel in &self.channels {
            let name = channel.name.as_str();
            let holds = (1..=MAX_NAME).contains(&name.len());
            expect("channel.name", holds, "1 to 128 bytes", format!("{name:?}"))?;
            expect_readable("channel.name", name)?;
            let expected = "a name that no tensor and no other channel has";
            expect("channel.name", names.insert(name), expected, name)?;
        }
        // An update's counts are far longer than the update that they would be
        // clipped with.
        let with_site_noise = matches!(self.privacy, Privacy::Site(_));
        let expected = "none with the privacy unit site, which clips whole updates";
        expect("channel", n == 0 || !with_site_noise, expected, n)?;
        let values = self.channels.iter().map(|c| c.values(self.sites.len()));
        let values = values.fold(0, u64::saturating_add);
        expect("channel.length", values <= MAX_VALUES, format!("{MAX_VALUES} in all"), values)?;
        self.channels.iter().try_for_each(|channel| channel.check(self))
    }
}
