//! How the sites of a system take part: their updates, by hand and by agents.

use crate::process::Server;
use crate::system::{Ended, System, first_value, write_tensors};
use std::path::{Path, PathBuf};
use std::time::Duration;

impl System {
    /// An agent whose trainer always gives the same value.
    #[must_use]
    pub fn agent(&self, site: &str, value: f32, rounds: u32) -> Server {
        self.agent_with(site, &gives(&self.update(value)), rounds)
    }

    /// An agent with this training command.
    #[must_use]
    pub fn agent_with(&self, site: &str, train: &str, rounds: u32) -> Server {
        self.agent_at(&self.url, site, train, rounds)
    }

    /// An agent that is shown another host.
    #[must_use]
    pub fn agent_at(&self, url: &str, site: &str, train: &str, rounds: u32) -> Server {
        let mut command = self.command(site, &["run", "--host", url, &self.id()]);
        command.args(["--train", train, "--poll-seconds", "0.05"]);
        command.args(["--max-rounds", &rounds.to_string()]);
        let log = self.folder.path().join(format!("{site}.log"));
        Server::start_unheard(command, &log)
    }

    /// Waits until agents have ended, well.
    pub fn finish(&self, agents: Vec<Server>, patience: Duration) {
        for mut agent in agents {
            let code = agent.wait(patience);
            assert_eq!(code, 0, "{}\n{}", agent.log(), self.host.log());
        }
    }

    /// The first value of the model that a site has after a round.
    #[must_use]
    pub fn model(&self, site: &str, round: u32) -> f32 {
        let name = format!("studies/{}/models/round-{round:04}.safetensors", self.id());
        first_value(&self.home(site).join(name))
    }

    /// An update file of one value.
    #[must_use]
    pub fn update(&self, value: f32) -> PathBuf {
        let path = self.folder.path().join(format!("update-{value}.safetensors"));
        if !path.exists() {
            write_tensors(&path, self.study.parameters(), value);
        }
        path
    }

    /// Submits an update of one value.
    #[must_use]
    pub fn submit(&self, site: &str, value: f32) -> Ended {
        self.submit_file(site, &self.update(value), &self.url)
    }

    /// Submits an update to the study at a host.
    #[must_use]
    pub fn submit_file(&self, site: &str, update: &Path, url: &str) -> Ended {
        let metrics = self.folder.path().join("metrics.json");
        std::fs::write(&metrics, "{\"examples\": 1}").unwrap();
        let (update, metrics) = (update.to_str().unwrap(), metrics.to_str().unwrap());
        let files = ["--update", update, "--metrics", metrics];
        self.sealfold(site, &[&["submit", "--host", url, &self.id()], &files[..]].concat())
    }
}

/// A training command that gives a file as its update.
#[must_use]
pub fn gives(update: &Path) -> String {
    let metrics = "echo '{\"examples\": 1}' > $SEALFOLD_METRICS";
    format!("cp {} $SEALFOLD_UPDATE && {metrics}", update.display())
}
