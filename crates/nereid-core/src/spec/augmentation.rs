//! Augmentation: random changes of training samples, named as Keras' preprocessing layers.
//!
//! Values, fill values and ranges are those of the raw data, as in Keras, where these layers come
//! before any scaling; `GaussianNoise`, for tables, comes after it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::layers::Pair;
use crate::validation::Violations;

/// A number, or the lower and upper limit of a range that one is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Factor {
    /// The range from minus it to it, or from 0 to it for shares.
    One(f64),
    /// Lower and upper limit.
    Range([f64; 2]),
}

impl Factor {
    /// Returns the range; one number spans both sides of 0.
    #[must_use]
    pub fn around_zero(self) -> [f64; 2] {
        match self {
            Self::One(f) => [-f.abs(), f.abs()],
            Self::Range([a, b]) => [a.min(b), a.max(b)],
        }
    }

    /// Returns the range; one number is its upper limit and 0 the lower.
    #[must_use]
    pub fn from_zero(self) -> [f64; 2] {
        match self {
            Self::One(f) => [0.0, f],
            Self::Range(_) => self.around_zero(),
        }
    }
}

/// Axes that a flip may mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlipMode {
    /// Left and right.
    Horizontal,
    /// Up and down.
    Vertical,
    /// Each with probability 1/2.
    #[default]
    HorizontalAndVertical,
}

/// What lies beyond the edges of an image `a b c d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FillMode {
    /// `d c b a | a b c d | d c b a`
    #[default]
    Reflect,
    /// `a b c d | a b c d | a b c d`
    Wrap,
    /// `k k k k | a b c d | k k k k` with the fill value k.
    Constant,
    /// `a a a a | a b c d | d d d d`
    Nearest,
}

/// How values between pixels are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Weighted mean of the four pixels around.
    #[default]
    Bilinear,
    /// The pixel next to it.
    Nearest,
}

/// A random change of training samples
/// (<https://keras.io/api/layers/preprocessing_layers/image_augmentation/>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Augmentation {
    /// Mirrors images, along each axis of the mode with probability 1/2.
    RandomFlip {
        /// Axes.
        #[serde(default)]
        mode: FlipMode,
    },
    /// Pads images on all sides and cuts their own size out of that at a random place.
    RandomCrop {
        /// Height of the result; only the samples' own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        height: Option<usize>,
        /// Width of the result; only the samples' own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        width: Option<usize>,
        /// Pixels added above and below, and left and right, as in torchvision.
        padding: Pair,
        /// What the padding holds.
        #[serde(default = "constant")]
        fill_mode: FillMode,
        /// Value of a constant padding.
        #[serde(default)]
        fill_value: f64,
    },
    /// Turns images around their centre; positive is counterclockwise.
    RandomRotation {
        /// Turn in whole turns (2π), from -1 to 1.
        factor: Factor,
        /// What lies beyond the edges.
        #[serde(default)]
        fill_mode: FillMode,
        /// How values between pixels are found.
        #[serde(default)]
        interpolation: Interpolation,
        /// Value beyond the edges with `constant`.
        #[serde(default)]
        fill_value: f64,
    },
    /// Shifts images; positive is down and right.
    RandomTranslation {
        /// Share of the height, from -1 to 1.
        height_factor: Factor,
        /// Share of the width, from -1 to 1.
        width_factor: Factor,
        /// What lies beyond the edges.
        #[serde(default)]
        fill_mode: FillMode,
        /// How values between pixels are found.
        #[serde(default)]
        interpolation: Interpolation,
        /// Value beyond the edges with `constant`.
        #[serde(default)]
        fill_value: f64,
    },
    /// Shrinks (positive) or enlarges (negative) images around their centre.
    RandomZoom {
        /// Change of the height shown, from -1 to 1.
        height_factor: Factor,
        /// Change of the width shown; as the height unless given, which keeps proportions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        width_factor: Option<Factor>,
        /// What lies beyond the edges.
        #[serde(default)]
        fill_mode: FillMode,
        /// How values between pixels are found.
        #[serde(default)]
        interpolation: Interpolation,
        /// Value beyond the edges with `constant`.
        #[serde(default)]
        fill_value: f64,
    },
    /// Adds a share of the value range to all pixels.
    RandomBrightness {
        /// Share of the value range, from -1 to 1.
        factor: Factor,
        /// Least and largest value of a pixel; results are cut to it.
        #[serde(default = "bytes")]
        value_range: [f64; 2],
    },
    /// Stretches each channel around its mean, by 1 plus a number drawn from the range.
    RandomContrast {
        /// Deviation from 1, from -1 to 1.
        factor: Factor,
        /// Least and largest value of a pixel; results are cut to it.
        #[serde(default = "bytes")]
        value_range: [f64; 2],
    },
    /// Erases a rectangle (cutout; Zhong et al., 2017).
    RandomErasing {
        /// Probability, drawn for each image from the range.
        #[serde(default = "whole")]
        factor: Factor,
        /// Square of the share of each side that is erased.
        #[serde(default = "erased")]
        scale: Factor,
        /// What the rectangle is filled with; noise unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fill_value: Option<f64>,
        /// Least and largest value of a pixel; the filling is cut to it.
        #[serde(default = "bytes")]
        value_range: [f64; 2],
    },
    /// Blends each sample, and its target, with another of its batch (Zhang et al., 2017).
    MixUp {
        /// Both parameters of the beta distribution that the weight is drawn from.
        #[serde(default = "mix_up_alpha")]
        alpha: f64,
    },
    /// Pastes a rectangle of another image of the batch, and mixes the targets by area
    /// (Yun et al., 2019).
    CutMix {
        /// Range of the beta distribution's parameters.
        #[serde(default = "whole")]
        factor: Factor,
    },
    /// Adds noise to the features of a table, after normalization.
    GaussianNoise {
        /// Standard deviation; of features scaled by `standard`, a share of their own.
        stddev: f64,
    },
}

