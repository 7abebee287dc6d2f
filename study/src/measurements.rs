//! The enclave images that may run a study, by platform.
//!
//! A study may list images of several platforms, and move from one to another
//! between rounds. A list that is empty is not written, so a manifest of one
//! platform is the same bytes whatever other platforms there are.

use sealfold_protocol::terms::expect;
use sealfold_protocol::{Digest, Pcr, Result};
use serde::{Deserialize, Serialize};

/// The enclave images that may run the study.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// Accepted images of AWS Nitro enclaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nitro: Vec<NitroMeasurement>,
    /// Accepted images in a Google Confidential Space.
    #[serde(default, rename = "confidential-space", skip_serializing_if = "Vec::is_empty")]
    pub confidential_space: Vec<ConfidentialSpaceMeasurement>,
}

/// The measurements of one Nitro image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NitroMeasurement {
    /// The image file.
    pub pcr0: Pcr,
    /// Kernel and boot ramdisk.
    pub pcr1: Pcr,
    /// The application.
    pub pcr2: Pcr,
}

/// The measurement of one container image. Its labels, which the digest covers,
/// say what an operator may change; each site's policy says it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfidentialSpaceMeasurement {
    /// SHA-256 of the image's manifest, what stands behind `sha256:`.
    pub image_digest: Digest,
}

/// The measurements of one image, by the names of the checks that compare them.
pub type Image<'a> = Vec<(&'static str, &'a [u8])>;

impl Measurements {
    /// The platforms that a study may name.
    pub const PLATFORMS: [&str; 2] = ["nitro", "confidential-space"];

    /// The images that the study lists for a platform; none for one that it
    /// does not name.
    #[must_use]
    pub fn images(&self, platform: &str) -> Vec<Image<'_>> {
        match platform {
            "nitro" => self
                .nitro
                .iter()
                .map(|image| {
                    let registers = [&image.pcr0, &image.pcr1, &image.pcr2];
                    let bytes = registers.map(|register| register.as_bytes().as_slice());
                    ["pcr0", "pcr1", "pcr2"].into_iter().zip(bytes).collect()
                })
                .collect(),
            "confidential-space" => self
                .confidential_space
                .iter()
                .map(|image| vec![("image-digest", image.image_digest.as_bytes().as_slice())])
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Checks that there is an image, and none that a debug enclave could have.
    ///
    /// # Errors
    /// [`sealfold_protocol::Error::Manifest`] with the list's name.
    pub(crate) fn check(&self) -> Result<()> {
        expect(
            "measurements",
            !self.nitro.is_empty() || !self.confidential_space.is_empty(),
            "at least one image, in nitro or confidential-space",
            "none",
        )?;
        let debug = Pcr::new([0; 48]);
        let zero = |m: &NitroMeasurement| [m.pcr0, m.pcr1, m.pcr2].contains(&debug);
        expect(
            "measurements.nitro",
            !self.nitro.iter().any(zero),
            "measurements of a production image",
            "zeros, which a debug enclave reports",
        )?;
        let zero = Digest::new([0; 32]);
        expect(
            "measurements.confidential-space",
            !self.confidential_space.iter().any(|image| image.image_digest == zero),
            "the digest of an image",
            "zeros",
        )
    }
}
