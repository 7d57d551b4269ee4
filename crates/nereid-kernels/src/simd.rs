//! Vectors of the processor at hand, without a line of unsafe code.

use macerator::{AutoArch, Scalar, Simd, Vector, WithSimd};

/// A vector register of `f32`.
pub(crate) type Lanes<S> = Vector<S, f32>;

/// Runs code compiled for the best instruction set that the processor has.
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    AutoArch::new().dispatch(op)
}

/// Runs a closure that is marked `#[inline(always)]`, compiled for the best instruction set that
/// the processor has.
///
/// It is called by reference: to call it as `FnOnce` the compiler would put an adapter between,
/// which is not inlined and so compiled for the plainest processor.
pub(crate) fn run(f: impl FnMut()) {
    struct Run<F>(F);
    impl<F: FnMut()> WithSimd for Run<F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(mut self) {
            (self.0)();
        }
    }
    dispatch(Run(f));
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

/// Fills a register with one value.
#[inline(always)]
pub(crate) fn splat<S: Simd>(value: f32) -> Lanes<S> {
    value.splat::<S>()
}

/// Reads `V` registers, which hold `W` values.
///
/// No branch is left of it: one in the innermost loop would keep sums out of registers.
#[inline(always)]
pub(crate) fn load<S: Simd, const V: usize, const W: usize>(from: &[f32; W]) -> [Lanes<S>; V] {
    bytemuck::cast(*from)
}

/// Returns the `W` values that `V` registers hold.
#[inline(always)]
pub(crate) fn values<S: Simd, const V: usize, const W: usize>(row: [Lanes<S>; V]) -> [f32; W] {
    bytemuck::cast(row)
}

/// Calls a method with the tile that suits the registers: its rows, its registers in a row and
/// the columns these hold. There are 32 registers with AVX-512, else 16 are sure.
macro_rules! tiled {
    ($value:ident . $method:ident :: <$simd:ident> if $narrow:expr) => {
        match (crate::simd::lanes::<$simd>(), $narrow) {
            (16, true) => $value.$method::<$simd, 12, 1, 16>(),
            (16, false) => $value.$method::<$simd, 12, 2, 32>(),
            (8, true) => $value.$method::<$simd, 6, 1, 8>(),
            (8, false) => $value.$method::<$simd, 6, 2, 16>(),
            (_, true) => $value.$method::<$simd, 6, 1, 4>(),
            (_, false) => $value.$method::<$simd, 6, 2, 8>(),
        }
    };
}
pub(crate) use tiled;
