//! Long short-term memory over all steps at once, forward and back through time.
//!
//! Samples do not see each other, so that blocks of them are computed apart; the blocks follow
//! from the shape of the data alone.

use crate::{
    functions::{sigmoid, tanh},
    product::{Dense, Forward, Rows, each, is_parallel, pack, transpose},
    simd,
};

/// Samples that one thread takes at a time.
const BLOCK: usize = 16;

/// Shape of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lstm {
    /// Number of samples.
    pub batch: usize,
    /// Number of steps.
    pub steps: usize,
    /// Size of the state.
    pub units: usize,
}

/// What a run leaves for its way back; all arrays are (samples, steps, …).
#[derive(Debug, Clone, PartialEq)]
pub struct LstmStates {
    /// The state after each step.
    pub hidden: Vec<f32>,
    /// Gates i, f, c, o of each step.
    gates: Vec<f32>,
    /// What is carried beside the state.
    carried: Vec<f32>,
}

/// Parts of the arrays that belong to one block of samples.
struct Block<'a> {
    given: &'a [f32],
    hidden: &'a mut [f32],
    gates: &'a mut [f32],
    carried: &'a mut [f32],
}

/// Parts of the arrays that belong to one block of samples, on the way back.
struct Back<'a> {
    dy: &'a [f32],
    gates: &'a [f32],
    carried: &'a [f32],
    dz: &'a mut [f32],
}

impl Lstm {
    fn is_parallel(&self) -> bool {
        is_parallel(self.batch * self.steps * self.units * self.units * 4)
    }

    /// Values of one sample over all steps, for each unit of state.
    fn run(&self) -> usize {
        self.steps * self.units
    }

