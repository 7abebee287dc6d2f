//! The TOML file that people write: sections of what belongs together for them,
//! which lead to terms and agreement.

use crate::agreement::{Agreement, Purpose};
use crate::claim::Claim;
use crate::data::DataSpecification;
use crate::grid::default_step;
use crate::log::LogTerms;
use crate::manifest::Manifest;
use crate::measured::{EVALUATION, Evaluation, Metric, room};
use crate::measurements::Measurements;
use crate::misread;
use crate::optimiser::{Optimiser, ServerStep};
use crate::query::Query;
use jiff::Timestamp;
use sealfold_protocol::manifest::{FORMAT, LIMIT, NAME};
use sealfold_protocol::terms::{
    AdaptiveClip, Aggregation, Amends, Approval, Deadlines, Dtype, Model, Noise, Privacy, Quorum,
    Readers, Rule, Site, Tensor, TensorRole, Terms, UpdateType, Weakness, expect,
};
use sealfold_protocol::{Digest, Error, Result};
use serde::{Deserialize, Serialize};

/// A manifest's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    format: u32,
    /// The promises that the study gives up, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accepts: Vec<Weakness>,
    study: StudySection,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amends: Option<Amends>,
    data: DataSpecification,
    model: ModelSection,
    aggregation: AggregationSection,
    privacy: PrivacySection,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evaluation: Option<EvaluationSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<Query>,
    quorum: Quorum,
    deadlines: Deadlines,
    release: ReleaseSection,
    approval: Approval,
    log: LogTerms,
    measurements: Measurements,
    #[serde(default, rename = "metric", skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<MetricSection>,
    #[serde(rename = "site")]
    sites: Vec<Site>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StudySection {
    name: String,
    purpose: String,
    intended_use: String,
    rounds: u32,
    valid_from: Timestamp,
    valid_until: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSection {
    initial: Digest,
    learning_rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    optimiser: Option<Optimiser>,
    #[serde(rename = "tensor")]
    tensors: Vec<TensorSection>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorSection {
    name: String,
    shape: Vec<u64>,
    dtype: Dtype,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<f64>,
    #[serde(default, skip_serializing_if = "is_parameter")]
    role: TensorRole,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_parameter(role: &TensorRole) -> bool {
    *role == TensorRole::Parameter
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AggregationSection {
    rule: Rule,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clip: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trim: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    byzantine: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    smoothing: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    divisor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    norm_limit: Option<f64>,
    /// int32 for a mean or a sum, float32 for a selective rule, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update_type: Option<UpdateType>,
    /// The grid step of tensors that do not name theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "unit", rename_all = "kebab-case", deny_unknown_fields)]
enum PrivacySection {
    None {},
    Patient(NoiseSection),
    Site(NoiseSection),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoiseSection {
    clip: f64,
    step: f64,
    noise_multiplier: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sampling_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adaptive_clip: Option<AdaptiveClip>,
    epsilon: f64,
    delta: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluationSection {
    bins: u32,
    /// The most patients in a bin at one site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    per_site: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricSection {
    name: String,
    range: [f64; 2],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<f64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    per_site: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseSection {
    readers: Readers,
}

/// Reads a manifest's file.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::Manifest`] for another format, first of all, and
/// for what does not read.
pub(crate) fn read(text: &str) -> Result<File> {
    if text.len() > LIMIT {
        return Err(Error::TooLarge { what: NAME, limit: LIMIT, found: text.len() });
    }
    expect_format(text)?;
    toml::from_str(text).map_err(|error| misread::error(text, &error))
}

/// Refuses a manifest that was written for another version.
fn expect_format(text: &str) -> Result<()> {
    // What is no TOML is told by the reader of the whole.
    let Ok(table) = toml::from_str::<toml::Table>(text) else { return Ok(()) };
    let Some(found) = table.get("format").and_then(toml::Value::as_integer) else { return Ok(()) };
    if found == i64::from(FORMAT) {
        return Ok(());
    }
    Err(Error::Manifest {
        field: "format".to_owned(),
        expected: format!("{FORMAT}, the format that this version of sealfold reads"),
        found: found.to_string(),
        next: Some(
            "write the manifest anew, as docs/manifest.md says; CHANGELOG.md says what changed",
        ),
    })
}

impl File {
    /// The terms and the agreement that follow from the file, with every default
    /// in its place; not checked yet.
    ///
    /// # Errors
    /// [`Error::Manifest`] for a metric that no channel can carry.
    pub(crate) fn manifest(self) -> Result<Manifest> {
        let (privacy, claim) = self.privacy.split();
        let step = self.aggregation.step;
        let aggregation = self.aggregation.rule();
        let on_grid = aggregation.update_type.format().is_integer();
        let has_noise = privacy.noise().is_some();
        let given =
            if has_noise { "none: privacy.step is the grid's" } else { "none without a grid" };
        let found = step.map_or_else(String::new, |step| step.to_string());
        expect("aggregation.step", step.is_none() || on_grid && !has_noise, given, found)?;
        let mut sites = self.sites;
        sites.sort_by(|a, b| a.name.cmp(&b.name));
        let mut accepts = self.accepts;
        accepts.sort_unstable();
        let tensors = self.model.tensors.into_iter().map(|tensor| Tensor {
            name: tensor.name,
            shape: tensor.shape,
            dtype: tensor.dtype,
            step: tensor.step,
            role: tensor.role,
        });
        let mut terms = Terms {
            amends: self.amends,
            rounds: self.study.rounds,
            model: Model { initial: self.model.initial, tensors: tensors.collect() },
            aggregation,
            privacy,
            channels: Vec::new(),
            quorum: self.quorum,
            accepts,
            deadlines: self.deadlines,
            readers: self.release.readers,
            approval: self.approval,
            sites,
        };
        if on_grid && !has_noise {
            let step = step.or_else(|| default_step(&terms));
            terms.model.tensors.iter_mut().for_each(|tensor| tensor.step = tensor.step.or(step));
        }
        if let Some(section) = &self.evaluation {
            let evaluation = Evaluation { bins: section.bins };
            if !has_noise && let Some(most) = section.most {
                let room = room(terms.aggregation.update_type, terms.sites.len());
                let expected = format!("1 to {room}, as sums and update_type hold");
                expect("evaluation.most", (1..=room).contains(&most), expected, most)?;
            }
            terms.channels.push(evaluation.channel(section.most, section.per_site, &terms));
        }
        for section in &self.metrics {
            let metric = Metric { name: section.name.clone() };
            let [low, high] = section.range;
            let range = low < high && (high - low).is_finite();
            let field = |part: &str| format!("metric {:?} {part}", section.name);
            let found = format!("[{low}, {high}]");
            expect(&field("range"), range, "the lowest value, then the highest", found)?;
            if let Some(step) = section.step {
                let most = low.abs().max(high.abs()) / 8.0;
                let expected = format!("at most {most}, an eighth of the largest value");
                expect(&field("step"), step <= most, expected, step)?;
            }
            let step = section.step;
            terms.channels.extend(metric.channels(section.range, step, section.per_site, &terms));
        }
        let study = Purpose {
            name: self.study.name,
            purpose: self.study.purpose,
            intended_use: self.study.intended_use,
            valid_from: self.study.valid_from,
            valid_until: self.study.valid_until,
        };
        let (learning_rate, optimiser) = (self.model.learning_rate, self.model.optimiser);
        let metrics = self.metrics.into_iter().map(|section| Metric { name: section.name });
        let agreement = Agreement {
            study,
            data: self.data,
            server: ServerStep { learning_rate, optimiser },
            claim,
            evaluation: self.evaluation.map(|section| Evaluation { bins: section.bins }),
            metrics: metrics.collect(),
            query: self.query,
            log: self.log,
            measurements: self.measurements,
        };
        Ok(Manifest { terms, agreement })
    }

    /// The file of a manifest, with every default written out.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let (terms, agreement) = (manifest.terms.clone(), manifest.agreement.clone());
        let channel = |name: &str| terms.channels.iter().find(|channel| channel.name == name);
        let evaluation = agreement.evaluation.and_then(|evaluation| {
            let channel = channel(EVALUATION)?;
            // Under noise the bound is one patient's and follows from the clip.
            let most = terms.privacy.noise().is_none().then(|| channel.most.unsigned_abs());
            Some(EvaluationSection { bins: evaluation.bins, most, per_site: channel.per_site })
        });
        let metrics = agreement.metrics.iter().filter_map(|metric| {
            let channel = channel(&metric.name)?;
            #[allow(clippy::cast_precision_loss)] // below 2^31 in a checked manifest
            let range = [channel.least, channel.most].map(|steps| steps as f64 * channel.step);
            let (name, step, per_site) =
                (metric.name.clone(), Some(channel.step), channel.per_site);
            Some(MetricSection { name, range, step, per_site })
        });
        let tensors = terms.model.tensors.iter().map(|tensor| TensorSection {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            step: tensor.step,
            role: tensor.role,
        });
        let study = agreement.study;
        Self {
            format: FORMAT,
            accepts: terms.accepts,
            study: StudySection {
                name: study.name,
                purpose: study.purpose,
                intended_use: study.intended_use,
                rounds: terms.rounds,
                valid_from: study.valid_from,
                valid_until: study.valid_until,
            },
            amends: terms.amends,
            data: agreement.data,
            model: ModelSection {
                initial: terms.model.initial,
                learning_rate: agreement.server.learning_rate,
                optimiser: agreement.server.optimiser,
                tensors: tensors.collect(),
            },
            aggregation: AggregationSection::of(&terms.aggregation),
            privacy: PrivacySection::of(&terms.privacy, agreement.claim),
            evaluation,
            query: agreement.query,
            quorum: terms.quorum,
            deadlines: terms.deadlines,
            release: ReleaseSection { readers: terms.readers },
            approval: terms.approval,
            log: agreement.log,
            measurements: agreement.measurements,
            metrics: metrics.collect(),
            sites: terms.sites,
        }
    }
}

impl AggregationSection {
    fn rule(self) -> Aggregation {
        let exact = if self.rule.is_exact() { UpdateType::Int32 } else { UpdateType::Float32 };
        Aggregation {
            rule: self.rule,
            clip: self.clip,
            trim: self.trim,
            byzantine: self.byzantine,
            keep: self.keep,
            smoothing: self.smoothing,
            steps: self.steps,
            divisor: self.divisor,
            norm_limit: self.norm_limit,
            update_type: self.update_type.unwrap_or(exact),
        }
    }

    fn of(aggregation: &Aggregation) -> Self {
        Self {
            rule: aggregation.rule,
            clip: aggregation.clip,
            trim: aggregation.trim,
            byzantine: aggregation.byzantine,
            keep: aggregation.keep,
            smoothing: aggregation.smoothing,
            steps: aggregation.steps,
            divisor: aggregation.divisor,
            norm_limit: aggregation.norm_limit,
            update_type: Some(aggregation.update_type),
            // Each tensor names its own.
            step: None,
        }
    }
}

impl PrivacySection {
    fn split(self) -> (Privacy, Option<Claim>) {
        let parts = |section: NoiseSection| {
            let NoiseSection { clip, step, noise_multiplier, adaptive_clip, .. } = section;
            let NoiseSection { epsilon, delta, sampling_rate, .. } = section;
            (
                Noise { clip, step, noise_multiplier, adaptive_clip },
                Some(Claim { epsilon, delta, sampling_rate }),
            )
        };
        match self {
            Self::None {} => (Privacy::None {}, None),
            Self::Patient(section) => {
                let (noise, claim) = parts(section);
                (Privacy::Patient(noise), claim)
            }
            Self::Site(section) => {
                let (noise, claim) = parts(section);
                (Privacy::Site(noise), claim)
            }
        }
    }

    fn of(privacy: &Privacy, claim: Option<Claim>) -> Self {
        let nothing = Claim { epsilon: 0.0, delta: 0.0, sampling_rate: None };
        let Claim { epsilon, delta, sampling_rate } = claim.unwrap_or(nothing);
        let section = |noise: &Noise| {
            let Noise { clip, step, noise_multiplier, adaptive_clip } = *noise;
            NoiseSection {
                clip,
                step,
                noise_multiplier,
                sampling_rate,
                adaptive_clip,
                epsilon,
                delta,
            }
        };
        match privacy {
            Privacy::None {} => Self::None {},
            Privacy::Patient(noise) => Self::Patient(section(noise)),
            Privacy::Site(noise) => Self::Site(section(noise)),
        }
    }
}
