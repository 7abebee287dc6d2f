//! How much of the federated model survives hostile hospitals, rule by rule.
//!
//! The federation runs in this process, straight on the aggregation library:
//! the question is what the numbers do, not what the system does. Nothing is
//! drawn at random but the splits and the noise, and those are fixed, so the
//! table is the same every time.

pub mod attack;
pub mod federation;

use crate::experiment::Study;
use anyhow::anyhow;
use attack::Attack;
use federation::{Federation, Site, sites};
use sealfold_aggregation::rule::Rule;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The norm to which norm clipping cuts. Honest updates have 0.6 to 0.9 in the
/// first round and 0.15 to 0.5 in the last.
const CLIP: f64 = 0.5;
/// The radius of centred clipping: below the distance of two honest sites.
const RADIUS: f64 = 0.1;

/// How updates are combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Combined {
    /// The exact mean, weighted by patients, with a norm limit.
    Mean,
    /// The same, each update scaled down to a norm of at most so much.
    Clipped(f64),
    /// A selective rule.
    Selective(Rule),
}

impl Combined {
    /// Its name in a manifest.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mean => "weighted-mean",
            Self::Clipped(_) => "norm-clipped-mean",
            Self::Selective(rule) => rule.name(),
        }
    }

    /// Checks the rule's condition for so many sites.
    ///
    /// # Errors
    /// As [`Rule::check`].
    pub fn check(&self, sites: usize) -> sealfold_aggregation::Result<()> {
        match self {
            Self::Selective(rule) => rule.check(sites),
            _ => Ok(()),
        }
    }
}

/// What `heart-disease robustness` was asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// The hospitals' tables.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
}

/// A federation and the sites in it that are hostile at a time.
struct Scenario {
    title: &'static str,
    sites: Vec<Site>,
    /// Sets of hostile sites; the AUC is the mean over them.
    hostile: Vec<Vec<usize>>,
    rules: Vec<Combined>,
}

/// The AUC of a rule.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The rule.
    pub rule: &'static str,
    /// When all are honest, and under each attack; or why it was refused.
    #[serde(flatten)]
    pub auc: Auc,
}

/// The mean AUC over the four hospitals' held-out patients.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auc {
    /// It was trained.
    Auc {
        /// Nobody is hostile.
        honest: f64,
        /// What each attack leaves.
        attacked: BTreeMap<Attack, f64>,
    },
    /// The rule's condition does not hold for so few sites.
    Refused(String),
}

/// A scenario's table.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// How many of how many sites are hostile.
    pub scenario: &'static str,
    /// Rule by rule.
    pub outcomes: Vec<Outcome>,
}

/// Every rule, against so many hostile sites.
fn rules(sites: usize, byzantine: usize) -> Vec<Combined> {
    let selective = [
        Rule::Median,
        Rule::TrimmedMean { trim: byzantine },
        Rule::GeometricMedian { smoothing: 1e-6, steps: 100 },
        Rule::CentredClipping { radius: RADIUS, steps: 10 },
        Rule::Krum { byzantine },
        Rule::MultiKrum { byzantine, selected: sites.saturating_sub(byzantine + 2).max(1) },
        Rule::Bulyan { byzantine },
    ];
    let selective = selective.into_iter().map(Combined::Selective);
    [Combined::Mean, Combined::Clipped(CLIP)].into_iter().chain(selective).collect()
}

fn scenarios() -> Vec<Scenario> {
    let ten = sites([3, 3, 2, 2]);
    // The first parts of Cleveland, Hungary and Long Beach.
    let hostile = [0, 3, 8].to_vec();
    vec![
        Scenario {
            title: "1 of 4",
            sites: sites([1; 4]),
            hostile: (0..4).map(|hospital| vec![hospital]).collect(),
            rules: rules(4, 1),
        },
        Scenario {
            title: "3 of 10",
            sites: ten.clone(),
            hostile: vec![hostile],
            rules: rules(10, 3),
        },
        Scenario {
            title: "1 of 10",
            sites: ten,
            hostile: vec![vec![0], vec![3], vec![8]],
            rules: rules(10, 1),
        },
    ]
}

