//! Convolutions, pools and planes made larger.

use super::{
    Dialect, Layers,
    graph::{Value, dims, int, int_attribute, ints, text},
};
use crate::network::{Kind, Node, POINT, Window, kept, mixture};

/// Axes of planes: height and width, or steps alone.
fn spatial(value: &Value, pair: [usize; 2]) -> Vec<usize> {
    if value.shape.len() == 3 {
        pair.to_vec()
    } else {
        vec![pair[1]]
    }
}

/// Height and width; steps have height 1.
fn plane(value: &Value) -> [usize; 2] {
    match *value.shape.as_slice() {
        [h, w, _] => [h, w],
        [w, _] => [1, w],
        _ => [1, 1],
    }
}

/// Padding as ONNX has it: all beginnings, then all ends.
fn pads(value: &Value, pads: [(usize, usize); 2]) -> Vec<i64> {
    let [rows, columns] = pads;
    let begins = spatial(value, [rows.0, columns.0]);
    let ends = spatial(value, [rows.1, columns.1]);
    dims(&[begins, ends].concat())
}

impl Layers<'_> {
    /// Emits a layer with windows; `None` if it is another one.
    pub(super) fn windowed(&mut self, node: &Node, value: &Value) -> Option<Value> {
        Some(match &node.kind {
            Kind::Conv {
                window,
                kernel,
                bias,
                groups,
                ..
            } => {
                let bias = bias.map(|b| self.weight(b).1);
                self.convolve(node, value, (window, *kernel, *groups), bias)
            }
            Kind::Separable {
                window,
                depthwise,
                pointwise,
                bias,
                multiplier,
                ..
            } => {
                let channels = value.channels();
                let between = self.convolve(node, value, (window, *depthwise, channels), None);
                let mut between = between;
                if let Some(last) = between.shape.last_mut() {
                    *last = channels * multiplier;
                }
                let bias = bias.map(|b| self.weight(b).1);
                self.convolve(node, &between, (&POINT, *pointwise, 1), bias)
            }
            Kind::ConvTranspose {
                window,
                kernel,
                bias,
                filters,
            } => self.transposed(node, value, window, (*kernel, *bias, *filters)),
            Kind::MaxPool(window) => self.pool(node, value, window, "MaxPool"),
            Kind::AveragePool(window) => self.pool(node, value, window, "AveragePool"),
            Kind::GlobalAverage => self.global(node, value, "GlobalAveragePool"),
            Kind::GlobalMaximum => self.global(node, value, "GlobalMaxPool"),
            Kind::ZeroPad([rows, columns]) => {
                let x = self.graph.planes_of(value);
                let amounts = [
                    0, 0, rows[0], columns[0], //
                    0, 0, rows[1], columns[1],
                ];
                let amounts = self.graph.integers(&dims(&amounts));
                let name = self.graph.node("Pad", &[&x.name, &amounts], vec![]);
                Value::planes(name, node.output.clone())
            }
            Kind::Nearest(factors) => self.nearest(node, value, *factors),
            Kind::Bilinear(factors) => self.bilinear(node, value, *factors),
            _ => return None,
        })
    }

    fn convolve(
        &mut self,
        node: &Node,
        value: &Value,
        (window, kernel, groups): (&Window, usize, usize),
        bias: Option<Vec<f32>>,
    ) -> Value {
        let mut x = self.graph.planes_of(value);
        let mut stride = window.stride;
        let borders = window.pads(plane(&x));
        // tract 0.23 refuses strides of windows of one position, which leave values out.
        if self.dialect == Dialect::Tract && window.size == [1, 1] && stride != [1, 1] {
            x = self.pool(node, &x, window, "MaxPool");
            x.shape = [&node.output[..node.output.len() - 1], &[value.channels()]].concat();
            stride = [1, 1];
        }
        let values = self.weight(kernel).1;
        let [h, w] = window.size;
        let inputs = x.channels() / groups;
        let outputs = values.len() / (h * w * inputs).max(1);
        let values = turned(&values, [h * w, inputs, outputs]);
        let shape = [vec![outputs, inputs], spatial(&x, window.size)].concat();
        let kernel = self.graph.floats(&shape, &values);
        let mut given = vec![x.name.clone(), kernel];
        if let Some(bias) = bias {
            given.push(self.graph.floats(&[outputs], &bias));
        }
        let given: Vec<_> = given.iter().map(String::as_str).collect();
        let attributes = vec![
            ints("kernel_shape", &dims(&spatial(&x, window.size))),
            ints("strides", &dims(&spatial(&x, stride))),
            ints("dilations", &dims(&spatial(&x, window.dilation))),
            ints("pads", &pads(&x, borders)),
            int_attribute("group", int(groups)),
        ];
        let name = self.graph.node("Conv", &given, attributes);
        Value::planes(name, node.output.clone())
    }

    fn transposed(
        &mut self,
        node: &Node,
        value: &Value,
        window: &Window,
        (kernel, bias, filters): (usize, Option<usize>, usize),
    ) -> Value {
        let x = self.graph.planes_of(value);
        let values = self.weight(kernel).1;
        let ([h, w], inputs) = (window.size, x.channels());
        let values = turned(&values, [h * w, filters, inputs]);
        let kernel = self.graph.floats(&[inputs, filters, h, w], &values);
        let mut given = vec![x.name.clone(), kernel];
        if let Some(bias) = bias {
            let bias = self.weight(bias).1;
            given.push(self.graph.floats(&[filters], &bias));
        }
        let given: Vec<_> = given.iter().map(String::as_str).collect();
        let size = plane(&x);
        // What reaches over the border is padding of the result; gaps at the end are filled.
        let axes = [0, 1].map(|axis| {
            let extent = (window.size[axis] - 1) * window.dilation[axis] + 1;
            let whole = (size[axis] - 1) * window.stride[axis] + extent;
            let (first, kept) = kept(window, size[axis], axis);
            let end = whole.saturating_sub(first + kept);
            ((first, end), (first + kept).saturating_sub(whole))
        });
        let attributes = vec![
            ints("kernel_shape", &dims(&window.size)),
            ints("strides", &dims(&window.stride)),
            ints("dilations", &dims(&window.dilation)),
            ints("pads", &pads(&x, axes.map(|(pads, _)| pads))),
            ints("output_padding", &dims(&axes.map(|(_, more)| more))),
        ];
        let name = self.graph.node("ConvTranspose", &given, attributes);
        Value::planes(name, node.output.clone())
    }

    fn pool(&mut self, node: &Node, value: &Value, window: &Window, op: &str) -> Value {
        let x = self.graph.planes_of(value);
        let attributes = vec![
            ints("kernel_shape", &dims(&spatial(&x, window.size))),
            ints("strides", &dims(&spatial(&x, window.stride))),
            ints("pads", &pads(&x, window.pads(plane(&x)))),
        ];
        let name = self.graph.node(op, &[&x.name], attributes);
        Value::planes(name, node.output.clone())
    }

    fn global(&mut self, node: &Node, value: &Value, op: &str) -> Value {
        let x = self.graph.planes_of(value);
        let pooled = self.graph.node(op, &[&x.name], vec![]);
        let name = self.graph.reshape(&pooled, &node.output);
        Value::last(name, node.output.clone())
    }

    fn nearest(&mut self, node: &Node, value: &Value, [rows, columns]: [usize; 2]) -> Value {
        let x = self.graph.planes_of(value);
        #[expect(clippy::cast_precision_loss, reason = "factors are small")]
        let factors = [1.0, 1.0, rows as f32, columns as f32];
        let factors = self.graph.floats(&[4], &factors);
        let attributes = vec![
            text("mode", "nearest"),
            text("coordinate_transformation_mode", "asymmetric"),
            text("nearest_mode", "floor"),
        ];
        let given = [x.name.as_str(), "", &factors];
        let name = self.graph.node("Resize", &given, attributes);
        Value::planes(name, node.output.clone())
    }

    /// Mixes rows and columns by constant shares.
    fn bilinear(&mut self, node: &Node, value: &Value, [rows, columns]: [usize; 2]) -> Value {
        let x = self.graph.planes_of(value);
        let [h, w] = plane(&x);
        let down = self.graph.floats(&[h * rows, h], &mixture(h, rows));
        let shares = mixture(w, columns);
        let across: Vec<f32> = (0..w)
            .flat_map(|i| shares.iter().skip(i).step_by(w).copied())
            .collect();
        let across = self.graph.floats(&[w, w * columns], &across);
        let taller = self.graph.node("MatMul", &[&down, &x.name], vec![]);
        let name = self.graph.node("MatMul", &[&taller, &across], vec![]);
        Value::planes(name, node.output.clone())
    }
}

/// From Keras' order of kernels (positions, in, out) to (out, in, positions).
fn turned(values: &[f32], [positions, inputs, outputs]: [usize; 3]) -> Vec<f32> {
    let mut kernel = Vec::with_capacity(values.len());
    for o in 0..outputs {
        for i in 0..inputs {
            kernel.extend((0..positions).map(|p| values[(p * inputs + i) * outputs + o]));
        }
    }
    kernel
}
