//! The study's identity and the chain of its manifests.
//!
//! A study is named by the digest of its *first* manifest. An amendment names
//! that study and its predecessor and is approved by the approvers of the
//! predecessor, so that nobody can amend himself into a study. What a site
//! remembers is keyed by (study, round), never by manifest.

use crate::manifest::Manifested;
use crate::{Digest, Error, MultiSigned, Result};

/// The identity of the study that a manifest belongs to.
#[must_use]
pub fn identity<M: Manifested>(manifest: &MultiSigned<M>) -> Digest {
    let amends = manifest.statement().terms().amends.as_ref();
    amends.map_or_else(|| manifest.digest(), |amends| amends.study)
}

/// A study's manifests from the first to the one in force, each approved.
#[derive(Debug, Clone)]
pub struct Study<M> {
    manifests: Vec<MultiSigned<M>>,
}

impl<M: Manifested> Study<M> {
    /// Opens a study with its first manifest.
    ///
    /// # Errors
    /// If it is an amendment, or too few of its approvers signed.
    pub fn open(first: MultiSigned<M>) -> Result<Self> {
        if let Some(amends) = &first.statement().terms().amends {
            return Err(Error::Link {
                what: "first manifest",
                expected: "no predecessor".to_owned(),
                found: amends.predecessor.to_string(),
            });
        }
        let approval = &first.statement().terms().approval;
        first.expect_approvals(&approval.approvers, approval.required)?;
        Ok(Self { manifests: vec![first] })
    }

