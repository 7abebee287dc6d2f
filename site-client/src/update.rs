//! This site's update of a round: what was trained, and what was sealed of it.
//!
//! What was trained is kept by round, since all offers of a round have the same
//! base. What was sealed is kept by offer, since a round may see several: a
//! restarted enclave makes another, and a host may show an earlier one again.
//! Then the header that was signed under that offer is found again, and no
//! second one is signed. All of it goes when the round is released: an update
//! that is not in the release was trained on a base that no later round has.

use crate::binding::Binding;
use crate::error::SiteRefusal;
use crate::home::{make_folder, read_file, read_json, write_file, write_json};
use crate::metrics::Metrics;
use crate::plaintext::{self, Update};
use crate::round::Site;
use crate::scaling::Scaled;
use crate::study::LocalStudy;
use crate::tensors::Hashing;
use crate::{Error, Result};
use sealfold_protocol::api::{Phase, RoundStatus, UploadState, UploadStatus};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, SealingWriter};
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, Signed};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The piece of an upload: large enough for speed, small enough to resume.
const PIECE: usize = 4 << 20;

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

/// What the trainer writes in a round.
pub struct Trained {
    /// The update, safetensors or npz.
    pub update: PathBuf,
    /// Its metrics.
    pub metrics: PathBuf,
    complete: PathBuf,
}

impl Trained {
    /// A round's place for it.
    #[must_use]
    pub fn of(study: &LocalStudy, round: u32) -> Self {
        let folder = study.round(round);
        Self {
            update: folder.join("update.safetensors"),
            metrics: folder.join("metrics.json"),
            complete: folder.join("trained"),
        }
    }

    /// Whether the trainer has ended well.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.exists()
    }

    /// Notes that the trainer has ended well.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn complete(&self) -> Result<()> {
        write_file(&self.complete, b"")
    }

    /// Makes room for another training.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn clear(&self) -> Result<()> {
        for path in [&self.complete, &self.update, &self.metrics] {
            remove(path)?;
        }
        Ok(())
    }
}

/// An update that is sealed to an offer.
pub struct SealedUpdate {
    /// Its signed header.
    pub header: Signed<UpdateHeader>,
    /// The content digest of its plaintext. The site's own
    /// memory of what it sealed; nobody else learns it.
    pub content: Digest,
}

