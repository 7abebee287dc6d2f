//! The trusted part: attester, round state machine, streaming fold.
