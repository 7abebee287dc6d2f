//! A site as the protocol describes it, in the hands of a test that may let it
//! misbehave.

use crate::study::Study;
use sealfold_aggregation::format::Codec;
use sealfold_aggregation::quantise::{quantise, read_integers, read_sums};
use sealfold_protocol::bytes::Random;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::{self, Disclosure, Opening, Release};
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::seal::{self, InputKey, OpeningReader, SealingWriter};
use sealfold_protocol::terms::{RoundKind, Terms};
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, Signed, SigningKey, content};
use std::io::{Read, Write};

/// A site with its keys.
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its signing key.
    pub key: SigningKey,
    /// The seed of its release key.
    pub release_seed: [u8; 32],
}

/// An update, sealed.
pub struct Sealed {
    /// The signed header.
    pub header: Signed<UpdateHeader>,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
    /// The key that they are sealed with: the site keeps it.
    pub key: InputKey,
}

impl Site {
    /// Site number i of a test's study.
    #[must_use]
    pub fn numbered(i: usize) -> Self {
        let byte = u8::try_from(i + 1).unwrap();
        Self {
            name: format!("site-{i:03}"),
            key: SigningKey::from_seed(&[byte; 32]).unwrap(),
            release_seed: [255 - byte; 32],
        }
    }

    /// The signing key, as lists of keys have it.
    #[must_use]
    pub fn quoted_key(&self) -> String {
        format!("\"{}\"", self.key.verifying_key())
    }

    /// The site's entry in a manifest.
    #[must_use]
    pub fn listing(&self) -> String {
        let release = seal::public_of(&self.release_seed).unwrap();
        format!(
            "[[site]]\nname = \"{}\"\nsigning_key = \"{}\"\nrelease_key = \"{release}\"\n",
            self.name,
            self.key.verifying_key(),
        )
    }

    /// The header of an update of so many plain bytes, and the bulk's key.
    #[must_use]
    pub fn header(
        &self,
        offer: &Signed<Offer>,
        plain_length: u64,
    ) -> (Signed<UpdateHeader>, InputKey) {
        let info = Offer::seal_info(&offer.digest());
        let (encapsulation, key) = seal::encapsulate(&offer.statement().update_key, &info).unwrap();
        let header = UpdateHeader {
            study: offer.statement().study,
            round: offer.statement().round,
            offer: offer.digest(),
            site: self.name.clone(),
            plain_length,
            encapsulation,
        };
        (Signed::sign(header, &self.key).unwrap(), key)
    }

    /// Seals values of the model as an honest site does that need not scale them;
    /// its channels are zeros.
    #[must_use]
    pub fn seal(&self, offer: &Signed<Offer>, terms: &Terms, values: &[f32]) -> Sealed {
        self.seal_plain(offer, &plain(terms, offer.statement().round, values))
    }

    /// Seals any plaintext.
    #[must_use]
    pub fn seal_plain(&self, offer: &Signed<Offer>, plain: &[u8]) -> Sealed {
        let (header, key) = self.header(offer, plain.len() as u64);
        let bytes = seal_bytes(&key, &header.digest(), plain);
        Sealed { header, bytes, key }
    }

    /// The site's commit to a roster, to an enclave whose host is a test and has
    /// no log but [`pretended`].
    #[must_use]
    pub fn commit(&self, roster: &Signed<Roster>, header: Digest) -> Signed<Commit> {
        self.commit_at(roster, header, pretended(&roster.digest()))
    }

    /// The site's commit to a roster that ends a checkpoint.
    #[must_use]
    pub fn commit_at(
        &self,
        roster: &Signed<Roster>,
        header: Digest,
        checkpoint: Digest,
    ) -> Signed<Commit> {
        Signed::sign(Commit::to(roster, &self.name, header, checkpoint), &self.key).unwrap()
    }

    /// Opens a released aggregate as this site, checking every link: its bytes.
    #[must_use]
    pub fn open(&self, release: &Signed<Release>, sealed: &[u8]) -> Vec<u8> {
        let statement = release.statement();
        let opening = self.opening(release);
        let context = release::seal_context(&statement.offer, &statement.roster);
        let key = InputKey::new(*opening.key.as_bytes());
        let mut plain = Vec::new();
        OpeningReader::new(&key, &context, statement.plain_length, sealed)
            .unwrap()
            .read_to_end(&mut plain)
            .unwrap();
        let commitment = release::commitment(&opening.blinding, &content::digest(&plain));
        assert_eq!(commitment, statement.aggregate);
        plain
    }

