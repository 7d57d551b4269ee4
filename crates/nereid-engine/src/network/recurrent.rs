//! Recurrent layers: one product for the inputs of all steps, then a loop over the states.

#![expect(
    clippy::many_single_char_names,
    reason = "axes and gates by their usual letters"
)]

use burn::tensor::Tensor;
use nereid_core::spec::layers::{Activation, MergeMode};

use super::{Act, functions::Function, half, kernels};

/// What a cell does with its gates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    Simple,
    /// Gates i, f, c, o; the function of the gates.
    Lstm(Function),
    /// Gates z, r, h; the function of the gates, and whether reset acts after the product.
    Gru(Function, bool),
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Simple => 1,
            Self::Lstm(_) => 4,
            Self::Gru(..) => 3,
        }
    }
}

/// A recurrent layer in one direction; weights by index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recurrent {
    pub(crate) cell: Cell,
    pub(crate) kernel: usize,
    pub(crate) inner: usize,
    pub(crate) bias: Option<usize>,
    pub(crate) units: usize,
    /// The function of the new state.
    pub(crate) function: Function,
    pub(crate) sequences: bool,
    pub(crate) backwards: bool,
}

impl Recurrent {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (n, steps) = (act.rows(), act.shape[0]);
        let (given, inner) = self.given(act, weights);
        let given = match self.fused(given, steps, weights) {
            Ok(done) => return done,
            Err(given) => given,
        };
        let mut states = self.states(given, inner.as_ref(), steps, weights);
        if self.sequences {
            let all: Tensor<3> = Tensor::stack(states, 1);
            let shape = vec![steps, self.units];
            return Act::new(all.reshape([n, steps * self.units]), shape);
        }
        #[expect(clippy::expect_used, reason = "no shape has an axis of length 0")]
        let last = states.pop().expect("there is at least one step");
        Act::new(last, vec![self.units])
    }

    /// Returns the products of all steps' inputs, (samples, steps · columns), and the bias of the
    /// products of states, if they have one of their own.
    fn given(&self, act: Act, weights: &[Tensor<1>]) -> (Tensor<2>, Option<Tensor<2>>) {
        let (n, steps, inputs) = (act.rows(), act.shape[0], act.channels());
        let columns = self.cell.gates() * self.units;
        let (bias, inner) = self.biases(weights, columns);
        let kernel = &weights[self.kernel];
        let given = match kernels::dense(act.vectors(), kernel, bias.as_ref(), false) {
            Ok(given) => given,
            Err(x) => {
                let given = half::matmul(x, kernel.clone().reshape([inputs, columns]));
                match bias {
                    Some(bias) => given + bias.reshape([1, columns]),
                    None => given,
                }
            }
        };
        (given.reshape([n, steps * columns]), inner)
    }

    /// Runs an LSTM of the usual functions on the processor, or gives its input back.
    fn fused(
        &self,
        given: Tensor<2>,
        steps: usize,
        weights: &[Tensor<1>],
    ) -> Result<Act, Tensor<2>> {
        let usual = self.cell == Cell::Lstm(Function::Named(Activation::Sigmoid))
            && self.function == Function::Named(Activation::Tanh);
        if !usual {
            return Err(given);
        }
        let (n, columns) = (given.dims()[0], 4 * self.units);
        let given = if self.backwards {
            let turned: Tensor<3> = given.reshape([n, steps, columns]).flip([1]);
            turned.reshape([n, steps * columns])
        } else {
            given
        };
        let size = (steps, self.units);
        match kernels::lstm(given, &weights[self.inner], size, self.sequences) {
            Ok(y) if self.sequences => Ok(Act::new(y, vec![steps, self.units])),
            Ok(y) => Ok(Act::new(y, vec![self.units])),
            Err(given) if self.backwards => {
                let turned: Tensor<3> = given.reshape([n, steps, columns]).flip([1]);
                Err(turned.reshape([n, steps * columns]))
            }
            Err(given) => Err(given),
        }
    }

    /// Returns the state after each step, in the order in which steps are taken.
    fn states(
        &self,
        given: Tensor<2>,
        inner: Option<&Tensor<2>>,
        steps: usize,
        weights: &[Tensor<1>],
    ) -> Vec<Tensor<2>> {
        let n = given.dims()[0];
        let columns = self.cell.gates() * self.units;
        let recurrent = weights[self.inner].clone();
        let recurrent = recurrent.reshape([self.units, columns]);
        let given: Tensor<3> = given.reshape([n, steps, columns]).swap_dims(0, 1);
        let mut parts = Vec::with_capacity(steps);
        halve(given, &mut parts);
        if self.backwards {
            parts.reverse();
        }
        let mut state: Option<State> = None;
        let mut states = Vec::with_capacity(steps);
        for part in parts {
            let next = self.step(part, state, &recurrent, inner);
            states.push(next.0.clone());
            state = Some(next);
        }
        states
    }

    /// Biases of the products of inputs and of states.
    fn biases(
        &self,
        weights: &[Tensor<1>],
        columns: usize,
    ) -> (Option<Tensor<1>>, Option<Tensor<2>>) {
        let Some(bias) = self.bias.map(|b| weights[b].clone()) else {
            return (None, None);
        };
        if let Cell::Gru(_, true) = self.cell {
            let both: Tensor<2> = bias.reshape([2, columns]);
            let second = both.clone().slice([1..2, 0..columns]);
            let first = both.slice([0..1, 0..columns]).reshape([columns]);
            return (Some(first), Some(second));
        }
        (Some(bias), None)
    }

    fn step(
        &self,
        given: Tensor<2>,
        state: Option<State>,
        recurrent: &Tensor<2>,
        inner: Option<&Tensor<2>>,
    ) -> State {
        match self.cell {
            Cell::Simple => {
                let sum = match state {
                    Some((h, _)) => given + half::matmul(h, recurrent.clone()),
                    None => given,
                };
                (self.function.apply(sum), None)
            }
            Cell::Lstm(gate) => self.lstm(gate, given, state, recurrent),
            Cell::Gru(gate, true) => self.gru_after(gate, &given, state, recurrent, inner),
            Cell::Gru(gate, false) => self.gru_before(gate, &given, state, recurrent),
        }
    }

    fn lstm(
        &self,
        gate: Function,
        given: Tensor<2>,
        state: Option<State>,
        recurrent: &Tensor<2>,
    ) -> State {
        let (h, carried) = state.map_or((None, None), |(h, c)| (Some(h), c));
        let sum = match h {
            Some(h) => given + half::matmul(h, recurrent.clone()),
            None => given,
        };
        let [i, f, c, o] = self.split(&sum);
        let new = gate.apply(i) * self.function.apply(c);
        let carry = match carried {
            Some(carried) => gate.apply(f) * carried + new,
            None => new,
        };
        let h = gate.apply(o) * self.function.apply(carry.clone());
        (h, Some(carry))
    }

    fn gru_after(
        &self,
        gate: Function,
        given: &Tensor<2>,
        state: Option<State>,
        recurrent: &Tensor<2>,
        inner: Option<&Tensor<2>>,
    ) -> State {
        let (n, units) = (given.dims()[0], self.units);
        let [xz, xr, xh] = self.split(given);
        let product = state
            .as_ref()
            .map(|(h, _)| half::matmul(h.clone(), recurrent.clone()));
        // Without a state yet its product is 0, and its bias is all there is.
        let product = match (product, inner) {
            (Some(product), Some(bias)) => Some(product + bias.clone()),
            (None, Some(bias)) => Some(bias.clone().expand([n, 3 * units])),
            (product, None) => product,
        };
        let Some(product) = product else {
            let z = gate.apply(xz);
            return ((z.neg() + 1.0) * self.function.apply(xh), None);
        };
        let [rz, rr, rh] = self.split(&product);
        let z = gate.apply(xz + rz);
        let new = self.function.apply(xh + gate.apply(xr + rr) * rh);
        (mix(z, state.map(|(h, _)| h), new), None)
    }

    fn gru_before(
        &self,
        gate: Function,
        given: &Tensor<2>,
        state: Option<State>,
        recurrent: &Tensor<2>,
    ) -> State {
        let [xz, xr, xh] = self.split(given);
        let Some((h, _)) = state else {
            return (mix(gate.apply(xz), None, self.function.apply(xh)), None);
        };
        let [uz, ur, uh] = self.split(recurrent);
        let z = gate.apply(xz + half::matmul(h.clone(), uz));
        let r = gate.apply(xr + half::matmul(h.clone(), ur));
        let new = self.function.apply(xh + half::matmul(r * h.clone(), uh));
        (mix(z, Some(h), new), None)
    }

    /// Splits columns by gate.
    fn split<const N: usize>(&self, x: &Tensor<2>) -> [Tensor<2>; N] {
        let rows = x.dims()[0];
        let units = self.units;
        std::array::from_fn(|i| x.clone().slice([0..rows, i * units..(i + 1) * units]))
    }
}

