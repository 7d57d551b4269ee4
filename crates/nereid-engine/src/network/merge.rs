//! Layers that join several inputs.

#![expect(
    clippy::many_single_char_names,
    reason = "axes and gates by their usual letters"
)]

use burn::tensor::Tensor;

use super::Act;

/// How values of several inputs become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    Add,
    Subtract,
    Multiply,
    Average,
    Maximum,
    Minimum,
}

impl Join {
    /// Joins inputs of one shape, but for axes of length 1, which are repeated.
    pub(super) fn run(self, inputs: Vec<Act>, output: &[usize]) -> Act {
        let n = inputs.len();
        let same = inputs.iter().all(|act| act.shape == output);
        let joined = if same {
            let acts = inputs.into_iter();
            acts.reduce(|a, b| a.zip(b, |a, b| self.pair(a, b)))
        } else {
            let boxes = inputs.into_iter().map(boxed);
            let joined = boxes.reduce(|a, b| self.pair(a, b));
            joined.map(|x| unboxed(x, output))
        };
        #[expect(clippy::expect_used, reason = "checked when the network was planned")]
        let joined = joined.expect("a join has inputs");
        if self == Self::Average {
            #[expect(clippy::cast_precision_loss, reason = "at most 64 inputs")]
            return joined.map(|x| x / n as f32);
        }
        joined
    }

    fn pair<const D: usize>(self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Add | Self::Average => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Maximum => a.max_pair(b),
            Self::Minimum => a.min_pair(b),
        }
    }
}

/// Puts inputs one after the other along an axis of samples.
pub(super) fn concatenate(inputs: Vec<Act>, axis: usize, output: &[usize]) -> Act {
    let rank = output.len();
    if axis + 1 == rank && inputs.iter().all(Act::is_planar) {
        let planes = inputs.into_iter().map(Act::planes).collect();
        return Act::from_planes(Tensor::cat(planes, 1), rank);
    }
    let boxes = inputs.into_iter().map(boxed).collect();
    unboxed(Tensor::cat(boxes, axis + 1), output)
}

/// Shape of a sample with axes of length 1 behind it, up to four.
pub(super) fn padded(shape: &[usize]) -> [usize; 4] {
    std::array::from_fn(|i| shape.get(i).copied().unwrap_or(1))
}

/// Returns a batch with all its axes.
pub(super) fn boxed(act: Act) -> Tensor<5> {
    let n = act.rows();
    let [a, b, c, d] = padded(&act.shape);
    act.flat().reshape([n, a, b, c, d])
}

/// The way back from [`boxed`].
pub(super) fn unboxed(x: Tensor<5>, shape: &[usize]) -> Act {
    let n = x.dims()[0];
    Act::new(x.reshape([n, shape.iter().product()]), shape.to_vec())
}
