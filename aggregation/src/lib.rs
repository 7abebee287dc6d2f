//! Numbers only: aggregation rules, clipping, exact sums.
