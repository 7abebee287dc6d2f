//! The images that a policy accepts, whichever evidence they come with.

use super::Policy;

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
}