impl Scenario {
    fn outcome(&self, study: &Study, rule: Combined) -> anyhow::Result<Outcome> {
        let name = rule.name();
        if let Err(refusal) = rule.check(self.sites.len()) {
            return Ok(Outcome { rule: name, auc: Auc::Refused(refusal.to_string()) });
        }
        let federation = |attack| Federation { study, sites: &self.sites, rule, attack };
        let honest = federation(None).auc()?;
        let mut attacked = BTreeMap::new();
        for attack in Attack::ALL {
            let mut sum = 0.0;
            for hostile in &self.hostile {
                sum += federation(Some((hostile, attack))).auc()?;
            }
            attacked.insert(attack, sum / self.hostile.len() as f64);
        }
        Ok(Outcome { rule: name, auc: Auc::Auc { honest, attacked } })
    }

    /// All rules side by side; none depends on another.
    fn table(&self, study: &Study) -> anyhow::Result<Table> {
        let outcomes = std::thread::scope(|scope| {
            let start = |rule: &Combined| {
                let rule = *rule;
                scope.spawn(move || self.outcome(study, rule))
            };
            let running: Vec<_> = self.rules.iter().map(start).collect();
            let outcomes = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("the study of a rule panicked")))
            });
            outcomes.collect::<anyhow::Result<_>>()
        })?;
        Ok(Table { scenario: self.title, outcomes })
    }
}

impl Table {
    /// The table in columns.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{:<18} {:>7}", format!("{} hostile", self.scenario), "honest");
        for attack in Attack::ALL {
            text += &format!(" {:>10}", attack.title());
        }
        text += "\n";
        for outcome in &self.outcomes {
            text += &format!("{:<18}", outcome.rule);
            match &outcome.auc {
                Auc::Auc { honest, attacked } => {
                    text += &format!(" {honest:>7.3}");
                    attacked.values().for_each(|auc| text += &format!(" {auc:>10.3}"));
                }
                Auc::Refused(why) => {
                    let why = why.split_once(": ").map_or(why.as_str(), |(_, why)| why);
                    text += &format!(" refused: {why}");
                }
            }
            text += "\n";
        }
        text
    }
}

/// Trains all federations and prints what is left.
///
/// # Errors
/// If the tables cannot be read or a model leaves the numbers.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let study = Study::read(options.data.as_deref().unwrap_or(&folder))?;
    let tables = scenarios()
        .iter()
        .map(|scenario| scenario.table(&study))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&tables)?);
    } else {
        let texts: Vec<_> = tables.iter().map(Table::text).collect();
        print!("AUC, mean over four hospitals' held-out patients\n\n{}", texts.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auc(rule: Combined, attack: Option<Attack>) -> f64 {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let (study, sites) = (Study::read(&folder).unwrap(), sites([3, 3, 2, 2]));
        let attack = attack.map(|attack| (&[0, 3, 8][..], attack));
        Federation { study: &study, sites: &sites, rule, attack }.auc().unwrap()
    }

    #[test]
    fn the_mean_falls_and_the_median_stands() {
        let honest = auc(Combined::Mean, None);
        let fallen = auc(Combined::Mean, Some(Attack::Scaling));
        let stands = auc(Combined::Selective(Rule::Median), Some(Attack::Scaling));
        assert!(honest > 0.8 && fallen < 0.5 && stands > 0.75, "{honest} {fallen} {stands}");
    }

    #[test]
    fn the_table_names_what_was_refused() {
        let attacked = Attack::ALL.map(|attack| (attack, 0.5)).into();
        let outcomes = vec![
            Outcome { rule: "median", auc: Auc::Auc { honest: 0.8, attacked } },
            Outcome {
                rule: "krum",
                auc: Auc::Refused(Rule::Krum { byzantine: 1 }.check(4).unwrap_err().to_string()),
            },
        ];
        let text = Table { scenario: "1 of 4", outcomes }.text();
        assert!(text.contains("median               0.800      0.500"), "{text}");
        assert!(
            text.contains("krum               refused: expected at least 5 sites (n >= 2f + 3)")
        );
    }
}
