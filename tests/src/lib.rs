//! End to end: whole rounds through the real binaries, and hosts that attack.
