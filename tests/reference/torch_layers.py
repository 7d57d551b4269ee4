"""Layers by PyTorch's functions, in double precision.

What PyTorch defines otherwise (the padding `same`, the order of axes and gates) is put around
them, so that the values are PyTorch's own.
"""

import sys

# Not needed on a CPU, and its LLVM does not bear TensorFlow's in one process.
sys.modules["triton"] = None

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: F.softmax(x, -1),
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": F.selu,
    "gelu_approximate": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hard_sigmoid": F.hardsigmoid,
    "hard_silu": F.hardswish,
    "softplus": F.softplus,
    "softsign": F.softsign,
}
ENDS_INSIDE = ("LSTM", "GRU", "SimpleRNN")
"""Layers whose activation is part of what they do at each step."""


class Pass:
    """One pass through a network, with weights by Nereid's names."""

    def __init__(self, case, weights, training):
        self.case, self.weights, self.training = case, weights, training
        self.taken = {}

    def run(self, x, logits):
        """Runs the layers; the last activation is left out for `logits`."""
        known = {"input": x}
        for i, spec in enumerate(self.case.layers):
            name = self.name(spec)
            given = [known[n] for n in spec.get("inputs", [])] or [x]
            x = getattr(self, spec["type"])(spec, name, *given)
            left_out = logits and i == len(self.case.layers) - 1
            if not left_out and spec["type"] not in ENDS_INSIDE:
                x = ACTIVATIONS[spec.get("activation", "linear")](x)
            known[name] = x
        return x

    def name(self, spec):
        """Numbers layers without a name as Keras does."""
        if "name" in spec:
            return spec["name"]
        stem = STEMS[spec["type"]]
        n = self.taken.get(stem, 0)
        self.taken[stem] = n + 1
        return f"{stem}_{n}" if n else stem

    def weight(self, layer, role):
        return self.weights.get(f"{layer}/{role}")

    def Dense(self, spec, name, x):
        return F.linear(x, self.weight(name, "kernel").T, self.weight(name, "bias"))

    def Conv1D(self, spec, name, x):
        kernel = self.weight(name, "kernel").permute(2, 1, 0)
        return self.convolve(F.conv1d, 1, spec, name, kernel, x)

    def Conv2D(self, spec, name, x):
        kernel = self.weight(name, "kernel").permute(3, 2, 0, 1)
        return self.convolve(F.conv2d, 2, spec, name, kernel, x)

    def convolve(self, function, rank, spec, name, kernel, x):
        stride = each(spec.get("strides", 1), rank)
        dilation = each(spec.get("dilation_rate", 1), rank)
        size = each(spec["kernel_size"], rank)
        planes = pad(first(x), spec, size, stride, dilation, 0.0)
        bias, groups = self.weight(name, "bias"), spec.get("groups", 1)
        y = function(planes, kernel, bias, stride, 0, dilation, groups)
        return last(y)

    def Conv2DTranspose(self, spec, name, x):
        kernel = self.weight(name, "kernel").permute(3, 2, 0, 1)
        stride = each(spec.get("strides", 1), 2)
        size = each(spec["kernel_size"], 2)
        y = F.conv_transpose2d(first(x), kernel, None, stride)
        for axis, (n, k, s) in enumerate(zip(x.shape[1:3], size, stride), 2):
            y = fit(y, axis, n, k, s, spec.get("padding", "valid"))
        bias = self.weight(name, "bias")
        return last(y) if bias is None else last(y) + bias

    def DepthwiseConv2D(self, spec, name, x):
        return self.depthwise(spec, name, "kernel", self.weight(name, "bias"), x)

    def SeparableConv2D(self, spec, name, x):
        y = self.depthwise(spec, name, "depthwise_kernel", None, x)
        kernel = self.weight(name, "pointwise_kernel").permute(3, 2, 0, 1)
        return last(F.conv2d(first(y), kernel, self.weight(name, "bias")))

    def depthwise(self, spec, name, role, bias, x):
        stride = each(spec.get("strides", 1), 2)
        dilation = each(spec.get("dilation_rate", 1), 2)
        size = each(spec["kernel_size"], 2)
        channels = x.shape[-1]
        kernel = self.weight(name, role).permute(2, 3, 0, 1).reshape(-1, 1, *size)
        planes = pad(first(x), spec, size, stride, dilation, 0.0)
        return last(F.conv2d(planes, kernel, bias, stride, 0, dilation, channels))

    def MaxPooling1D(self, spec, name, x):
        return pool(F.max_pool1d, 1, spec, x, -torch.inf)

    def MaxPooling2D(self, spec, name, x):
        return pool(F.max_pool2d, 2, spec, x, -torch.inf)

    def AveragePooling1D(self, spec, name, x):
        return mean_pool(F.avg_pool1d, 1, spec, x)

    def AveragePooling2D(self, spec, name, x):
        return mean_pool(F.avg_pool2d, 2, spec, x)

    def GlobalAveragePooling1D(self, spec, name, x):
        return F.adaptive_avg_pool1d(first(x), 1).flatten(1)

    def GlobalAveragePooling2D(self, spec, name, x):
        return F.adaptive_avg_pool2d(first(x), 1).flatten(1)

    def GlobalMaxPooling1D(self, spec, name, x):
        return F.adaptive_max_pool1d(first(x), 1).flatten(1)

    def GlobalMaxPooling2D(self, spec, name, x):
        return F.adaptive_max_pool2d(first(x), 1).flatten(1)

    def ZeroPadding2D(self, spec, name, x):
        sides = spec.get("padding", 1)
        sides = [sides, sides] if isinstance(sides, int) else sides
        (top, bottom), (left, right) = (each(s, 2) for s in sides)
        return F.pad(x, (0, 0, left, right, top, bottom))

    def UpSampling2D(self, spec, name, x):
        size = tuple(each(spec.get("size", 2), 2))
        mode = spec.get("interpolation", "nearest")
        return last(F.interpolate(first(x), scale_factor=size, mode=mode))

    def RepeatVector(self, spec, name, x):
        return x[:, None].repeat(1, spec["n"], 1)

    def Flatten(self, spec, name, x):
        return x.flatten(1)

    def Reshape(self, spec, name, x):
        return x.reshape(len(x), *spec["target_shape"])

    def Dropout(self, spec, name, x):
        return F.dropout(x, spec["rate"], self.training)

    def Activation(self, spec, name, x):
        return x

    def Embedding(self, spec, name, x):
        return F.embedding(x.long(), self.weight(name, "embeddings"))

    def BatchNormalization(self, spec, name, x):
        mean, variance = (
            self.weight(name, role) for role in ("moving_mean", "moving_variance")
        )
        y = F.batch_norm(
            first(x),
            mean,
            variance,
            self.weight(name, "gamma"),
            self.weight(name, "beta"),
            self.training,
            1 - spec.get("momentum", 0.99),
            spec.get("epsilon", 1e-3),
        )
        return last(y)

    def LayerNormalization(self, spec, name, x):
        gamma, beta = self.weight(name, "gamma"), self.weight(name, "beta")
        return F.layer_norm(x, gamma.shape, gamma, beta, spec.get("epsilon", 1e-3))

    def GroupNormalization(self, spec, name, x):
        gamma, beta = self.weight(name, "gamma"), self.weight(name, "beta")
        groups, epsilon = spec.get("groups", 32), spec.get("epsilon", 1e-3)
        return last(F.group_norm(first(x), groups, gamma, beta, epsilon))

    def RMSNormalization(self, spec, name, x):
        scale = self.weight(name, "scale")
        return F.rms_norm(x, scale.shape, scale, spec.get("epsilon", 1e-6))

    def PReLU(self, spec, name, x):
        alpha = self.weight(name, "alpha")
        return F.relu(x) - alpha * F.relu(-x)

    def LeakyReLU(self, spec, name, x):
        return F.leaky_relu(x, spec.get("negative_slope", 0.3))

    def ELU(self, spec, name, x):
        return F.elu(x, spec.get("alpha", 1.0))

    def SimpleRNN(self, spec, name, x):
        return self.recurrent(torch.nn.RNN, [0], spec, name, x)

    def LSTM(self, spec, name, x):
        return self.recurrent(torch.nn.LSTM, [0, 1, 2, 3], spec, name, x)

    def GRU(self, spec, name, x):
        # Keras has the update gate before the reset gate.
        return self.recurrent(torch.nn.GRU, [1, 0, 2], spec, name, x)

    def recurrent(self, kind, gates, spec, name, x):
        """A recurrent layer of PyTorch, given Keras' weights with the gates in its order."""
        units = spec["units"]

        def columns(weight):
            blocks = weight.split(units, -1)
            return torch.cat([blocks[g] for g in gates], -1)

        kernel = columns(self.weight(name, "kernel"))
        state = columns(self.weight(name, "recurrent_kernel"))
        bias = self.weight(name, "bias")
        bias = torch.zeros(2, kernel.shape[1]) if bias is None else columns(bias)
        if bias.ndim == 1:
            bias = torch.stack([bias, torch.zeros_like(bias)])
        weights = {
            "weight_ih_l0": kernel.T,
            "weight_hh_l0": state.T,
            "bias_ih_l0": bias[0],
            "bias_hh_l0": bias[1],
        }
        layer = kind(x.shape[-1], units, batch_first=True)
        x = x.flip(1) if spec.get("go_backwards") else x
        y, _ = torch.func.functional_call(layer, weights, (x,))
        return y if spec.get("return_sequences") else y[:, -1]

    def Bidirectional(self, spec, name, x):
        inner = spec["layer"]
        run = getattr(self, inner["type"])
        forth = run(inner, f"{name}/forward", x)
        back = run({**inner, "go_backwards": True}, f"{name}/backward", x)
        if inner.get("return_sequences"):
            back = back.flip(1)
        return {
            "concat": lambda: torch.cat([forth, back], -1),
            "sum": lambda: forth + back,
            "mul": lambda: forth * back,
            "ave": lambda: (forth + back) / 2,
        }[spec.get("merge_mode", "concat")]()

    def MultiHeadAttention(self, spec, name, query, value=None, key=None):
        value = query if value is None else value
        key = value if key is None else key

        def project(x, role):
            y = torch.einsum("nsi,ihd->nhsd", x, self.weight(name, f"{role}/kernel"))
            bias = self.weight(name, f"{role}/bias")
            return y if bias is None else y + bias[:, None]

        heads = F.scaled_dot_product_attention(
            project(query, "query"),
            project(key, "key"),
            project(value, "value"),
            is_causal=spec.get("use_causal_mask", False),
        )
        kernel = self.weight(name, "attention_output/kernel")
        y = torch.einsum("nhsd,hdo->nso", heads, kernel)
        bias = self.weight(name, "attention_output/bias")
        return y if bias is None else y + bias

    def PositionEmbedding(self, spec, name, x):
        table = self.weight(name, "position_embeddings")
        return table[: x.shape[1]].expand(x.shape)

    def Add(self, spec, name, *given):
        return sum(given)

    def Subtract(self, spec, name, a, b):
        return a - b

    def Multiply(self, spec, name, *given):
        product = given[0]
        for x in given[1:]:
            product = product * x
        return product

    def Average(self, spec, name, *given):
        return sum(given) / len(given)

    def Maximum(self, spec, name, *given):
        return torch.stack(given).amax(0)

    def Minimum(self, spec, name, *given):
        return torch.stack(given).amin(0)

    def Concatenate(self, spec, name, *given):
        return torch.cat(given, spec.get("axis", -1))

    SpatialDropout1D = SpatialDropout2D = Dropout


