//! What follows from a manifest's terms: whom noise hides, what the rounds cost,
//! and what the study gives up or leaves open.

use super::number;
use crate::claim::{Claim, PrivacySpent};
use crate::in_words::meaning;
use crate::manifest::Manifest;
use sealfold_protocol::terms::Privacy;
use sealfold_protocol::text::{counted, figure};
use serde::Serialize;

/// A privacy loss above this promises little to anybody.
const LARGE_EPSILON: f64 = 10.0;
/// A probability above this that the promise fails is one that people meet.
const LARGE_DELTA: f64 = 1e-3;

/// What follows from a manifest, for machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conclusions {
    /// Who is hidden by noise: `patient`, `site`, or nobody.
    pub hidden: Option<&'static str>,
    /// What all rounds cost together; none without noise.
    pub spent: Option<PrivacySpent>,
    /// What is weaker than a study can be, each in words.
    pub weaker: Vec<String>,
    /// All that [`super::notes`] says.
    pub notes: Vec<String>,
}

/// What follows from a manifest.
#[must_use]
pub fn conclusions(manifest: &Manifest) -> Conclusions {
    Conclusions {
        hidden: manifest.terms.privacy.noise().map(|_| manifest.terms.privacy.unit()),
        spent: manifest.spent(manifest.terms.last_round()).ok().flatten(),
        weaker: weaker(manifest),
        notes: super::notes(manifest),
    }
}

/// What is weaker than a study can be: guarantees that it gives up by name, and
/// settings that do little or nothing.
#[must_use]
pub fn weaker(manifest: &Manifest) -> Vec<String> {
    let terms = &manifest.terms;
    let given_up = terms
        .accepts
        .iter()
        .map(|weakness| format!("WEAKER ({weakness}): {}.", meaning(*weakness, terms)));
    let of_rule = rule(manifest).map(|words| format!("WEAKER: {words}."));
    let of_noise = manifest.agreement.claim.iter().flat_map(weaker_noise);
    given_up.chain(of_rule).chain(of_noise).collect()
}

/// What a rule lets a single site do.
fn rule(manifest: &Manifest) -> Option<String> {
    let aggregation = &manifest.terms.aggregation;
    let rule = aggregation.rule.name();
    if aggregation.trim == Some(0) {
        return Some(format!(
            "trim 0 leaves nothing out: {rule} is then a plain mean, which a single update moves as \
             far as it likes"
        ));
    }
    if aggregation.byzantine == Some(0) {
        return Some(format!("byzantine 0: {rule} is then not meant to withstand a hostile site"));
    }
    None
}

/// What noise promises next to nothing.
#[must_use]
pub fn weaker_noise(noise: &Claim) -> Vec<String> {
    let mut weaker = Vec::new();
    if noise.epsilon > LARGE_EPSILON {
        weaker.push(format!(
            "WEAKER: epsilon {} promises next to nothing ({}); up to {LARGE_EPSILON} is usual.",
            number(noise.epsilon),
            times(noise.epsilon)
        ));
    }
    if noise.delta > LARGE_DELTA {
        weaker.push(format!(
            "WEAKER: delta {} is the probability with which the promise may not hold at all; usual is far \
             less than one in the number of patients, {LARGE_DELTA} at most.",
            number(noise.delta)
        ));
    }
    weaker
}

/// How much likelier an outcome may be.
fn times(epsilon: f64) -> String {
    let factor = epsilon.exp();
    if factor < 1e6 {
        format!("at most {} times as likely", figure(factor, 3))
    } else {
        "possibly more than a million times as likely".to_owned()
    }
}

