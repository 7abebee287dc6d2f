//! The discrete Fourier transform, in place, for lengths that are powers of
//! two (Cooley and Tukey 1965). Written out because the crates for it bring
//! code that depends on the processor, which must not decide about a figure,
//! into the enclave.

/// A sequence of complex numbers, whose length is a power of two.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sequence {
    pub(super) real: Vec<f64>,
    pub(super) imaginary: Vec<f64>,
}

impl Sequence {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        debug_assert!(len.is_power_of_two());
        Self { real: vec![0.0; len], imaginary: vec![0.0; len] }
    }

    /// The sequence convolved `times` times with itself around a ring of its
    /// length.
    pub(super) fn self_convolved(mut self, times: u64) -> Self {
        let roots = Roots::new(self.real.len());
        roots.transform(&mut self.real, &mut self.imaginary);
        for (real, imaginary) in self.real.iter_mut().zip(&mut self.imaginary) {
            (*real, *imaginary) = power((*real, *imaginary), times);
        }
        // With real and imaginary parts exchanged before and after, the
        // transform is its own inverse up to the length.
        roots.transform(&mut self.imaginary, &mut self.real);
        let scale = 1.0 / self.real.len() as f64;
        self.real.iter_mut().chain(&mut self.imaginary).for_each(|value| *value *= scale);
        self
    }
}

/// A complex number to a whole power, by repeated squaring.
fn power(mut base: (f64, f64), mut exponent: u64) -> (f64, f64) {
    let times = |a: (f64, f64), b: (f64, f64)| (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0);
    let mut result = (1.0, 0.0);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = times(result, base);
        }
        base = times(base, base);
        exponent /= 2;
    }
    result
}

/// The first half of the roots of unity of a length.
struct Roots(Vec<(f64, f64)>);

impl Roots {
    fn new(len: usize) -> Self {
        let root = |k| {
            let (sin, cos) = libm::sincos(-std::f64::consts::TAU * k as f64 / len as f64);
            (cos, sin)
        };
        Self((0..len / 2).map(root).collect())
    }

    fn transform(&self, real: &mut [f64], imaginary: &mut [f64]) {
        let len = real.len();
        if len < 2 {
            return;
        }
        for i in 0..len {
            let reversed = i.reverse_bits() >> (usize::BITS - len.ilog2());
            if i < reversed {
                real.swap(i, reversed);
                imaginary.swap(i, reversed);
            }
        }
        let mut half = 1;
        while half < len {
            let stride = len / (2 * half);
            let blocks = real.chunks_exact_mut(2 * half).zip(imaginary.chunks_exact_mut(2 * half));
            for (real, imaginary) in blocks {
                let (even_re, odd_re) = real.split_at_mut(half);
                let (even_im, odd_im) = imaginary.split_at_mut(half);
                for k in 0..half {
                    let (cos, sin) = self.0[k * stride];
                    let re = odd_re[k] * cos - odd_im[k] * sin;
                    let im = odd_re[k] * sin + odd_im[k] * cos;
                    (even_re[k], odd_re[k]) = (even_re[k] + re, even_re[k] - re);
                    (even_im[k], odd_im[k]) = (even_im[k] + im, even_im[k] - im);
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values without a pattern, from a linear congruence.
    fn values(len: usize) -> Vec<f64> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let sequence = std::iter::successors(Some(7), next);
        sequence.take(len).map(|x| f64::from(x >> 8) / f64::from(1 << 24)).collect()
    }

    #[test]
    fn the_transform_is_its_definition() {
        for len in [1, 2, 8, 64] {
            let (real, imaginary) = (values(len), values(2 * len).split_off(len));
            let (mut re, mut im) = (real.clone(), imaginary.clone());
            Roots::new(len).transform(&mut re, &mut im);
            for k in 0..len {
                let (mut sum_re, mut sum_im) = (0.0, 0.0);
                for i in 0..len {
                    let angle = -std::f64::consts::TAU * ((i * k) % len) as f64 / len as f64;
                    sum_re += real[i] * angle.cos() - imaginary[i] * angle.sin();
                    sum_im += real[i] * angle.sin() + imaginary[i] * angle.cos();
                }
                assert!((re[k] - sum_re).abs() < 1e-12 && (im[k] - sum_im).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_power_is_a_convolution_around_the_ring() {
        let len = 32;
        let sequence = Sequence { real: values(len), imaginary: vec![0.0; len] };
        let mut expected = sequence.real.clone();
        for _ in 1..5 {
            let before = expected.clone();
            expected = (0..len)
                .map(|i| (0..len).map(|j| before[j] * sequence.real[(len + i - j) % len]).sum())
                .collect();
        }
        let found = sequence.self_convolved(5);
        for (found, expected) in found.real.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_long_transform_keeps_its_digits() {
        let mut sequence = Sequence::zeros(1 << 16);
        sequence.real = values(1 << 16);
        let before = sequence.clone();
        let after = sequence.self_convolved(1);
        let off = |(a, b): (&f64, &f64)| (a - b).abs();
        assert!(after.real.iter().zip(&before.real).map(off).fold(0.0, f64::max) < 1e-14);
    }
}
