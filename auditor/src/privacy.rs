//! What a study has spent of its privacy budget, worked out from the manifest's
//! mechanism and the log.
//!
//! Every release costs one round; that of an evaluation round too, since its sums
//! have the same noise. So does every abandoned offer: its instance may
//! have released before it was lost, and nobody can know. The budget is that of
//! the first manifest; no amendment can change it.

use crate::finding::{Check, Finding};
use jiff::Timestamp;
use sealfold_study::{Accountant, Manifest};
use serde::Serialize;

/// The most points of the curve that a report shows.
const MAX_POINTS: usize = 512;

/// The account of one study.
pub struct Account {
    /// None without privacy noise.
    budget: Option<Budget>,
    releases: u64,
    abandoned: u64,
    curve: Curve,
}

struct Budget {
    unit: &'static str,
    accountant: Accountant,
    epsilon: f64,
    delta: f64,
}

/// What was spent, for reports.
#[derive(Debug, Clone, Serialize)]
pub struct Spent {
    /// Whom the noise hides: `patient` or `site`.
    pub unit: &'static str,
    /// The privacy loss that the sites agreed to.
    pub budget: f64,
    /// The probability with which it may be more.
    pub delta: f64,
    /// The privacy loss so far, abandoned offers counted as released.
    pub epsilon: f64,
    /// How many releases it has.
    pub releases: u64,
    /// How many offers were abandoned, and so perhaps released.
    pub abandoned: u64,
    /// How it came about, thinned out to a few hundred points.
    pub curve: Vec<Point>,
}

/// A moment at which something was spent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// The leaf.
    pub leaf: u64,
    /// The round.
    pub round: u32,
    /// The time of the evidence behind the offer, if that was accepted.
    pub time: Option<Timestamp>,
    /// The privacy loss from then on.
    pub epsilon: f64,
    /// Whether it was an abandonment.
    pub abandoned: bool,
}

/// Where in the log something was spent.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The leaf.
    pub leaf: u64,
    /// The round.
    pub round: u32,
    /// The time of the evidence behind the offer.
    pub time: Option<Timestamp>,
}

/// Every so-manieth point, and always the last.
#[derive(Default)]
struct Curve {
    points: Vec<Point>,
    last: Option<Point>,
    seen: u64,
    stride: u64,
}

impl Curve {
    fn add(&mut self, point: Point) {
        let stride = self.stride.max(1);
        if self.seen.is_multiple_of(stride) {
            self.points.push(point);
        }
        self.seen += 1;
        self.last = Some(point);
        if self.points.len() > MAX_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = stride * 2;
        }
    }

    fn points(&self) -> Vec<Point> {
        let mut points = self.points.clone();
        let is_there = points.last().map(|point| point.leaf) == self.last.map(|point| point.leaf);
        points.extend(self.last.filter(|_| !is_there));
        points
    }
}

impl Account {
    /// Opens the account of a study with its first manifest.
    ///
    /// # Errors
    /// A finding by `manifest` if the noise cannot be accounted for.
    pub fn open(manifest: &Manifest) -> Result<Self, Finding> {
        let unit = manifest.terms.privacy.unit();
        let budget = manifest.mechanism().map(|mechanism| {
            let accountant = mechanism.accountant().map_err(|error| {
                Finding::new(Check::Manifest, "noise that can be accounted for", error)
            })?;
            let (epsilon, delta) = (mechanism.claim.epsilon, mechanism.claim.delta);
            Ok(Budget { unit, accountant, epsilon, delta })
        });
        let budget = budget.transpose()?;
        Ok(Self { budget, releases: 0, abandoned: 0, curve: Curve::default() })
    }

    /// Adds a round's release.
    pub fn release(&mut self, at: Place, findings: &mut Vec<Finding>) {
        self.releases += 1;
        self.spend(at, false, findings);
    }

    /// Adds an abandoned offer, which may have been released.
    pub fn abandon(&mut self, at: Place, findings: &mut Vec<Finding>) {
        self.abandoned += 1;
        self.spend(at, true, findings);
    }

    fn spend(&mut self, at: Place, abandoned: bool, findings: &mut Vec<Finding>) {
        let Some(budget) = &self.budget else { return };
        let epsilon = self.epsilon();
        if epsilon > budget.epsilon {
            let expected = format!("at most epsilon {} at delta {}", budget.epsilon, budget.delta);
            let found = format!(
                "epsilon {epsilon:.4}: {} releases, and {} abandoned offers that may be some",
                self.releases, self.abandoned
            );
            findings.push(Finding::new(Check::Budget, expected, found));
        }
        let Place { leaf, round, time } = at;
        self.curve.add(Point { leaf, round, time, epsilon, abandoned });
    }

    fn epsilon(&self) -> f64 {
        let rounds = self.releases.saturating_add(self.abandoned);
        let budget = self.budget.as_ref().filter(|_| rounds > 0);
        budget.map_or(0.0, |budget| budget.accountant.spent(rounds).unwrap_or(f64::INFINITY))
    }

    /// What was spent; none without privacy noise.
    #[must_use]
    pub fn spent(&self) -> Option<Spent> {
        let budget = self.budget.as_ref()?;
        Some(Spent {
            unit: budget.unit,
            budget: budget.epsilon,
            delta: budget.delta,
            epsilon: self.epsilon(),
            releases: self.releases,
            abandoned: self.abandoned,
            curve: self.curve.points(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_out_and_keeps_its_ends() {
        let mut curve = Curve::default();
        for round in 1..=100_000u32 {
            let leaf = u64::from(round) * 7;
            let epsilon = f64::from(round);
            curve.add(Point { leaf, round, time: None, epsilon, abandoned: false });
        }
        let points = curve.points();
        assert!(points.len() > MAX_POINTS / 2 && points.len() <= MAX_POINTS + 1);
        assert_eq!((points[0].round, points[points.len() - 1].round), (1, 100_000));
        assert!(points.windows(2).all(|two| two[0].round < two[1].round));
    }
}
