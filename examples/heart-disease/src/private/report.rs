//! What came out of the private study: a table, `private.json`, and an HTML
//! report.

use super::cost::{Cost, Loss, Quality, REPETITIONS};
use super::federation::{Noise, train};
use super::plan::{BINS, CLIP, DELTA, DIVISOR, LEARNING_RATE, MOMENTUM, Plan, STEP};
use crate::demo::Outcome;
use crate::experiment::Study;
use crate::logistic::Logistic;
use crate::measures::auc;
use crate::report::svg::{Frame, Series, dots, lines};
use crate::report::{head, write_json};
use crate::{HOSPITALS, REPLICAS};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::path::Path;

/// All figures of a run.
pub struct PrivateSummary {
    plan: Plan,
    cost: Cost,
    seconds: f64,
    bytes_uploaded: u64,
    /// The held-out AUC by hospital of the model that went through the real
    /// system.
    trained: Vec<f64>,
    /// The same of the same training without noise.
    exact: Vec<f64>,
    /// The mean of the former after each round, the initial model first.
    convergence: Vec<f64>,
    /// What the releases themselves say, by round.
    evaluations: Vec<Value>,
}

impl PrivateSummary {
    /// Measures the models of a run, whose one replica is the first split.
    ///
    /// # Errors
    /// If there is no model, or the plan does not fit the library.
    pub fn new(
        study: &Study,
        plan: Plan,
        cost: Cost,
        outcome: &Outcome,
        seconds: f64,
    ) -> anyhow::Result<Self> {
        let aucs = |model: &Logistic| -> Vec<f64> {
            (0..HOSPITALS.len()).map(|h| auc(&study.held_out(h, 0, model))).collect()
        };
        let models: Vec<&Logistic> = outcome.models.iter().flatten().collect();
        let exact = train(study, &plan, 0, Noise::None, 0)?;
        Ok(Self {
            cost,
            seconds,
            bytes_uploaded: outcome.bytes_uploaded,
            trained: aucs(models.last().context("no model")?),
            exact: aucs(exact.last().context("no round")?),
            convergence: models.iter().map(|model| mean(&aucs(model))).collect(),
            evaluations: outcome.evaluations.clone(),
            plan,
        })
    }

