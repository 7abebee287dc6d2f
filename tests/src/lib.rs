//! What the end-to-end tests stand on: the real binaries, a host that a test
//! can make hostile, and sites that a test can make malicious.
//!
//! Nothing here imitates a part of the system that is under test. The enclave
//! is always the real process; a test either plays the host itself, to attack,
//! or starts the real host proxy, to see that honest work goes through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod audit;
pub mod browser;
pub mod elsewhere;
pub mod ended;
pub mod history;
pub mod hostile_host;
pub mod http;
pub mod launcher;
pub mod liar;
pub mod lone;
pub mod machine;
pub mod middle;
pub mod misbehaviour;
pub mod namespace;
pub mod participation;
pub mod platform;
pub mod process;
pub mod site;
pub mod space;
pub mod story;
pub mod study;
pub mod system;
pub mod tensors;
pub mod tls;
pub mod workload;
