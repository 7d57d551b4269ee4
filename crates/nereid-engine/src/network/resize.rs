//! Planes and steps made larger.

use burn::tensor::{Tensor, ops::PadMode};

use nereid_kernels::Windows;

use super::{Act, kernels, noise::constant};

/// Puts zeros around planes: `[[above, below], [left, right]]`.
pub(super) fn zero_pad(act: Act, [rows, columns]: [[usize; 2]; 2]) -> Act {
    let pads = [rows, columns].map(|[before, after]| (before, after));
    if act.is_in_memory() {
        let [height, width, channels] = act.plane_shape();
        let windows = Windows {
            batch: act.rows(),
            input: [height, width],
            channels,
            size: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads,
        };
        let [height, width] = windows.padded();
        let shape = vec![height, width, channels];
        let y = kernels::zero_pad(act.flat(), windows);
        #[expect(clippy::expect_used, reason = "it was just looked up")]
        return Act::new(y.expect("it lies in memory"), shape);
    }
    let planes = act.planes().pad(pads, PadMode::Constant(0.0));
    Act::from_planes(planes, 3)
}

/// Repeats each value of planes.
pub(super) fn nearest(act: Act, [rows, columns]: [usize; 2]) -> Act {
    let planes = act.planes();
    let [n, c, h, w] = planes.dims();
    let apart: Tensor<5> = planes.reshape([n * c, h, 1, w, 1]);
    let repeated = apart.expand([n * c, h, rows, w, columns]);
    Act::from_planes(repeated.reshape([n, c, h * rows, w * columns]), 3)
}

/// Fills planes in linearly between the centres of values; outside of them the border counts.
pub(super) fn bilinear(act: Act, [rows, columns]: [usize; 2]) -> Act {
    let planes = act.planes();
    let [_, _, h, w] = planes.dims();
    let down = constant(mixture(h, rows), [1, 1, h * rows, h], &planes);
    let across = constant(mixture(w, columns), [1, 1, w * columns, w], &planes);
    let taller = down.matmul(planes);
    Act::from_planes(taller.matmul(across.swap_dims(2, 3)), 3)
}

/// How much of each old position is in each new one, a row for each new one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are small and not negative"
)]
pub(crate) fn mixture(positions: usize, factor: usize) -> Vec<f32> {
    let mut shares = vec![0.0; positions * factor * positions];
    for (new, row) in shares.chunks_mut(positions).enumerate() {
        let at = (new as f32 + 0.5) / factor as f32 - 0.5;
        let at = at.clamp(0.0, (positions - 1) as f32);
        let below = at.floor() as usize;
        let above = (below + 1).min(positions - 1);
        let share = at - below as f32;
        row[below] += 1.0 - share;
        row[above] += share;
    }
    shares
}

/// Repeats a vector as steps.
pub(super) fn repeat(act: Act, steps: usize) -> Act {
    let (n, c) = (act.rows(), act.size());
    let one: Tensor<3> = act.flat().reshape([n, 1, c]);
    let all = one.expand([n, steps, c]).reshape([n, steps * c]);
    Act::new(all, vec![steps, c])
}

/// Gives each sample the same rows of a table of `channels` columns.
pub(super) fn positions(act: &Act, table: Tensor<1>) -> Act {
    let (n, size) = (act.rows(), act.size());
    let rows: Tensor<2> = table.narrow(0, 0, size).reshape([1, size]);
    Act::new(rows.expand([n, size]), act.shape.clone())
}