    /// The figures as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures = |of: &dyn Fn(&Quality) -> (f64, Vec<f64>)| -> Value {
            let model = |(name, quality): (&str, &Quality)| {
                let (mean, hospitals) = of(quality);
                (name.to_owned(), by_hospital(mean, &hospitals))
            };
            Value::Object(self.cost.named().map(model).into_iter().collect())
        };
        let each = |quality: &Quality, of: fn(&crate::measures::Measures) -> f64| {
            quality.hospitals.iter().map(of).collect::<Vec<_>>()
        };
        json!({
            "sites": HOSPITALS,
            "unit": "patient",
            "epsilon": self.plan.epsilon.last(),
            "epsilon_claimed": self.plan.claimed,
            "delta": DELTA,
            "rounds": self.plan.rounds,
            "noise_multiplier": self.plan.noise_multiplier,
            "clip": CLIP,
            "step": STEP,
            "divisor": DIVISOR,
            "learning_rate": LEARNING_RATE,
            "momentum": MOMENTUM,
            "epsilon_by_round": self.plan.epsilon,
            "seconds": self.seconds,
            "bytes_uploaded": self.bytes_uploaded,
            "splits": REPLICAS,
            "draws_of_noise": REPETITIONS,
            "auc": figures(&|q| (q.auc, each(q, |m| m.auc))),
            "auc_spread": figures(&|q| (q.auc_spread, each(q, |m| m.auc_spread))),
            "auc_cost": Value::Object(self.cost.losses().map(|(name, loss)| {
                (name.to_owned(), json!({ "mean": loss.mean, "spread": loss.spread }))
            }).into_iter().collect()),
            "accuracy": figures(&|q| (q.accuracy, each(q, |m| m.accuracy))),
            "study": {
                "auc": {
                    "private": by_hospital(mean(&self.trained), &self.trained),
                    "without_noise": by_hospital(mean(&self.exact), &self.exact),
                },
                "convergence_auc": self.convergence,
                "evaluations": self.evaluations,
            },
        })
    }

    /// Writes the figures.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_json(&self.json(), path)
    }

    /// The AUC of the last model by the last release's own counts: pooled, if it
    /// has any.
    fn released_auc(&self) -> Option<f64> {
        self.evaluations.last()?["pooled"]["auc"].as_f64()
    }

    /// The table for the terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "\nHeld-out AUC, {REPLICAS} stratified splits, {REPETITIONS} draws of the noise for each\n\n\
             {:<15}{:>16}{:>16}{:>16}\n",
            "hospital", "private", "without noise", "local noise"
        );
        let models = self.cost.named().map(|(_, quality)| quality);
        for (place, name) in HOSPITALS.iter().enumerate() {
            text.push_str(&format!("{name:<15}"));
            for quality in models {
                let measures = &quality.hospitals[place];
                text.push_str(&format!("{:>9.3} ±{:.3}", measures.auc, measures.auc_spread));
                text.push(' ');
            }
            text.push('\n');
        }
        text.push_str(&format!("{:<15}", "mean"));
        for quality in models {
            text.push_str(&format!("{:>9.3} ±{:.3} ", quality.auc, quality.auc_spread));
        }
        text.push_str(&format!("\n{:<15}", "accuracy"));
        for quality in models {
            text.push_str(&format!("{:>9.3}{:7}", quality.accuracy, ""));
        }
        let released = self.released_auc().map_or("none".to_owned(), |auc| format!("{auc:.3}"));
        text.push_str(&format!(
            "\n\neach patient: {}\n\nWhat noise costs in AUC, mean of hospitals, each run beside its split without noise\n\
             {}\
             ± is the standard deviation over splits and draws: above of the AUC, here of the\n\
             difference; a cost below 0 is chance. Local noise is what each hospital would add on\n\
             its own for the same epsilon.\n\n\
             This run's own model, one split and one draw: AUC {:.3}, without noise {:.3}. Splits\n\
             differ by ±{:.3}, so one is not the mean, and a cost is not seen from one.\n\
             Pooled AUC of the last model in its own evaluation round, from noisy counts in {BINS}\n\
             bins: {released}\n",
            self.claim(),
            self.losses(),
            mean(&self.trained),
            mean(&self.exact),
            self.cost.without_noise.auc_spread,
        ));
        text
    }

    /// What noise costs, a line each.
    fn losses(&self) -> String {
        let line = |(name, Loss { mean, spread }): (&str, Loss)| {
            let kind = match name {
                "private" => "the enclave's noise, which the study agrees on",
                _ => "each hospital's own noise in its place",
            };
            format!("  {kind:<48}{mean:>8.4} ±{spread:.4}\n")
        };
        self.cost.losses().map(line).concat()
    }

    /// What is promised to a patient.
    fn claim(&self) -> String {
        format!(
            "epsilon {:.3} at delta {DELTA} over {} rounds and the evaluation of the last model, noise multiplier {}",
            self.plan.epsilon.last().copied().unwrap_or(0.0),
            self.plan.rounds,
            self.plan.noise_multiplier
        )
    }

    /// The report: one HTML file that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        let rounds = f64::from(self.plan.rounds);
        let spent = self.plan.epsilon.iter().enumerate().map(|(r, e)| (r as f64 + 1.0, *e));
        let spent = Series {
            name: "epsilon".to_owned(),
            points: std::iter::once((0.0, 0.0)).chain(spent).collect(),
        };
        let frame = Frame {
            title: "Epsilon of a patient after each release",
            x: ("release", 0.0, rounds + 1.0),
            y: ("epsilon", 0.0, self.plan.claimed),
        };
        let epsilon = lines(&frame, &[spent]);
        let trained = Series {
            name: "mean of sites".to_owned(),
            points: self.convergence.iter().enumerate().map(|(r, a)| (r as f64, *a)).collect(),
        };
        let released = Series {
            name: "pooled, noisy".to_owned(),
            points: self
                .evaluations
                .iter()
                .enumerate()
                .filter_map(|(r, e)| Some((r as f64, e["pooled"]["auc"].as_f64()?)))
                .collect(),
        };
        let frame = Frame {
            title: "Held-out AUC after each round",
            x: ("round", 0.0, rounds),
            y: ("AUC", 0.4, 1.0),
        };
        let convergence = lines(&frame, &[trained, released]);
        let groups: Vec<_> = HOSPITALS
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let dot = |(model, quality): (&'static str, &Quality)| {
                    let measures = &quality.hospitals[place];
                    (model, measures.auc, measures.auc_spread)
                };
                ((*name).to_owned(), self.cost.named().map(dot).to_vec())
            })
            .collect();
        let frame = Frame {
            title: "AUC by hospital, and its spread over the runs",
            x: ("", 0.0, groups.len() as f64),
            y: ("AUC", 0.4, 1.0),
        };
        let comparison = dots(&frame, &groups).replace('_', " ");
        let [enclave, own] = self.cost.losses().map(|(_, loss)| loss);
        let rows: String = self.cost.named().map(|(name, quality)| row(name, quality)).concat();
        let names = HOSPITALS.map(|name| format!("<th>{name}")).concat();
        format!(
            "{}<h1>Heart disease, four hospitals, each patient hidden by noise</h1>\
             <p>{} rounds of federated logistic regression through an enclave in simulation, a host \
             and four site agents, in {:.1} s. Each patient: {}; so much a release may tell about whether a patient \
             was in the data. Each hospital clips its patients' gradients; the enclave adds noise to \
             their sum once. <em>Without noise</em> is the same training otherwise; <em>local \
             noise</em> is what each hospital would add for the same epsilon if it trusted no \
             enclave, which makes the sum's noise twice as wide.</p>\
             <main><figure>{epsilon}</figure><figure>{convergence}</figure><figure>{comparison}\
             </figure></main><h2>AUC</h2><table><tr><th>Training<th>Mean{names}<th>Accuracy</tr>{rows}\
             </table><p>Held-out patients, {REPLICAS} stratified splits, {REPETITIONS} draws of the \
             noise for each; ± is the standard deviation over them. Compared with the same split \
             without noise, the enclave's noise costs an AUC of {:.4} ± {:.4}, each hospital's own \
             {:.4} ± {:.4}; a cost below 0 is chance. The model that went through the system is one \
             split with one draw, which is not the mean. <em>Mean of sites</em> is its AUC after each \
             round, <em>pooled, noisy</em> what the releases say. They count held-out patients in {BINS} bins of score, under the \
             same noise, so their AUC scatters. Data: UCI Heart Disease (Janosi, Steinbrunn, \
             Pfisterer, Detrano; CC BY 4.0). An example, not for the care of patients.</p></body>\
             </html>",
            head("sealfold: four hospitals, private"),
            self.plan.rounds,
            self.seconds,
            self.claim(),
            enclave.mean,
            enclave.spread,
            own.mean,
            own.spread,
        )
    }
}