/// Whom noise hides, and how well.
pub(super) fn hidden(manifest: &Manifest) -> Option<String> {
    let mechanism = manifest.mechanism()?;
    let (noise, claim) = (mechanism.noise, mechanism.claim);
    let who = match &manifest.terms.privacy {
        Privacy::None {} => return None,
        Privacy::Patient(_) => "one patient",
        Privacy::Site(_) => "one whole site",
    };
    let rounds = manifest.terms.last_round();
    let spent = match mechanism.spent(rounds) {
        Ok(spent) => figure(spent, 3),
        Err(error) => error.to_string(),
    };
    let releases = match rounds {
        1 => "the one release".to_owned(),
        rounds => format!("all {rounds} releases"),
    };
    let sampled = claim.sampling_rate.map_or(String::new(), |rate| {
        format!(" Each patient takes part in a round with probability {rate}, in secret.")
    });
    let adaptive = noise.adaptive_clip.map_or(String::new(), |adaptive| {
        format!(
            " The clip follows the {} quantile of the sites' norms, by counts with noise {}.",
            adaptive.quantile, adaptive.count_noise
        )
    });
    let spread = match manifest.terms.privacy {
        Privacy::Patient(_) => {
            " Sums over a whole hospital are not hidden: only what one patient adds to them is."
        }
        _ => "",
    };
    Some(format!(
        "Noise hides {who}: whatever is computed from {releases} is {} with {who} in the study as \
         without, but for a probability of {} (epsilon {}, delta {}; {} cost{} epsilon {spent}). \
         Contributions longer than {} are scaled down and rounded to steps of {}; the noise has {} \
         times that length in every direction.{sampled}{adaptive}{spread}",
        times(claim.epsilon),
        number(claim.delta),
        number(claim.epsilon),
        number(claim.delta),
        counted(rounds.into(), "round"),
        if rounds == 1 { "s" } else { "" },
        number(noise.clip),
        number(noise.step),
        number(noise.noise_multiplier),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::manifest;
    use sealfold_protocol::manifest::Manifested;
    use sealfold_protocol::terms::{Noise, Rule, UpdateType, Weakness};

    fn private(epsilon: f64, delta: f64, rounds: u32) -> Manifest {
        let (clip, step, noise_multiplier) = (1.0, 1.0 / 4096.0, 8.0);
        let noise = Noise { clip, step, noise_multiplier, adaptive_clip: None };
        let claim = Claim { epsilon, delta, sampling_rate: None };
        let manifest = crate::tests::private(noise, claim, rounds);
        manifest.check().unwrap();
        manifest
    }

    #[test]
    fn what_promises_next_to_nothing_is_said_before_anybody_signs() {
        assert_eq!(weaker(&private(3.0, 1e-5, 1)), Vec::<String>::new());
        let text = weaker(&private(1000.0, 0.5, 1)).join(" ");
        assert!(text.contains("WEAKER: epsilon 1000 promises next to nothing"), "{text}");
        assert!(text.contains("WEAKER: delta 0.5 is the probability"), "{text}");
        let notes = super::super::notes(&private(1000.0, 0.5, 1)).join(" ");
        assert!(notes.contains(&text) && !notes.contains("inf"), "{notes}");
    }

    #[test]
    fn rules_that_a_single_update_decides_are_named() {
        assert_eq!(weaker(&manifest()), Vec::<String>::new());
        let with = |rule: Rule, number: usize| {
            let mut manifest = manifest();
            manifest.terms.accepts = vec![Weakness::SelectiveRule];
            let aggregation = &mut manifest.terms.aggregation;
            (aggregation.rule, aggregation.update_type) = (rule, UpdateType::Float32);
            match rule {
                Rule::TrimmedMean => aggregation.trim = Some(number),
                _ => aggregation.byzantine = Some(number),
            }
            weaker(&manifest).join(" ")
        };
        assert!(with(Rule::TrimmedMean, 0).contains("a plain mean"));
        assert!(!with(Rule::TrimmedMean, 1).contains("a plain mean"));
        let krum = with(Rule::Krum, 0);
        assert!(krum.contains("(selective-rule)") && krum.contains("byzantine 0"), "{krum}");
        assert!(krum.contains("one hospital's update as it was sent"), "{krum}");
    }

    #[test]
    fn machines_are_told_who_is_hidden_and_at_what_cost() {
        let manifest = private(3.0, 1e-5, 2);
        let found = conclusions(&manifest);
        let spent = found.spent.unwrap();
        assert_eq!((found.hidden, spent.delta), (Some("patient"), 1e-5));
        assert!(spent.epsilon > 0.5 && spent.epsilon < 3.0, "{spent:?}");
        let said = found.notes.join(" ");
        assert!(
            said.contains("steps of 0.000244140625;") && said.contains("2 rounds cost epsilon")
        );
        let one = conclusions(&private(3.0, 1e-5, 1)).notes.join(" ");
        assert!(one.contains("the one release") && one.contains("1 round costs epsilon"), "{one}");
        let open = conclusions(&crate::tests::manifest());
        assert_eq!((open.hidden, open.spent), (None, None));
    }
}
