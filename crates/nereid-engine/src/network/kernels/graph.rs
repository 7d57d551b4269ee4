//! Puts an operation of our own beneath the framework's automatic differentiation.

use std::{fmt::Debug, sync::Arc};

use burn::{
    backend::{
        Autodiff, BackendTensor, DispatchTensorKind, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};

use crate::network::half;

type Tracked = FloatTensor<Autodiff<Flex>>;

/// An input of an operation: a tensor in the processor's memory.
pub(super) enum Input {
    Constant(FlexTensor),
    Tracked(Tracked),
}

impl Input {
    /// Takes a tensor, or gives it back if it is not the processor's or in half precision.
    #[allow(
        unreachable_patterns,
        clippy::match_wildcard_for_single_variants,
        reason = "which devices there are depends on the build"
    )]
    pub(super) fn take<const D: usize>(tensor: Tensor<D>) -> Result<Self, Tensor<D>> {
        if !half::is_single(&tensor) {
            return Err(tensor);
        }
        let mut dispatch = tensor.into_dispatch();
        dispatch.kind = match dispatch.kind {
            DispatchTensorKind::Flex(BackendTensor::Float(t)) => return Ok(Self::Constant(t)),
            DispatchTensorKind::Autodiff(inner) => match *inner {
                DispatchTensorKind::Flex(BackendTensor::Autodiff(t)) => {
                    return Ok(Self::Tracked(t));
                }
                other => DispatchTensorKind::Autodiff(Box::new(other)),
            },
            other => other,
        };
        Err(Tensor::from_dispatch(dispatch))
    }

    /// Returns the values in the order of their indices.
    pub(super) fn values(&self) -> Values {
        Values::of(match self {
            Self::Constant(t) => t.clone(),
            Self::Tracked(t) => t.primitive().clone(),
        })
    }

    /// Returns the values without a copy, if they lie in the order of their indices.
    fn into_values(self) -> Values {
        Values::of(match self {
            Self::Constant(t) => t,
            Self::Tracked(t) => t.into_primitive(),
        })
    }

    /// Makes a tensor of it again.
    pub(super) fn into_tensor<const D: usize>(self) -> Tensor<D> {
        match self {
            Self::Constant(t) => Tensor::from_primitive::<Flex>(t),
            Self::Tracked(t) => Tensor::from_primitive::<Autodiff<Flex>>(t),
        }
    }

    fn track(self) -> Tracked {
        match self {
            Self::Constant(t) => Tracked::new(t),
            Self::Tracked(t) => t,
        }
    }
}

/// Values in memory, in the order of their indices, shared with the tensor if they lie so there.
#[derive(Debug, Clone)]
pub(super) struct Values(FlexTensor);

impl Values {
    fn of(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() {
            tensor
        } else {
            tensor.to_contiguous()
        })
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }

    /// Returns the values to change them, copied only if somebody else holds them.
    pub(super) fn into_mut(self) -> Owned {
        let n = self.as_slice().len();
        let mut tensor = self.0;
        if tensor.storage::<f32>().len() != n {
            tensor = tensor.to_contiguous();
        }
        Owned(tensor)
    }
}

/// Values that may be changed.
pub(super) struct Owned(FlexTensor);

impl Owned {
    pub(super) fn as_mut(&mut self) -> &mut [f32] {
        self.0.storage_mut()
    }

    pub(super) fn freeze(self) -> Values {
        Values(self.0)
    }
}

/// Tells whether a tensor lies in the processor's memory.
pub(crate) fn in_memory<const D: usize>(tensor: &Tensor<D>) -> bool {
    Input::take(tensor.clone()).is_ok()
}

/// Lets `f` change the values of tensors in place, next to a tensor that it reads.
///
/// Returns `false` and does nothing if they are not the processor's. Values that somebody else
/// holds, too, are copied first.
pub(crate) fn change<const N: usize>(
    tensors: [&mut Tensor<1>; N],
    read: &Tensor<1>,
    f: impl FnOnce([&mut [f32]; N], &[f32]),
) -> bool {
    let Ok(read_input) = Input::take(read.clone()) else {
        return false;
    };
    let values = read_input.values();
    let mut owned = tensors.map(|tensor| {
        let taken = std::mem::replace(tensor, read.clone());
        let values = Input::take(taken).map(Input::into_values);
        (tensor, values.map(Values::into_mut))
    });
    let mut all = true;
    let slices = owned.each_mut().map(|(_, values)| {
        if let Ok(values) = values {
            values.as_mut()
        } else {
            all = false;
            Default::default()
        }
    });
    if all {
        f(slices, values.as_slice());
    }
    for (tensor, values) in owned {
        *tensor = match values {
            Ok(values) => Tensor::from_primitive::<Flex>(values.0),
            Err(foreign) => foreign,
        };
    }
    all
}

/// What an operation remembers for its gradients.
pub(super) trait Derivative<const N: usize>: Debug + Send + Sync {
    /// Returns the gradients of those inputs that are `wanted`, from the result's.
    fn gradients(&self, dy: Values, wanted: [bool; N]) -> [Option<Gradient>; N];
}

/// A gradient's values and shape.
pub(super) type Gradient = (Vec<f32>, Vec<usize>);

/// Makes the result of an operation on `inputs`, whose gradients follow from `derivative`.
pub(super) fn finish<const N: usize, const D: usize>(
    inputs: [Input; N],
    values: Vec<f32>,
    shape: [usize; D],
    derivative: impl FnOnce(&Values) -> Arc<dyn Derivative<N>>,
) -> Tensor<D> {
    let result = FlexTensor::from_data(TensorData::new(values, shape));
    if inputs.iter().all(|i| matches!(i, Input::Constant(_))) {
        return Tensor::from_primitive::<Flex>(result);
    }
    let inputs = inputs.map(Input::track);
    let prepared = Operation
        .prepare::<NoCheckpointing>(inputs.each_ref().map(Tracked::node))
        .compute_bound()
        .stateful();
    let result = match prepared {
        OpsKind::Tracked(prepared) => {
            let state = derivative(&Values(result.clone()));
            prepared.finish(state, result)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(result)
}

#[derive(Debug)]
struct Operation;

impl<const N: usize> Backward<Flex, N> for Operation {
    type State = Arc<dyn Derivative<N>>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = Values::of(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = ops.state.gradients(dy, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some((values, shape))) = (parent, gradient) {
                let data = TensorData::new(values, shape);
                grads.register::<Flex>(parent.id, FlexTensor::from_data(data));
            }
        }
    }
}
