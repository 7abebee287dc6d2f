//! What comes before the first round: keys, the study's manifest, and its
//! approval by every site.

use super::Demo;
use crate::{HOSPITALS, train};
use anyhow::Context;

impl Demo {
    /// Makes keys, writes the study, and has every site approve it.
    pub(super) fn approve(&self, url: &str, simulation: &str) -> anyhow::Result<String> {
        let (mut listings, mut approvers) = (String::new(), Vec::new());
        for (site, weight) in HOSPITALS.iter().zip(self.course.weights) {
            let keys = self.sealfold(site, &["init", "--name", site])?;
            let text = |field: &str| keys[field].as_str().unwrap_or_default().to_owned();
            approvers.push(format!("\"{}\"", text("signing_key")));
            listings.push_str(&format!(
                "[[site]]\nname = \"{site}\"\nsigning_key = \"{}\"\nrelease_key = \"{}\"\nweight = {weight}\n\n",
                text("signing_key"),
                text("release_key")
            ));
        }
        let approvers = approvers.join(", ");
        let data = self.out.join("host");
        let data = data.to_str().context("the folder's name is no UTF-8")?;
        let log = self.binaries.run("sealfold-host", &["log-key", "--data", data])?;
        let policy_log =
            self.binaries.run("sealfold-host", &["log-key", "--policy", "--data", data])?;
        let initial = self.out.join("initial.safetensors");
        train::write_model(&initial, &self.course.initial)?;
        let initial = initial.to_str().context("the folder's name is no UTF-8")?;
        let path = self.out.join("study.toml");
        let manifest = path.to_str().context("the folder's name is no UTF-8")?;
        let fill = |digest: &str| {
            self.course
                .template
                .replace("ROUNDS", &self.rounds.to_string())
                .replace("INITIAL", digest)
                .replace("APPROVERS", &approvers)
                .replace("\nLOG\n", &format!("\n{log}\n"))
                .replace("[[measurements.nitro]]\nMEASUREMENTS", &listed(simulation))
                .replace("SITES", listings.trim_end())
        };
        std::fs::write(&path, fill(&"0".repeat(64)))?;
        let digest =
            self.sealfold(HOSPITALS[0], &["study", "digest-model", initial, "--study", manifest])?;
        std::fs::write(&path, fill(digest["initial"].as_str().unwrap_or_default()))?;
        let policy = format!(
            "[evidence]\nmax_age_seconds = 300\n\n[approval]\nrequired = 3\napprovers = [{approvers}]\n\n\
             [round]\nsmallest_roster = 4\ncolluders = 1\n\n{policy_log}\n# A demo: a real site has [nitro] here \
             and no [simulation].\n{simulation}"
        );
        let mut study = String::new();
        for (place, site) in HOSPITALS.iter().enumerate() {
            std::fs::write(self.home(site).join("policy.toml"), &policy)?;
            let mut arguments = vec!["study", "approve", manifest, "--host", url, "--yes"];
            if place == HOSPITALS.len() - 1 {
                arguments.extend(["--model", initial]);
            }
            let approved = self.sealfold(site, &arguments)?;
            approved["study"].as_str().unwrap_or_default().clone_into(&mut study);
        }
        Ok(study)
    }
}

/// What the manifest lists: the images that the sites' policy accepts.
fn listed(policy: &str) -> String {
    let lines = |start: &'static str| policy.lines().filter(move |line| line.starts_with(start));
    let registers: Vec<_> = lines("pcr").collect();
    let mut listed = Vec::new();
    if !registers.is_empty() {
        listed.push("[[measurements.nitro]]");
        listed.extend(registers);
    }
    for image in lines("image_digest") {
        listed.extend(["[[measurements.confidential-space]]", image]);
    }
    listed.join("\n")
}
