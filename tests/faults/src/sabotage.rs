//! Rules broken on purpose, one at a time, to see that an invariant notices.

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Sites lose their binding, and the counter beside their keys, whenever they
    /// are restarted.
    SitesForget,
    /// The host's disks acknowledge what they have not synced.
    DisksLie,
    /// One site's update counts twice.
    Doubled,
    /// One site's update is that of another round.
    Foreign,
    /// The host loses the last leaves of its log when it is restarted.
    LogForgets,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::SitesForget, Self::DisksLie, Self::Doubled, Self::Foreign, Self::LogForgets];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SitesForget => "sites-forget",
            Self::DisksLie => "disks-lie",
            Self::Doubled => "doubled",
            Self::Foreign => "foreign",
            Self::LogForgets => "log-forgets",
        }
    }
}
