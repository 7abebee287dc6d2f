//! The exact sum: whole numbers of grid steps, each update scaled down where the
//! rule says so, times its site's weight; and noise, drawn once for the whole
//! roster, where the study has some.

use super::Failure;
use super::combination::refused;
use super::values::{Split, Values};
use crate::round::{Plan, Secrets, Subject};
use sealfold_aggregation::integer::{IntegerRow, Term, Words, clip_factor};
use sealfold_aggregation::noise::{Gaussian, Label, Seed};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::terms::{Privacy, Rule};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What makes a row of exact sums.
pub struct Exact {
    /// How each site's values of the model count.
    model: Zeroizing<Vec<Term>>,
    /// How each site's values of the channels count: once.
    channels: Vec<Term>,
    noise: Option<(Gaussian, Arc<Secrets>)>,
    words: Words,
}

impl Exact {
    /// As the terms have it, for a roster.
    ///
    /// # Errors
    /// A refusal by `manifest` for numbers that checked terms do not have.
    pub fn of(subject: &Subject, plan: &Plan, values: &Values) -> Result<Self, Failure> {
        let terms = &subject.terms;
        let clip = match (&terms.privacy, terms.aggregation.rule) {
            (Privacy::Site(_), _) => Some(subject.clip()),
            (_, Rule::NormClippedMean) => terms.aggregation.clip,
            _ => None,
        };
        let mut model = Zeroizing::new(Vec::with_capacity(plan.members.len()));
        for member in &plan.members {
            let weight = terms.site(&member.header.statement().site)?.weight;
            let term = match clip {
                Some(clip) => Term::new(weight, clip_factor(member.norm, clip)),
                None => Term::whole(weight),
            };
            model.push(term.map_err(|e| refused("weights and a clip that can be used", &e))?);
        }
        let once = Term::whole(1).map_err(|e| refused("a sum", &e))?;
        let noise = terms.privacy.noise().map(|noise| {
            let sigma = noise.sigma(terms.sensitivity(noise, subject.clip()));
            Gaussian::new(sigma).map(|gaussian| (gaussian, plan.secrets.clone()))
        });
        let noise = noise.transpose().map_err(|e| refused("noise that can be drawn", &e))?;
        Ok(Self { model, channels: vec![once; plan.members.len()], noise, words: values.words() })
    }

    /// An empty row. Noise is added to 64 bits, whatever the words are.
    pub fn row(&self) -> IntegerRow {
        IntegerRow::new(if self.noise.is_some() { Words::Bits64 } else { self.words })
    }

    /// Adds the values of all sites' chunks.
    ///
    /// # Errors
    /// A refusal by `manifest` for values that do not fit the row.
    pub fn add(
        &self,
        row: &mut IntegerRow,
        values: &Values,
        split: &Split,
        chunks: &[&[u8]],
    ) -> Result<(), Failure> {
        // A chunk with channels alone has none, whatever the format of the model.
        if split.channels > split.model {
            let model: Vec<_> = chunks.iter().map(|chunk| split.model_of(chunk)).collect();
            row.add_sites(split.model, &self.model, values.format(), &model)
                .map_err(|e| refused("a sum that fits", &e))?;
        }
        let channels: Vec<_> = chunks.iter().map(|chunk| split.channels_of(chunk)).collect();
        row.add_sites(split.channels, &self.channels, values.channel_format(), &channels)
            .map_err(|e| refused("a sum that fits", &e))
    }

    /// Adds the noise of a row and writes its words.
    ///
    /// # Errors
    /// A refusal by `manifest` for noise that checked terms do not have.
    pub fn finish(&self, row: &mut IntegerRow, record: u64, out: &mut [u8]) -> Result<(), Failure> {
        if let Some((gaussian, secrets)) = &self.noise {
            let missing = || Refusal::new(Check::Manifest, "sums of 64 bits", "others");
            let sums = row.values_mut().ok_or_else(missing)?;
            gaussian
                .add(seed(secrets)?, Label::Aggregate, record, sums)
                .map_err(|e| refused("a sum that fits", &e))?;
        }
        row.write(self.words, out).map_err(|e| refused("a row of words", &e))
    }
}

/// The seed that an offer of a study with noise has.
fn seed(secrets: &Secrets) -> Result<&Seed, Failure> {
    let missing = || Refusal::new(Check::Manifest, "a seed of the privacy noise", "none");
    secrets.noise.as_ref().ok_or_else(|| missing().into())
}

/// The noisy count of the sites below an adaptive clip, if the terms have one:
/// 1 for each below or at it, -1 for each above.
///
/// # Errors
/// A refusal by `manifest` for noise that checked terms do not have.
pub fn below_clip(subject: &Subject, plan: &Plan) -> Result<Option<i64>, Failure> {
    let noise = subject.terms.privacy.noise();
    let Some(adaptive) = noise.and_then(|noise| noise.adaptive_clip) else { return Ok(None) };
    let (clip, seed) = (subject.clip(), seed(&plan.secrets)?);
    let below = |norm: f64| if norm <= clip { 1 } else { -1 };
    let mut count = [plan.members.iter().map(|member| below(member.norm)).sum::<i64>()];
    Gaussian::new(adaptive.count_noise)
        .and_then(|gaussian| gaussian.add(seed, Label::Metrics, 0, &mut count))
        .map_err(|e| refused("noise that can be drawn", &e))?;
    Ok(Some(count[0]))
}
