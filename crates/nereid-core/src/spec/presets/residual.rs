//! Residual networks over planes, with torchvision's padding, strides and initial values.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Layers, activation, check_rate, dropout, wants};
use crate::{
    spec::{
        initializers::{Distribution, FanMode, Initializer},
        layers::{
            Activation, BatchNormalization, Conv2D, DepthwiseConv2D, Layer, LayerSpec, Margins,
            Padding, Pair, Plain, Pooling2D, ZeroPadding2D,
        },
        shapes::LayerError,
    },
    validation::Violations,
};

/// Planes up to this height and width begin with the small stem.
const SMALL: usize = 64;

/// How a network over planes begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// `small` for planes of up to 64×64, else `imagenet`.
    #[default]
    Auto,
    /// As published for planes of 224×224, which it makes four times (mobilenet_v2: two times)
    /// smaller at once.
    Imagenet,
    /// A 3×3 convolution that leaves planes as large as they are.
    Small,
}

impl Stem {
    fn is_small(self, height: usize, width: usize) -> bool {
        match self {
            Self::Auto => height.max(width) <= SMALL,
            Self::Imagenet => false,
            Self::Small => true,
        }
    }
}

/// Parameters of `resnet18` and `resnet50`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResNetPreset)]
pub struct ResNet {
    /// How the network begins.
    #[serde(default)]
    pub stem: Stem,
    /// Share dropped before the last layer.
    #[serde(default)]
    pub dropout: f64,
}

/// Kind of a residual network's blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Two 3×3 convolutions: 18 layers.
    Basic,
    /// A 3×3 convolution between two of 1×1: 50 layers.
    Bottleneck,
}

impl ResNet {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        check_rate(v, &format!("{pointer}/dropout"), self.dropout);
    }

    pub(super) fn expand(
        &self,
        input: &[usize],
        outputs: usize,
        depth: Depth,
    ) -> Result<Vec<LayerSpec>, LayerError> {
        let [height, width, _] = *input else {
            return Err(wants("resnet", "(height, width, channels)", input));
        };
        let (blocks, widening) = match depth {
            Depth::Basic => ([2, 2, 2, 2], 1),
            Depth::Bottleneck => ([3, 4, 6, 3], 4),
        };
        let mut layers = Layers::default();
        if self.stem.is_small(height, width) {
            conv(&mut layers, "stem", 64, 3, 1);
            normalise(&mut layers, "stem", Some(Activation::Relu));
        } else {
            conv(&mut layers, "stem", 64, 7, 2);
            normalise(&mut layers, "stem", Some(Activation::Relu));
            layers.add("stem_pool_pad", zero_padding(1));
            layers.add("stem_pool", max_pool(3, 2));
        }
        let mut channels = 64;
        for (stage, (&n, filters)) in blocks.iter().zip([64, 128, 256, 512]).enumerate() {
            for block in 0..n {
                let name = format!("stage{}_block{}", stage + 1, block + 1);
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let grown = filters * widening;
                let shortcut = stride > 1 || channels != grown;
                residual(
                    &mut layers,
                    &name,
                    depth,
                    (filters, grown, stride, shortcut),
                );
                channels = grown;
            }
        }
        Ok(finish(layers, self.dropout, outputs))
    }
}

fn residual(
    layers: &mut Layers,
    name: &str,
    depth: Depth,
    (filters, grown, stride, shortcut): (usize, usize, usize, bool),
) {
    let before = layers.last();
    let part = |n: u8| format!("{name}_{n}");
    match depth {
        Depth::Basic => {
            conv(layers, &part(1), filters, 3, stride);
            normalise(layers, &part(1), Some(Activation::Relu));
            conv(layers, &part(2), grown, 3, 1);
            normalise(layers, &part(2), None);
        }
        Depth::Bottleneck => {
            conv(layers, &part(1), filters, 1, 1);
            normalise(layers, &part(1), Some(Activation::Relu));
            conv(layers, &part(2), filters, 3, stride);
            normalise(layers, &part(2), Some(Activation::Relu));
            conv(layers, &part(3), grown, 1, 1);
            normalise(layers, &part(3), None);
        }
    }
    let main = layers.last();
    let mut side = before.clone();
    if shortcut {
        let name = format!("{name}_shortcut");
        let conv = convolution(grown, 1, stride, Padding::Valid);
        layers.join(&format!("{name}_conv"), conv, &[&before]);
        normalise(layers, &name, None);
        side = layers.last();
    }
    layers.add_sum(&format!("{name}_add"), &[&main, &side]);
    layers.add(&format!("{name}_relu"), activation(Activation::Relu));
}

/// Parameters of `mobilenet_v2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MobileNetPreset)]
pub struct MobileNet {
    /// Factor of all numbers of filters.
    #[serde(default = "one")]
    pub alpha: f64,
    /// How the network begins.
    #[serde(default)]
    pub stem: Stem,
    /// Share dropped before the last layer.
    #[serde(default = "fifth")]
    pub dropout: f64,
}

const fn one() -> f64 {
    1.0
}
const fn fifth() -> f64 {
    0.2
}

/// Expansion, filters, blocks and stride of each stage (Sandler et al., 2018, table 2).
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

