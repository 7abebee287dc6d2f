//! Where the instance's round stands: the one value that all requests change.

use crate::round::{Open, Released, Rostered, Round};
use sealfold_protocol::api::Phase;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::{Digest, Signed, SigningKey};
use std::collections::BTreeSet;
use std::time::Instant;

/// What the instance remembers.
pub(super) struct State {
    pub stage: Stage,
    /// Every (study, round) that was offered: one offer each, ever.
    pub offered: BTreeSet<(Digest, u32)>,
    /// Whether a fold is under way.
    pub folding: bool,
}

/// The phase that the instance's round is in. There is one value of this type.
#[allow(clippy::large_enum_variant)]
pub(super) enum Stage {
    Idle,
    Open(Round<Open>),
    Rostered(Round<Rostered>),
    Released(Round<Released>),
    Closed(Signed<Offer>, Refusal),
}

impl State {
    /// Ends a round whose deadline has passed; its secrets are dropped.
    pub fn close_if_over(&mut self, now: Instant) {
        let over = match &self.stage {
            Stage::Open(round) => round.is_over(now).then(|| round.subject().offer.clone()),
            Stage::Rostered(round) => round.is_over(now).then(|| round.subject().offer.clone()),
            _ => None,
        };
        if let Some(offer) = over {
            let refusal = Refusal::new(
                Check::Deadline,
                "a round within its deadline",
                "a round that is over; its keys are erased",
            );
            self.stage = Stage::Closed(offer, refusal);
        }
    }

    /// Goes on with a smaller roster, or closes the round.
    pub fn drop_sites(
        &mut self,
        round: Round<Rostered>,
        sites: &BTreeSet<String>,
        key: &SigningKey,
        now: Instant,
    ) -> Result<Envelope, Refusal> {
        let offer = round.subject().offer.clone();
        match round.without(sites, key, now) {
            Ok(round) => {
                let roster = Envelope(round.roster().envelope().to_vec());
                self.stage = Stage::Rostered(round);
                Ok(roster)
            }
            Err(refusal) => {
                self.stage = Stage::Closed(offer, refusal.clone());
                Err(refusal)
            }
        }
    }
}

impl Stage {
    /// The phase, as replies name it.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Idle => Phase::Idle,
            Self::Open(_) => Phase::Open,
            Self::Rostered(_) => Phase::Rostered,
            Self::Released(_) => Phase::Released,
            Self::Closed(..) => Phase::Closed,
        }
    }

    /// The offer of the round that stands, or stood.
    pub fn offer(&self) -> Option<&Signed<Offer>> {
        match self {
            Self::Idle => None,
            Self::Open(round) => Some(&round.subject().offer),
            Self::Rostered(round) => Some(&round.subject().offer),
            Self::Released(round) => Some(&round.subject().offer),
            Self::Closed(offer, _) => Some(offer),
        }
    }

    /// Why what belongs to another phase cannot be done now.
    pub fn wrong_phase(&self, expected: Phase) -> Refusal {
        if let Self::Closed(_, refusal) = self {
            return refusal.clone();
        }
        Refusal::new(
            Check::Phase,
            format!("phase {expected:?}").to_lowercase(),
            format!("phase {:?}", self.phase()).to_lowercase(),
        )
    }
}
