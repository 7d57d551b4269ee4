//! Long short-term memory, with the way back through time written out.

use std::sync::Arc;

use burn::tensor::Tensor;
use nereid_kernels::{Lstm, LstmStates};

use super::graph::{self, Derivative, Gradient, Input, Values};

/// Runs all steps on the products of inputs and kernel: (samples, steps · 4 · units).
///
/// Yields the state after each step, or after the last one alone. Gives its input back if it is
/// not the processor's.
pub(in crate::network) fn lstm(
    given: Tensor<2>,
    recurrent: &Tensor<1>,
    (steps, units): (usize, usize),
    sequences: bool,
) -> Result<Tensor<2>, Tensor<2>> {
    let [batch, _] = given.dims();
    let given = Input::take(given)?;
    let Ok(recurrent) = Input::take(recurrent.clone()) else {
        return Err(given.into_tensor());
    };
    let layer = Lstm {
        batch,
        steps,
        units,
    };
    let kernel = recurrent.values();
    let states = layer.forward(given.values().as_slice(), kernel.as_slice());
    let (y, width) = if sequences {
        (states.hidden.clone(), steps * units)
    } else {
        let samples = states.hidden.chunks(steps * units);
        let last = samples.flat_map(|s| &s[(steps - 1) * units..]);
        (last.copied().collect(), units)
    };
    let saved = Saved {
        layer,
        states,
        kernel,
        sequences,
    };
    let inputs = [given, recurrent];
    Ok(graph::finish(inputs, y, [batch, width], |_| {
        Arc::new(saved)
    }))
}

#[derive(Debug)]
struct Saved {
    layer: Lstm,
    states: LstmStates,
    kernel: Values,
    sequences: bool,
}

impl Derivative<2> for Saved {
    fn gradients(&self, dy: Values, [given, recurrent]: [bool; 2]) -> [Option<Gradient>; 2] {
        let Lstm {
            batch,
            steps,
            units,
        } = self.layer;
        let run = steps * units;
        let (kernel, states) = (self.kernel.as_slice(), &self.states);
        let (dz, du) = if self.sequences {
            self.layer.backward(states, kernel, dy.as_slice())
        } else {
            // All states but the last one went nowhere.
            let mut all = vec![0.0; batch * run];
            for (to, from) in all.chunks_mut(run).zip(dy.as_slice().chunks(units)) {
                to[run - units..].copy_from_slice(from);
            }
            self.layer.backward(states, kernel, &all)
        };
        [
            given.then(|| (dz, vec![batch, 4 * run])),
            recurrent.then(|| (du, vec![4 * units * units])),
        ]
    }
}
