//! The manifest of the private study: the plain one's data, quorum and
//! deadlines, and its own model, rule, privacy and evaluation.

use super::plan::{BINS, CLIP, DELTA, DIVISOR, LEARNING_RATE, MOMENTUM, Plan, STEP};
use anyhow::Context;

/// What the private study has in place of the plain one's sections.
const SECTIONS: &str = include_str!("../../study.private.toml");
/// Where those sections begin and what follows them.
const FROM: &str = "[model]\n";
const UNTIL: &str = "# No aggregate of fewer";

/// The template of the private study, made from the plain one.
///
/// # Errors
/// If the plain one has no such sections.
pub fn template(plain: &str, plan: &Plan) -> anyhow::Result<String> {
    let (before, rest) = plain.split_once(FROM).context("the template has no [model]")?;
    let place = rest.find(UNTIL).context("the template has no [quorum] with its comment")?;
    // A name that begins with another comes first.
    let sections = SECTIONS
        .replace("NOISE_MULTIPLIER", &plan.noise_multiplier.to_string())
        .replace("LEARNING_RATE", &LEARNING_RATE.to_string())
        .replace("MOMENTUM", &MOMENTUM.to_string())
        .replace("DIVISOR", &DIVISOR.to_string())
        .replace("CLIP", &CLIP.to_string())
        .replace("STEP", &STEP.to_string())
        .replace("EPSILON", &plan.claimed.to_string())
        .replace("DELTA", &DELTA.to_string())
        .replace("BINS", &BINS.to_string());
    Ok(format!("{before}{sections}{}", &rest[place..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_what_the_plan_says_and_leaves_what_the_demo_fills_in() {
        let plan = Plan::new(7, 2.5).unwrap();
        let plain = include_str!("../../study.template.toml");
        let text = template(plain, &plan).unwrap();
        for field in ["INITIAL", "= ROUNDS", "APPROVERS", "\nLOG\n", "\nMEASUREMENTS", "\nSITES"] {
            assert_eq!(text.matches(field).count(), 1, "{field}");
        }
        assert!(text.contains(&format!("noise_multiplier = {}\n", plan.noise_multiplier)));
        assert!(text.contains("\nepsilon = 2.5\n"));
        let (_, sections) = text.split_once(FROM).unwrap();
        let (sections, _) = sections.split_once(UNTIL).unwrap();
        let left = sections.replace("INITIAL", "");
        let word = left.split(|c: char| !c.is_ascii_uppercase()).find(|word| word.len() > 2);
        assert_eq!(word, None);
        assert!(!text.contains("unit = \"none\"\n\n# No aggregate"));
        assert!(template("nothing", &plan).is_err());
    }
}
