//! Privacy noise, through a real enclave: what is added, to what, and what is
//! refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]

use sealfold_enclave::attester::{Attester, EvidenceError};
use sealfold_enclave::engine::Engine;
use sealfold_protocol::refusal::Check;
use sealfold_protocol::release::Release;
use sealfold_protocol::terms::Terms;
use sealfold_protocol::{Secret, Signed};
use sealfold_tests::hostile_host::{Enclave, HostileHost};
use sealfold_tests::site::{self, Sealed};
use sealfold_tests::study::{Options, Study};
use std::sync::atomic::{AtomicBool, Ordering};

const PATIENT: &str = "unit = \"patient\"\nclip = 1\nstep = 0.0000152587890625\n\
                       noise_multiplier = 2\nepsilon = 12\ndelta = 1e-5";
const SITE: &str = "unit = \"site\"\nclip = 1\nstep = 0.0000152587890625\n\
                    noise_multiplier = 0.5\nepsilon = 200\ndelta = 1e-5";
const STEP: f64 = 1.0 / 65536.0;

fn patient() -> Options {
    Options {
        parameters: 100_000,
        aggregation: "rule = \"sum\"\ndivisor = 100".to_owned(),
        privacy: PATIENT.to_owned(),
        ..Options::default()
    }
}

fn by_site(more: &str) -> Options {
    Options {
        parameters: 100_000,
        aggregation: "rule = \"sum\"\ndivisor = 4".to_owned(),
        privacy: format!("{SITE}\n{more}"),
        ..Options::default()
    }
}

/// A world with an enclave and a study.
struct World {
    host: HostileHost,
    enclave: Enclave,
    study: Study,
}

impl World {
    fn new(options: &Options) -> Self {
        let host = HostileHost::new();
        let enclave = host.enclave("enclave");
        Self { host, enclave, study: Study::new(options) }
    }

    fn terms(&self) -> &Terms {
        self.study.terms()
    }

    /// A whole round; its release and the aggregate.
    fn round(
        &self,
        clip: Option<f64>,
        seal: impl Fn(&Self, usize, &Signed<sealfold_protocol::offer::Offer>) -> Sealed,
    ) -> (Signed<Release>, Vec<f32>) {
        let mut request = self.study.first_offer();
        request.clip = clip;
        let offer = self.enclave.offer(&request).unwrap();
        let sealed: Vec<_> = (0..self.study.sites.len())
            .map(|site| {
                let update = seal(self, site, &offer);
                self.enclave.admit(&self.host.door, &offer, &update).unwrap();
                update
            })
            .collect();
        let roster = self.enclave.roster(&offer).unwrap();
        for (site, update) in self.study.sites.iter().zip(&sealed) {
            self.enclave.commit(&site.commit(&roster, update.header.digest())).unwrap();
        }
        let release = self.enclave.release(&offer).unwrap();
        let sealed = self.host.door.object(&release.statement().object);
        let values = site::released(&self.study, self.study.sites.len(), &release, &sealed);
        (release, values)
    }

