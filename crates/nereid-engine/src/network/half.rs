//! Products in half precision: their kernels are cast once a pass, and inputs follow their kernel.
//!
//! All else, biases included, is computed in single precision, as under PyTorch's autocast.

use burn::tensor::{
    DType, FloatDType, Tensor, module,
    ops::{ConvOptions, ConvTransposeOptions},
};

use super::{Network, layers::Kind, recurrent::Recurrent};

impl Network {
    /// Returns weights, given in the order of `parameters`, with the kernels of products in half
    /// precision.
    pub(crate) fn halved(&self, weights: &[Tensor<1>]) -> Vec<Tensor<1>> {
        let mut weights = weights.to_vec();
        for index in self.nodes.iter().flat_map(|node| products(&node.kind)) {
            // A kernel stands once; casting twice changes nothing.
            weights[index] = weights[index].clone().cast(FloatDType::F16);
        }
        weights
    }
}

/// The kernels by which a layer multiplies, by index.
fn products(kind: &Kind) -> Vec<usize> {
    let of = |layer: &Recurrent| [layer.kernel, layer.inner];
    match kind {
        Kind::Dense { kernel, .. }
        | Kind::Conv { kernel, .. }
        | Kind::ConvTranspose { kernel, .. } => vec![*kernel],
        Kind::Separable {
            depthwise,
            pointwise,
            ..
        } => vec![*depthwise, *pointwise],
        Kind::Recurrent(layer) => of(layer).to_vec(),
        Kind::Bidirectional(both) => [of(&both.forward), of(&both.backward)].concat(),
        Kind::Attention(attention) => {
            let by = [
                attention.query,
                attention.key,
                attention.value,
                attention.output,
            ];
            by.map(|projection| projection.kernel).to_vec()
        }
        _ => Vec::new(),
    }
}

/// Multiplies in the precision of `kernel`; the result is in single precision.
pub(super) fn matmul<const D: usize>(x: Tensor<D>, kernel: Tensor<D>) -> Tensor<D> {
    let x = x.cast(precision(&kernel));
    x.matmul(kernel).cast(FloatDType::F32)
}

/// Multiplies two results, perhaps in half precision; the result is in single precision.
pub(super) fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>, in_half: bool) -> Tensor<D> {
    if in_half {
        matmul(a, b.cast(FloatDType::F16))
    } else {
        a.matmul(b)
    }
}

/// Convolves in the precision of `kernel`; the result is in single precision.
pub(super) fn convolve(
    x: Tensor<4>,
    kernel: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    if is_single(&kernel) {
        return module::conv2d(x, kernel, bias, options);
    }
    let channels = kernel.dims()[0];
    let x = x.cast(precision(&kernel));
    let y = module::conv2d(x, kernel, None, options).cast(FloatDType::F32);
    match bias {
        Some(bias) => y + bias.reshape([1, channels, 1, 1]),
        None => y,
    }
}

/// Convolves the other way round in the precision of `kernel`; the result is in single precision.
pub(super) fn convolve_transposed(
    x: Tensor<4>,
    kernel: Tensor<4>,
    options: ConvTransposeOptions<2>,
) -> Tensor<4> {
    let x = x.cast(precision(&kernel));
    module::conv_transpose2d(x, kernel, None, options).cast(FloatDType::F32)
}

/// Tells whether a tensor is in single precision.
pub(super) fn is_single<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32
}

