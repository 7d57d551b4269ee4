"""How Keras' layers start: bounds and moments of weights as Keras draws them."""

import keras_side  # First: it says which backend Keras has.

import keras
import numpy

DENSE = {"type": "Dense", "units": 150}
DRAWS = 8
"""Layers that the moments are taken over."""


def records():
    keras.utils.set_random_seed(1)
    yield record("dense", [DENSE], [100], "dense/kernel")
    yield record("bias", [DENSE], [100], "dense/bias")
    conv = {"type": "Conv2D", "filters": 32, "kernel_size": 5}
    yield record("conv2d", [conv], [8, 8, 16], "conv2d/kernel")
    conv = {"type": "Conv1D", "filters": 48, "kernel_size": 7}
    yield record("conv1d", [conv], [8, 24], "conv1d/kernel")
    table = {"type": "Embedding", "input_dim": 300, "output_dim": 40}
    yield record("embedding", [table], [4], "embedding/embeddings")
    for name in (
        "glorot_normal he_normal he_uniform lecun_normal lecun_uniform "
        "random_normal random_uniform truncated_normal orthogonal zeros ones"
    ).split():
        layer = {**DENSE, "kernel_initializer": name}
        yield record(f"initializer/{name}", [layer], [100], "dense/kernel")
    layer = {"type": "DepthwiseConv2D", "kernel_size": 5, "depth_multiplier": 4}
    name = "depthwise_conv2d/kernel"
    yield record("DepthwiseConv2D", [layer], [8, 8, 48], name)
    layer = {"type": "SeparableConv2D", "filters": 90, "kernel_size": 5}
    for role in ("depthwise_kernel", "pointwise_kernel"):
        name = f"separable_conv2d/{role}"
        yield record(f"SeparableConv2D/{role}", [layer], [8, 8, 60], name)
    layer = {"type": "Conv2DTranspose", "filters": 20, "kernel_size": 5}
    yield record("Conv2DTranspose", [layer], [8, 8, 16], "conv2d_transpose/kernel")
    for kind in ("LSTM", "GRU", "SimpleRNN"):
        layer = {"type": kind, "units": 60}
        stem = "simple_rnn" if kind == "SimpleRNN" else kind.lower()
        for role in ("kernel", "recurrent_kernel", "bias"):
            yield record(f"{kind}/{role}", [layer], [4, 70], f"{stem}/{role}")
    layer = {"type": "MultiHeadAttention", "num_heads": 4, "key_dim": 20}
    for role in ("query", "attention_output"):
        name = f"multi_head_attention/{role}/kernel"
        yield record(f"MultiHeadAttention/{role}", [layer], [4, 60], name)
    layer = {"type": "PReLU"}
    yield record("PReLU", [layer], [50], "p_re_lu/alpha")


def record(name, layers, shape, weight):
    drawn = numpy.stack([draw(layers[0], shape, weight) for _ in range(DRAWS)])
    return {
        "name": name,
        "layers": layers,
        "input_shape": list(shape),
        "weight": weight,
        "shape": list(drawn.shape[1:]),
        "mean": short(drawn.mean()),
        "std": short(drawn.std()),
        "largest": short(numpy.abs(drawn).max()),
    }


def draw(spec, shape, weight):
    """Builds a layer by itself, which is much faster than a network."""
    params = {k: v for k, v in spec.items() if k != "type"}
    layer = getattr(keras.layers, spec["type"])(**params)
    batch = (None, *shape)
    if spec["type"] == "MultiHeadAttention":
        layer.build(batch, batch)
    else:
        layer.build(batch)
    role = "/" + weight.split("/", 1)[1]
    (found,) = [v for v in layer.weights if keras_side.variable_name(v).endswith(role)]
    return found.numpy()


def short(value):
    return float(f"{value:.6g}")
