//! Functions of single values without branches, so that compilers make vectors of them.

/// The exponential within one unit in the last place or two, without branches (Moshier's
/// polynomial, Cephes).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, the first of them exact in products with small numbers.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4_f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "n is between -126 and 127"
    )]
    let scale = f32::from_bits(((n as i32 + 127) << 23) as u32);
    p * scale
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3_f32;
    let p = p * z + 2.063_908_8e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 0.333_332_8;
    let near = x + x * z * p;
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// Distribution function and density of the standard normal distribution.
///
/// The tail beyond `|x|` is the density's exponential times a polynomial in `t`, fitted to
/// `erfcx` with a relative error below 1e-7: so small tails are right to their last digits, too.
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.4 * z);
    let p = 2.207_701_8e-2_f32;
    let p = p * t - 7.720_293e-2;
    let p = p * t + 5.651_336e-2;
    let p = p * t + 2.743_313e-2;
    let p = p * t + 5.124_877_8e-2;
    let p = p * t + 9.188_957e-2;
    let p = p * t + 1.021_610_4e-1;
    let p = p * t + 1.130_532_4e-1;
    let p = p * t + 1.128_268_2e-1;
    let tail = p * t * bell;
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (below, bell * FRAC_1_SQRT_TAU)
}

/// Sums a function of two values over a row, in an order that every processor keeps.
#[inline(always)]
pub(crate) fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    const SUMS: usize = 16;
    let (a, rest_a) = a.as_chunks::<SUMS>();
    let (b, rest_b) = b.as_chunks::<SUMS>();
    let mut sums = [0.0; SUMS];
    for (a, b) in a.iter().zip(b) {
        for i in 0..SUMS {
            sums[i] += f(a[i], b[i]);
        }
    }
    let rest = rest_a.iter().zip(rest_b).map(|(&a, &b)| f(a, b));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// `1 / sqrt(2 π)`.
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_right_to_the_last_digits() {
        for i in -4000..4000_i16 {
            let x = f32::from(i) / 100.0;
            let exact = f64::from(x);
            let near = |got: f32, want: f64| (f64::from(got) - want).abs() <= 4e-7 * want.abs();
            assert!(near(exp(x), exact.exp()), "exp {x}");
            assert!(near(tanh(x), exact.tanh()), "tanh {x}: {}", tanh(x));
            assert!(
                near(sigmoid(x), 1.0 / (1.0 + (-exact).exp())),
                "sigmoid {x}"
            );
        }
        for x in [-1e30, -1e3, 1e3, 1e30, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(
                (tanh(x) - x.signum()).abs() < 1e-6 && sigmoid(x).is_finite(),
                "{x}"
            );
        }
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }

    /// Abramowitz and Stegun (1964), 26.2.11: a series that converges everywhere.
    fn normal_below(x: f64) -> f64 {
        let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let (mut term, mut sum) = (x.abs(), x.abs());
        for k in 1..400 {
            term *= x * x / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 + x.signum() * density * sum
    }

    #[test]
    fn normal_is_right_to_the_last_digits() {
        for i in -500..=500_i16 {
            let x = f32::from(i) / 100.0;
            let exact = f64::from(x);
            let (below, density) = normal(x);
            let want = normal_below(exact);
            // Towards -5 the series itself loses digits.
            let allowed = 3e-6 * want + 1e-15;
            assert!(
                (f64::from(below) - want).abs() <= allowed,
                "{x}: {below} {want}"
            );
            let want = (-0.5 * exact * exact).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(density) - want).abs() <= 3e-6 * want, "{x}");
        }
        assert!((normal(f32::INFINITY).0 - 1.0).abs() < f32::EPSILON);
        assert!(normal(f32::NEG_INFINITY).0.abs() < 1e-30 && normal(f32::NAN).0.is_nan());
    }
}