impl MobileNet {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        v.check_range(&format!("{pointer}/alpha"), self.alpha, 0.05, 4.0);
        check_rate(v, &format!("{pointer}/dropout"), self.dropout);
    }

    /// Scales a number of filters to a multiple of 8, taking off no more than a tenth.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a few thousand filters at most"
    )]
    fn filters(&self, n: usize) -> usize {
        let wanted = n as f64 * self.alpha;
        let rounded = ((wanted + 4.0) as usize / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * wanted {
            rounded + 8
        } else {
            rounded
        }
    }

    pub(super) fn expand(
        &self,
        input: &[usize],
        outputs: usize,
    ) -> Result<Vec<LayerSpec>, LayerError> {
        let [height, width, _] = *input else {
            return Err(wants("mobilenet_v2", "(height, width, channels)", input));
        };
        let small = self.stem.is_small(height, width);
        let mut layers = Layers::default();
        let mut channels = self.filters(32);
        conv(&mut layers, "stem", channels, 3, if small { 1 } else { 2 });
        normalise(&mut layers, "stem", Some(Activation::Relu6));
        for (stage, &(expansion, filters, blocks, stride)) in STAGES.iter().enumerate() {
            let filters = self.filters(filters);
            for block in 0..blocks {
                let name = format!("stage{}_block{}", stage + 1, block + 1);
                let halves = block == 0 && stride == 2 && !(small && stage == 1);
                let stride = if halves { 2 } else { 1 };
                inverted(&mut layers, &name, (channels, expansion, filters, stride));
                channels = filters;
            }
        }
        let last = 1280.max(self.filters(1280));
        conv(&mut layers, "head", last, 1, 1);
        normalise(&mut layers, "head", Some(Activation::Relu6));
        Ok(finish(layers, self.dropout, outputs))
    }
}

fn inverted(
    layers: &mut Layers,
    name: &str,
    (channels, expansion, filters, stride): (usize, usize, usize, usize),
) {
    let before = layers.last();
    if expansion > 1 {
        let name = format!("{name}_expand");
        conv(layers, &name, channels * expansion, 1, 1);
        normalise(layers, &name, Some(Activation::Relu6));
    }
    let part = format!("{name}_depthwise");
    let padding = pad_for(layers, &part, 3, stride);
    layers.add(&format!("{part}_conv"), depthwise(stride, padding));
    normalise(layers, &part, Some(Activation::Relu6));
    let part = format!("{name}_project");
    conv(layers, &part, filters, 1, 1);
    normalise(layers, &part, None);
    if stride == 1 && channels == filters {
        let main = layers.last();
        layers.add_sum(&format!("{name}_add"), &[&before, &main]);
    }
}

fn finish(mut layers: Layers, rate: f64, outputs: usize) -> Vec<LayerSpec> {
    layers.add("pool", Layer::GlobalAveragePooling2D(Plain {}));
    if rate > 0.0 {
        layers.add("dropout", dropout(rate));
    }
    layers.finish(outputs)
}

/// Adds a convolution that keeps planes as large as they are, or `stride` times smaller.
fn conv(layers: &mut Layers, name: &str, filters: usize, size: usize, stride: usize) {
    let padding = pad_for(layers, name, size, stride);
    let layer = convolution(filters, size, stride, padding);
    layers.add(&format!("{name}_conv"), layer);
}

/// Pads on all sides alike, where padding "same" with strides pads more at the end.
fn pad_for(layers: &mut Layers, name: &str, size: usize, stride: usize) -> Padding {
    if size > 1 && stride > 1 {
        layers.add(&format!("{name}_pad"), zero_padding(size / 2));
        Padding::Valid
    } else if size > 1 {
        Padding::Same
    } else {
        Padding::Valid
    }
}

fn convolution(filters: usize, size: usize, stride: usize, padding: Padding) -> Layer {
    Layer::Conv2D(Conv2D {
        filters,
        kernel_size: Pair::One(size),
        strides: Pair::One(stride),
        padding,
        dilation_rate: Pair::One(1),
        groups: 1,
        activation: Activation::Linear,
        use_bias: false,
        kernel_initializer: Some(kaiming(FanMode::FanOut)),
        kernel_regularizer: None,
        bias_initializer: None,
    })
}

fn depthwise(stride: usize, padding: Padding) -> Layer {
    Layer::DepthwiseConv2D(DepthwiseConv2D {
        kernel_size: Pair::One(3),
        strides: Pair::One(stride),
        padding,
        depth_multiplier: 1,
        dilation_rate: Pair::One(1),
        activation: Activation::Linear,
        use_bias: false,
        // Of a depthwise kernel, this is what PyTorch counts as its outputs.
        depthwise_initializer: Some(kaiming(FanMode::FanIn)),
        bias_initializer: None,
    })
}

fn kaiming(mode: FanMode) -> Initializer {
    Initializer::VarianceScaling {
        scale: 2.0,
        mode,
        distribution: Distribution::UntruncatedNormal,
    }
}

fn normalise(layers: &mut Layers, name: &str, then: Option<Activation>) {
    let norm = Layer::BatchNormalization(BatchNormalization {
        momentum: 0.9,
        epsilon: 1e-5,
    });
    layers.add(&format!("{name}_bn"), norm);
    if let Some(then) = then {
        layers.add(&format!("{name}_relu"), activation(then));
    }
}

fn zero_padding(n: usize) -> Layer {
    Layer::ZeroPadding2D(ZeroPadding2D {
        padding: Margins::All(n),
    })
}

fn max_pool(size: usize, stride: usize) -> Layer {
    Layer::MaxPooling2D(Pooling2D {
        pool_size: Pair::One(size),
        strides: Some(Pair::One(stride)),
        padding: Padding::Valid,
    })
}
