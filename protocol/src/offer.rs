//! The offer: an enclave instance proposes to run one round.

use crate::manifest::Manifested;
use crate::seal::PublicKey;
use crate::{Digest, Error, MultiSigned, Result, Signed, Statement, VerifyingKey};
use serde::{Deserialize, Serialize};

/// What an instance offers for a (study, round), once in its life. Evidence of
/// the instance binds the digest of this statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The study's identity.
    pub study: Digest,
    /// The manifest in force.
    pub manifest: Digest,
    /// The round, from 1.
    pub round: u32,
    /// The content digest of the model that the sites train from.
    pub base: Digest,
    /// The digest of the release before; none in round 1.
    pub previous: Option<Digest>,
    /// Under an adaptive clip: the clip of this round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// The key that updates of this round are sealed to.
    pub update_key: PublicKey,
    /// The key that signs whatever this instance says.
    pub instance_key: VerifyingKey,
}

impl Statement for Offer {
    const NAME: &'static str = "offer";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.offer.v1+cbor";
    const LIMIT: usize = 8 << 10;
}

impl Offer {
    /// Opens an offer that its own instance key signed. The key means nothing
    /// until evidence that binds the offer's digest has been verified.
    ///
    /// # Errors
    /// As [`Signed::open`].
    pub fn open(envelope: &[u8]) -> Result<Signed<Self>> {
        Signed::open_by(envelope, |offer: &Self| Ok(offer.instance_key))
    }

    /// Checks that the offer is for this study, manifest and round, and goes on
    /// from this base and release.
    ///
    /// # Errors
    /// [`Error::Link`] naming the first field that is not the expected one.
    pub fn expect(&self, next: &NextRound) -> Result<()> {
        for (what, expected, found) in [
            ("offer's study", &next.study, &self.study),
            ("offer's manifest", &next.manifest, &self.manifest),
        ] {
            if expected != found {
                return Err(Error::link(what, expected, found));
            }
        }
        if next.round != self.round {
            return Err(Error::Link {
                what: "offer's round",
                expected: next.round.to_string(),
                found: self.round.to_string(),
            });
        }
        if next.base != self.base {
            return Err(Error::link("offer's base model", &next.base, &self.base));
        }
        if next.clip.map(f64::to_bits) != self.clip.map(f64::to_bits) {
            let show = |clip: Option<f64>| clip.map_or("none".to_owned(), |c| c.to_string());
            return Err(Error::Link {
                what: "offer's clip",
                expected: show(next.clip),
                found: show(self.clip),
            });
        }
        if next.previous != self.previous {
            let show = |digest: Option<Digest>| digest.map_or("none".to_owned(), |d| d.to_string());
            return Err(Error::Link {
                what: "offer's previous release",
                expected: show(next.previous),
                found: show(self.previous),
            });
        }
        Ok(())
    }

    /// The `info` of the HPKE encapsulation for an update under this offer.
    #[must_use]
    pub fn seal_info(digest: &Digest) -> Vec<u8> {
        [b"sealfold/v1/update\0".as_slice(), digest.as_bytes()].concat()
    }
}

/// What a site (or a host) knows of the round that comes next.
#[derive(Debug, Clone, PartialEq)]
pub struct NextRound {
    /// The study's identity.
    pub study: Digest,
    /// The manifest in force.
    pub manifest: Digest,
    /// The round after the last release.
    pub round: u32,
    /// The model that the last release leads to, or the initial one.
    pub base: Digest,
    /// The last release.
    pub previous: Option<Digest>,
    /// The clip that the last release leads to, or the manifest's first.
    pub clip: Option<f64>,
}

impl NextRound {
    /// The first round of a study.
    #[must_use]
    pub fn first<M: Manifested>(manifest: &MultiSigned<M>) -> Self {
        let terms = manifest.statement().terms();
        Self {
            study: crate::study::identity(manifest),
            manifest: manifest.digest(),
            round: 1,
            base: terms.model.initial,
            previous: None,
            clip: terms.first_clip(),
        }
    }
}
