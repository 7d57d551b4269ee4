//! Activation functions, with Keras' definitions.

use burn::tensor::{Tensor, activation};
use nereid_core::spec::{layers::Activation, network::Defaults};
use nereid_kernels::Curve;

use super::kernels;

/// An activation with its numbers resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    /// One without numbers.
    Named(Activation),
    LeakyRelu(f64),
    Elu(f64),
    Relu {
        largest: Option<f64>,
        slope: f64,
        threshold: f64,
    },
}

impl Function {
    pub(crate) const LINEAR: Self = Self::Named(Activation::Linear);
    pub(crate) const RELU: Self = Self::Named(Activation::Relu);

    /// Resolves an activation's name.
    pub(crate) fn of(activation: Activation, defaults: Defaults) -> Self {
        match (activation, defaults) {
            (Activation::LeakyRelu, Defaults::Keras) => Self::LeakyRelu(0.2),
            (Activation::LeakyRelu, Defaults::Pytorch) => Self::LeakyRelu(0.01),
            (Activation::Elu, _) => Self::Elu(1.0),
            (named, _) => Self::Named(named),
        }
    }

    /// Tells whether it is a ReLU, which may die: below 0 it yields 0 with no gradient.
    pub(crate) fn is_relu(self) -> bool {
        self == Self::RELU || matches!(self, Self::Relu { slope, .. } if slope <= 0.0)
    }

    /// Tells whether each value depends on no other one.
    pub(crate) fn is_elementwise(self) -> bool {
        self != Self::Named(Activation::Softmax)
    }

    /// Returns what our own kernels know it as.
    fn curve(self) -> Option<Curve> {
        let Self::Named(activation) = self else {
            return None;
        };
        Some(match activation {
            Activation::Relu => Curve::Relu,
            Activation::Gelu => Curve::Gelu,
            Activation::Silu => Curve::Silu,
            Activation::Sigmoid => Curve::Sigmoid,
            Activation::Tanh => Curve::Tanh,
            _ => return None,
        })
    }

    /// Applies the function; softmax over the second axis.
    pub(crate) fn apply(self, x: Tensor<2>) -> Tensor<2> {
        let x = match self.curve() {
            Some(curve) => match kernels::activate(x, curve) {
                Ok(y) => return y,
                Err(x) => x,
            },
            None => x,
        };
        match self {
            Self::LeakyRelu(slope) => activation::leaky_relu(x, slope),
            Self::Elu(alpha) => elu(x, alpha),
            Self::Relu {
                largest,
                slope,
                threshold,
            } => relu(x, largest, slope, threshold),
            Self::Named(activation) => named(activation, x),
        }
    }
}

fn named(by: Activation, x: Tensor<2>) -> Tensor<2> {
    match by {
        Activation::Linear => x,
        Activation::Relu => activation::relu(x),
        Activation::Relu6 => activation::relu6(x),
        Activation::LeakyRelu => activation::leaky_relu(x, 0.2),
        Activation::Elu => elu(x, 1.0),
        // The constants of Klambauer et al. (2017).
        Activation::Selu => elu(x, 1.673_263_242_354_377_2) * 1.050_700_987_355_480_5,
        Activation::Gelu => gelu(x),
        Activation::GeluApproximate => activation::gelu_approximate(x),
        Activation::Silu => activation::silu(x),
        Activation::Mish => x.clone() * softplus(x).tanh(),
        Activation::Sigmoid => activation::sigmoid(x),
        Activation::HardSigmoid => hard_sigmoid(x),
        Activation::HardSilu => x.clone() * hard_sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Softplus => softplus(x),
        Activation::Softsign => x.clone() / (x.abs() + 1.0),
        Activation::Softmax => activation::softmax(x, 1),
    }
}

/// By its formula: the framework's own has the gradient of its approximation.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    let below = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
    x * below * 0.5
}

/// The exponential sees no positive values, which would overflow into gradients that are not
/// finite.
fn elu(x: Tensor<2>, alpha: f64) -> Tensor<2> {
    let below = (x.clone().clamp_max(0.0).exp() - 1.0) * alpha;
    activation::relu(x) + below
}

/// `log(1 + exp(x))`, which overflows nowhere as the logarithm of a logistic function.
fn softplus(x: Tensor<2>) -> Tensor<2> {
    activation::log_sigmoid(x.neg()).neg()
}

fn hard_sigmoid(x: Tensor<2>) -> Tensor<2> {
    (x / 6.0 + 0.5).clamp(0.0, 1.0)
}

fn relu(x: Tensor<2>, largest: Option<f64>, slope: f64, threshold: f64) -> Tensor<2> {
    let below = (slope != 0.0).then(|| (x.clone() - threshold).clamp_max(0.0) * slope);
    let above = if threshold == 0.0 {
        activation::relu(x)
    } else {
        let dropped = x.clone().lower_elem(threshold);
        x.mask_fill(dropped, 0.0)
    };
    let above = match largest {
        Some(largest) => above.clamp_max(largest),
        None => above,
    };
    match below {
        Some(below) => above + below,
        None => above,
    }
}