STEMS = {
    "Dense": "dense",
    "Conv1D": "conv1d",
    "Conv2D": "conv2d",
    "MaxPooling1D": "max_pooling1d",
    "MaxPooling2D": "max_pooling2d",
    "AveragePooling1D": "average_pooling1d",
    "AveragePooling2D": "average_pooling2d",
    "GlobalAveragePooling1D": "global_average_pooling1d",
    "GlobalAveragePooling2D": "global_average_pooling2d",
    "Flatten": "flatten",
    "Reshape": "reshape",
    "Dropout": "dropout",
    "Activation": "activation",
    "Embedding": "embedding",
    "BatchNormalization": "batch_normalization",
    "LayerNormalization": "layer_normalization",
    "Conv2DTranspose": "conv2d_transpose",
    "DepthwiseConv2D": "depthwise_conv2d",
    "SeparableConv2D": "separable_conv2d",
    "GlobalMaxPooling1D": "global_max_pooling1d",
    "GlobalMaxPooling2D": "global_max_pooling2d",
    "ZeroPadding2D": "zero_padding2d",
    "UpSampling2D": "up_sampling2d",
    "RepeatVector": "repeat_vector",
    "SpatialDropout1D": "spatial_dropout1d",
    "SpatialDropout2D": "spatial_dropout2d",
    "GroupNormalization": "group_normalization",
    "RMSNormalization": "rms_normalization",
    "PReLU": "p_re_lu",
    "LeakyReLU": "leaky_re_lu",
    "ELU": "elu",
    "SimpleRNN": "simple_rnn",
    "LSTM": "lstm",
    "GRU": "gru",
    "Bidirectional": "bidirectional",
    "MultiHeadAttention": "multi_head_attention",
    "PositionEmbedding": "position_embedding",
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "Average": "average",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Concatenate": "concatenate",
}


