//! The whole manifest: terms and agreement.

use crate::agreement::Agreement;
use crate::claim::{Mechanism, PrivacySpent};
use crate::file::{self, File};
use crate::measured::{self, EVALUATION};
use crate::query;
use sealfold_aggregation::clipping::ClippedSum;
use sealfold_aggregation::optimiser::TensorStep;
use sealfold_protocol::manifest::{CONTENT_TYPE, FORMAT, LIMIT, Manifested, NAME};
use sealfold_protocol::terms::{
    Dtype, Privacy, RoundKind, Tensor, TensorRole, Terms, expect, expect_same, refused,
};
use sealfold_protocol::{Error, Result, Statement, encoding};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteBuf, Bytes};

/// What the sites of a study agreed to.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the enclave enforces.
    pub terms: Terms,
    /// What sites and auditors hold each other to beside it.
    pub agreement: Agreement,
}

/// A study's manifests from the first to the one in force.
pub type Study = sealfold_protocol::study::Study<Manifest>;

/// The payload of a manifest. `sealfold_protocol::manifest::TermsOnly` reads the
/// same bytes.
#[derive(Serialize)]
struct Payload<'a> {
    format: u32,
    terms: &'a Terms,
    agreement: &'a Bytes,
}

/// The same, to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: u32,
    terms: Terms,
    agreement: ByteBuf,
}

impl Serialize for Manifest {
    /// As TOML or JSON in the sections that people write; as CBOR in two parts.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return File::of(self).serialize(serializer);
        }
        let agreement = encoding::to_vec(&self.agreement).map_err(serde::ser::Error::custom)?;
        let agreement = Bytes::new(&agreement);
        Payload { format: FORMAT, terms: &self.terms, agreement }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        use serde::de::Error as _;
        if deserializer.is_human_readable() {
            return File::deserialize(deserializer)?.manifest().map_err(D::Error::custom);
        }
        let read = Read::deserialize(deserializer)?;
        if read.format != FORMAT {
            let found = read.format;
            return Err(D::Error::custom(format!("manifest format is {found}, expected {FORMAT}")));
        }
        let agreement = encoding::from_slice("agreement", &read.agreement, LIMIT);
        Ok(Self { terms: read.terms, agreement: agreement.map_err(D::Error::custom)? })
    }
}

impl Statement for Manifest {
    const NAME: &'static str = NAME;
    const CONTENT_TYPE: &'static str = CONTENT_TYPE;
    const LIMIT: usize = LIMIT;
}

impl Manifested for Manifest {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn check(&self) -> Result<()> {
        self.agreement.check()?;
        crate::in_words::expect_accepted(&self.terms)?;
        self.terms.check()?;
        self.check_together()
    }

    /// As for the terms; and the optimiser, the claim and what is measured stay
    /// what they are, and so does the log: half of a history in another log could
    /// not be checked by anybody.
    fn follows(&self, before: &Self) -> Result<()> {
        self.terms.follows(&before.terms)?;
        let (old, new) = (&before.agreement, &self.agreement);
        expect_same("optimiser", &old.server.optimiser, &new.server.optimiser)?;
        expect_same("privacy claim", &old.claim, &new.claim)?;
        expect_same("log", &old.log, &new.log)
    }
}

impl Manifest {
    /// Reads and checks the TOML that people write.
    ///
    /// # Errors
    /// If it is larger than a manifest may be, has another format, does not parse
    /// (an unknown or a missing field is named), or does not
    /// [check](Manifested::check).
    pub fn from_toml(text: &str) -> Result<Self> {
        let manifest = file::read(text)?.manifest()?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The TOML that people write.
    ///
    /// # Errors
    /// Only if a value has no TOML form, which a checked manifest's have.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::malformed(NAME, error))
    }

    /// The noise of the terms with what it is to buy, if there is any.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism<'_>> {
        let (noise, claim) = (self.terms.privacy.noise()?, self.agreement.claim.as_ref()?);
        Some(Mechanism { noise, claim })
    }

    /// What the rounds up to this one cost; none without privacy noise.
    ///
    /// # Errors
    /// [`Error::Manifest`] if a parameter is out of range.
    pub fn spent(&self, round: u32) -> Result<Option<PrivacySpent>> {
        let Some(mechanism) = self.mechanism() else { return Ok(None) };
        let (epsilon, delta) = (mechanism.spent(round)?, mechanism.claim.delta);
        Ok(Some(PrivacySpent { epsilon, delta }))
    }

    /// The tensors of the file that a trainer writes in a round, in the order of
    /// an update's values: the model's, in a training round, and the evaluation's
    /// counts, `[bins, 2]`. They are float32, whatever the model's are and however
    /// they travel. Metrics are in a file of their own.
    #[must_use]
    pub fn update_tensors(&self, kind: RoundKind) -> Vec<Tensor> {
        let mut tensors = match kind {
            RoundKind::Training => self.terms.model.tensors.clone(),
            RoundKind::Evaluation => Vec::new(),
        };
        tensors.iter_mut().for_each(|tensor| tensor.dtype = Dtype::Float32);
        if let Some(evaluation) = &self.agreement.evaluation {
            let shape = vec![u64::from(evaluation.bins), 2];
            let (name, dtype, role) =
                (EVALUATION.to_owned(), Dtype::Float32, TensorRole::default());
            tensors.push(Tensor { name, shape, dtype, step: None, role });
        }
        tensors
    }

    /// Whether terms and agreement say the same.
    fn check_together(&self) -> Result<()> {
        let (terms, agreement) = (&self.terms, &self.agreement);
        let has_noise = terms.privacy.noise().is_some();
        match &agreement.claim {
            Some(claim) => claim.check(terms)?,
            None => expect("privacy.epsilon", !has_noise, "a value under privacy noise", "none")?,
        }
        if let Privacy::Patient(noise) = &terms.privacy {
            let grid = ClippedSum::new(noise.clip, noise.step, 1).map(drop);
            grid.map_err(|error| refused("privacy.step", "a grid that sites can use", &error))?;
        }
        for tensor in terms.model.tensors.iter().filter(|t| t.role == TensorRole::Control) {
            let step = TensorStep::control(tensor.dtype.into(), 1, 1).map(drop);
            step.map_err(|e| refused("model.tensor.dtype", "one for the role control", &e))?;
        }
        measured::check(agreement.evaluation.as_ref(), &agreement.metrics, terms)?;
        query::check(self)
    }
}
