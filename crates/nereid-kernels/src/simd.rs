//! Vectors of the processor at hand, without a line of unsafe code.

use macerator::{AutoArch, Scalar, Simd, Vector, WithSimd};

/// A vector register of `f32`.
pub(crate) type Lanes<S> = Vector<S, f32>;

/// Runs code compiled for the best instruction set that the processor has.
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    AutoArch::new().dispatch(op)
}

/// Number of `f32` in a register of the processor at hand.
pub(crate) fn width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self) -> usize {
            lanes::<S>()
        }
    }
    dispatch(Width)
}

/// Number of `f32` in a register.
#[inline(always)]
pub(crate) fn lanes<S: Simd>() -> usize {
    size_of::<S::Register>() / size_of::<f32>()
}

/// Reads a register; `from` has exactly [`lanes`] values.
#[inline(always)]
pub(crate) fn load<S: Simd>(from: &[f32]) -> Lanes<S> {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(from))
}

/// Writes a register; `to` has room for exactly [`lanes`] values.
#[inline(always)]
pub(crate) fn store<S: Simd>(to: &mut [f32], value: Lanes<S>) {
    bytemuck::cast_slice_mut::<f32, u8>(to).copy_from_slice(bytemuck::bytes_of(&value));
}

/// Fills a register with one value.
#[inline(always)]
pub(crate) fn splat<S: Simd>(value: f32) -> Lanes<S> {
    value.splat::<S>()
}