fn row(name: &str, quality: &Quality) -> String {
    let cells = quality.hospitals.iter().map(|m| format!("<td>{:.3} ± {:.3}", m.auc, m.auc_spread));
    let hospitals = cells.collect::<Vec<_>>().concat();
    format!(
        "<tr><td>{}<td>{:.3} ± {:.3}{hospitals}<td>{:.3}</tr>",
        name.replace('_', " "),
        quality.auc,
        quality.auc_spread,
        quality.accuracy
    )
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn by_hospital(mean: f64, values: &[f64]) -> Value {
    let hospitals = HOSPITALS.iter().zip(values).map(|(name, v)| ((*name).to_owned(), json!(v)));
    let mean = ("mean".to_owned(), json!(mean));
    Value::Object(std::iter::once(mean).chain(hospitals).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_its_keys_and_a_report_its_plots() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = Study::read(&folder).unwrap();
        let plan = Plan::new(1, 2.5).unwrap();
        let cost = Cost::new(&study, &plan).unwrap();
        let outcome = Outcome {
            models: vec![vec![Logistic::default()]; 2],
            evaluations: vec![json!({ "round": 1, "pooled": { "auc": 0.625 } })],
            bytes_uploaded: 99,
        };
        let summary = PrivateSummary::new(&study, plan, cost, &outcome, 1.5).unwrap();
        let json = summary.json();
        assert_eq!((&json["rounds"], &json["bytes_uploaded"]), (&json!(1), &json!(99)));
        assert!(json["epsilon"].as_f64().unwrap() <= 2.5);
        for model in ["private", "without_noise", "local_noise"] {
            for place in ["mean"].iter().chain(&HOSPITALS) {
                assert!(json["auc"][model][place].as_f64().unwrap() > 0.3, "{model} {place}");
            }
        }
        // A model of zeros knows nothing.
        assert_eq!(json["study"]["auc"]["private"]["mean"], 0.5);
        assert!(json["study"]["auc"]["without_noise"]["mean"].as_f64().unwrap() > 0.7);
        let html = summary.html();
        assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (3, 3));
        assert!(!html.contains("NaN"));
        // At 13 pixels in a plot of 460 a longer title may be cut off.
        let titles: Vec<_> =
            html.split("class='t'>").skip(1).map(|t| t.split('<').next().unwrap()).collect();
        assert!(titles.iter().all(|title| title.chars().count() <= 50), "{titles:?}");
        let [_, by_hospital] = html.split("AUC by hospital").collect::<Vec<_>>()[1..] else {
            panic!("title and heading of the plot by hospital");
        };
        assert!(by_hospital.contains(">cleveland<") && !by_hospital.contains(">4</text>"));
        for sentence in html.split(". ").skip(1) {
            assert!(!sentence.starts_with(char::is_lowercase), "{sentence}");
        }
        let cost = &json["auc_cost"]["local_noise"];
        assert!(cost["spread"].as_f64().unwrap() > 0.0);
        let printed = format!("{:.4} ±", cost["mean"].as_f64().unwrap());
        assert!(summary.table().contains(&printed), "{}", summary.table());
        assert!(summary.table().contains("0.625"), "{}", summary.table());
    }
}