const fn constant() -> FillMode {
    FillMode::Constant
}
const fn bytes() -> [f64; 2] {
    [0.0, 255.0]
}
const fn whole() -> Factor {
    Factor::One(1.0)
}
const fn erased() -> Factor {
    Factor::Range([0.02, 0.33])
}
const fn mix_up_alpha() -> f64 {
    0.2
}

/// Largest padding of a crop in pixels.
const MAX_PADDING: usize = 4_096;
/// Bounds of values of pixels.
const LARGEST_VALUE: f64 = 1e9;

impl Augmentation {
    /// Name as in the spec.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RandomFlip { .. } => "RandomFlip",
            Self::RandomCrop { .. } => "RandomCrop",
            Self::RandomRotation { .. } => "RandomRotation",
            Self::RandomTranslation { .. } => "RandomTranslation",
            Self::RandomZoom { .. } => "RandomZoom",
            Self::RandomBrightness { .. } => "RandomBrightness",
            Self::RandomContrast { .. } => "RandomContrast",
            Self::RandomErasing { .. } => "RandomErasing",
            Self::MixUp { .. } => "MixUp",
            Self::CutMix { .. } => "CutMix",
            Self::GaussianNoise { .. } => "GaussianNoise",
        }
    }

    /// Tells whether samples of a batch are mixed with each other.
    #[must_use]
    pub fn mixes(&self) -> bool {
        matches!(self, Self::MixUp { .. } | Self::CutMix { .. })
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let mut check = Check { pointer, v };
        match self {
            Self::RandomFlip { .. } => {}
            Self::RandomCrop {
                padding,
                fill_value,
                ..
            } => {
                let at = check.at("padding");
                let most = padding.get().into_iter().max().unwrap_or_default();
                check.v.check_range(&at, most, 1, MAX_PADDING);
                check.value("fill_value", *fill_value);
            }
            Self::RandomRotation {
                factor, fill_value, ..
            } => {
                check.factor("factor", *factor, -1.0);
                check.value("fill_value", *fill_value);
            }
            Self::RandomTranslation {
                height_factor,
                width_factor,
                fill_value,
                ..
            } => {
                check.factor("height_factor", *height_factor, -1.0);
                check.factor("width_factor", *width_factor, -1.0);
                check.value("fill_value", *fill_value);
            }
            Self::RandomZoom {
                height_factor,
                width_factor,
                fill_value,
                ..
            } => {
                check.factor("height_factor", *height_factor, -1.0);
                let width = width_factor.unwrap_or(*height_factor);
                check.factor("width_factor", width, -1.0);
                check.value("fill_value", *fill_value);
            }
            Self::RandomBrightness {
                factor,
                value_range,
            }
            | Self::RandomContrast {
                factor,
                value_range,
            } => {
                check.factor("factor", *factor, -1.0);
                check.range(*value_range);
            }
            Self::RandomErasing {
                factor,
                scale,
                fill_value,
                value_range,
            } => {
                check.factor("factor", *factor, 0.0);
                check.factor("scale", *scale, 0.0);
                check.value("fill_value", fill_value.unwrap_or_default());
                check.range(*value_range);
            }
            Self::MixUp { alpha } => {
                let at = check.at("alpha");
                check.v.check_range(&at, *alpha, 1e-3, 100.0);
            }
            Self::CutMix { factor } => check.factor("factor", *factor, 0.0),
            Self::GaussianNoise { stddev } => {
                let at = check.at("stddev");
                check.v.check_range(&at, *stddev, 0.0, 100.0);
            }
        }
    }

    /// Records what does not fit samples of shape `shape`; `indices` if they are looked up.
    pub fn check_samples(&self, shape: &[usize], indices: bool, pointer: &str, v: &mut Violations) {
        let at = format!("{pointer}/type");
        let name = self.name();
        let shown = super::shapes::show(shape);
        if indices {
            let detail = format!("{name} changes values, but the Embedding looks indices up");
            v.push(at, "conflict", detail);
            return;
        }
        match self {
            Self::MixUp { .. } => {}
            Self::GaussianNoise { .. } => v.check(shape.len() == 1, &at, "shape_mismatch", || {
                format!("{name} is for tables, but samples have shape {shown}")
            }),
            _ => v.check(shape.len() == 3, &at, "shape_mismatch", || {
                format!(
                    "{name} needs images (height, width, channels), but samples have shape {shown}"
                )
            }),
        }
        if let (Self::RandomCrop { height, width, .. }, [h, w, _]) = (self, shape) {
            for (field, given, own) in [("height", height, h), ("width", width, w)] {
                let at = format!("{pointer}/{field}");
                v.check(given.is_none_or(|n| n == *own), &at, "shape_mismatch", || {
                    format!("{} is not the samples' own {field} {own}, which the network reads; leave it out", given.unwrap_or_default())
                });
            }
        }
    }
}

