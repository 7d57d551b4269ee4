//! How close two tensors are.

/// Tells which values stray from the expected ones.
pub(super) struct Differences {
    allowed: f64,
    /// Least scale of a tensor.
    floor: f64,
    found: Vec<String>,
}

impl Differences {
    pub(super) fn new(allowed: f64) -> Self {
        Self {
            allowed,
            floor: 1e-9,
            found: Vec::new(),
        }
    }

    /// Lets a tensor that is 0 but for rounding differ by rounding of the largest of `tensors`:
    /// the gradient of a key's bias, to which all scores are alike.
    pub(super) fn beside<'a>(&mut self, tensors: impl Iterator<Item = &'a [f64]>) {
        self.floor = tensors.map(scale).fold(1e-9, f64::max) * 1e-1;
    }

    /// Compares a tensor: each difference relative to the expected value, or to the tensor's root
    /// mean square where that is larger, since rounding within a sum follows its largest terms.
    pub(super) fn add(&mut self, what: &str, got: &[impl Into<f64> + Copy], expected: &[f64]) {
        if got.len() != expected.len() {
            let (n, m) = (got.len(), expected.len());
            self.found.push(format!("{what}: {n} values, not {m}"));
            return;
        }
        let scale = scale(expected).max(self.floor);
        let worst = got
            .iter()
            .zip(expected)
            .enumerate()
            .map(|(i, (&a, &b))| (a.into(), b, i))
            .map(|(a, b, i)| ((a - b).abs() / b.abs().max(scale), a, b, i))
            .max_by(|x, y| x.0.total_cmp(&y.0));
        if let Some((by, a, b, i)) = worst
            && !(by <= self.allowed)
        {
            let line = format!("{what}[{i}]: {a:e} is not {b:e}, off by {by:.1e}");
            self.found.push(line);
        }
    }

    /// What strays, each line with the place it was found at.
    pub(super) fn lines(self, place: &str) -> Vec<String> {
        let lines = self.found.into_iter();
        lines.map(|line| format!("{place}: {line}")).collect()
    }
}

/// Root mean square.
#[expect(clippy::cast_precision_loss, reason = "small tensors")]
fn scale(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}
