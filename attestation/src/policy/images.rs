//! The roots and images that a policy accepts, whichever evidence they come with.

use super::{Measurement, Policy};
use crate::chain::Trusted;
use crate::confidential_space::Accepted;
use crate::nitro::AWS_ROOT_G1;

impl Policy {
    /// Whether evidence of an image could be accepted at all. The image is given
    /// by its platform's name and, as a manifest lists it, by the names of the
    /// checks that compare its measurements, with what they must find.
    ///
    /// No evidence is looked at: what else the policy demands of it, such as a
    /// signed image or a command line, is not asked here.
    #[must_use]
    pub fn lists(&self, platform: &str, image: &[(&str, &[u8])]) -> bool {
        if image.is_empty() {
            return false;
        }
        let holds = |known: &[(&str, &[u8])]| image.iter().all(|part| known.contains(part));
        match platform {
            "nitro" => self.nitro().iter().flat_map(|trusted| trusted.accepted).any(|image| {
                holds(&[("pcr0", &image.pcr0.0), ("pcr1", &image.pcr1.0), ("pcr2", &image.pcr2.0)])
            }),
            "confidential-space" => self
                .confidential_space()
                .iter()
                .flat_map(|accepted| &accepted.section.measurements)
                .any(|image| holds(&[("image-digest", &image.image_digest.0)])),
            _ => false,
        }
    }

    /// The roots of Nitro documents, and the images under each.
    pub(crate) fn nitro(&self) -> Vec<Trusted<'_, &[Measurement]>> {
        let nitro = self.nitro.iter().map(|nitro| Trusted {
            root: AWS_ROOT_G1,
            accepted: nitro.measurements.as_slice(),
            simulated: false,
        });
        let simulation = self.simulation.iter().map(|simulation| Trusted {
            root: &simulation.der,
            accepted: simulation.measurements.as_slice(),
            simulated: true,
        });
        nitro.chain(simulation).filter(|trusted| !trusted.accepted.is_empty()).collect()
    }

    /// The sections on Confidential Space.
    pub(crate) fn confidential_space(&self) -> Vec<Accepted<'_>> {
        let genuine = self.confidential_space.iter().map(|section| section.accepted(None));
        let simulation = self.simulation.iter().filter_map(|simulation| {
            let section = simulation.confidential_space.as_ref()?;
            Some(section.accepted(Some(&simulation.der)))
        });
        genuine.chain(simulation).collect()
    }
}
