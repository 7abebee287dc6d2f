//! What the site does next in the round that runs now.

use super::{Explained, Standing, Teller};
use sealfold_protocol::api::RoundStatus;
use sealfold_protocol::text::shown;

/// What a site does with a release.
const FETCH: &str = "sealfold fetch, or sealfold run does it";

impl Teller<'_> {
    /// What a site does next that has not committed.
    fn unbound(&self, told: &Explained, waits: &str) -> String {
        let on_roster = told.roster.as_ref().map(|roster| roster.contains(&self.keys.site));
        match (told.receipt.as_deref(), on_roster) {
            _ if told.released => FETCH.to_owned(),
            _ if told.offer.is_none() => format!("wait for {waits}"),
            (_, Some(true)) => {
                "commit to the roster (sealfold commit, or sealfold run does it)".to_owned()
            }
            (_, Some(false)) => format!(
                "the roster closed without this site; wait for {waits}, then fetch the release"
            ),
            (None, None) => {
                "submit an update (sealfold submit, or sealfold run does it)".to_owned()
            }
            (Some("refused"), None) => {
                "correct the update and submit it again; sealfold submit says what was found"
                    .to_owned()
            }
            (Some(_), None) => format!("wait for {waits}"),
        }
    }

    /// The round that runs now.
    pub(super) fn standing(
        &mut self,
        told: &Explained,
        status: Option<&RoundStatus>,
    ) -> (Standing, String) {
        let waits = status.map_or("the host".to_owned(), |status| shown(&status.waiting_for));
        let rounds = self.joined.manifest().terms.last_round();
        if self.round > rounds {
            return (Standing::Ahead, format!("nothing: the study has {rounds} rounds"));
        }
        let Some(bound) = told.bound_to else {
            return (Standing::Unbound, self.unbound(told, &waits));
        };
        if told.abandoned.contains(&bound) {
            let next = format!("take part under the next offer; wait for {waits}");
            return (Standing::Abandoned, next);
        }
        let next = if told.release.is_some() {
            FETCH.to_owned()
        } else if told.offer == Some(bound) {
            format!("wait for {waits}")
        } else {
            self.say(format!(
                "The host shows another offer than {bound}, to which this site is bound. Under two \
                 offers of a round two aggregates could be released that differ by a few sites, so \
                 this site commits to no other."
            ));
            format!(
                "wait for the release under offer {bound}; if its enclave is gone for good, the \
                 approvers give it up: sealfold study abandon --round {} --offer {bound} --reason \
                 \"...\"",
                self.round
            )
        };
        (Standing::Bound, next)
    }
}
