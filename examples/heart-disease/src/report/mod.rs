//! What came out: a table, `summary.json`, and an HTML report.

use crate::experiment::{Comparison, Study};
use crate::logistic::Logistic;
use crate::measures::Measures;
use crate::refusal::refused;
use crate::{HOSPITALS, REPLICAS};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use svg::{Frame, Series};

pub mod svg;

/// How far the federated model may fall short of the pooled one, in AUC.
const CLOSE: f64 = 0.02;

/// All figures of a run.
pub struct Summary {
    rounds: usize,
    seconds: f64,
    bytes_uploaded: u64,
    measures: BTreeMap<String, Comparison<Measures>>,
    curves: BTreeMap<String, Comparison<Vec<(f64, f64)>>>,
    /// The held-out AUC of each hospital after each round.
    convergence: Vec<Vec<f64>>,
}

impl Summary {
    /// Measures the models of all rounds; the last is the federated model.
    ///
    /// # Errors
    /// If there is no model.
    pub fn new(
        study: &Study,
        models: &[Vec<Logistic>],
        seconds: f64,
        bytes_uploaded: u64,
    ) -> anyhow::Result<Self> {
        let compared = study.compare(models.last().context("no model")?);
        Ok(Self {
            rounds: models.len() - 1,
            seconds,
            bytes_uploaded,
            measures: compared.iter().map(|(n, c)| (n.clone(), c.measures())).collect(),
            curves: compared.iter().map(|(n, c)| (n.clone(), c.curves())).collect(),
            convergence: models.iter().map(|model| study.auc(model)).collect(),
        })
    }

    /// The mean AUC over hospitals of one kind of model.
    #[must_use]
    pub fn mean_auc(&self, of: impl Fn(&Comparison<Measures>) -> f64) -> f64 {
        self.measures.values().map(of).sum::<f64>() / self.measures.len().max(1) as f64
    }

    /// Whether the federated model is as good as it should be.
    ///
    /// # Errors
    /// If it is not within 0.02 AUC of the pooled one.
    pub fn expect_close(&self) -> anyhow::Result<()> {
        let (federated, pooled) =
            (self.mean_auc(|c| c.federated.auc), self.mean_auc(|c| c.pooled.auc));
        if federated < pooled - CLOSE {
            let expected = format!("expected within {CLOSE} of the pooled {pooled:.3}");
            return Err(refused(format!(
                "the federated model's AUC is {federated:.3}, {expected}"
            )));
        }
        Ok(())
    }

    /// The figures as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let by = |of: &dyn Fn(&Measures) -> f64| -> Value {
            let hospital = |(name, compared): (&String, &Comparison<Measures>)| {
                let models: Map<_, _> = compared
                    .named()
                    .iter()
                    .map(|(model, m)| ((*model).to_owned(), json!(of(m))))
                    .collect();
                (name.clone(), Value::Object(models))
            };
            Value::Object(self.measures.iter().map(hospital).collect())
        };
        let convergence: Vec<_> = self
            .convergence
            .iter()
            .map(|aucs| {
                HOSPITALS.iter().zip(aucs).map(|(h, a)| ((*h).to_owned(), json!(a))).collect()
            })
            .map(Value::Object)
            .collect();
        json!({
            "sites": HOSPITALS,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "bytes_uploaded": self.bytes_uploaded,
            "splits": REPLICAS,
            "auc": by(&|m| m.auc),
            "auc_spread": by(&|m| m.auc_spread),
            "accuracy": by(&|m| m.accuracy),
            "sensitivity": by(&|m| m.sensitivity),
            "calibration_error": by(&|m| m.calibration),
            "convergence_auc": convergence,
        })
    }

    /// Writes the figures.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_json(&self.json(), path)
    }

    /// The table for the terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "\nHeld-out patients, mean of {REPLICAS} stratified splits\n\n{:<15}{:<12}{:>14}{:>10}{:>13}{:>13}\n",
            "hospital", "model", "AUC", "accuracy", "sensitivity", "calibration"
        );
        for (name, compared) in &self.measures {
            for (place, (model, m)) in compared.named().into_iter().enumerate() {
                let name = if place == 0 { name.as_str() } else { "" };
                text.push_str(&format!(
                    "{name:<15}{:<12}{:>7.3} ±{:.3}{:>9.3}{:>13.3}{:>13.3}\n",
                    model.replace('_', " "),
                    m.auc,
                    m.auc_spread,
                    m.accuracy,
                    m.sensitivity,
                    m.calibration
                ));
            }
        }
        text.push_str(&format!(
            "\nmean AUC: local {:.3}, federated {:.3}, pooled {:.3}, left out {:.3}\n\
             local, pooled and left out are trained in one place, as a yardstick; left out is a\n\
             model of the other three hospitals; calibration is the expected error, 0 is perfect\n",
            self.mean_auc(|c| c.local.auc),
            self.mean_auc(|c| c.federated.auc),
            self.mean_auc(|c| c.pooled.auc),
            self.mean_auc(|c| c.left_out.auc),
        ));
        text
    }
}

