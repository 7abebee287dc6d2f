//! A world: one study, its sites, one host, one or more enclave instances.

use crate::clock::Clock;
use crate::door::{Door, Trouble};
use crate::enclaves::{Enclaves, PLATFORM};
use crate::fate::{Fate, Weather};
use crate::hospital::Hospital;
use crate::ledger::Ledger;
use crate::machine::{Machine, at_once};
use crate::network::Network;
use crate::sabotage::Sabotage;
use sealfold_tests::site::Site;
use sealfold_tests::study::{Options, Study, give_log_key};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// The sites of a world.
pub const SITES: usize = 4;
/// k.
pub const SMALLEST_ROSTER: usize = 3;
/// The rounds of its study.
pub const ROUNDS: u32 = 2;
/// Its deadlines for uploads, commits and rounds, in seconds.
pub const DEADLINES: [u64; 3] = [600, 600, 7200];

/// A world.
pub struct World {
    /// Its time.
    pub clock: Clock,
    /// Its chance.
    pub fate: Fate,
    /// What was seen.
    pub ledger: Ledger,
    /// The study.
    pub study: Study,
    /// The instances.
    pub enclaves: Arc<Enclaves>,
    /// The network, with the host.
    pub network: Arc<Network>,
    /// The sites.
    pub sites: Vec<Hospital>,
    /// The record door.
    pub door: Arc<Door>,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// The policy of sites and auditor.
    pub policy: String,
    /// Its files; the last to go, since the door is one of them.
    pub folder: TempDir,
}

/// Memory, if the system has a folder of it: thousands of worlds write a lot.
fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

impl World {
    /// A world at its beginning: the host and an instance run, and all sites
    /// have approved the study.
    #[must_use]
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let folder = tempfile::Builder::new().prefix("faults-").tempdir_in(place());
        let folder = folder.or_else(|_| tempfile::tempdir()).unwrap();
        let (clock, fate, ledger) = (Clock::new(), Fate::new(seed), Ledger::default());
        let door = Arc::new(Door::open(folder.path()));
        let host = folder.path().join("host");
        give_log_key(&host);
        let staging = host.join("staging");
        let enclaves = Enclaves::new(
            clock.clone(),
            fate.clone(),
            door.endpoint.clone(),
            ledger.clone(),
            &staging,
        );
        let enclaves = Arc::new(enclaves);
        let lies = sabotage == Some(Sabotage::DisksLie);
        let mut machine = Machine::new(&host, enclaves.clone(), door.clone(), fate.clone(), lies);
        enclaves.start();
        machine.start().unwrap();
        let log_key = machine.log_key().unwrap();
        let network = Network::new(machine, clock.clone(), fate.clone(), ledger.clone());
        let study = study();
        let approvers: Vec<_> = study.sites.iter().map(Site::quoted_key).collect();
        let policy = format!(
            "[evidence]\nmax_age_seconds = 3600\n[approval]\nrequired = 3\napprovers = [{}]\n\
             [round]\nsmallest_roster = {SMALLEST_ROSTER}\ncolluders = 0\n\
             [log]\nkey = \"{log_key}\"\n{}",
            approvers.join(", "),
            PLATFORM.policy(),
        );
        let sites: Vec<_> = (0..SITES)
            .map(|n| {
                Hospital::new(&folder.path().join("sites"), n, &study, &policy, &network, sabotage)
            })
            .collect();
        let model = vec![0; ROUNDS as usize * 4];
        sites[0].publish(Some(model)).unwrap();
        Self {
            clock,
            fate,
            ledger,
            study,
            enclaves,
            network,
            sites,
            door,
            sabotage,
            policy,
            folder,
        }
    }

    /// Time passes, for the instances too.
    pub fn pass(&self, milliseconds: u64) {
        self.clock.advance(milliseconds);
        self.enclaves.tick();
    }

    /// Lets the conductor go on.
    pub fn conduct(&self, steps: u32) {
        let mut machine = self.network.machine.lock().unwrap();
        for _ in 0..steps {
            if !machine.conduct() {
                break;
            }
        }
    }

    /// Kills the host.
    pub fn crash_host(&self) {
        self.network.machine.lock().unwrap().crash();
    }

    /// Starts the host if it is down, and looks whether it kept its word.
    pub fn start_host(&self) {
        let mut machine = self.network.machine.lock().unwrap();
        if machine.is_up() {
            return;
        }
        if self.sabotage == Some(Sabotage::LogForgets) {
            at_once(machine.shelf.rewind("log"));
        }
        if let Err(error) = machine.start() {
            self.fate.note(format!("the host does not start: {error}"));
            machine.crash();
            return;
        }
        let mut seen = self.ledger.lock().unwrap();
        let short: Vec<_> = seen
            .uploads
            .iter()
            .filter_map(|(header, acknowledged)| {
                let received = machine.received(header)?;
                (received < *acknowledged).then_some((*header, *acknowledged, received))
            })
            .collect();
        for (_, acknowledged, received) in short {
            seen.violations.push(format!(
                "lost: {acknowledged} bytes of an upload were acknowledged, {received} are there"
            ));
        }
    }

    /// Ends all faults.
    pub fn calm(&mut self) {
        self.fate.set(Weather::default());
        self.door.trouble(None);
        for site in &self.sites {
            site.link.cut(false);
            site.link.calm();
        }
        let machine = self.network.machine.lock().unwrap();
        machine.power.restore();
        machine.power.fill(false);
    }

    /// The next connection at the record door has trouble.
    pub fn trouble(&self, trouble: Trouble) {
        self.fate.note(format!("trouble at the door: {trouble:?}"));
        self.door.trouble(Some(trouble));
    }
}

/// The study of every world: the weighted mean of powers of two, from which the
/// sum is known again, since every site weighs the same.
fn study() -> Study {
    let pcrs: Vec<_> = PLATFORM
        .policy()
        .lines()
        .filter(|line| line.starts_with("pcr"))
        .map(str::to_owned)
        .collect();
    Study::new(&Options {
        sites: SITES,
        smallest_roster: SMALLEST_ROSTER,
        parameters: ROUNDS as usize,
        rounds: ROUNDS,
        deadlines: DEADLINES,
        measurements: pcrs.join("\n"),
        ..Options::default()
    })
}