    /// Opens a study from the envelopes of its manifests, oldest first.
    ///
    /// # Errors
    /// If one does not verify or does not follow from the one before.
    pub fn from_envelopes<'a>(envelopes: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut envelopes = envelopes.into_iter();
        let first =
            envelopes.next().ok_or_else(|| Error::malformed("study", "there is no manifest"))?;
        let mut study = Self::open(M::open(first)?)?;
        for envelope in envelopes {
            study.amend(M::open(envelope)?)?;
        }
        Ok(study)
    }

    /// Adds an amendment.
    ///
    /// # Errors
    /// If it does not name this study and the manifest in force, changes what
    /// no amendment may change, or is not approved by the approvers of both
    /// its predecessor and itself.
    pub fn amend(&mut self, amendment: MultiSigned<M>) -> Result<()> {
        let current = self.current();
        let amends = amendment.statement().terms().amends.as_ref().ok_or_else(|| Error::Link {
            what: "amendment",
            expected: self.id().to_string(),
            found: "no predecessor".to_owned(),
        })?;
        if amends.study != self.id() {
            return Err(Error::link("amendment's study", &self.id(), &amends.study));
        }
        if amends.predecessor != current.digest() {
            let expected = current.digest();
            return Err(Error::link("amendment's predecessor", &expected, &amends.predecessor));
        }
        let (old, new) = (current.statement(), amendment.statement());
        // Two amendments change no more than one may: releases were made under any.
        for earlier in &self.manifests {
            new.follows(earlier.statement())?;
        }
        for approval in [&old.terms().approval, &new.terms().approval] {
            amendment.expect_approvals(&approval.approvers, approval.required)?;
        }
        self.manifests.push(amendment);
        Ok(())
    }

    /// Takes over further signatures of the manifest in force.
    ///
    /// # Errors
    /// [`Error::Link`] if the other is not the manifest in force.
    pub fn merge(&mut self, other: &MultiSigned<M>) -> Result<()> {
        let last = self.manifests.len() - 1;
        self.manifests[last].merge(other)
    }

    /// The study's identity.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.manifests[0].digest()
    }

    /// The manifest in force.
    #[must_use]
    pub fn current(&self) -> &MultiSigned<M> {
        // Built with one manifest and only ever added to.
        &self.manifests[self.manifests.len() - 1]
    }

    /// All manifests, oldest first.
    #[must_use]
    pub fn manifests(&self) -> &[MultiSigned<M>] {
        &self.manifests
    }

    /// The names of the sites that signed the manifest in force, and so take
    /// part under it.
    #[must_use]
    pub fn participants(&self) -> Vec<&str> {
        let signers = self.current().signers();
        let sites = &self.current().statement().terms().sites;
        sites.iter().filter(|s| signers.contains(&s.signing_key)).map(|s| s.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;
    use crate::manifest::{FORMAT, TermsOnly};
    use crate::terms::tests::{keys, terms};
    use crate::terms::{Amends, Dtype};

    fn manifest() -> TermsOnly {
        TermsOnly { format: FORMAT, terms: terms(), agreement: vec![1, 2, 3].into() }
    }

    fn signed(manifest: TermsOnly, by: &[SigningKey]) -> MultiSigned<TermsOnly> {
        let mut signed = MultiSigned::sign(manifest, &by[0]).unwrap();
        by[1..].iter().for_each(|key| signed.add_signature(key).unwrap());
        signed
    }

    /// A site that leaves by one amendment and comes back by the next has the weight
    /// that it had: releases were made with it.
    #[test]
    fn two_amendments_change_no_more_than_one() {
        let keys = keys();
        let first = signed(manifest(), &keys);
        let next = |study: &Study<TermsOnly>, change: &dyn Fn(&mut TermsOnly)| {
            let (mut next, predecessor) = (manifest(), study.current().digest());
            next.terms.amends = Some(Amends { study: first.digest(), predecessor });
            change(&mut next);
            signed(next, &keys)
        };
        let mut study = Study::open(first.clone()).unwrap();
        let heavier = |manifest: &mut TermsOnly| {
            let last = manifest.terms.sites.last_mut().unwrap();
            last.weight = 2;
        };
        assert!(study.amend(next(&study, &heavier)).is_err());
        let without = |manifest: &mut TermsOnly| drop(manifest.terms.sites.pop());
        let amendment = next(&study, &without);
        study.amend(amendment).unwrap();
        assert!(study.amend(next(&study, &heavier)).is_err());
        // To accept that weights change does not undo what was released before.
        let accepting = |manifest: &mut TermsOnly| {
            manifest.terms.accepts = vec![crate::terms::Weakness::ChangingAttendance];
        };
        let amendment = next(&study, &accepting);
        study.amend(amendment).unwrap();
        let both = |manifest: &mut TermsOnly| {
            accepting(manifest);
            heavier(manifest);
        };
        assert!(study.amend(next(&study, &both)).is_err());
        let amendment = next(&study, &|_| ());
        study.amend(amendment).unwrap();
    }

    #[test]
    fn an_amendment_carries_the_study_on() {
        let keys = keys();
        let first = signed(manifest(), &keys);
        let mut study = Study::open(first.clone()).unwrap();
        let mut next = manifest();
        next.terms.rounds = 30;
        next.terms.amends = Some(Amends { study: first.digest(), predecessor: first.digest() });
        let amendment = signed(next.clone(), &keys);
        study.amend(amendment.clone()).unwrap();
        assert_eq!(study.id(), first.digest());
        assert_eq!(study.current().digest(), amendment.digest());
        assert_eq!(identity(&amendment), study.id());
        // One with another layout is none.
        let mut moved = next.clone();
        moved.terms.model.tensors[0].dtype = Dtype::Float16;
        moved.terms.amends.as_mut().unwrap().predecessor = amendment.digest();
        let error = study.amend(signed(moved, &keys)).unwrap_err().to_string();
        assert!(error.contains("model layout"), "{error}");
        // A second amendment of the same predecessor does not follow.
        next.terms.rounds = 31;
        assert!(matches!(study.amend(signed(next, &keys)), Err(Error::Link { .. })));
    }

    #[test]
    fn too_few_approvals_or_strangers_are_refused() {
        let keys = keys();
        let few = signed(manifest(), &keys[..2]);
        assert!(matches!(Study::open(few), Err(Error::Approvals { required: 3, found: 2, .. })));
        let strangers: Vec<_> =
            (50..54).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect();
        let stranger = signed(manifest(), &strangers);
        assert!(matches!(Study::open(stranger), Err(Error::Approvals { found: 0, .. })));
    }

    #[test]
    fn an_amendment_cannot_approve_itself_with_new_approvers() {
        let keys = keys();
        let first = signed(manifest(), &keys);
        let mut study = Study::open(first.clone()).unwrap();
        let strangers: Vec<_> =
            (50..54).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect();
        let mut coup = manifest();
        coup.terms.amends = Some(Amends { study: first.digest(), predecessor: first.digest() });
        coup.terms.approval.approvers = strangers.iter().map(SigningKey::verifying_key).collect();
        assert!(matches!(study.amend(signed(coup, &strangers)), Err(Error::Approvals { .. })));
    }
}
