//! Name patterns, by which options pick some of a network's weights.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, validation::Violations};

/// Picks weights by name: `dense_1/kernel`, `dense_1` (all of a layer), `conv*`, `*/bias`.
///
/// A `*` stands for any characters. A pattern without `/` is compared with the layer's name, one
/// with it with the whole name of a weight.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, max_length = 128, example = "conv*")]
pub struct Pattern(pub String);

/// Several patterns, of which one must match.
pub type Patterns = Vec<Pattern>;

impl Pattern {
    /// Tells whether a weight, named `layer/role`, is picked.
    #[must_use]
    pub fn matches(&self, weight: &str) -> bool {
        // A role may have a `/` of its own (`query/kernel`), the name of a layer has none.
        let layer = weight.split_once('/').map_or(weight, |(layer, _)| layer);
        let name = if self.0.contains('/') { weight } else { layer };
        glob(self.0.as_bytes(), name.as_bytes())
    }

    /// Tells whether a layer is picked by its name.
    #[must_use]
    pub fn matches_layer(&self, layer: &str) -> bool {
        glob(self.0.as_bytes(), layer.as_bytes())
    }

    /// Records a pattern that is empty or too long.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let (n, max) = (self.0.len(), limits::MAX_PATTERN_LEN);
        v.check((1..=max).contains(&n), pointer, "too_long", || {
            format!("{n} bytes are not between 1 and {max}")
        });
    }
}

/// Records mistakes of a list of patterns.
pub fn check_all(patterns: &[Pattern], pointer: &str, v: &mut Violations) {
    let (n, max) = (patterns.len(), limits::MAX_PATTERNS);
    v.check(n <= max, pointer, "too_many", || {
        format!("{n} patterns are more than the {max} allowed")
    });
    for (i, pattern) in patterns.iter().enumerate().take(max) {
        pattern.check(&format!("{pointer}/{i}"), v);
    }
}

/// Compares in time linear in both lengths for each `*`: goes back to the last `*` only.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_pick_layers_and_weights() {
        for (pattern, weight, expected) in [
            ("dense", "dense/kernel", true),
            ("dense", "dense_1/kernel", false),
            ("dense*", "dense_1/kernel", true),
            ("*/bias", "dense_1/bias", true),
            ("*/bias", "dense_1/kernel", false),
            ("conv*/kernel", "conv2d/kernel", true),
            ("block/*", "block/conv/kernel", true),
            ("*conv*d*", "a_conv_2d/kernel", true),
            ("*ab*ab", "aab_abab/kernel", true),
            ("attention", "attention/query/kernel", true),
            ("*", "anything/at/all", true),
            ("", "dense/kernel", false),
        ] {
            let found = Pattern(pattern.to_owned()).matches(weight);
            assert_eq!(found, expected, "{pattern} on {weight}");
        }
    }
}