    /// What opens a released aggregate.
    #[must_use]
    pub fn opening(&self, release: &Signed<Release>) -> Opening {
        match &release.statement().disclosure {
            Disclosure::Everyone(opening) => opening.clone(),
            Disclosure::Sites(openings) => {
                let mine = openings.iter().find(|o| o.site == self.name).unwrap();
                let info = Opening::seal_info(&release.statement().offer, &self.name);
                let plain = seal::unseal(&self.release_seed, &info, b"", &mine.sealed).unwrap();
                Opening::decode(&plain).unwrap()
            }
        }
    }
}

/// The plaintext of an update of a round: values of the model as they travel, and
/// zeros for the channels.
#[must_use]
pub fn plain(terms: &Terms, round: u32, values: &[f32]) -> Vec<u8> {
    let mut plain = encoded(terms, values);
    plain.resize(usize::try_from(terms.update_length(terms.kind(round))).unwrap(), 0);
    plain
}

/// Values of the model as they travel: whole numbers of steps, or floating-point
/// numbers.
#[must_use]
pub fn encoded(terms: &Terms, values: &[f32]) -> Vec<u8> {
    let format = terms.aggregation.update_type.format();
    let mut bytes = vec![0; values.len() * format.width()];
    if !format.is_integer() {
        Codec::new(format).unwrap().encode(0, values, &mut bytes).unwrap();
        return bytes;
    }
    let (mut values, mut out) = (values, bytes.as_mut_slice());
    for tensor in &terms.model.tensors {
        let elements = usize::try_from(tensor.elements().unwrap()).unwrap().min(values.len());
        let (these, rest) = values.split_at(elements);
        let (here, behind) = std::mem::take(&mut out).split_at_mut(elements * format.width());
        quantise(format, 1.0 / terms.step(tensor).unwrap(), these, here).unwrap();
        (values, out) = (rest, behind);
    }
    bytes
}

/// The model's values of a training round's aggregate, divided as sites divide
/// them.
#[must_use]
pub fn mean<'a>(
    terms: &Terms,
    roster: impl IntoIterator<Item = &'a str>,
    aggregate: &[u8],
) -> Vec<f32> {
    let words = terms.words(RoundKind::Training);
    let count = usize::try_from(terms.model.parameters()).unwrap();
    let bytes = &aggregate[..count * words.width()];
    if !terms.aggregation.rule.is_exact() {
        return floats(bytes);
    }
    let divisor = terms.divisor(roster);
    let mut out = vec![0.0; count];
    let mut done = 0;
    for tensor in &terms.model.tensors {
        let elements = usize::try_from(tensor.elements().unwrap()).unwrap();
        let bytes = &bytes[done * words.width()..(done + elements) * words.width()];
        let scale = terms.step(tensor).unwrap() / divisor;
        read_sums(words, bytes, scale, &mut out[done..done + elements]).unwrap();
        done += elements;
    }
    out
}

/// The sums of the channels in an aggregate of such a round, in steps.
#[must_use]
pub fn channels(terms: &Terms, kind: RoundKind, aggregate: &[u8]) -> Vec<i64> {
    let words = terms.words(kind);
    let first = usize::try_from(terms.model_values(kind)).unwrap() * words.width();
    let mut out = vec![0; (aggregate.len() - first) / words.width()];
    read_integers(words, &aggregate[first..], &mut out).unwrap();
    out
}

/// The mean that a study's sites, all of them or the first few, read from a
/// release.
#[must_use]
pub fn released(study: &Study, sites: usize, release: &Signed<Release>, sealed: &[u8]) -> Vec<f32> {
    let plain = study.sites[0].open(release, sealed);
    let roster = study.sites[..sites].iter().map(|site| site.name.as_str());
    mean(study.terms(), roster, &plain)
}

/// Seals bytes under a header's digest.
#[must_use]
pub fn seal_bytes(key: &InputKey, header: &Digest, plain: &[u8]) -> Vec<u8> {
    let mut writer =
        SealingWriter::new(key, header.as_bytes(), plain.len() as u64, Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// Little-endian float32 values.
#[must_use]
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// A fresh nonce.
#[must_use]
pub fn nonce() -> Random {
    Random::draw().unwrap()
}

/// The checkpoint that a host without a log tells the enclave for a roster.
#[must_use]
pub fn pretended(roster: &Digest) -> Digest {
    Digest::of(&[b"a checkpoint of", roster.as_bytes()])
}
