//! What studies may spend of a data source's privacy budget, over all of them.
//!
//! Approving a study charges what its manifest claims for all its rounds to the
//! source that the site uses in it, whether those rounds take place or not.
//! Claims add up: epsilons and deltas of mechanisms on the same patients are
//! summed (basic composition), which holds whatever the mechanisms are.

use crate::error::SiteRefusal;
use crate::home::{Home, read_json, write_json};
use crate::{Error, Result};
use sealfold_attestation::Policy;
use sealfold_protocol::Digest;
use sealfold_study::Manifest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

/// What a study may spend.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// The privacy loss.
    pub epsilon: f64,
    /// The probability with which it may be more.
    pub delta: f64,
}

/// The charges to each data source, by study.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Charges(BTreeMap<String, BTreeMap<String, Charge>>);

/// The site's ledger, held while it is changed.
pub struct Ledger {
    charges: Charges,
    path: PathBuf,
    _lock: File,
}

impl Ledger {
    /// Opens the ledger of a site.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(home: &Home) -> Result<Self> {
        let (path, lock_path) = (home.path("ledger.json"), home.path("ledger.lock"));
        let lock = File::create(&lock_path).map_err(|e| Error::file(&lock_path, e))?;
        lock.lock().map_err(|e| Error::file(&lock_path, e))?;
        let charges = read_json(&path)?.unwrap_or_default();
        Ok(Self { charges, path, _lock: lock })
    }

    /// What a source has been charged with by other studies than this one.
    fn of_others(&self, source: &str, study: &str) -> Charge {
        let charges = self.charges.0.get(source).into_iter().flatten();
        let none = Charge { epsilon: 0.0, delta: 0.0 };
        charges.filter(|(other, _)| *other != study).fold(none, |sum, (_, charge)| Charge {
            epsilon: sum.epsilon + charge.epsilon,
            delta: sum.delta + charge.delta,
        })
    }

    /// Charges a study to a data source, or says that the policy keeps no
    /// budgets. Charging the same study again, or an amendment of it, costs only
    /// what is more. On disk when it returns.
    ///
    /// # Errors
    /// A refusal by `data-source` if the policy has no such source, or it is
    /// not said which; by `budget` for a study without noise, or one that asks
    /// for more than is left.
    pub fn charge(
        &mut self,
        policy: &Policy,
        source: Option<&str>,
        study: &Digest,
        manifest: &Manifest,
    ) -> Result<Option<Charge>> {
        let Some(budgets) = policy.budgets() else {
            let Some(source) = source else { return Ok(None) };
            let expected = format!("a policy with a budget of {source:?}");
            return Err(SiteRefusal::new("data-source", expected, "one without [budgets]")
                .next("put the budget of the source into policy.toml: docs/site.md")
                .into());
        };
        let named: Vec<_> = budgets.keys().map(String::as_str).collect();
        let source = match (source, named.as_slice()) {
            (Some(source), _) => source,
            (None, [only]) => only,
            (None, _) => {
                return Err(SiteRefusal::new("data-source", format!("one of {named:?}"), "none")
                    .next("say which data the study uses: --source NAME")
                    .into());
            }
        };
        let budget = budgets.get(source).ok_or_else(|| {
            SiteRefusal::new("data-source", format!("one of {named:?}"), source)
                .next("put the source into policy.toml, or name another one")
        })?;
        let claim = manifest.agreement.claim.ok_or_else(|| {
            SiteRefusal::new("budget", "a study with privacy noise", "unit = \"none\"")
                .next("a policy with [budgets] accepts no study that cannot be charged to one")
        })?;
        let study = study.to_string();
        let before = self.of_others(source, &study);
        let kept = self.charges.0.get(source).and_then(|charges| charges.get(&study)).copied();
        let kept = kept.unwrap_or(Charge { epsilon: 0.0, delta: 0.0 });
        let charge =
            Charge { epsilon: claim.epsilon.max(kept.epsilon), delta: claim.delta.max(kept.delta) };
        let total =
            Charge { epsilon: before.epsilon + charge.epsilon, delta: before.delta + charge.delta };
        if beyond(total.epsilon, budget.epsilon) || beyond(total.delta, budget.delta) {
            let expected = format!(
                "at most epsilon {} and delta {} of {source:?} over all studies",
                budget.epsilon, budget.delta
            );
            let found = format!(
                "epsilon {} and delta {} spent, and {} and {} for this study",
                before.epsilon, before.delta, charge.epsilon, charge.delta
            );
            return Err(SiteRefusal::new("budget", expected, found)
                .next("ask for a study that spends less, or raise the budget in your policy")
                .into());
        }
        let of_source = self.charges.0.entry(source.to_owned()).or_default();
        if of_source.insert(study, charge) != Some(charge) {
            write_json(&self.path, &self.charges)?;
        }
        Ok(Some(charge))
    }
}
/// Whether a sum is larger than its budget, and not by the rounding of sums of
/// decimal fractions alone.
fn beyond(sum: f64, budget: f64) -> bool {
    sum > budget * (1.0 + 1e-12)
}

#[cfg(test)]
mod tests {
    use super::beyond;

    #[test]
    fn what_fits_exactly_is_not_beyond() {
        // Three times 1e-5 is more than 3e-5 in binary64.
        let three = [1e-5_f64; 3].iter().sum();
        assert!(three > 3e-5 && !beyond(three, 3e-5));
        assert!(!beyond(0.1 + 0.2, 0.3));
        assert!(beyond(3.000_000_1, 3.0));
        assert!(beyond(f64::MIN_POSITIVE, 0.0));
    }
}
