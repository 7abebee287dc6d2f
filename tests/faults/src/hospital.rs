//! A site: its files, its agent, and the training that is done already.

use crate::network::{self, Carrier, Link};
use crate::sabotage::Sabotage;
use safetensors::tensor::{Dtype, TensorView};
use sealfold::Error;
use sealfold::agent::{Agent, Assignment, Look, Memory, moved_on};
use sealfold::binding::Binding;
use sealfold::client::{Client, Network};
use sealfold::home::Home;
use sealfold::keys::Keys;
use sealfold::report::Voice;
use sealfold::study::LocalStudy;
use sealfold::update::Trained;
use sealfold_attestation::Policy;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::access::Role;
use sealfold_protocol::{Digest, MultiSigned};
use sealfold_study::Manifest;
use sealfold_tests::study::Study;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const VOICE: Voice = Voice { json: true, quiet: true };

/// A site.
pub struct Hospital {
    /// Its place among the sites.
    pub number: usize,
    /// Its way to the host.
    pub link: Arc<Link>,
    /// What it said last that it waits for.
    pub waiting_for: String,
    /// Why its agent ended, if it did.
    pub ended: Option<String>,
    /// Whether it has seen the study's end.
    pub is_done: bool,
    home: Home,
    keys: Keys,
    policy: Policy,
    client: Client,
    study: MultiSigned<Manifest>,
    memory: Option<Memory>,
    sabotage: Option<Sabotage>,
}

/// The power of two of a site.
#[must_use]
pub fn share(site: usize) -> f32 {
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0][site]
}

impl Hospital {
    /// A site in that folder that has approved the study.
    #[must_use]
    pub fn new(
        folder: &Path,
        number: usize,
        study: &Study,
        policy: &str,
        network: &Arc<network::Network>,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let site = &study.sites[number];
        let home = Home::open(&folder.join(&site.name)).unwrap();
        let keys = Keys {
            site: site.name.clone(),
            signing: sealfold_protocol::SigningKey::from_seed(&site.key.seed()).unwrap(),
            release_seed: Zeroizing::new(site.release_seed),
        };
        let link = Link::new(&site.name, keys.signing.verifying_key(), network.clone());
        let carrier = Carrier(link.clone());
        let client =
            Client::through("http://127.0.0.1:1", &Network::default(), VOICE, carrier).unwrap();
        let client = client.signed(&keys.signing, Role::Party).unwrap();
        LocalStudy::new(&home, study.id()).approve(study.manifest.digest()).unwrap();
        Self {
            number,
            link,
            waiting_for: String::new(),
            ended: None,
            is_done: false,
            home,
            keys,
            policy: Policy::from_toml(policy).unwrap(),
            client,
            study: study.manifest.clone(),
            memory: None,
            sabotage,
        }
    }

    fn id(&self) -> Digest {
        self.study.digest()
    }

    /// Publishes the manifest, and the initial model if it is given.
    ///
    /// # Errors
    /// As the client's.
    pub fn publish(&self, model: Option<Vec<u8>>) -> sealfold::Result<()> {
        self.client.publish(&self.study.envelope()?)?;
        if let Some(model) = model {
            let length = model.len() as u64;
            self.client.put_model(&self.id(), length, std::io::Cursor::new(model))?;
        }
        Ok(())
    }

    /// Signs, as an approver, that an offer is given up.
    ///
    /// # Errors
    /// As the client's.
    pub fn abandon(&self, round: u32, offer: Digest) -> sealfold::Result<bool> {
        let reason = "the enclave is gone".to_owned();
        let statement = Abandonment { study: self.id(), round, offer, reason };
        let signed = MultiSigned::sign(statement, &self.keys.signing)?;
        let merged = self.client.abandon(&self.id(), round, &signed.envelope()?)?;
        let merged = MultiSigned::<Abandonment>::open(&merged.envelope.0)?;
        let approval = &self.study.statement().terms.approval;
        Ok(merged.expect_approvals(&approval.approvers, approval.required).is_ok())
    }

