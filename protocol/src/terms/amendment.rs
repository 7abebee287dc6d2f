//! What an amendment may not change of the terms.

use super::{Privacy, Terms, Weakness};
use crate::{Error, Result};

/// A change that no amendment may make.
///
/// # Errors
/// [`Error::Link`] if old and new differ.
pub fn expect_same<T: PartialEq + std::fmt::Debug>(
    what: &'static str,
    old: &T,
    new: &T,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    // Long values are cut: a layout has up to ten thousand tensors.
    let shown = |value: &T| format!("{value:?}").chars().take(200).collect::<String>();
    Err(Error::Link { what, expected: format!("{}, as before", shown(old)), found: shown(new) })
}

impl Terms {
    /// Checks what no amendment of `before`, or of a later manifest, may change.
    ///
    /// The model's chain goes on, so where it began and what it consists of
    /// stays. What was spent was spent with this noise. Without site-level noise,
    /// two releases whose rule or weights differ can be combined into more than each
    /// of them says, so these stay as well, unless the study accepts
    /// `changing-attendance`; how values travel and the channels stay in any case.
    ///
    /// # Errors
    /// [`Error::Link`] naming the first field that changed.
    pub fn follows(&self, before: &Self) -> Result<()> {
        if before.model.initial != self.model.initial {
            return Err(Error::link("initial model", &before.model.initial, &self.model.initial));
        }
        let steps = |terms: &Self| terms.model.tensors.iter().map(|t| t.step).collect::<Vec<_>>();
        let mut tensors = self.model.tensors.clone();
        for (tensor, step) in tensors.iter_mut().zip(steps(before)) {
            tensor.step = step;
        }
        expect_same("model layout", &before.model.tensors, &tensors)?;
        expect_same("steps of the tensors", &steps(before), &steps(self))?;
        expect_same("privacy", &before.privacy, &self.privacy)?;
        if matches!(self.privacy, Privacy::Site(_)) {
            return Ok(());
        }
        let (old, new) = (&before.aggregation, &self.aggregation);
        expect_same("update type", &old.update_type, &new.update_type)?;
        expect_same("channels", &before.channels, &self.channels)?;
        let accepted = |terms: &Self| terms.accepts.contains(&Weakness::ChangingAttendance);
        if accepted(before) && accepted(self) {
            return Ok(());
        }
        expect_same("aggregation", old, new)?;
        // A site is the same by its name and by its key.
        for (site, earlier) in
            self.sites.iter().flat_map(|site| before.sites.iter().map(move |other| (site, other)))
        {
            if site.name == earlier.name || site.signing_key == earlier.signing_key {
                expect_same("weight of a site", &earlier.weight, &site.weight)?;
            }
        }
        Ok(())
    }
}