    /// Runs all steps on `given`, the products of inputs and kernel: (samples, steps, 4 · units).
    ///
    /// `recurrent` is the recurrent kernel, (units, 4 · units), with gates in the order i, f, c, o.
    #[must_use]
    pub fn forward(&self, given: &[f32], recurrent: &[f32]) -> LstmStates {
        let (n, run) = (self.batch * self.run(), self.run());
        let packed = pack(recurrent, self.units, 4 * self.units);
        let mut states = LstmStates {
            hidden: vec![0.0; n],
            gates: vec![0.0; 4 * n],
            carried: vec![0.0; n],
        };
        let hidden = states.hidden.chunks_mut(BLOCK * run);
        let gates = states.gates.chunks_mut(BLOCK * 4 * run);
        let carried = states.carried.chunks_mut(BLOCK * run);
        let given = given.chunks(BLOCK * 4 * run);
        let blocks = given.zip(hidden).zip(gates.zip(carried));
        let items = blocks
            .map(|((given, hidden), (gates, carried))| Block {
                given,
                hidden,
                gates,
                carried,
            })
            .collect();
        each(self.is_parallel(), items, |mut block: Block<'_>| {
            self.forward_block(&mut block, &packed);
        });
        states
    }

    fn forward_block(&self, block: &mut Block<'_>, packed: &[f32]) {
        let (units, run) = (self.units, self.run());
        let samples = block.hidden.len() / run;
        let starts: Vec<usize> = (0..samples).map(|b| b * run).collect();
        let mut product = vec![0.0; samples * 4 * units];
        for step in 0..self.steps {
            if step > 0 {
                simd::dispatch(Forward {
                    rows: Rows {
                        starts: &starts,
                        runs: &[0],
                        run: units,
                    },
                    x: &block.hidden[(step - 1) * units..],
                    packed,
                    bias: None,
                    relu: false,
                    units: 4 * units,
                    y: &mut product,
                });
            }
            for (b, product) in product.chunks(4 * units).enumerate() {
                let at = b * run + step * units;
                let gates = &mut block.gates[4 * at..4 * (at + units)];
                let given = &block.given[4 * at..4 * (at + units)];
                let (before, now) = block.carried.split_at_mut(at);
                let before = if step > 0 { &before[at - units..] } else { &[] };
                let states = (before, &mut now[..units], &mut block.hidden[at..at + units]);
                advance(given, product, gates, states);
            }
        }
    }

    /// Returns the gradients of `given` and of the recurrent kernel from those of all states.
    #[must_use]
    pub fn backward(
        &self,
        states: &LstmStates,
        recurrent: &[f32],
        dy: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let (n, run, units) = (self.batch * self.run(), self.run(), self.units);
        let mut turned = vec![0.0; recurrent.len()];
        transpose(recurrent, units, 4 * units, &mut turned);
        let packed = pack(&turned, 4 * units, units);
        let mut dz = vec![0.0; 4 * n];
        let inputs = dy
            .chunks(BLOCK * run)
            .zip(states.gates.chunks(BLOCK * 4 * run));
        let outputs = states
            .carried
            .chunks(BLOCK * run)
            .zip(dz.chunks_mut(BLOCK * 4 * run));
        let items = inputs
            .zip(outputs)
            .map(|((dy, gates), (carried, dz))| Back {
                dy,
                gates,
                carried,
                dz,
            })
            .collect();
        each(self.is_parallel(), items, |mut block: Back<'_>| {
            self.backward_block(&mut block, &packed);
        });
        let product = Dense {
            rows: self.batch * self.steps,
            inputs: units,
            units: 4 * units,
        };
        let kernel = product.kernel_gradient(&self.before(&states.hidden), &dz);
        (dz, kernel)
    }

    /// States before each step: 0 before the first one.
    fn before(&self, hidden: &[f32]) -> Vec<f32> {
        let mut before = vec![0.0; hidden.len()];
        let run = self.run();
        for (to, from) in before.chunks_mut(run).zip(hidden.chunks(run)) {
            to[self.units..].copy_from_slice(&from[..run - self.units]);
        }
        before
    }

    fn backward_block(&self, block: &mut Back<'_>, packed: &[f32]) {
        let (units, run) = (self.units, self.run());
        let samples = block.dy.len() / run;
        let starts: Vec<usize> = (0..samples).map(|b| b * 4 * run).collect();
        let mut dh = vec![0.0; samples * units];
        let mut dc = vec![0.0; samples * units];
        for step in (0..self.steps).rev() {
            for (b, (dh, dc)) in dh.chunks(units).zip(dc.chunks_mut(units)).enumerate() {
                let at = b * run + step * units;
                let carried = &block.carried[at..at + units];
                let before = if step > 0 {
                    &block.carried[at - units..at]
                } else {
                    &[]
                };
                let gates = &block.gates[4 * at..4 * (at + units)];
                let dz = &mut block.dz[4 * at..4 * (at + units)];
                retreat(
                    (&block.dy[at..at + units], dh),
                    (before, carried),
                    gates,
                    dc,
                    dz,
                );
            }
            if step > 0 {
                simd::dispatch(Forward {
                    rows: Rows {
                        starts: &starts,
                        runs: &[0],
                        run: 4 * units,
                    },
                    x: &block.dz[4 * step * units..],
                    packed,
                    bias: None,
                    relu: false,
                    units,
                    y: &mut dh,
                });
            }
        }
    }
}

/// Takes one sample one step on; nothing is carried before the first one.
fn advance(
    given: &[f32],
    product: &[f32],
    gates: &mut [f32],
    (before, carried, hidden): (&[f32], &mut [f32], &mut [f32]),
) {
    let units = hidden.len();
    simd::run(
        #[inline(always)]
        || {
            for ((z, x), p) in gates.iter_mut().zip(given).zip(product) {
                *z = x + p;
            }
            let (first, rest) = gates.split_at_mut(2 * units);
            let (new, out) = rest.split_at_mut(units);
            for z in first.iter_mut() {
                *z = sigmoid(*z);
            }
            for z in out.iter_mut() {
                *z = sigmoid(*z);
            }
            for z in new.iter_mut() {
                *z = tanh(*z);
            }
            let (input, forget) = first.split_at(units);
            for ((c, i), g) in carried.iter_mut().zip(input).zip(new.iter()) {
                *c = i * g;
            }
            for ((c, f), b) in carried.iter_mut().zip(forget).zip(before) {
                *c += f * b;
            }
            for ((h, o), c) in hidden.iter_mut().zip(out.iter()).zip(carried.iter()) {
                *h = o * tanh(*c);
            }
        },
    );
}

