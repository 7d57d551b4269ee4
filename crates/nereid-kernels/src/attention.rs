//! Scaled dot-product attention of several heads (Vaswani et al., 2017).

use crate::{
    functions::{exp, sum},
    product::{Forward, Rows, each, is_parallel, pack, transpose},
    simd,
};

/// Shape of a run. Queries, keys and values are (samples, steps, heads, size).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of samples.
    pub batch: usize,
    /// Number of heads.
    pub heads: usize,
    /// Steps of the queries, and of the keys and values.
    pub steps: [usize; 2],
    /// Size of a query and of a key, and of a value.
    pub sizes: [usize; 2],
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Whether a step sees itself and earlier ones only.
    pub causal: bool,
}

/// Gradients of queries, keys and values.
pub type AttentionGradients = [Vec<f32>; 3];

impl Attention {
    /// Values of a sample: of queries, keys, values, the result and the shares.
    fn lengths(&self) -> [usize; 5] {
        let Self {
            heads,
            steps: [tq, tk],
            sizes: [d, dv],
            ..
        } = *self;
        [
            tq * heads * d,
            tk * heads * d,
            tk * heads * dv,
            tq * heads * dv,
            heads * tq * tk,
        ]
        .map(|n| n.max(1))
    }

    fn is_parallel(&self) -> bool {
        let [tq, tk] = self.steps;
        is_parallel(self.batch * self.heads * tq * tk * (self.sizes[0] + self.sizes[1]))
    }

    /// Returns the shares of each key in each query's result: (samples, heads, queries, keys).
    #[must_use]
    pub fn shares(&self, q: &[f32], k: &[f32]) -> Vec<f32> {
        let [nq, nk, _, _, ns] = self.lengths();
        let mut shares = vec![0.0; self.batch * ns];
        let inputs = q.chunks_exact(nq).zip(k.chunks_exact(nk));
        let items = inputs.zip(shares.chunks_exact_mut(ns)).collect();
        each(
            self.is_parallel(),
            items,
            |((q, k), shares): ((&[f32], &[f32]), &mut [f32])| self.shares_of_one(q, k, shares),
        );
        shares
    }

    fn shares_of_one(&self, q: &[f32], k: &[f32], shares: &mut [f32]) {
        let Self {
            heads,
            steps: [tq, tk],
            sizes: [d, _],
            ..
        } = *self;
        let mut turned = vec![0.0; d * tk];
        for (head, shares) in shares.chunks_exact_mut((tq * tk).max(1)).enumerate() {
            transpose(&gather(k, heads, head, d), tk, d, &mut turned);
            multiply((q, heads * d, head * d), [tq, d, tk], &turned, shares);
            simd::run(
                #[inline(always)]
                || {
                    for (i, row) in shares.chunks_exact_mut(tk.max(1)).enumerate() {
                        let seen = if self.causal { (i + 1).min(tk) } else { tk };
                        let (row, unseen) = row.split_at_mut(seen);
                        softmax(row, self.scale);
                        unseen.fill(0.0);
                    }
                },
            );
        }
    }

    /// Returns the results: values weighed by shares.
    #[must_use]
    pub fn forward(&self, shares: &[f32], v: &[f32]) -> Vec<f32> {
        let [_, _, nv, ny, ns] = self.lengths();
        let Self {
            heads,
            steps: [tq, tk],
            sizes: [_, dv],
            ..
        } = *self;
        let mut y = vec![0.0; self.batch * ny];
        let inputs = shares.chunks_exact(ns).zip(v.chunks_exact(nv));
        let items = inputs.zip(y.chunks_exact_mut(ny)).collect();
        each(
            self.is_parallel(),
            items,
            |((shares, v), y): ((&[f32], &[f32]), &mut [f32])| {
                let mut one = vec![0.0; tq * dv];
                for (head, shares) in shares.chunks_exact((tq * tk).max(1)).enumerate() {
                    multiply(
                        (shares, tk, 0),
                        [tq, tk, dv],
                        &gather(v, heads, head, dv),
                        &mut one,
                    );
                    scatter(&one, heads, head, dv, y);
                }
            },
        );
        y
    }

