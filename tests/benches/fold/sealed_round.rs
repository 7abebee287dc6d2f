//! A round with all updates sealed, ready to be admitted and folded by the
//! enclave's own library. Included by each benchmark that needs one.

use sealfold_aggregation::noise::Seed;
use sealfold_enclave::admission::{Admitted, admit};
use sealfold_enclave::door::Doors;
use sealfold_enclave::fold::{Failure, Folded, fold};
use sealfold_enclave::keyed_hash::KeyedHash;
use sealfold_enclave::round::{Plan, Secrets, Terms};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::roster::{Member, Roster};
use sealfold_protocol::seal::RoundSecret;
use sealfold_protocol::update::{PREAMBLE, Preamble, UpdateHeader};
use sealfold_protocol::{Signed, SigningKey};
use sealfold_tests::site::Sealed;
use sealfold_tests::study::{Options, Study};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The enclave's side of a round: terms, keys, and the headers of all updates.
pub struct SealedRound {
    pub terms: Terms,
    pub headers: Vec<Signed<UpdateHeader>>,
    secrets: Arc<Secrets>,
    key: SigningKey,
}

impl SealedRound {
    /// Makes the round of a study and has every site seal its update.
    ///
    /// `update` gives a site's number of examples and its values as little-endian
    /// float32; `keep` takes the sealed update in place of a host.
    pub fn new(
        options: &Options,
        mut update: impl FnMut(usize) -> (u64, Vec<u8>),
        mut keep: impl FnMut(Sealed),
    ) -> Self {
        let study = Study::new(options);
        let key = SigningKey::generate().unwrap();
        let secret = RoundSecret::generate().unwrap();
        let offer = Offer {
            study: study.id(),
            manifest: study.manifest.digest(),
            round: 1,
            base: study.manifest.statement().terms.model.initial,
            previous: None,
            clip: None,
            update_key: secret.public_key().unwrap(),
            instance_key: key.verifying_key(),
        };
        let offer = Signed::sign(offer, &key).unwrap();
        let terms = study.terms().clone();
        let mut headers = Vec::new();
        for (place, site) in study.sites.iter().enumerate() {
            let (examples, values) = update(place);
            let preamble = Preamble { examples, layout, metrics: BTreeMap::new() };
            let mut plain = preamble.encode(PREAMBLE).unwrap();
            plain.extend(values);
            let sealed = site.seal_plain(&offer, &plain);
            headers.push(sealed.header.clone());
            keep(sealed);
        }
        let terms = Terms {
            study: study.id(),
            manifest: study.manifest.statement().clone(),
            participants: study.sites.iter().map(|site| site.name.clone()).collect(),
            offer,
            started: Instant::now(),
        };
        let secrets = Arc::new(Secrets {
            round: secret,
            hash: KeyedHash::new(&[1; 32]),
            noise: Some(Seed::new([2; 32])),
        });
        Self { terms, headers, secrets, key }
    }

    /// Admits one site's update.
    pub fn admit(
        &self,
        site: usize,
        doors: &impl Doors,
        threads: usize,
    ) -> Result<Admitted, Refusal> {
        let header = self.headers[site].clone();
        admit(&self.terms, &self.secrets, header, doors, threads, &self.key)
    }

    /// What is folded: a roster of these members.
    pub fn plan(&self, members: Vec<Admitted>) -> Plan {
        let listed = |member: &Admitted| Member {
            site: member.header.statement().site.clone(),
            header: member.header.digest(),
        };
        let roster = Roster {
            study: self.terms.study,
            round: 1,
            offer: self.terms.offer.digest(),
            attempt: 1,
            members: members.iter().map(listed).collect(),
        };
        let roster = Signed::sign(roster, &self.key).unwrap();
        let members = members.into_iter().map(Arc::new).collect();
        Plan { roster, members, secrets: self.secrets.clone() }
    }

    /// Folds a plan.
    pub fn fold(&self, plan: &Plan, doors: &impl Doors, threads: usize) -> Result<Folded, Failure> {
        fold(&self.terms, plan, doors, threads)
    }
}
