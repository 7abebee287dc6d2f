//! The secret sample of a round.
//!
//! Where the manifest has a sampling rate, a site takes each of its patients
//! into a round with that probability, independently and in secret; the privacy
//! that the accounting grants for it holds only because nobody else, not even
//! the enclave, learns who was in. So the sample is drawn here and not by the
//! training command, from a seed that never leaves the site.

use crate::error::SiteRefusal;
use crate::home::{read_file, write_file};
use crate::round::Site;
use crate::{Error, Result, data};
use sealfold_aggregation::poisson::{Rate, sample};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Secret, Signed};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

impl Site<'_> {
    fn sampling_seed(&self, round: u32) -> PathBuf {
        self.joined.local.round(round).join("sampling.seed")
    }

    /// Draws the sample of an offer's round: the rows of the site's data, from 0, that
    /// the training may use, one on a line in a file. The same again when it is
    /// called again; none if the study takes all patients.
    ///
    /// # Errors
    /// A refusal by `data` without data to draw from; [`Error::File`].
    pub fn draw_sample(
        &self,
        offer: &Signed<Offer>,
        data: Option<&Path>,
    ) -> Result<Option<PathBuf>> {
        let (round, manifest) = (offer.statement().round, self.terms(offer).statement());
        let rate = manifest.agreement.claim.and_then(|claim| claim.sampling_rate);
        let Some(rate) = rate else { return Ok(None) };
        let data = data.ok_or_else(|| {
            SiteRefusal::new("data", "the site's data, to draw the round's sample from", "none")
                .next("give it: --data patients.csv")
        })?;
        let rows = data::check(data, &manifest.agreement.data)?.rows;
        let rows = u32::try_from(rows).map_err(|e| Error::file(data, e))?;
        let path = self.sampling_seed(round);
        let seed = if let Some(bytes) = read_file(&path)? {
            let bytes = Zeroizing::new(bytes);
            let whole = bytes.first_chunk();
            Secret::copy_of(whole.ok_or_else(|| Error::file(&path, "shorter than a seed"))?)
        } else {
            let seed = Secret::draw()?;
            write_file(&path, seed.as_bytes())?;
            seed
        };
        let rate = Rate::new(rate)
            .map_err(|e| SiteRefusal::new("sampling-rate", "a rate that can be drawn", e))?;
        let sample = sample(seed.as_bytes(), round.into(), rate, rows);
        let rows: Vec<_> = sample.iter().map(ToString::to_string).collect();
        let lines = rows.iter().fold(String::new(), |lines, row| lines + row + "\n");
        let path = self.joined.local.round(round).join("sample");
        write_file(&path, lines.as_bytes())?;
        Ok(Some(path))
    }

    /// Forgets a sample that an abandoned offer may have released: the next
    /// offer of the round gets an independent one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn forget_sample(&self, round: u32) -> Result<()> {
        let path = self.sampling_seed(round);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file(&path, error))
            }
            _ => Ok(()),
        }
    }
}
