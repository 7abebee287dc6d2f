//! A round with all updates sealed, ready to be admitted and folded by the
//! enclave's own library. Included by each benchmark that needs one.

use sealfold_aggregation::noise::Seed;
use sealfold_enclave::admission::{Admitted, admit};
use sealfold_enclave::door::Doors;
use sealfold_enclave::fold::{Failure, Folded, fold};
use sealfold_enclave::keyed_hash::KeyedHash;
use sealfold_enclave::round::{Plan, Secrets, Subject};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::roster::{Member, Roster};
use sealfold_protocol::seal::RoundSecret;
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Signed, SigningKey};
use sealfold_tests::site::Sealed;
use sealfold_tests::study::{Options, Study};
use std::sync::Arc;
use std::time::Instant;

/// The enclave's side of a round: terms, keys, and the headers of all updates.
pub struct SealedRound {
    pub subject: Subject,
    pub headers: Vec<Signed<UpdateHeader>>,
    secrets: Arc<Secrets>,
    key: SigningKey,
}

impl SealedRound {
    /// Makes the round of a study and has every site seal its update.
    ///
    /// `update` gives a site's values; `keep` takes the sealed update in place of a
    /// host.
    pub fn new(
        options: &Options,
        mut update: impl FnMut(usize) -> Vec<f32>,
        mut keep: impl FnMut(Sealed),
    ) -> Self {
        let study = Study::new(options);
        let key = SigningKey::generate().unwrap();
        let secret = RoundSecret::generate().unwrap();
        let offer = Offer {
            study: study.id(),
            manifest: study.manifest.digest(),
            round: 1,
            base: study.terms().model.initial,
            previous: None,
            clip: None,
            update_key: secret.public_key().unwrap(),
            instance_key: key.verifying_key(),
        };
        let offer = Signed::sign(offer, &key).unwrap();
        let mut headers = Vec::new();
        for (place, site) in study.sites.iter().enumerate() {
            let sealed = site.seal(&offer, study.terms(), &update(place));
            headers.push(sealed.header.clone());
            keep(sealed);
        }
        let subject = Subject {
            study: study.id(),
            terms: study.terms().clone(),
            participants: study.sites.iter().map(|site| site.name.clone()).collect(),
            offer,
            started: Instant::now(),
        };
        let secrets = Arc::new(Secrets {
            round: secret,
            hash: KeyedHash::new(&[1; 32]),
            noise: Some(Seed::new([2; 32])),
        });
        Self { subject, headers, secrets, key }
    }

    /// Admits one site's update.
    pub fn admit(
        &self,
        site: usize,
        doors: &impl Doors,
        threads: usize,
    ) -> Result<Admitted, Refusal> {
        let header = self.headers[site].clone();
        admit(&self.subject, &self.secrets, header, doors, threads, &self.key)
    }

    /// What is folded: a roster of these members.
    pub fn plan(&self, members: Vec<Admitted>) -> Plan {
        let listed = |member: &Admitted| Member {
            site: member.header.statement().site.clone(),
            header: member.header.digest(),
        };
        let roster = Roster {
            study: self.subject.study,
            round: 1,
            offer: self.subject.offer.digest(),
            attempt: 1,
            members: members.iter().map(listed).collect(),
        };
        let roster = Signed::sign(roster, &self.key).unwrap();
        let members = members.into_iter().map(Arc::new).collect();
        Plan { roster, members, secrets: self.secrets.clone() }
    }

    /// Folds a plan.
    pub fn fold(&self, plan: &Plan, doors: &impl Doors, threads: usize) -> Result<Folded, Failure> {
        fold(&self.subject, plan, doors, threads)
    }
}
