//! What the sites have on their disks after the rounds.

use super::Demo;
use crate::logistic::Logistic;
use crate::refusal::refused;
use crate::{HOSPITALS, train};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// What came out of the rounds.
pub struct Outcome {
    /// The models, one a replica, after each round; the first are the initial
    /// ones.
    pub models: Vec<Vec<Logistic>>,
    /// What the releases say of the models, the initial one first.
    pub evaluations: Vec<serde_json::Value>,
    /// The sealed bytes that the host took.
    pub bytes_uploaded: u64,
}

impl Demo {
    fn model(&self, site: &str, study: &str, round: u32) -> PathBuf {
        let name = format!("round-{round:04}.safetensors");
        self.home(site).join("studies").join(study).join("models").join(name)
    }

    /// The last round that every site has.
    pub(super) fn released(&self, study: &str) -> u32 {
        let has =
            |round: &u32| HOSPITALS.iter().all(|site| self.model(site, study, *round).exists());
        let last = self.rounds + u32::from(self.course.is_evaluated);
        (1..=last).take_while(has).last().unwrap_or(0)
    }

    /// The models of all rounds; every site must have the same bytes.
    pub(super) fn models(&self, study: &str) -> anyhow::Result<Vec<Vec<Logistic>>> {
        let mut models = Vec::new();
        for round in 0..=self.rounds {
            let path = self.model(HOSPITALS[0], study, round);
            let bytes = std::fs::read(&path)?;
            for site in &HOSPITALS[1..] {
                if std::fs::read(self.model(site, study, round))? != bytes {
                    let first = HOSPITALS[0];
                    let message =
                        format!("{site} has another model than {first} after round {round}");
                    return Err(refused(message));
                }
            }
            models.push(train::read_model(&path)?);
        }
        Ok(models)
    }

    /// What the releases say of the models, from the initial one to the last: all
    /// sites must read the same.
    pub(super) fn evaluations(&self, study: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let path = |site: &str, round: u32| {
            let folder = self.home(site).join("studies").join(study).join("evaluations");
            folder.join(format!("{round:04}.json"))
        };
        let mut evaluations = Vec::new();
        for round in (0..=self.rounds).take_while(|round| path(HOSPITALS[0], *round).exists()) {
            let text = std::fs::read_to_string(path(HOSPITALS[0], round))?;
            for site in &HOSPITALS[1..] {
                if std::fs::read_to_string(path(site, round))? != text {
                    let first = HOSPITALS[0];
                    let message = format!(
                        "{site} reads another evaluation than {first} of the model after round {round}"
                    );
                    return Err(refused(message));
                }
            }
            evaluations.push(serde_json::from_str(&text)?);
        }
        Ok(evaluations)
    }
}

/// The sealed bytes that the host took, by its own count.
pub(super) fn uploaded(metrics: &Path) -> anyhow::Result<u64> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(metrics)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find(|line| line.starts_with("sealfold_upload_bytes_total "));
    let count = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    count.context("the host's metrics have no sealfold_upload_bytes_total")
}