/// The report: one HTML file that needs nothing else.
#[must_use]
pub fn html(summary: &Summary) -> String {
    let rounds = summary.rounds as f64;
    let series = HOSPITALS.iter().enumerate().map(|(place, name)| Series {
        name: (*name).to_owned(),
        points: summary.convergence.iter().enumerate().map(|(r, a)| (r as f64, a[place])).collect(),
    });
    let frame = Frame {
        title: "Convergence: held-out AUC after each round",
        x: ("round", 0.0, rounds),
        y: ("AUC", 0.5, 1.0),
    };
    let convergence = svg::lines(&frame, &series.collect::<Vec<_>>());
    let groups: Vec<_> = summary
        .measures
        .iter()
        .map(|(name, compared)| {
            let dots = compared.named().map(|(model, m)| (model, m.auc, m.auc_spread));
            (name.clone(), dots.to_vec())
        })
        .collect();
    let frame = Frame {
        title: "AUC by hospital, with the spread over splits",
        x: ("", 0.0, groups.len() as f64),
        y: ("AUC", 0.5, 1.0),
    };
    let comparison = svg::dots(&frame, &groups).replace("left_out", "left out");
    let curves: Vec<String> = summary
        .curves
        .iter()
        .map(|(name, compared)| {
            let title = format!("ROC, {name}");
            let frame = Frame {
                title: &title,
                x: ("false positive rate", 0.0, 1.0),
                y: ("true positive rate", 0.0, 1.0),
            };
            let series = compared.named().map(|(model, points)| Series {
                name: model.replace('_', " "),
                points: points.clone(),
            });
            format!("<figure>{}</figure>", svg::lines(&frame, &series))
        })
        .collect();
    let curves = curves.concat();
    let rows: Vec<String> = summary
        .measures
        .iter()
        .flat_map(|(name, compared)| {
            compared.named().map(|(model, m)| {
                format!(
                    "<tr><td>{name}<td>{}<td>{:.3} ± {:.3}<td>{:.3}<td>{:.3}<td>{:.3}</tr>",
                    model.replace('_', " "),
                    m.auc,
                    m.auc_spread,
                    m.accuracy,
                    m.sensitivity,
                    m.calibration
                )
            })
        })
        .collect();
    let rows = rows.concat();
    format!(
        "{}<h1>Heart disease, four hospitals</h1>\
         <p>{} rounds of federated logistic regression through an enclave in simulation, a host and four \
         site agents, in {:.1} s; {} sealed bytes were uploaded. Patients stayed where they were: the \
         models <em>local</em>, <em>pooled</em> and <em>left out</em> were trained in one place as a \
         yardstick. Every figure is of held-out patients, over {REPLICAS} stratified splits.</p>\
         <main><figure>{convergence}</figure><figure>{comparison}</figure>{curves}</main>\
         <h2>Figures</h2><table><tr><th>Hospital<th>Model<th>AUC<th>Accuracy<th>Sensitivity<th>\
         Calibration error</tr>{rows}</table><p>Accuracy and sensitivity at a probability of 0.5; \
         calibration error over ten bins, 0 is perfect. Data: UCI Heart Disease (Janosi, Steinbrunn, \
         Pfisterer, Detrano; CC BY 4.0). An example, not for the care of patients.</p></body></html>",
        head("sealfold: four hospitals"),
        summary.rounds,
        summary.seconds,
        summary.bytes_uploaded
    )
}

/// The beginning of a report, up to its body.
#[must_use]
pub fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' \
         content='width=device-width'><title>{title}</title><style>\
         :root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui;max-width:62rem;margin:2rem auto;\
         padding:0 1rem}}main{{display:grid;grid-template-columns:repeat(auto-fit,minmax(24rem,1fr));\
         gap:1rem}}figure{{margin:0}}svg{{width:100%;height:auto}}svg text{{font:11px system-ui;\
         fill:currentColor}}svg .t{{font-weight:600;font-size:13px}}svg .a{{fill:none;stroke:currentColor}}\
         table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.25rem .5rem;\
         border-bottom:1px solid #8884}}</style></head><body>"
    )
}

/// Writes figures.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(figures: &Value, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_its_keys_and_a_report_its_plots() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = Study::read(&folder).unwrap();
        let models = vec![vec![Logistic::default(); REPLICAS]; 2];
        let summary = Summary::new(&study, &models, 1.5, 99).unwrap();
        let json = summary.json();
        assert_eq!((&json["rounds"], &json["bytes_uploaded"]), (&json!(1), &json!(99)));
        assert_eq!(json["sites"].as_array().unwrap().len(), 4);
        for hospital in HOSPITALS {
            for model in ["local", "federated", "pooled", "left_out"] {
                assert!(json["auc"][hospital][model].as_f64().unwrap() > 0.2, "{hospital} {model}");
            }
            // A model of zeros knows nothing.
            assert!((json["auc"][hospital]["federated"].as_f64().unwrap() - 0.5).abs() < 1e-9);
        }
        assert!(summary.expect_close().is_err());
        let html = html(&summary);
        assert_eq!(html.matches("<svg").count(), 6);
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(!html.contains("NaN"));
        assert!(summary.table().contains("va-long-beach"));
    }
}