/// Takes the gradients of one sample one step back, from those of its state.
#[expect(clippy::many_single_char_names, reason = "the gates' own names")]
fn retreat(
    (dy, dh): (&[f32], &[f32]),
    (before, carried): (&[f32], &[f32]),
    gates: &[f32],
    dc: &mut [f32],
    dz: &mut [f32],
) {
    let units = dy.len();
    simd::run(
        #[inline(always)]
        || {
            let (di, rest) = dz.split_at_mut(units);
            let (df, rest) = rest.split_at_mut(units);
            let (dg, d_o) = rest.split_at_mut(units);
            let (i, rest) = gates.split_at(units);
            let (f, rest) = rest.split_at(units);
            let (g, o) = rest.split_at(units);
            for k in 0..units {
                let (dh, top) = (dy[k] + dh[k], tanh(carried[k]));
                d_o[k] = dh * top * o[k] * (1.0 - o[k]);
                let d = dc[k] + dh * o[k] * (1.0 - top * top);
                di[k] = d * g[k] * i[k] * (1.0 - i[k]);
                dg[k] = d * i[k] * (1.0 - g[k] * g[k]);
                df[k] = d * f[k] * (1.0 - f[k]);
                dc[k] = d * f[k];
            }
            if before.is_empty() {
                df.fill(0.0);
            }
            for (df, before) in df.iter_mut().zip(before) {
                *df *= before;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, salt: u8) -> Vec<f32> {
        let mut x = f32::from(salt);
        let mut next = || {
            x += 1.7;
            (x * 0.9).sin() * 0.8
        };
        (0..n).map(|_| next()).collect()
    }

    /// The formulas, in double precision and one sample after the other.
    fn plain(l: Lstm, given: &[f64], u: &[f64]) -> Vec<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let n = l.units;
        let mut all = Vec::new();
        for sample in given.chunks(l.steps * 4 * n) {
            let (mut h, mut c) = (vec![0.0; n], vec![0.0; n]);
            for x in sample.chunks(4 * n) {
                let z = |k: usize| x[k] + (0..n).map(|j| h[j] * u[j * 4 * n + k]).sum::<f64>();
                let z: Vec<f64> = (0..4 * n).map(z).collect();
                for k in 0..n {
                    c[k] = sigmoid(z[n + k]) * c[k] + sigmoid(z[k]) * z[2 * n + k].tanh();
                    h[k] = sigmoid(z[3 * n + k]) * c[k].tanh();
                }
                all.extend_from_slice(&h);
            }
        }
        all
    }

    fn double(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&v| f64::from(v)).collect()
    }

    #[test]
    fn states_and_gradients_are_those_of_the_formulas() {
        for (batch, steps, units) in [(1, 1, 1), (3, 4, 5), (19, 7, 6), (33, 3, 40)] {
            let l = Lstm {
                batch,
                steps,
                units,
            };
            let (given, u) = (
                wave(batch * steps * 4 * units, 1),
                wave(units * 4 * units, 2),
            );
            let dy = wave(batch * steps * units, 3);
            let states = l.forward(&given, &u);
            let (given64, u64, dy64) = (double(&given), double(&u), double(&dy));
            let want = plain(l, &given64, &u64);
            for (got, want) in states.hidden.iter().zip(&want) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} {want}");
            }
            let (dz, du) = l.backward(&states, &u, &dy);
            let loss = |g: &[f64], u: &[f64]| -> f64 {
                plain(l, g, u).iter().zip(&dy64).map(|(y, d)| y * d).sum()
            };
            let check = |got: &[f32], of_given: bool| {
                let n = got.len();
                for at in [0, n / 3, n / 2, n - 1] {
                    let moved = |by: f64| {
                        let (mut g, mut u) = (given64.clone(), u64.clone());
                        if of_given {
                            g[at] += by;
                        } else {
                            u[at] += by;
                        }
                        loss(&g, &u)
                    };
                    let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let off = (f64::from(got[at]) - want).abs();
                    assert!(off < 2e-5 * want.abs().max(1.0), "{at}: {} {want}", got[at]);
                }
            };
            check(&dz, true);
            check(&du, false);
        }
    }
}