impl Site<'_> {
    fn offer_folder(&self, offer: &Signed<Offer>) -> PathBuf {
        let offers = self.joined.local.round(offer.statement().round).join("offers");
        offers.join(offer.digest().to_string())
    }

    fn spool(&self, offer: &Signed<Offer>) -> PathBuf {
        self.offer_folder(offer).join("update.sealed")
    }

    /// The update that is sealed to an offer, if there is one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sealed(&self, offer: &Signed<Offer>) -> Result<Option<SealedUpdate>> {
        let folder = self.offer_folder(offer);
        let header = read_file(&folder.join("header.cose"))?;
        let content = read_json(&folder.join("content.json"))?;
        let (Some(header), Some(content)) = (header, content) else { return Ok(None) };
        let header = Signed::<UpdateHeader>::open(&header, &self.keys.signing.verifying_key())?;
        let expected = header.statement().sealed_length()?;
        let whole = std::fs::metadata(self.spool(offer)).is_ok_and(|meta| meta.len() == expected);
        let fits = whole && header.statement().offer == offer.digest();
        Ok(fits.then_some(SealedUpdate { header, content }))
    }

    /// Forgets what is sealed to an offer, so that something else can be.
    fn forget(&self, offer: &Signed<Offer>) -> Result<()> {
        let folder = self.offer_folder(offer);
        // The header goes first: without it, nothing counts as sealed.
        remove(&folder.join("header.cose"))?;
        remove(&folder)
    }

    /// Writes an update's plaintext; its content digest.
    /// It is laid out as the offer's manifest says, whichever is in force now.
    fn write_plain(
        &self,
        offer: &Signed<Offer>,
        update: &Path,
        metrics: &Metrics,
        out: impl Write,
    ) -> Result<(Digest, Option<Scaled>)> {
        let mut out = Hashing::new(out);
        let manifest = self.terms(offer).statement();
        let kind = manifest.terms.kind(offer.statement().round);
        let update = Update { tensors: update.exists().then_some(update), metrics };
        let scaled = plaintext::write(manifest, kind, &self.keys.site, &update, &mut out)?;
        Ok((out.finish(), scaled))
    }

    /// Says what became of the numbers of an update, to this site only; of its
    /// metrics once a round.
    fn tell(
        &self,
        offer: &Signed<Offer>,
        metrics: &Metrics,
        scaled: Option<&Scaled>,
    ) -> Result<()> {
        let (round, manifest) = (offer.statement().round, self.terms(offer).statement());
        if let Some(scaled) = scaled {
            self.voice.event("quantised", scaled.event(round));
        }
        let told = self.joined.local.round(round).join("metrics-told");
        if told.exists() {
            return Ok(());
        }
        let declared = &manifest.agreement.metrics;
        let kept: Vec<_> = metrics.undeclared(declared).collect();
        if !kept.is_empty() {
            let next = "they stay at this site; a manifest that declares them as [[metric]] has \
                        them summed";
            let said = json!({ "round": round, "names": kept, "next": next });
            self.voice.event("metrics kept", said);
        }
        let absent: Vec<_> = metrics.absent(declared).collect();
        if !absent.is_empty() {
            let next = "the training command did not report them: this site is not counted in them";
            let said = json!({ "round": round, "names": absent, "next": next });
            self.voice.event("metrics absent", said);
        }
        write_file(&told, b"")
    }

    /// Seals an update to an offer, into a spool file.
    ///
    /// # Errors
    /// A refusal by `layout` or `finite`; [`Error::File`].
    pub fn seal(
        &self,
        offer: &Signed<Offer>,
        update: &Path,
        metrics: &Metrics,
    ) -> Result<SealedUpdate> {
        self.forget(offer)?;
        let statement = offer.statement();
        let info = Offer::seal_info(&offer.digest());
        let (encapsulation, key) = seal::encapsulate(&statement.update_key, &info)
            .map_err(sealfold_protocol::Error::from)?;
        let terms = &self.terms(offer).statement().terms;
        let length = terms.update_length(terms.kind(statement.round));
        let header = UpdateHeader {
            study: statement.study,
            round: statement.round,
            offer: offer.digest(),
            site: self.keys.site.clone(),
            plain_length: length,
            encapsulation,
        };
        let header = Signed::sign(header, &self.keys.signing)?;
        let folder = self.offer_folder(offer);
        make_folder(&folder)?;
        let spool = self.spool(offer);
        let wrong = |error| Error::file(&spool, error);
        let file = File::create(&spool).map_err(wrong)?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let context = header.digest();
        let mut writer =
            SealingWriter::new(&key, context.as_bytes(), length, out).map_err(wrong)?;
        let (content, scaled) = self.write_plain(offer, update, metrics, &mut writer)?;
        let out = writer.finish().map_err(wrong)?;
        let file = out.into_inner().map_err(|e| Error::file(&spool, e.error()))?;
        file.sync_all().map_err(wrong)?;
        write_json(&folder.join("content.json"), &content)?;
        write_file(&folder.join("header.cose"), header.envelope())?;
        self.tell(offer, metrics, scaled.as_ref())?;
        Ok(SealedUpdate { header, content })
    }

    /// Seals an update to an offer, unless this very one is sealed to it
    /// already. Another takes its place only as long as the enclave cannot
    /// have admitted the first.
    ///
    /// # Errors
    /// A refusal by `one-update`; as [`Site::seal`].
    pub fn seal_once(
        &self,
        binding: &Binding,
        status: &RoundStatus,
        offer: &Signed<Offer>,
        update: &Path,
        metrics: &Metrics,
    ) -> Result<SealedUpdate> {
        if let Some(kept) = self.sealed(offer)? {
            let (content, _) = self.write_plain(offer, update, metrics, std::io::sink())?;
            if content == kept.content {
                return Ok(kept);
            }
            let digest = kept.header.digest();
            let known = status.uploads.iter().find(|upload| upload.header == digest);
            let known = known.map(|upload| &upload.state);
            if binding.bound_to(offer.statement().round) == Some(offer.digest())
                || matches!(known, Some(UploadState::Stored | UploadState::Admitted(_)))
            {
                let (expected, found) = (kept.content, format!("another, content {content}"));
                let expected = format!("this site's update of the round, content {expected}");
                return Err(SiteRefusal::new("one-update", expected, found)
                    .next("an update that was uploaded stands: commit to it, or let the round pass")
                    .into());
            }
        }
        self.seal(offer, update, metrics)
    }

    /// Uploads the sealed update from where the host has stopped.
    ///
    /// # Errors
    /// As [`crate::client::Client::append`]; after a passing error it can be
    /// called again.
    pub fn upload(&self, offer: &Signed<Offer>, update: &SealedUpdate) -> Result<UploadStatus> {
        let (header, digest) = (&update.header, update.header.digest());
        let round = header.statement().round;
        let mut status = self.client.begin_upload(&self.id(), round, header.envelope())?;
        let spool = self.spool(offer);
        let mut file = File::open(&spool).map_err(|e| Error::file(&spool, e))?;
        let bar = self.voice.bar("upload", status.length);
        while status.state == UploadState::Receiving {
            bar.set_position(status.received);
            file.seek(SeekFrom::Start(status.received)).map_err(|e| Error::file(&spool, e))?;
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece);
            read.map_err(|e| Error::file(&spool, e))?;
            if piece.is_empty() {
                return Err(Error::file(&spool, "shorter than its header says"));
            }
            status = match self.client.append(&digest, status.received, &piece) {
                // The host has more or less than we thought: it says where.
                Err(Error::Host(refusal)) if refusal.check == Check::UploadOffset => {
                    self.client.upload(&digest)?
                }
                other => other?,
            };
        }
        bar.finish_and_clear();
        Ok(status)
    }

    /// What became of an update that is uploaded, once the enclave has read it.
    ///
    /// # Errors
    /// A refusal by `offer` if the enclave was restarted meanwhile, by `phase`
    /// if the round closed without the update; as
    /// [`crate::client::Client::upload`].
    pub fn outcome(
        &self,
        offer: &Signed<Offer>,
        update: &SealedUpdate,
        uploaded: UploadStatus,
    ) -> Result<UploadState> {
        let mut state = uploaded.state;
        while state == UploadState::Stored {
            std::thread::sleep(Duration::from_millis(200));
            let round = self.status()?;
            // Asked for after the round: what is not settled now never will be.
            state = self.client.upload(&update.header.digest())?.state;
            if state != UploadState::Stored {
                break;
            }
            let standing = round.offer.map(|offer| Offer::open(&offer.0)).transpose()?;
            let standing = standing.map(|offer| offer.digest());
            if standing != Some(offer.digest()) {
                let found = standing.map_or("none".to_owned(), |digest| digest.to_string());
                return Err(SiteRefusal::new("offer", offer.digest(), found)
                    .next("the enclave was restarted: submit again, to the offer that stands now")
                    .into());
            }
            if !matches!(round.phase, Phase::Open | Phase::Idle) {
                let found = format!("one that waits for {}", round.waiting_for);
                return Err(SiteRefusal::new("phase", "a round that admits updates", found)
                    .next("this update came too late: take part in the next round")
                    .into());
            }
        }
        Ok(state)
    }

    /// Takes a refusal of an update by the enclave: forgets what was sealed, so
    /// that a corrected update can go in, and says what the enclave found, if
    /// it told this site. What the site has committed to is not forgotten,
    /// whatever the host says.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn take_refusal(
        &self,
        binding: &Binding,
        offer: &Signed<Offer>,
        update: &SealedUpdate,
        refusal: &Refusal,
    ) -> Result<Error> {
        let info = Refusal::seal_info(&update.header.digest());
        let unseal = |sealed| seal::unseal(&self.keys.release_seed, &info, b"", sealed).ok();
        let finding = refusal.sealed.as_ref().and_then(unseal);
        if binding.bound_to(offer.statement().round) != Some(offer.digest()) {
            self.forget(offer)?;
        }
        Ok(Error::Update {
            refusal: refusal.clone(),
            finding: finding.map(|plain| String::from_utf8_lossy(&plain).trim_end().to_owned()),
        })
    }
}
