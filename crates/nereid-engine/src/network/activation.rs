//! A batch on its way through a network: a matrix of one row a sample, with its shape.

use burn::tensor::Tensor;

use super::{functions::Function, kernels};

/// Values between two layers.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    data: Tensor<2>,
    /// Shape of a sample, channels last whatever `planar` says.
    pub(crate) shape: Vec<usize>,
    /// Whether the rows of `data` hold one plane per channel.
    planar: bool,
}

impl Act {
    /// Wraps rows of channels-last samples.
    pub(crate) fn new(data: Tensor<2>, shape: Vec<usize>) -> Self {
        Self {
            data,
            shape,
            planar: false,
        }
    }

    /// Wraps planes; samples have a height only if `rank` is 3.
    pub(crate) fn from_planes(planes: Tensor<4>, rank: usize) -> Self {
        let [n, c, h, w] = planes.dims();
        let shape = if rank == 3 { vec![h, w, c] } else { vec![w, c] };
        Self {
            data: planes.reshape([n, c * h * w]),
            shape,
            planar: true,
        }
    }

    /// Number of samples.
    pub(crate) fn rows(&self) -> usize {
        self.data.dims()[0]
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    pub(crate) fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Height, width and channels; steps have height 1.
    pub(crate) fn plane_shape(&self) -> [usize; 3] {
        match *self.shape.as_slice() {
            [h, w, c] => [h, w, c],
            [w, c] => [1, w, c],
            _ => [1, self.size() / self.channels(), self.channels()],
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns one row a sample, channels last.
    pub(crate) fn flat(self) -> Tensor<2> {
        let (n, c, size) = (self.rows(), self.channels(), self.size());
        if !self.planar || c == 1 || c == size {
            return self.data;
        }
        let planes: Tensor<3> = self.data.reshape([n, c, size / c]);
        planes.swap_dims(1, 2).reshape([n, size])
    }

    /// Returns the planes of each channel.
    pub(crate) fn planes(self) -> Tensor<4> {
        let (n, [h, w, c]) = (self.rows(), self.plane_shape());
        if self.planar || c == 1 {
            return self.data.reshape([n, c, h, w]);
        }
        let last: Tensor<4> = self.data.reshape([n, h, w, c]);
        last.permute([0, 3, 1, 2])
    }

    /// Returns one row for each vector along the last axis.
    pub(crate) fn vectors(self) -> Tensor<2> {
        let (n, c, size) = (self.rows(), self.channels(), self.size());
        let flat = self.flat();
        if c == size {
            return flat;
        }
        flat.reshape([n * (size / c), c])
    }

    /// Tells whether the batch is held in planes.
    pub(crate) fn is_planar(&self) -> bool {
        self.planar
    }

    /// Tells whether the batch lies in the processor's memory, where our own kernels compute.
    pub(crate) fn is_in_memory(&self) -> bool {
        kernels::in_memory(&self.data)
    }

    /// Applies `f` to the values, which may lie in any order.
    pub(crate) fn map(self, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            data: f(self.data),
            ..self
        }
    }

    /// Applies `f` to the values of two batches of the same shape.
    pub(crate) fn zip(
        self,
        other: Self,
        f: impl FnOnce(Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Self {
        if self.planar == other.planar {
            let data = f(self.data, other.data);
            return Self { data, ..self };
        }
        let shape = self.shape.clone();
        Self::new(f(self.flat(), other.flat()), shape)
    }

    /// Applies an activation.
    pub(crate) fn activate(self, by: Function) -> Self {
        if by == Function::LINEAR {
            return self;
        }
        if by.is_elementwise() {
            return self.map(|x| by.apply(x));
        }
        let (n, size, shape) = (self.rows(), self.size(), self.shape.clone());
        let vectors = by.apply(self.vectors());
        Self::new(vectors.reshape([n, size]), shape)
    }
}
