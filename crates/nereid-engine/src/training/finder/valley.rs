//! Reads a learning rate off the losses of a range test.
//!
//! The losses are smoothed, and the rate is taken from within their longest fall: behind its
//! middle, where it is steep, and before its end, where training becomes unstable.

/// Weight of the past in the moving average of losses.
const SMOOTHING: f64 = 0.9;
/// The test ends once the loss is so many times the least one.
const DIVERGED: f64 = 4.0;
/// Fewest steps that a curve can be read from.
const LEAST_STEPS: usize = 10;

/// Losses by rate.
#[derive(Debug, Default)]
pub(super) struct Curve {
    rates: Vec<f64>,
    losses: Vec<f64>,
    average: f64,
    weight: f64,
}

impl Curve {
    /// Adds a step; tells whether the loss is still worth following.
    pub(super) fn add(&mut self, rate: f64, loss: f64) -> bool {
        self.average = SMOOTHING * self.average + (1.0 - SMOOTHING) * loss;
        self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
        let loss = self.average / self.weight;
        self.rates.push(rate);
        self.losses.push(loss);
        let least = self.losses.iter().copied().fold(f64::INFINITY, f64::min);
        loss <= least.abs() * DIVERGED
    }

    pub(super) fn len(&self) -> usize {
        self.rates.len()
    }

    /// Returns the rate two thirds into the longest falling subsequence, with two digits.
    pub(super) fn valley(&self) -> Option<f64> {
        // The first steps hardly change a weight: they tell of their batches alone.
        let first = self.losses.len() / 10;
        let losses = self.losses.get(first..)?;
        if losses.len() < LEAST_STEPS {
            return None;
        }
        let (start, end) = longest_fall(losses);
        if end < start + LEAST_STEPS / 2 {
            return None;
        }
        let at = first + start + (end - start) * 2 / 3;
        let rounded = format!("{:.1e}", self.rates[at]);
        rounded.parse().ok()
    }
}

/// Returns first and last index of the longest strictly falling subsequence.
fn longest_fall(losses: &[f64]) -> (usize, usize) {
    let mut falls: Vec<(usize, usize)> = Vec::with_capacity(losses.len());
    for (i, loss) in losses.iter().enumerate() {
        // Length of the longest fall that ends here, and where it began.
        let before = (0..i).filter(|&j| losses[j] > *loss).map(|j| falls[j]);
        let best = before.reduce(|a, b| if b.0 > a.0 { b } else { a });
        falls.push(best.map_or((1, i), |(length, start)| (length + 1, start)));
    }
    let ends = falls.iter().enumerate();
    let best = ends.reduce(|a, b| if b.1.0 > a.1.0 { b } else { a });
    best.map_or((0, 0), |(end, &(_, start))| (start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_lies_within_the_fall() {
        // Flat until 1e-4, falling until 1e-1, then diverging.
        let mut curve = Curve::default();
        let mut steps = 0;
        for i in 0..100_i32 {
            let rate = 10_f64.powf(f64::from(i) * 8.0 / 99.0 - 7.0);
            let loss = match rate.log10() {
                e if e < -4.0 => 2.3 + 0.001 * f64::from(i % 3),
                e if e < -1.0 => 2.3 - 0.7 * (e + 4.0),
                e => 0.2 + 20.0 * (e + 1.0),
            };
            steps = i;
            if !curve.add(rate, loss) {
                break;
            }
        }
        assert!(steps < 99, "a loss that grows ends the test");
        let rate = curve.valley().unwrap();
        assert!((1e-3..5e-2).contains(&rate), "{rate:e}");
        assert!((format!("{rate:.1e}").parse::<f64>().unwrap() - rate).abs() < f64::EPSILON);
    }

    #[test]
    fn without_a_fall_there_is_no_rate() {
        let mut curve = Curve::default();
        (1..60).for_each(|i| {
            curve.add(f64::from(i), 1.0 + f64::from(i) * 1e-3);
        });
        assert_eq!(curve.valley(), None);
        assert_eq!(longest_fall(&[3.0, 5.0, 4.0, 4.0, 1.0, 2.0]), (1, 4));
    }
}