/// The state, and what an LSTM carries beside it; none of both stands for zeros.
type State = (Tensor<2>, Option<Tensor<2>>);

/// `z · h + (1 - z) · new`.
fn mix(z: Tensor<2>, h: Option<Tensor<2>>, new: Tensor<2>) -> Tensor<2> {
    let kept = h.map(|h| z.clone() * h);
    let new = (z.neg() + 1.0) * new;
    match kept {
        Some(kept) => kept + new,
        None => new,
    }
}

/// Takes steps apart by halves, so that the way back adds up each number as often as the
/// logarithm of steps, not as often as there are steps.
fn halve(x: Tensor<3>, parts: &mut Vec<Tensor<2>>) {
    let [steps, n, columns] = x.dims();
    if steps == 1 {
        parts.push(x.reshape([n, columns]));
        return;
    }
    let middle = steps / 2;
    halve(x.clone().slice([0..middle, 0..n, 0..columns]), parts);
    halve(x.slice([middle..steps, 0..n, 0..columns]), parts);
}

/// A recurrent layer run in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bidirectional {
    pub(crate) forward: Recurrent,
    pub(crate) backward: Recurrent,
    pub(crate) merge: MergeMode,
}

impl Bidirectional {
    pub(super) fn run(&self, act: Act, weights: &[Tensor<1>]) -> Act {
        let (n, steps) = (act.rows(), act.shape[0]);
        let units = self.forward.units;
        let forward = self.forward.run(act.clone(), weights);
        let mut backward = self.backward.run(act, weights);
        if self.backward.sequences {
            // Outputs stand by the steps that they belong to.
            let turned: Tensor<3> = backward.flat().reshape([n, steps, units]);
            let turned = turned.flip([1]).reshape([n, steps * units]);
            backward = Act::new(turned, forward.shape.clone());
        }
        match self.merge {
            MergeMode::Sum => forward.zip(backward, |a, b| a + b),
            MergeMode::Mul => forward.zip(backward, |a, b| a * b),
            MergeMode::Ave => forward.zip(backward, |a, b| (a + b) / 2.0),
            MergeMode::Concat => {
                let mut shape = forward.shape.clone();
                if let Some(last) = shape.last_mut() {
                    *last = 2 * units;
                }
                super::merge::concatenate(vec![forward, backward], shape.len() - 1, &shape)
            }
        }
    }
}