    fn grid(&self, site: usize, offer: &Signed<sealfold_protocol::offer::Offer>) -> Sealed {
        let value = 1000 * (i32::try_from(site).unwrap() + 1);
        let values: Vec<u8> =
            (0..self.study.parameters()).flat_map(|_| value.to_le_bytes()).collect();
        self.study.sites[site].seal_plain(offer, &values)
    }
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[test]
fn patients_sums_are_exact_but_for_noise_on_the_grid() {
    let noise = || {
        let world = World::new(&patient());
        let (_, values) = world.round(None, World::grid);
        let spent = world.study.manifest.statement().spent(1).unwrap().unwrap();
        assert!(spent.epsilon > 1.0 && spent.epsilon < 12.0, "{spent:?}");
        // Sums of 10,000 steps, over 100.
        values.iter().map(|v| f64::from(*v) * 100.0 / STEP - 10_000.0).collect::<Vec<_>>()
    };
    let (first, second) = (noise(), noise());
    let sigma = 2.0 * 65536.0;
    for noise in [&first, &second] {
        let (mean, deviation) = moments(noise);
        assert!(mean.abs() < 5.0 * sigma / 100_000f64.sqrt(), "{mean}");
        assert!((deviation / sigma - 1.0).abs() < 0.02, "{deviation}");
        // Whole steps, as far as float32 tells.
        assert!(noise.iter().filter(|v| v.abs() < 1e4).all(|v| (v - v.round()).abs() < 0.02));
    }
    // Another instance draws other noise, and so does another record.
    assert!(first.iter().zip(&second).filter(|(a, b)| (*a - *b).abs() < 0.5).count() < 100);
    let (one, two) = (&first[..20_000], &first[65_536..85_536]);
    assert!(one.iter().zip(two).filter(|(a, b)| (*a - *b).abs() < 0.5).count() < 100);
}

#[test]
fn a_site_adds_no_more_than_the_clip() {
    let world = World::new(&by_site(""));
    let (release, values) = world.round(None, |world, site, offer| {
        // Norms 1,000, and 0.5 for the others.
        let norm = if site == 0 { 1000.0 } else { 0.5 };
        let value = norm / 100_000f32.sqrt();
        let values = vec![value; 100_000];
        world.study.sites[site].seal(offer, world.terms(), &values)
    });
    assert_eq!(release.statement().below_clip, None);
    let values: Vec<_> = values.iter().map(|v| f64::from(*v) * 4.0 / STEP).collect();
    let (mean, deviation) = moments(&values);
    let sensitivity = 65536.0 + 100_000f64.sqrt() / 2.0;
    assert!((deviation / (0.5 * sensitivity) - 1.0).abs() < 0.02, "{deviation}");
    // 1 + 3 x 0.5, spread over all places.
    let expected = 2.5 * 65536.0 / 100_000f64.sqrt();
    assert!((mean - expected).abs() < 5.0 * 0.5 * sensitivity / 100_000f64.sqrt(), "{mean}");
}

#[test]
fn an_adaptive_clip_is_counted_with_noise_and_offered_within_bounds() {
    let adaptive = "adaptive_clip = { quantile = 0.5, learning_rate = 0.2, count_noise = 0.8 }";
    let world = World::new(&by_site(adaptive));
    let refused = |clip: Option<f64>| {
        let mut request = world.study.first_offer();
        request.clip = clip;
        world.enclave.offer(&request).unwrap_err()
    };
    for clip in [None, Some(0.0), Some(1e9), Some(f64::MIN_POSITIVE)] {
        assert_eq!(refused(clip).check, Check::Chain, "{clip:?}");
    }
    let (release, _) = world.round(Some(1.0), |world, site, offer| {
        let values = vec![if site == 0 { 1.0 } else { 0.0 }; 100_000];
        world.study.sites[site].seal(offer, world.terms(), &values)
    });
    // Three below, one above.
    let below = release.statement().below_clip.unwrap();
    assert!((below - 2).abs() <= 8, "{below}");
    let next = world.terms().next_clip(Some(1.0), Some(below)).unwrap();
    assert!((0.8..1.25).contains(&next), "{next}");
}

/// A platform that gives no randomness at the first time of asking.
struct Hesitant(AtomicBool);

impl Attester for Hesitant {
    fn attest(&self, _: &[u8; 32], _: &[u8; 32]) -> Result<Vec<u8>, EvidenceError> {
        Ok(Vec::new())
    }

    fn random(&self) -> Result<Secret, EvidenceError> {
        if self.0.swap(true, Ordering::Relaxed) {
            return Ok(Secret::copy_of(&[7; 32]));
        }
        Err(EvidenceError { source_name: "a platform", reason: "busy".to_owned() })
    }
}

#[test]
fn a_platform_without_randomness_costs_no_offer() {
    let engine = || {
        let endpoint = "tcp://127.0.0.1:1".parse().unwrap();
        Engine::new(Box::new(Hesitant(AtomicBool::new(false))), endpoint, 1).unwrap()
    };
    // The one offer of a round is not used up by a failure that passes.
    let (private, instance) = (Study::new(&patient()), engine());
    let refusal = instance.offer(&private.first_offer()).unwrap_err();
    assert_eq!(refusal.check, Check::Evidence);
    instance.offer(&private.first_offer()).unwrap();
    // And a study without noise does not ask for it.
    engine().offer(&Study::new(&Options::default()).first_offer()).unwrap();
}
