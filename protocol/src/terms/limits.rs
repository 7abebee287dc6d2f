//! What a manifest must not say, although each number alone is one: what an
//! enclave, a site or a library would find out too late.

use super::tests::manifest;
use super::*;

/// The field that is refused.
fn refused(change: impl FnOnce(&mut Manifest)) -> String {
    let mut changed = manifest();
    change(&mut changed);
    match changed.check() {
        Err(Error::Manifest { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

fn noise() -> Noise {
    Noise {
        clip: 1.0,
        step: 1e-5,
        noise_multiplier: 30.0,
        sampling_rate: None,
        adaptive_clip: None,
        epsilon: 3.0,
        delta: 1e-5,
    }
}

fn private(manifest: &mut Manifest, privacy: Privacy) {
    let grid = matches!(privacy, Privacy::Patient(_));
    manifest.aggregation.rule = Rule::Sum;
    manifest.aggregation.largest_weight_share = None;
    manifest.aggregation.divisor = Some(4.0);
    manifest.aggregation.update_type = if grid { UpdateType::Grid } else { UpdateType::Float32 };
    manifest.privacy = privacy;
}

fn site(change: impl FnOnce(&mut Noise)) -> impl FnOnce(&mut Manifest) {
    let mut noise = noise();
    change(&mut noise);
    |manifest| private(manifest, Privacy::Site(noise))
}

fn patient(change: impl FnOnce(&mut Noise)) -> impl FnOnce(&mut Manifest) {
    let mut noise = noise();
    change(&mut noise);
    |manifest| private(manifest, Privacy::Patient(noise))
}

fn check(change: impl FnOnce(&mut Manifest)) -> Result<()> {
    let mut changed = manifest();
    change(&mut changed);
    changed.check()
}

fn median(share: f64, steps: usize) -> impl FnOnce(&mut Manifest) {
    move |manifest| {
        let aggregation = &mut manifest.aggregation;
        aggregation.rule = Rule::GeometricMedian;
        (aggregation.smoothing, aggregation.steps) = (Some(1e-6), Some(steps));
        aggregation.largest_weight_share = Some(share);
    }
}

/// The enclave takes the steps while it holds a round's keys.
#[test]
fn steps_are_bounded() {
    check(median(0.4, 1000)).unwrap();
    assert_eq!(refused(median(0.4, 1001)), "aggregation.steps");
    let clipping = |manifest: &mut Manifest| {
        manifest.aggregation.rule = Rule::CentredClipping;
        (manifest.aggregation.clip, manifest.aggregation.steps) = (Some(1.0), Some(usize::MAX));
    };
    assert_eq!(refused(clipping), "aggregation.steps");
}

/// A site's number of examples is what it says: with half of all shares for the
/// asking one site is the median.
#[test]
fn no_site_can_have_half_of_the_shares_of_a_geometric_median() {
    for share in [0.5, 1.0] {
        assert_eq!(refused(median(share, 8)), "aggregation.largest_weight_share");
    }
    check(median(0.49, 8)).unwrap();
}

/// A value beyond the grid's integers would be cut, and the aggregate be wrong.
#[test]
fn values_fit_the_grid_for_every_clip_that_a_round_may_have() {
    check(site(|_| ())).unwrap();
    check(site(|noise| noise.step = 1e-9)).unwrap();
    assert_eq!(refused(site(|noise| noise.step = 1e-10)), "privacy.step");
    assert_eq!(refused(patient(|noise| noise.step = 1e-10)), "privacy.step");
    let adaptive = AdaptiveClip { quantile: 0.5, learning_rate: 0.2, count_noise: 30.0 };
    let moving =
        |step| site(move |noise| (noise.adaptive_clip, noise.step) = (Some(adaptive), step));
    check(moving(1e-6)).unwrap();
    assert_eq!(refused(moving(1e-8)), "privacy.step");
}

#[test]
fn noise_and_samples_can_be_drawn() {
    let rough = |noise: &mut Noise| {
        (noise.step, noise.noise_multiplier, noise.epsilon) = (0.5, 0.01, 1e9);
    };
    assert_eq!(refused(site(rough)), "privacy.noise_multiplier");
    for count_noise in [0.2, 1e13, 1e300] {
        let adaptive = AdaptiveClip { quantile: 0.5, learning_rate: 0.2, count_noise };
        let field = refused(site(|noise| noise.adaptive_clip = Some(adaptive)));
        assert_eq!(field, "privacy.adaptive_clip.count_noise");
    }
    let rare = |noise: &mut Noise| noise.sampling_rate = Some(1e-30);
    assert_eq!(refused(patient(rare)), "privacy.sampling_rate");
    let tiny = |noise: &mut Noise| (noise.clip, noise.step) = (1e-320, 1e-320);
    assert_eq!(refused(patient(tiny)), "privacy.step");
}

/// Every site would find out after the first release, and no amendment mends it.
#[test]
fn every_site_can_step() {
    for tau in [1e-30, 1e20] {
        let adam = Optimiser::FedAdam { beta1: 0.9, beta2: 0.99, tau };
        assert_eq!(refused(|m| m.model.optimiser = Some(adam)), "model.optimiser");
    }
    let counted = |manifest: &mut Manifest| {
        manifest.model.tensors[0].role = TensorRole::Control;
        manifest.model.tensors[0].dtype = Dtype::Int64;
    };
    assert_eq!(refused(counted), "model.tensor.dtype");
}

#[test]
fn a_round_ends_and_a_range_is_a_number() {
    assert_eq!(refused(|m| m.deadlines.round_seconds = 1 << 62), "deadlines.round_seconds");
    let wide = |manifest: &mut Manifest| manifest.data.features[0].range = Some([-1e308, 1e308]);
    assert_eq!(refused(wide), "data.feature \"age\" range");
}
