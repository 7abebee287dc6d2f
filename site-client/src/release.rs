//! Releases: verified, opened, and turned into the site's next model.

use crate::binding::Binding;
use crate::error::SiteRefusal;
use crate::home::write_file;
use crate::round::Site;
use crate::step::{self, Files};
use crate::study::Head;
use crate::{Error, Result, tensors};
use sealfold_attestation::{Evidence, verify_replay};
use sealfold_protocol::api::RoundStatus;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::{self, Disclosure, Opening, Release};
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::seal::{self, InputKey, OpeningReader};
use sealfold_protocol::{Digest, Signed};
use std::io::BufReader;

impl Site<'_> {
    /// Verifies a release and moves the site's chain on: the aggregate is
    /// opened, the next model computed and kept, the round's files forgotten.
    ///
    /// # Errors
    /// A refusal by `release`, `roster`, `bound-to-another-offer`, or by
    /// `model-not-finite`, which ends the study; [`Error::Evidence`] if the instance behind it cannot be verified.
    pub fn finish(&self, binding: &Binding, status: &RoundStatus) -> Result<Option<Head>> {
        let (Some(envelope), Some(offer)) = (&status.release, self.offer(status)?) else {
            return Ok(None);
        };
        let round = offer.statement().round;
        binding.allows(round, &offer.digest())?;
        if !self.has_verified(&offer)? {
            // Dropped or late: the evidence that was kept must do.
            let kept = self.client.kept_evidence(&self.id(), round)?;
            let evidence = Evidence::of(&kept.platform, &kept.document.0)?;
            let verdict = verify_replay(&evidence, self.policy, offer.digest().as_bytes());
            self.expect_measured(&offer, &verdict.into_claims()?)?;
        }
        let release = Signed::<Release>::open(&envelope.0, &offer.statement().instance_key)?;
        let roster = status
            .roster
            .as_ref()
            .ok_or_else(|| SiteRefusal::new("roster", "the roster of the release", "none"))?;
        let roster = self.roster(&offer, &roster.0)?;
        self.expect_release(&offer, &roster, &release)?;
        // Under an earlier key of this site it was another folder that committed.
        let listed = self.terms(&offer).statement().terms.site(&self.keys.site);
        let is_mine =
            listed.is_ok_and(|site| site.signing_key == self.keys.signing.verifying_key());
        if is_mine
            && roster.statement().header_of(&self.keys.site).is_some()
            && !binding.has_committed(&roster.digest())
        {
            return Err(SiteRefusal::new(
                "not-committed",
                "a release of rosters that this site committed to, or is not on",
                format!("roster {}", roster.digest()),
            )
            .next("tell the approvers: this site's update was released without its commit")
            .into());
        }
        let base = self.joined.local.model(round - 1);
        let next = self.joined.local.model(round);
        let files = Files { base: &base, next: &next };
        let base_digest = self.apply(&offer, &release, &roster, &files)?;
        let clip = self.terms(&offer).statement();
        let clip = clip.terms.next_clip(offer.statement().clip, release.statement().below_clip);
        let head =
            Head { round: round + 1, base: base_digest, previous: Some(release.digest()), clip };
        self.joined.local.set_head(&head)?;
        write_file(
            &self.joined.local.folder.join(format!("releases/{round:04}.cose")),
            release.envelope(),
        )?;
        // In the release or not: no later round has the base of these updates.
        let _ = std::fs::remove_dir_all(self.joined.local.round(round));
        self.report()?;
        Ok(Some(head))
    }

    fn expect_release(
        &self,
        offer: &Signed<Offer>,
        roster: &Signed<Roster>,
        release: &Signed<Release>,
    ) -> Result<()> {
        let (of, statement) = (offer.statement(), release.statement());
        let previous = |digest: Option<Digest>| digest.unwrap_or(Digest::new([0; 32]));
        for (what, expected, found) in [
            ("release's study", of.study, statement.study),
            ("release's manifest", of.manifest, statement.manifest),
            ("release's offer", offer.digest(), statement.offer),
            ("release's roster", roster.digest(), statement.roster),
            ("release's base", of.base, statement.base),
            ("release's predecessor", previous(of.previous), previous(statement.previous)),
        ] {
            if expected != found {
                return Err(sealfold_protocol::Error::link(what, &expected, &found).into());
            }
        }
        self.expect_count(offer, statement)?;
        let terms = &self.terms(offer).statement().terms;
        let length = terms.aggregate_length(terms.kind(of.round));
        if statement.round != of.round || statement.plain_length != length {
            let found = format!("round {}, {} bytes", statement.round, statement.plain_length);
            let expected = format!("round {}, {length} bytes", of.round);
            return Err(SiteRefusal::new("release", expected, found).into());
        }
        Ok(())
    }

    /// Whether a release has a count below the clip, if the clip is adaptive.
    fn expect_count(&self, offer: &Signed<Offer>, release: &Release) -> Result<()> {
        let manifest = self.terms(offer).statement();
        let adaptive = manifest.terms.first_clip().is_some();
        if release.below_clip.is_some() != adaptive {
            let expected = if adaptive { "a count below the clip" } else { "none" };
            return Err(SiteRefusal::new("adaptive-clip", expected, "the opposite").into());
        }
        Ok(())
    }

    fn opening(&self, release: &Release) -> Result<Opening> {
        match &release.disclosure {
            Disclosure::Everyone(opening) => Ok(opening.clone()),
            Disclosure::Sites(openings) => {
                let mine = openings.iter().find(|opening| opening.site == self.keys.site);
                let mine = mine.ok_or_else(|| {
                    SiteRefusal::new("release", "an opening for this site", "none")
                })?;
                let info = Opening::seal_info(&release.offer, &self.keys.site);
                let plain = seal::unseal(&self.keys.release_seed, &info, b"", &mine.sealed)
                    .map_err(sealfold_protocol::Error::from)?;
                Ok(Opening::decode(&plain)?)
            }
        }
    }

    /// Opens the aggregate and writes the next model beside the base. The
    /// model gets its name only when the commitment to the aggregate holds. The
    /// step is that of the offer's manifest, at every site, whichever amendment
    /// is in force by the time that a site gets here.
    fn apply(
        &self,
        offer: &Signed<Offer>,
        release: &Signed<Release>,
        roster: &Signed<Roster>,
        files: &Files<'_>,
    ) -> Result<Digest> {
        let (statement, manifest) = (release.statement(), self.terms(offer).statement());
        let opening = self.opening(statement)?;
        let context = release::seal_context(&statement.offer, &statement.roster);
        let key = InputKey::new(*opening.key.as_bytes());
        let length = statement.plain_length;
        let limit = seal::sealed_len(length).unwrap_or(u64::MAX);
        let bar = self.voice.bar("download", limit);
        let sealed = self.client.aggregate(&self.id(), statement.round, limit)?;
        let sealed = BufReader::with_capacity(1 << 20, bar.wrap_read(sealed));
        let wrong = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::from(SiteRefusal::new(
                "release",
                "an aggregate that opens with the release's key",
                error,
            )),
            _ => Error::Network { what: "the aggregate".to_owned(), reason: error.to_string() },
        };
        let reader = OpeningReader::new(&key, &context, length, sealed).map_err(wrong)?;
        let round = step::Round {
            manifest,
            kind: manifest.terms.kind(statement.round),
            base: statement.base,
            roster: roster.statement().sites().into_iter().collect(),
        };
        let stepped = step::step(&round, files, reader, wrong);
        bar.finish_and_clear();
        let stepped = stepped?;
        let found = release::commitment(&opening.blinding, &stepped.aggregate);
        if found != statement.aggregate {
            stepped.discard();
            return Err(SiteRefusal::new("release", statement.aggregate, found).into());
        }
        if let Some(found) = &stepped.not_finite {
            stepped.discard();
            let next = "the study ends here, at every site alike: begin a new study from the last \
                        model, with a smaller learning rate or norm limit";
            return Err(SiteRefusal::new(
                "model-not-finite",
                "a next model of finite values",
                found,
            )
            .next(next)
            .into());
        }
        stepped.keep(files)?;
        self.keep_evaluation(manifest, statement.round, &stepped.channels)?;
        Ok(stepped.model)
    }

    /// Tells the host which model the last release led to; again after a crash,
    /// since the report may have been lost.
    ///
    /// # Errors
    /// As [`crate::client::Client::report`].
    pub fn report(&self) -> Result<()> {
        let head = self.joined.local.head(self.joined.manifest())?;
        let Some(release) = head.previous else { return Ok(()) };
        let round = head.round - 1;
        let report = ModelReport {
            study: self.id(),
            round,
            release,
            site: self.keys.site.clone(),
            model: head.base,
        };
        let report = Signed::sign(report, &self.keys.signing)?;
        self.client.report(&self.id(), round, report.envelope())
    }

    /// Puts the initial model in place, if the site does not have it.
    ///
    /// # Errors
    /// A refusal by `initial-model` if it is not the manifest's.
    pub fn fetch_initial(&self) -> Result<()> {
        let path = self.joined.local.model(0);
        if path.exists() {
            return Ok(());
        }
        let model = self.model();
        let mut reader = self.client.model(&self.id(), model.bytes())?;
        let candidate = path.with_extension("candidate");
        tensors::write_content(&candidate, model, &mut reader)?;
        let found = tensors::digest(&candidate, model)?;
        if found != model.initial {
            let _ = std::fs::remove_file(&candidate);
            return Err(SiteRefusal::new("initial-model", model.initial, found).into());
        }
        std::fs::rename(&candidate, &path).map_err(|e| Error::file(&path, e))?;
        crate::home::sync_folder(&path)
    }
}