def first(x):
    """Channels before the other axes, as PyTorch has them."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def each(value, rank):
    return list(value) if isinstance(value, list) else [value] * rank


def pad(planes, spec, size, stride, dilation, value):
    """TensorFlow's padding `same`: an odd surplus goes to the end; `causal`: all goes before."""
    padding = spec.get("padding", "valid")
    if padding == "valid":
        return planes
    pads = []
    for n, k, s, d in zip(planes.shape[2:], size, stride, dilation):
        if padding == "causal":
            pads = [(k - 1) * d, 0, *pads]
            continue
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(planes, pads, value=value)


def fit(planes, axis, n, k, s, padding):
    """Cuts a transposed convolution to the size it has in TensorFlow, or fills it up."""
    if padding == "valid":
        before, size = 0, n * s + max(k - s, 0)
    else:
        before, size = max(k - s, 0) // 2, n * s
    missing = before + size - planes.shape[axis]
    if missing > 0:
        pads = [0, 0] * (planes.ndim - 1 - axis) + [0, missing]
        planes = F.pad(planes, pads)
    return planes.narrow(axis, before, size)


def pool(function, rank, spec, x, value):
    size = each(spec.get("pool_size", 2), rank)
    stride = each(spec.get("strides") or size, rank)
    return last(function(pad(first(x), spec, size, stride, [1] * rank, value), size, stride))


def mean_pool(function, rank, spec, x):
    inside = pool(function, rank, spec, torch.ones_like(x), 0.0)
    return pool(function, rank, spec, x, 0.0) / inside
