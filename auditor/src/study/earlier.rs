//! Abandonments: of offers of the round that runs, and of rounds that are over,
//! where an offer that was neither released nor abandoned may be abandoned yet, so
//! that a site that is bound to it is let go.

use super::Study;
use crate::finding::{Check, Finding};
use crate::privacy::Place;
use crate::round::Round;
use jiff::Timestamp;
use sealfold_protocol::Digest;
use sealfold_protocol::abandonment::Abandonment;
use std::collections::VecDeque;

/// The most that are remembered; a host that makes more of them is told of.
const MOST: usize = 4096;

/// An offer of a round that is over.
#[derive(Debug)]
struct Earlier {
    round: u32,
    offer: Digest,
    /// When its evidence was signed, if it was accepted.
    time: Option<Timestamp>,
}

/// The offers, oldest first.
#[derive(Debug, Default)]
pub(super) struct Offers(VecDeque<Earlier>);

impl Offers {
    /// Adds what a round leaves behind.
    pub fn add(&mut self, over: &Round) {
        for (offer, time) in over.left() {
            if self.0.len() >= MOST {
                self.0.pop_front();
            }
            self.0.push_back(Earlier { round: over.number, offer, time });
        }
    }

    /// Takes an offer that is abandoned now; none if it is no such offer.
    fn abandon(&mut self, abandonment: &Abandonment) -> Option<Earlier> {
        let is = |earlier: &Earlier| {
            (earlier.round, earlier.offer) == (abandonment.round, abandonment.offer)
        };
        let place = self.0.iter().position(is)?;
        self.0.remove(place)
    }
}

impl Study {
    /// Adds an abandonment.
    pub fn abandonment(
        &mut self,
        leaf: u64,
        bytes: &[u8],
        digest: &Digest,
        findings: &mut Vec<Finding>,
    ) {
        let terms = &self.chain.current().statement().terms;
        let opened = match Abandonment::open(bytes, &self.id(), terms) {
            Ok(opened) if opened.digest() == *digest => opened,
            Ok(other) => {
                findings.push(Finding::new(Check::Statement, digest, other.digest()));
                return;
            }
            Err(error) => {
                let expected = "signatures of the required approvers";
                findings.push(Finding::new(Check::Abandonment, expected, error));
                return;
            }
        };
        let statement = opened.statement();
        if let Some(Earlier { round, time, .. }) = self.earlier.abandon(statement) {
            self.account.abandon(Place { leaf, round, time }, findings);
            return;
        }
        let Some(round) = &mut self.round else { return };
        if round.abandon(statement, findings) {
            let offered = round.offers.get(&statement.offer);
            let time = offered.and_then(|offered| Some(offered.measured.as_ref()?.time));
            self.account.abandon(Place { leaf, round: round.number, time }, findings);
        }
    }
}