    /// The round that comes next in its chain.
    #[must_use]
    pub fn next_round(&self) -> u32 {
        let local = LocalStudy::new(&self.home, self.id());
        local.head(self.study.statement()).unwrap().round
    }

    /// The offer of a round that it is bound to.
    #[must_use]
    pub fn bound_to(&self, round: u32) -> Option<Digest> {
        self.memory.as_ref()?.binding.bound_to(round)
    }

    /// The agent ends without a word, and starts again when it is next looked at.
    pub fn restart(&mut self) {
        self.memory = None;
        if self.sabotage == Some(Sabotage::SitesForget) {
            let local = LocalStudy::new(&self.home, self.id());
            let counter = self.home.path("keys").join(format!("binding-{}.json", self.id()));
            for path in [local.folder.join("binding.json"), counter] {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// What its trainer would have written: its power of two in the round's place.
    fn train(&self, round: u32) {
        let trained = Trained::of(&LocalStudy::new(&self.home, self.id()), round);
        if trained.is_complete() {
            return;
        }
        let mut values = vec![0.0; self.study.statement().terms.rounds as usize];
        let (mut place, mut value) = (round as usize - 1, share(self.number));
        match self.sabotage {
            Some(Sabotage::Doubled) if self.number == 1 => value *= 2.0,
            Some(Sabotage::Foreign) if self.number == 1 => place = (place + 1) % values.len(),
            _ => {}
        }
        values[place] = value;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).unwrap();
        let file = safetensors::serialize([("weights", view)], None).unwrap();
        std::fs::create_dir_all(trained.update.parent().unwrap()).unwrap();
        std::fs::write(&trained.update, file).unwrap();
        trained.complete().unwrap();
    }

    /// Lets the agent look once. Whether there is more to do at once.
    pub fn step(&mut self) -> bool {
        if self.ended.is_some() || self.is_done {
            return false;
        }
        let round = self.next_round();
        if round <= self.study.statement().terms.rounds {
            self.train(round);
        }
        let outcome = self.look();
        if self.link.went_out() {
            self.restart();
            return false;
        }
        match outcome {
            Ok(Look::Again | Look::Released) => true,
            Ok(Look::Wait(what)) => {
                self.waiting_for = what;
                false
            }
            Ok(Look::Failed(error)) => {
                self.waiting_for = format!("another attempt: {error}");
                false
            }
            Ok(Look::Done) => {
                self.is_done = true;
                false
            }
            Err(Error::Host(refusal)) if moved_on(refusal.check) => {
                self.waiting_for = refusal.to_string();
                false
            }
            Err(error) if error.is_passing() => {
                self.waiting_for = error.to_string();
                false
            }
            Err(error) => {
                self.ended = Some(error.to_string());
                false
            }
        }
    }

    fn look(&mut self) -> sealfold::Result<Look> {
        let mut memory = if let Some(memory) = self.memory.take() {
            memory
        } else {
            let local = LocalStudy::new(&self.home, self.id());
            Memory::new(Binding::open(&self.home, &local)?)
        };
        let agent = Agent {
            home: &self.home,
            keys: &self.keys,
            policy: &self.policy,
            client: &self.client,
            voice: VOICE,
            stop: Arc::default(),
        };
        // The training is done before the agent asks for it.
        let assignment = Assignment {
            study: self.id(),
            train: Some("false".to_owned()),
            data: None,
            max_rounds: None,
            poll: Duration::ZERO,
        };
        let look = agent.once(&assignment, &mut memory);
        self.memory = Some(memory);
        look
    }

    /// The checkpoint of the log that the site keeps.
    #[must_use]
    pub fn kept_checkpoint(&self) -> Option<Vec<u8>> {
        std::fs::read(LocalStudy::new(&self.home, self.id()).folder.join("checkpoint")).ok()
    }
}
