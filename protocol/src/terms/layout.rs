//! What lies where in an update and in an aggregate.
//!
//! Both are values, one *place* after the other: in a training round the
//! model's tensors in the manifest's order, in every round the channels. Place
//! i of every site's update leads to place i of the aggregate, however many
//! bytes wide the values are.

use super::{Channel, Terms};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundKind {
    /// The model is trained, and the release before is measured.
    Training,
    /// Only the channels are summed: the last model is measured.
    Evaluation,
}

/// What the values at some places of a site's update are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Section {
    /// Values of the model; on a grid, with this step.
    Model(Option<f64>),
    /// Values of a channel, from the first to the second, in steps.
    Channel(i64, i64),
    /// Another site's values of a channel: zeros.
    OfOthers,
}

impl Terms {
    /// What a round from 1 to [`Terms::last_round`] is for.
    #[must_use]
    pub fn kind(&self, round: u32) -> RoundKind {
        if round > self.rounds { RoundKind::Evaluation } else { RoundKind::Training }
    }

    /// The number of the model's values in an update of such a round.
    #[must_use]
    pub fn model_values(&self, kind: RoundKind) -> u64 {
        match kind {
            RoundKind::Training => self.model.parameters(),
            RoundKind::Evaluation => 0,
        }
    }

    /// The number of values of an update and of an aggregate.
    #[must_use]
    pub fn values(&self, kind: RoundKind) -> u64 {
        let channels = self.channels.iter().map(|channel| channel.values(self.sites.len()));
        channels.fold(self.model_values(kind), u64::saturating_add)
    }

    /// The length of an update's plaintext in bytes.
    #[must_use]
    pub fn update_length(&self, kind: RoundKind) -> u64 {
        let width = self.aggregation.update_type.format().width() as u64;
        self.values(kind).saturating_mul(width)
    }

    /// The length of an aggregate's plaintext in bytes.
    #[must_use]
    pub fn aggregate_length(&self, kind: RoundKind) -> u64 {
        self.values(kind).saturating_mul(self.words(kind).width() as u64)
    }

    /// The channels with the places of their values, all sites' included.
    pub fn channel_places(&self, kind: RoundKind) -> impl Iterator<Item = (&Channel, Range<u64>)> {
        let mut first = self.model_values(kind);
        self.channels.iter().map(move |channel| {
            let places = first..first.saturating_add(channel.values(self.sites.len()));
            first = places.end;
            (channel, places)
        })
    }

    /// The places of a site's own values of a channel whose values lie at
    /// `all`.
    #[must_use]
    pub fn own_places(&self, channel: &Channel, all: &Range<u64>, site: &str) -> Range<u64> {
        if !channel.per_site {
            return all.clone();
        }
        let before = self.sites.iter().take_while(|listed| listed.name != site).count() as u64;
        let first = all.start.saturating_add(before.saturating_mul(channel.length)).min(all.end);
        first..first.saturating_add(channel.length).min(all.end)
    }

    /// What lies where in a site's update: ranges of places in their order,
    /// without gaps. Tensors with the same step are one range.
    #[must_use]
    pub fn sections(&self, kind: RoundKind, site: &str) -> Vec<(Range<u64>, Section)> {
        let mut sections: Vec<(Range<u64>, Section)> = Vec::new();
        let mut add = |places: Range<u64>, section: Section| {
            if let Some((last, same)) = sections.last_mut()
                && *same == section
            {
                last.end = places.end;
            } else if !places.is_empty() {
                sections.push((places, section));
            }
        };
        if kind == RoundKind::Training {
            let mut first = 0;
            for tensor in &self.model.tensors {
                let end = first + tensor.elements().unwrap_or(0);
                add(first..end, Section::Model(self.step(tensor)));
                first = end;
            }
        }
        for (channel, all) in self.channel_places(kind) {
            let own = self.own_places(channel, &all, site);
            add(all.start..own.start, Section::OfOthers);
            add(own.clone(), Section::Channel(channel.least, channel.most));
            add(own.end..all.end, Section::OfOthers);
        }
        sections
    }
}