    /// Returns the gradients of queries, keys and values from the result's.
    ///
    /// `weighed` are the shares that values were weighed with, if some of them were dropped: the
    /// factor of each is `mask`.
    #[must_use]
    pub fn gradients(
        &self,
        [q, k, v]: [&[f32]; 3],
        shares: &[f32],
        mask: Option<&[f32]>,
        dy: &[f32],
    ) -> AttentionGradients {
        let [nq, nk, nv, ny, ns] = self.lengths();
        let [mut dq, mut dk, mut dv] = [nq, nk, nv].map(|n| vec![0.0; self.batch * n]);
        let items = (0..self.batch)
            .zip(dq.chunks_exact_mut(nq))
            .zip(dk.chunks_exact_mut(nk).zip(dv.chunks_exact_mut(nv)))
            .map(|((i, dq), (dk, dv))| Sample {
                q: &q[i * nq..(i + 1) * nq],
                k: &k[i * nk..(i + 1) * nk],
                v: &v[i * nv..(i + 1) * nv],
                shares: &shares[i * ns..(i + 1) * ns],
                mask: mask.map(|mask| &mask[i * ns..(i + 1) * ns]),
                dy: &dy[i * ny..(i + 1) * ny],
                gradients: [dq, dk, dv],
            })
            .collect();
        each(self.is_parallel(), items, |sample: Sample<'_>| {
            self.gradients_of_one(sample);
        });
        [dq, dk, dv]
    }

    fn gradients_of_one(&self, sample: Sample<'_>) {
        let Self {
            heads,
            steps: [tq, tk],
            sizes: [d, size],
            ..
        } = *self;
        let n = (tq * tk).max(1);
        let [dq, dk, dv] = sample.gradients;
        let (mut ds, mut turned) = (vec![0.0; tq * tk], vec![0.0; tq * tk]);
        let mut values = vec![0.0; size * tk];
        let mut one = vec![0.0; tq.max(tk) * d.max(size)];
        for head in 0..heads {
            let shares = &sample.shares[head * n..(head + 1) * n];
            let mask = sample.mask.map(|mask| &mask[head * n..(head + 1) * n]);
            let dy = gather(sample.dy, heads, head, size);
            // Of the values: their shares, turned round, times the result's gradient.
            ds.copy_from_slice(shares);
            weigh(&mut ds, mask);
            transpose(&ds, tq, tk, &mut turned);
            let to = &mut one[..tk * size];
            multiply((&turned, tq, 0), [tk, tq, size], &dy, to);
            scatter(to, heads, head, size, dv);
            // Of the shares, and through softmax.
            transpose(&gather(sample.v, heads, head, size), tk, size, &mut values);
            multiply((&dy, size, 0), [tq, size, tk], &values, &mut ds);
            weigh(&mut ds, mask);
            simd::run(
                #[inline(always)]
                || {
                    let rows = ds
                        .chunks_exact_mut(tk.max(1))
                        .zip(shares.chunks_exact(tk.max(1)));
                    rows.for_each(|(ds, shares)| through_softmax(ds, shares, self.scale));
                },
            );
            let to = &mut one[..tq * d];
            multiply(
                (&ds, tk, 0),
                [tq, tk, d],
                &gather(sample.k, heads, head, d),
                to,
            );
            scatter(to, heads, head, d, dq);
            transpose(&ds, tq, tk, &mut turned);
            let to = &mut one[..tk * d];
            multiply(
                (&turned, tq, 0),
                [tk, tq, d],
                &gather(sample.q, heads, head, d),
                to,
            );
            scatter(to, heads, head, d, dk);
        }
    }
}

/// One sample on the way back.
struct Sample<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    shares: &'a [f32],
    mask: Option<&'a [f32]>,
    dy: &'a [f32],
    gradients: [&'a mut [f32]; 3],
}

/// Multiplies `rows` rows of `depth` values, a `stride` apart from `offset` on, with a matrix.
fn multiply(
    (x, stride, offset): (&[f32], usize, usize),
    [rows, depth, units]: [usize; 3],
    matrix: &[f32],
    y: &mut [f32],
) {
    let starts: Vec<usize> = (0..rows).map(|i| i * stride + offset).collect();
    let packed = pack(matrix, depth, units);
    simd::dispatch(Forward {
        rows: Rows {
            starts: &starts,
            runs: &[0],
            run: depth,
        },
        x,
        packed: &packed,
        bias: None,
        relu: false,
        units,
        y,
    });
}

/// Returns one head's rows of a sample.
fn gather(x: &[f32], heads: usize, head: usize, size: usize) -> Vec<f32> {
    let rows = x.chunks_exact((heads * size).max(1));
    rows.flat_map(|row| &row[head * size..(head + 1) * size])
        .copied()
        .collect()
}

/// Puts one head's rows into a sample.
fn scatter(one: &[f32], heads: usize, head: usize, size: usize, to: &mut [f32]) {
    let rows = to.chunks_exact_mut((heads * size).max(1));
    for (row, one) in rows.zip(one.chunks_exact(size.max(1))) {
        row[head * size..(head + 1) * size].copy_from_slice(one);
    }
}

fn weigh(values: &mut [f32], mask: Option<&[f32]>) {
    for (value, factor) in values.iter_mut().zip(mask.unwrap_or_default()) {
        *value *= factor;
    }
}

/// Shares of scaled scores.
#[inline(always)]
fn softmax(row: &mut [f32], scale: f32) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    for score in row.iter_mut() {
        *score = exp((*score - largest) * scale);
    }
    let factor = 1.0 / sum(row, row, |share, _| share);
    for share in row.iter_mut() {
        *share *= factor;
    }
}

/// Makes the gradients of unscaled scores of those of their shares.
#[inline(always)]
fn through_softmax(ds: &mut [f32], shares: &[f32], scale: f32) {
    for (d, share) in ds.iter_mut().zip(shares) {
        *d *= share;
    }
    let all = sum(ds, ds, |d, _| d);
    for (d, share) in ds.iter_mut().zip(shares) {
        *d = (*d - share * all) * scale;
    }
}