/// Checks a list as a whole, each augmentation by itself included.
pub fn check(list: &[Augmentation], pointer: &str, v: &mut Violations) {
    for (i, augmentation) in list.iter().enumerate() {
        let at = format!("{pointer}/{i}");
        augmentation.check(&at, v);
        if augmentation.mixes() && list[..i].iter().any(Augmentation::mixes) {
            let detail = "MixUp and CutMix exclude each other and themselves: one mixes a batch";
            v.push(format!("{at}/type"), "conflict", detail);
        }
    }
}

struct Check<'a> {
    pointer: &'a str,
    v: &'a mut Violations,
}

impl Check<'_> {
    fn at(&self, field: &str) -> String {
        format!("{}/{field}", self.pointer)
    }

    fn factor(&mut self, field: &str, factor: Factor, min: f64) {
        let at = self.at(field);
        match factor {
            Factor::One(f) => self.v.check_range(&at, f, min, 1.0),
            Factor::Range(limits) => {
                for (i, limit) in limits.into_iter().enumerate() {
                    self.v.check_range(&format!("{at}/{i}"), limit, min, 1.0);
                }
            }
        }
    }

    fn value(&mut self, field: &str, value: f64) {
        let at = self.at(field);
        self.v
            .check_range(&at, value, -LARGEST_VALUE, LARGEST_VALUE);
    }

    fn range(&mut self, [low, high]: [f64; 2]) {
        let at = self.at("value_range");
        self.value("value_range/0", low);
        self.value("value_range/1", high);
        self.v.check(low < high, &at, "out_of_range", || {
            format!("{low} is not below {high}")
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Augmentation {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn defaults_are_those_of_keras() {
        let zoom = read(json!({"type": "RandomZoom", "height_factor": 0.2}));
        let expected = Augmentation::RandomZoom {
            height_factor: Factor::One(0.2),
            width_factor: None,
            fill_mode: FillMode::Reflect,
            interpolation: Interpolation::Bilinear,
            fill_value: 0.0,
        };
        assert_eq!(zoom, expected);
        let flip = FlipMode::HorizontalAndVertical;
        let read_flip = read(json!({"type": "RandomFlip"}));
        assert_eq!(read_flip, Augmentation::RandomFlip { mode: flip });
        let ranges = [Factor::One(-0.2), Factor::Range([0.3, 0.1])].map(Factor::around_zero);
        assert_eq!(format!("{ranges:?}"), "[[-0.2, 0.2], [0.1, 0.3]]");
    }

    #[test]
    fn mistakes_name_their_field() {
        let list = [
            json!({"type": "RandomRotation", "factor": [0.5, 1.5]}),
            json!({"type": "RandomBrightness", "factor": 0.1, "value_range": [1, 0]}),
            json!({"type": "RandomCrop", "padding": 0}),
            json!({"type": "MixUp", "alpha": 0}),
            json!({"type": "CutMix"}),
        ]
        .map(read);
        let mut v = Violations::default();
        check(&list, "/a", &mut v);
        let pointers: Vec<_> = v.into_vec().into_iter().map(|v| v.pointer).collect();
        assert_eq!(
            pointers,
            [
                "/a/0/factor/1",
                "/a/1/value_range",
                "/a/2/padding",
                "/a/3/alpha",
                "/a/4/type"
            ]
        );
    }

    #[test]
    fn images_and_tables_have_their_own() {
        let refused = |value: Value, shape: &[usize], indices| {
            let mut v = Violations::default();
            read(value).check_samples(shape, indices, "/a", &mut v);
            v.into_vec()
                .into_iter()
                .map(|v| v.pointer)
                .collect::<Vec<_>>()
        };
        let noise = json!({"type": "GaussianNoise", "stddev": 0.1});
        let flip = json!({"type": "RandomFlip"});
        let crop = json!({"type": "RandomCrop", "padding": 4, "height": 24});
        let mix = json!({"type": "MixUp"});
        assert_eq!(refused(noise.clone(), &[28, 28, 1], false), ["/a/type"]);
        assert!(refused(noise, &[7], false).is_empty());
        assert_eq!(refused(flip.clone(), &[7], false), ["/a/type"]);
        assert!(refused(flip, &[28, 28, 1], false).is_empty());
        assert_eq!(refused(crop, &[32, 32, 3], false), ["/a/height"]);
        assert_eq!(refused(mix.clone(), &[40], true), ["/a/type"]);
        assert!(refused(mix, &[40], false).is_empty());
    }
}
