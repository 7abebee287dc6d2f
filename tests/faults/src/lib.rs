//! Faults, simulated: the enclave's engine, the host proxy and the site client in
//! one process, on a network, disks and a clock that a seed decides about.
//!
//! The code that runs is the real one, down to routes, statements, sealing,
//! folds and files. Replaced, at seams of theirs, are: what carries a request
//! from a site to the host ([`network`]) and from the host to the enclave
//! ([`enclaves`]); the record door's connections ([`door`]); the store and the disk
//! of the staging folder ([`disk`]); the enclave's clock ([`clock`]). One step
//! runs at a time and each runs to its end, so a seed gives the same schedule
//! again, though keys and digests differ.
//!
//! Every site's update holds its own power of two, in the place of its round,
//! so an update that is lost, doubled or foreign shows in the released sum.
//!
//! [`world`] puts the parts together, [`schedule`] draws what happens to them,
//! [`invariants`] says what must hold whatever happened, and [`sabotage`] breaks
//! a rule on purpose, to see that it is noticed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod clock;
pub mod disk;
pub mod door;
pub mod enclaves;
pub mod fate;
pub mod hospital;
pub mod invariants;
pub mod ledger;
pub mod machine;
pub mod network;
pub mod run;
pub mod sabotage;
pub mod schedule;
pub mod world;