fn precision<const D: usize>(kernel: &Tensor<D>) -> FloatDType {
    if is_single(kernel) {
        FloatDType::F32
    } else {
        FloatDType::F16
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use nereid_core::spec::Network as Spec;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        device,
        network::{Ending, Mode, TrainingPass, host},
    };

    /// Output and gradients of a batch.
    fn pass(network: &Network, half: bool) -> Vec<(String, Vec<f32>)> {
        let size: usize = network.input.iter().product();
        let values = (0..3 * size).map(|i| f32::from(u8::try_from(i * 7 % 23).unwrap()) / 23.0);
        let data = TensorData::new(values.collect::<Vec<_>>(), [3, size]);
        let input = Tensor::from_data(data, &network.device);
        let parameters = network.parameters.iter();
        let leaves: Vec<Tensor<1>> = parameters
            .map(|p| p.value.clone().autodiff().require_grad())
            .collect();
        let weights = if half {
            network.halved(&leaves)
        } else {
            leaves.clone()
        };
        let mut pass = TrainingPass {
            seed: 0,
            step: 0,
            moving: Vec::new(),
            outputs: None,
        };
        let mut mode = Mode::Training(&mut pass);
        let output = network.forward(&weights, input, Ending::Whole, &mut mode);
        assert!(is_single(&output));
        let mut seen = vec![("output".to_owned(), host(output.clone().inner()).unwrap())];
        let mut by_leaf = (output.clone() * output).sum().backward();
        for (leaf, parameter) in leaves.iter().zip(&network.parameters) {
            let gradient = leaf.grad_remove(&mut by_leaf).unwrap();
            assert!(is_single(&gradient), "{}", parameter.name);
            seen.push((parameter.name.clone(), host(gradient).unwrap()));
        }
        seen
    }

    /// Runs layers in both precisions: results must be close to each other, and not the same.
    #[track_caller]
    fn assert_halved(input: &[usize], layers: &Value, device: &Device) {
        let spec: Spec = serde_json::from_value(json!({ "layers": layers })).unwrap();
        let network = Network::build(&spec.plan(input, "").unwrap(), 1, device);
        let (single, half) = (pass(&network, false), pass(&network, true));
        let mut differs = false;
        for ((name, single), (_, half)) in single.iter().zip(&half) {
            let norm = |values: &mut dyn Iterator<Item = f32>| {
                values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
            };
            let away = norm(&mut single.iter().zip(half).map(|(a, b)| a - b));
            let relative = away / norm(&mut single.iter().copied()).max(1e-12);
            assert!(relative < 0.02, "{layers}: {name} is off by {relative}");
            differs |= relative > 1e-5;
        }
        assert!(differs, "{layers}: nothing was computed in half precision");
    }

    #[test]
    fn each_layer_that_multiplies_does_so_in_half_precision_and_yields_single() {
        let images = [6, 5, 2];
        let steps = [4, 3];
        let able = device::devices().into_iter().filter_map(|kind| {
            let device = device::open(kind).ok()?;
            device.supports_dtype(FloatDType::F16).then_some(device)
        });
        let able: Vec<_> = able.collect();
        assert!(!able.is_empty(), "the processor can");
        for device in &able {
            assert_halved(
                &[5],
                &json!([{"type": "Dense", "units": 4, "activation": "relu"}]),
                device,
            );
            for layer in [
                json!({"type": "Conv2D", "filters": 3, "kernel_size": 3, "activation": "relu"}),
                json!({"type": "Conv2D", "filters": 3, "kernel_size": 2, "strides": 2, "padding": "same"}),
                json!({"type": "DepthwiseConv2D", "kernel_size": 3, "padding": "same"}),
                json!({"type": "SeparableConv2D", "filters": 4, "kernel_size": 3}),
                json!({"type": "Conv2DTranspose", "filters": 3, "kernel_size": 3, "strides": 2}),
            ] {
                assert_halved(&images, &json!([layer]), device);
            }
            for layer in [
                json!({"type": "SimpleRNN", "units": 4}),
                json!({"type": "LSTM", "units": 4, "return_sequences": true}),
                json!({"type": "GRU", "units": 4}),
                json!({"type": "GRU", "units": 4, "reset_after": false}),
                json!({"type": "Bidirectional", "layer": {"type": "LSTM", "units": 3}}),
                // A bias of the keys shifts all scores alike: its gradient is nothing but rounding.
                json!({"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 3, "use_bias": false}),
            ] {
                assert_halved(&steps, &json!([layer]), device);
            }
        }
    }
}
