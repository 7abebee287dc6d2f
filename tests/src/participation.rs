//! How the sites of a system take part: their updates, by hand and by agents.

use crate::process::Server;
use crate::system::{Ended, System, first_value, write_tensors};
use sealfold_protocol::Signed;
use sealfold_protocol::api::UploadStatus;
use sealfold_protocol::update::UpdateHeader;
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

    /// Agents of all sites, each with its own power of two.
    #[must_use]
    pub fn agents(&self, rounds: u32) -> Vec<Server> {
        self.powers().map(|(site, value)| self.agent(site, value, rounds)).collect()
    }

    /// Submits an update of every site, each its own power of two; returns when
    /// there is a roster of them.
    pub fn submit_all(&self) {
        for (site, value) in self.powers() {
            let _ = self.submit(site, value).good();
        }
        let _ = self.wait_for(1, "a roster", |round| round.roster.is_some());
    }

    fn powers(&self) -> impl Iterator<Item = (&str, f32)> {
        let powers = std::iter::successors(Some(1.0), |value| Some(value * 2.0));
        self.study.sites.iter().map(|site| site.name.as_str()).zip(powers)
    }

    /// Sites commit to the roster of round 1.
    pub fn commit(&self, sites: &[&str]) {
        for site in sites {
            let _ = self.on_study(site, &["commit"], &[]).good();
        }
    }

    /// An amendment of the study's first manifest, approved by these sites; its
    /// digest.
    pub fn amend(&self, sites: &[&str], change: impl FnOnce(&str) -> String) -> String {
        let id = self.id();
        let amends = format!("[amends]\nstudy = \"{id}\"\npredecessor = \"{id}\"\n[data]");
        let text = std::fs::read_to_string(self.folder.path().join("study.toml")).unwrap();
        let amended = self.folder.path().join("amended.toml");
        let changed = change(&text);
        assert_ne!(changed, text);
        std::fs::write(&amended, changed.replace("[data]", &amends)).unwrap();
        let amended = amended.to_str().unwrap();
        let mut digest = String::new();
        for site in sites {
            let approve = ["study", "approve", amended, "--host", &self.url, "--yes"];
            let approved = self.sealfold(site, &approve).good().json();
            assert_eq!(approved["study"], id);
            approved["manifest"].as_str().unwrap().clone_into(&mut digest);
        }
        digest
    }

    /// Approvers sign the abandonment of an offer of round 1.
    pub fn abandon(&self, offer: &str, sites: &[&str]) {
        let more = ["--round", "1", "--offer", offer, "--reason", "a test", "--yes"];
        for site in sites {
            let _ = self.on_study(site, &["study", "abandon"], &more).good();
        }
    }

    /// Begins an upload by hand, or finds where it stands.
    #[must_use]
    pub fn begin_upload(&self, header: &Signed<UpdateHeader>) -> UploadStatus {
        let site = self.site(&header.statement().site);
        let reply = self.post_as(site, "updates", header.envelope());
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Submits an update of one value.
    #[must_use]
    pub fn submit(&self, site: &str, value: f32) -> Ended {
        self.submit_file(site, &self.update(value), &self.url)
    }

    /// Submits an update to the study at a host.
    #[must_use]
    pub fn submit_file(&self, site: &str, update: &Path, url: &str) -> Ended {
        let files = ["--update", update.to_str().unwrap()];
        self.sealfold(site, &[&["submit", "--host", url, &self.id()], &files[..]].concat())
    }
}

/// A training command that gives a file as its update.
#[must_use]
pub fn gives(update: &Path) -> String {
    format!("cp {} $SEALFOLD_UPDATE", update.display())
}
