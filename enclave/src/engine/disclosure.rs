//! The release: the one step in which something of the sites' updates leaves the
//! enclave.

use crate::fold::Folded;
use crate::round::Subject;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::release::{Disclosure, Opening, Release, SiteOpening};
use sealfold_protocol::roster::Roster;
use sealfold_protocol::terms::Readers;
use sealfold_protocol::{Signed, SigningKey, seal};

/// Discloses the key of a folded aggregate, to everyone or to the manifest's
/// sites. Called once in a round's life, after its fold has matched.
///
/// # Errors
/// If a key of the manifest cannot be sealed to, which a checked one can.
pub(super) fn disclose(
    subject: &Subject,
    roster: &Signed<Roster>,
    folded: &Folded,
    key: &SigningKey,
) -> Result<Signed<Release>, Refusal> {
    let offer = subject.offer.statement();
    let digest = subject.offer.digest();
    let disclosure = match subject.terms.readers {
        Readers::Everyone => Disclosure::Everyone(folded.opening.clone()),
        Readers::Sites => {
            let opening = folded.opening.encode()?;
            let mut sites = Vec::new();
            for site in &subject.terms.sites {
                let info = Opening::seal_info(&digest, &site.name);
                let sealed = seal::seal_to(&site.release_key, &info, b"", &opening)
                    .map_err(sealfold_protocol::Error::from)?;
                sites.push(SiteOpening { site: site.name.clone(), sealed });
            }
            Disclosure::Sites(sites)
        }
    };
    let release = Release {
        study: offer.study,
        manifest: offer.manifest,
        round: offer.round,
        offer: digest,
        roster: roster.digest(),
        base: offer.base,
        previous: offer.previous,
        aggregate: folded.commitment,
        object: folded.object,
        plain_length: folded.plain_length,
        below_clip: folded.below_clip,
        disclosure,
    };
    Ok(Signed::sign(release, key)?)
}
