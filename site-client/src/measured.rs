//! Whether the image behind verified evidence is one that a manifest lists.
//!
//! The policy says what a site accepts; the manifest says what the study is run
//! by. An image has to be in both.

use crate::Result;
use crate::error::SiteRefusal;
use sealfold_attestation::{Claims, Policy};
use sealfold_study::Measurements;

/// Demands that the measurements of one listed image of the platform, all of
/// them, are the claims'.
///
/// # Errors
/// A refusal by `measurements`.
pub fn expect_listed(listed: &Measurements, claims: &Claims) -> Result<()> {
    if claims.is_one_of(&listed.images(claims.platform())) {
        return Ok(());
    }
    let found = claims.image();
    Err(SiteRefusal::new("measurements", "an image that the manifest lists", found)
        .next("the image needs an amendment that the approvers and this site sign")
        .into())
}

/// Demands that the policy accepts at least one of the listed images, without
/// which no evidence of the study ever will be.
///
/// # Errors
/// A refusal by `measurements`.
pub fn expect_one_accepted(listed: &Measurements, policy: &Policy) -> Result<()> {
    let images = Measurements::PLATFORMS.map(|platform| (platform, listed.images(platform)));
    let accepted = |(platform, images): &(&str, Vec<_>)| {
        images.iter().any(|image: &Vec<_>| policy.lists(platform, image))
    };
    if images.iter().any(accepted) {
        return Ok(());
    }
    let counted: Vec<_> = images
        .iter()
        .filter(|(_, images)| !images.is_empty())
        .map(|(platform, images)| format!("{} of {platform}", images.len()))
        .collect();
    let found = format!("other images: {}", counted.join(", "));
    Err(SiteRefusal::new("measurements", "an image that your policy accepts", found)
        .next(
            "measure the image that the study is meant to run by (`sealfold measure`), and list \
             it in your policy, or ask for another manifest",
        )
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_attestation::confidential_space;
    use sealfold_attestation::simulation::token::TokenAuthority;
    use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
    use sealfold_attestation::{Evidence, binding, verify_replay};
    use sealfold_protocol::{Digest, Pcr};
    use sealfold_study::{ConfidentialSpaceMeasurement, NitroMeasurement};
    use serde_json::json;
    use std::collections::BTreeMap;

    const OFFER: [u8; 32] = [7; 32];

    fn claims(evidence: &Evidence, fingerprint: [u8; 32], pem: &str, accepted: &str) -> Claims {
        let start = Policy::example().find("[nitro]").unwrap();
        let policy = format!(
            "{}[simulation]\nroot = \"{}\"\ncertificate = \"\"\"\n{pem}\"\"\"\n{accepted}",
            &Policy::example()[..start],
            hex::encode(fingerprint)
        );
        let policy = Policy::from_toml(&policy).unwrap();
        verify_replay(evidence, &policy, &OFFER).into_claims().unwrap()
    }

    fn of_nitro() -> Claims {
        let root = SimulationRoot::generate().unwrap();
        let fields = DocumentFields {
            pcrs: BTreeMap::from([0, 1, 2].map(|index| (index, vec![index + 1; 48]))),
            user_data: Some(binding(&OFFER).to_vec()),
            ..DocumentFields::now()
        };
        let evidence = Evidence::from_nitro(&root.issue(&fields).unwrap());
        let pcr =
            |index: usize| format!("pcr{index} = \"{}\"\n", format!("0{}", index + 1).repeat(48));
        let accepted = format!("[[simulation.measurements]]\n{}{}{}", pcr(0), pcr(1), pcr(2));
        claims(&evidence, root.fingerprint(), root.certificate_pem(), &accepted)
    }

    fn of_confidential_space() -> Claims {
        macro_rules! key {
            ($name:literal) => {
                include_str!(concat!(
                    "../../attestation/tests/vectors/confidential-space/test-authority/",
                    $name
                ))
            };
        }
        let authority = TokenAuthority::from_keys(
            key!("root.pem"),
            key!("intermediate.pem"),
            key!("signer.pem"),
        )
        .unwrap();
        let nonces = [hex::encode(binding(&OFFER)), "00".repeat(32)];
        let token = json!({
            "iss": confidential_space::ISSUER, "aud": "us", "iat": 1_757_060_250,
            "nbf": 1_757_060_250, "exp": 1_757_063_850, "eat_nonce": nonces, "secboot": true,
            "hwmodel": "GCP_AMD_SEV", "swname": "CONFIDENTIAL_SPACE",
            "dbgstat": "disabled-since-boot",
            "submods": {
                "confidential_space": {
                    "support_attributes": ["USABLE"], "monitoring_enabled": { "memory": false },
                },
                "container": {
                    "image_digest": format!("sha256:{}", "09".repeat(32)), "args": ["/a"], "env": {},
                },
            },
        });
        let token = authority.pki(&token).unwrap();
        let evidence = Evidence::from_confidential_space(token.as_bytes());
        let accepted = format!(
            "[simulation.confidential-space]\naudience = \"us\"\nsupport = \"USABLE\"\n\
             hardware_models = [\"GCP_AMD_SEV\"]\n[[simulation.confidential-space.measurements]]\n\
             image_digest = \"{}\"\nargs = [\"/a\"]\nenv = {{}}\noperator_env = []\n",
            "09".repeat(32)
        );
        claims(&evidence, authority.fingerprint(), authority.certificate_pem(), &accepted)
    }

    #[test]
    fn an_image_is_looked_for_in_the_list_of_its_own_platform() {
        let nitro = |pcr2: u8| NitroMeasurement {
            pcr0: Pcr::new([1; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([pcr2; 48]),
        };
        let space = |byte| ConfidentialSpaceMeasurement { image_digest: Digest::new([byte; 32]) };
        let refused = |listed: &Measurements, claims: &Claims| {
            expect_listed(listed, claims).err().map(|error| error.to_string())
        };
        let both = Measurements { nitro: vec![nitro(3)], confidential_space: vec![space(9)] };
        let others =
            Measurements { nitro: vec![nitro(4)], confidential_space: vec![space(1), space(2)] };
        let one = Measurements { nitro: vec![nitro(4), nitro(3)], ..Measurements::default() };
        let other = Measurements { confidential_space: vec![space(9)], ..Measurements::default() };
        for (claims, own, foreign, found) in [
            (of_nitro(), &one, &other, format!("pcr0 {}", "01".repeat(48))),
            (of_confidential_space(), &other, &one, format!("image-digest {}", "09".repeat(32))),
        ] {
            assert_eq!(refused(&both, &claims), None);
            assert_eq!(refused(own, &claims), None);
            for listed in [&others, foreign] {
                let refused = refused(listed, &claims).unwrap();
                assert!(refused.contains("measurements") && refused.contains(&found), "{refused}");
            }
        }
    }
}
