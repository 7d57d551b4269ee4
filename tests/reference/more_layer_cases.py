"""Cases of recurrence, attention, further convolutions, merging layers and graphs."""

from case import case
from layer_cases import END, between, label

ACTIVATIONS = (
    "relu6 elu selu gelu_approximate silu mish hard_sigmoid hard_silu softplus softsign"
).split()


def cases():
    yield from activations()
    yield from convolutions()
    yield from regularizers()
    yield from planes()
    yield from norms()
    yield from recurrence()
    yield from attention()
    yield from merges()
    yield from graphs()
    yield from noise()


def activations():
    for name in ACTIVATIONS:
        # Far from the kinks, where a rounded number may fall on either side.
        hidden = {"type": "Dense", "units": 5, "activation": name}
        yield case(f"activation/{name}", [hidden, {"type": "Dense", "units": 3}], [4])
    for kind, params, twin in (
        ("ReLU", {}, False),
        (
            "ReLU",
            {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.05},
            False,
        ),
        ("LeakyReLU", {}, True),
        ("LeakyReLU", {"negative_slope": 0.05}, True),
        ("ELU", {}, True),
        ("ELU", {"alpha": 0.7}, True),
        ("PReLU", {}, True),
        ("PReLU", {"shared_axes": [1]}, True),
    ):
        layer = {"type": kind, **params}
        yield case(f"{kind}/{label(params)}", between(layer), [3, 2], twin=twin)


def convolutions():
    for n, params in enumerate(
        [
            {},
            {"strides": 2},
            {"padding": "same"},
            {"padding": "same", "strides": 2},
            {"kernel_size": 2, "strides": 3, "use_bias": False},
            {"kernel_size": [2, 4], "strides": [1, 2], "padding": "same"},
            {"kernel_size": 2, "strides": 3, "padding": "same", "activation": "tanh"},
        ]
    ):
        layer = {"type": "Conv2DTranspose", "filters": 2, "kernel_size": 3, **params}
        yield case(f"Conv2DTranspose/{n}_{label(params)}", between(layer), [3, 2, 2])
    for n, params in enumerate(
        [
            {},
            {"strides": 2, "padding": "same"},
            {"depth_multiplier": 2, "padding": "same", "activation": "relu6"},
            {"dilation_rate": 2, "use_bias": False, "kernel_size": 2},
        ]
    ):
        layer = {"type": "DepthwiseConv2D", "kernel_size": 3, **params}
        yield case(f"DepthwiseConv2D/{n}_{label(params)}", between(layer), [5, 4, 2])
        layer = {"type": "SeparableConv2D", "filters": 4, "kernel_size": 3, **params}
        yield case(f"SeparableConv2D/{n}_{label(params)}", between(layer), [5, 4, 2])
    layer = {"type": "Conv1D", "filters": 4, "kernel_size": 2, "groups": 2}
    yield case("Conv1D/groups", between(layer, 4), [5, 2])
    layer = {"type": "Conv2D", "filters": 6, "kernel_size": 2, "groups": 3}
    yield case("Conv2D/groups", between(layer, 3), [4, 3, 2])


def regularizers():
    for n, (layer, shape) in enumerate(
        [
            ({"type": "Dense", "units": 3}, [4]),
            ({"type": "Conv1D", "filters": 3, "kernel_size": 2}, [5, 2]),
            ({"type": "Conv2D", "filters": 2, "kernel_size": 2}, [4, 3, 2]),
            ({"type": "Conv2DTranspose", "filters": 2, "kernel_size": 2}, [3, 2, 2]),
        ]
    ):
        for penalty in (
            ["l1", "l2", "l1", "l2"][n],
            {"type": "l2", "l2": 0.05},
            {"type": "l1_l2", "l1": 0.03, "l2": 0.02},
        ):
            kind = penalty if isinstance(penalty, str) else penalty["type"]
            given = "given" if isinstance(penalty, dict) else "named"
            penalised = {**layer, "kernel_regularizer": penalty}
            name = f"{layer['type']}/kernel_regularizer_{kind}_{given}"
            yield case(name, between(penalised), shape)


def planes():
    for rank, shape in ((1, [4, 2]), (2, [3, 4, 2])):
        layer = {"type": f"GlobalMaxPooling{rank}D"}
        ends = [{"type": "Dense", "units": 4}, layer, {"type": "Dense", "units": 3}]
        yield case(f"GlobalMaxPooling{rank}D/plain", ends, shape)
    for padding in (1, [1, 2], [[1, 0], [2, 1]]):
        layer = {"type": "ZeroPadding2D", "padding": padding}
        yield case(f"ZeroPadding2D/{padding}", between(layer, 2), [2, 3, 2])
    for params in ({}, {"size": [1, 3]}, {"size": 2, "interpolation": "bilinear"}):
        layer = {"type": "UpSampling2D", **params}
        yield case(f"UpSampling2D/{label(params)}", between(layer, 2), [2, 3, 2])
    layer = {"type": "RepeatVector", "n": 3}
    yield case("RepeatVector/three", between(layer), [4])


def norms():
    for params in ({"groups": 2}, {"groups": 4, "epsilon": 1e-5}, {"groups": 1}):
        layer = {"type": "GroupNormalization", **params}
        yield case(f"GroupNormalization/{label(params)}", between(layer, 4), [2, 3, 2])
    conv = {"type": "Conv2D", "filters": 4, "kernel_size": 2}
    layer = {"type": "GroupNormalization", "groups": 2}
    yield case("GroupNormalization/of_planes", [conv, layer, *END], [3, 4, 2])
    for params in ({}, {"epsilon": 1e-3}):
        layer = {"type": "RMSNormalization", **params}
        yield case(f"RMSNormalization/{label(params)}", between(layer, 4), [3, 2])


def recurrence():
    for kind in ("SimpleRNN", "LSTM", "GRU"):
        for n, params in enumerate(
            [
                {},
                {"return_sequences": True},
                {"use_bias": False},
                {"go_backwards": True, "return_sequences": True},
                {"activation": "relu"},
                *([{"recurrent_activation": "hard_sigmoid"}] if kind != "SimpleRNN" else []),
                *([{"unit_forget_bias": False}] if kind == "LSTM" else []),
                *([{"reset_after": False}] if kind == "GRU" else []),
            ]
        ):
            layer = {"type": kind, "units": 4, **params}
            # PyTorch has neither other activations nor the older order of the reset.
            own = {"activation", "recurrent_activation", "reset_after"} & set(params)
            name = f"{kind}/{n}_{label(params)}"
            yield case(name, between(layer), [5, 2], twin=not own)
        stack = [
            {"type": kind, "units": 3, "return_sequences": True},
            {"type": kind, "units": 3},
            {"type": "Dense", "units": 3},
        ]
        yield case(f"{kind}/stack", stack, [4, 2])
    for mode, kind, sequences in (
        ("concat", "LSTM", False),
        ("concat", "GRU", True),
        ("sum", "LSTM", True),
        ("mul", "SimpleRNN", False),
        ("ave", "GRU", False),
    ):
        inner = {"type": kind, "units": 3, "return_sequences": sequences}
        layer = {"type": "Bidirectional", "layer": inner, "merge_mode": mode}
        yield case(f"Bidirectional/{mode}_{kind}", between(layer), [4, 2])
    embedded = [
        {"type": "Embedding", "input_dim": 9, "output_dim": 3},
        {"type": "LSTM", "units": 4},
        {"type": "Dense", "units": 3, "activation": "softmax"},
    ]
    yield case("LSTM/of_words", embedded, [6], vocabulary=9)


def attention():
    for n, params in enumerate(
        [
            {},
            {"use_causal_mask": True},
            {"value_dim": 2, "use_bias": False},
            {"num_heads": 1},
        ]
    ):
        layer = {"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 3, **params}
        # A key's bias shifts all scores alike: its gradient is nothing but rounding.
        yield case(
            f"MultiHeadAttention/{n}_{label(params)}", between(layer, 4), [3, 2]
        )
    cross = [
        {"type": "Dense", "units": 4, "name": "query"},
        {"type": "Dense", "units": 3, "name": "value", "inputs": ["input"]},
        {"type": "Dense", "units": 5, "name": "key", "inputs": ["input"]},
        {
            "type": "MultiHeadAttention",
            "num_heads": 2,
            "key_dim": 2,
            "inputs": ["query", "value", "key"],
        },
        *END,
    ]
    yield case("MultiHeadAttention/cross", cross, [3, 2])
    encoder = [
        {"type": "Embedding", "input_dim": 8, "output_dim": 4, "name": "words"},
        {"type": "PositionEmbedding", "sequence_length": 6, "name": "places"},
        {"type": "Add", "inputs": ["words", "places"], "name": "embedded"},
        {"type": "MultiHeadAttention", "num_heads": 2, "key_dim": 2, "name": "attention"},
        {"type": "Add", "inputs": ["embedded", "attention"]},
        {"type": "LayerNormalization", "name": "first"},
        {"type": "Dense", "units": 6, "activation": "gelu"},
        {"type": "Dense", "units": 4, "name": "mixed"},
        {"type": "Add", "inputs": ["first", "mixed"]},
        {"type": "LayerNormalization"},
        {"type": "GlobalAveragePooling1D"},
        {"type": "Dense", "units": 3},
    ]
    yield case("PositionEmbedding/encoder", encoder, [5], vocabulary=8)


def merges():
    for kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"):
        layers = [
            {"type": "Dense", "units": 4, "name": "a"},
            {"type": "Dense", "units": 4, "name": "b", "inputs": ["input"]},
            {"type": kind, "inputs": ["a", "b"]},
            *END,
        ]
        yield case(f"{kind}/two", layers, [3, 2])
    for kind in ("Add", "Average", "Maximum", "Multiply"):
        layers = [
            {"type": "Dense", "units": 3, "name": "a", "activation": "tanh"},
            {"type": "Dense", "units": 3, "name": "b", "inputs": ["input"]},
            {"type": "Dense", "units": 3, "name": "c", "inputs": ["a"]},
            {"type": kind, "inputs": ["a", "b", "c"]},
            {"type": "Dense", "units": 3},
        ]
        yield case(f"{kind}/three", layers, [4])
    for axis in (-1, 1, 2):
        layers = [
            {"type": "Dense", "units": 2, "name": "a"},
            {"type": "Dense", "units": 2, "name": "b", "inputs": ["input"]},
            {"type": "Concatenate", "axis": axis, "inputs": ["a", "b", "a"]},
            *END,
        ]
        yield case(f"Concatenate/{axis}", layers, [2, 3, 2])


def graphs():
    conv = {"type": "Conv2D", "filters": 3, "kernel_size": 3, "padding": "same"}
    block = [
        {**conv, "name": "stem", "use_bias": False},
        {"type": "BatchNormalization"},
        {"type": "Activation", "activation": "relu", "name": "entry"},
        {**conv, "use_bias": False},
        {"type": "BatchNormalization", "name": "inner"},
        {"type": "Add", "inputs": ["entry", "inner"]},
        {"type": "Activation", "activation": "relu"},
        {**conv, "filters": 4, "strides": 2},
        {"type": "GlobalAveragePooling2D"},
        {"type": "Dense", "units": 3},
    ]
    yield case("Add/residual", block, [5, 4, 2], rows=8)
    branches = [
        {**conv, "name": "wide", "activation": "relu"},
        {**conv, "name": "narrow", "kernel_size": 1, "inputs": ["input"]},
        {"type": "AveragePooling2D", "pool_size": 2, "strides": 1, "padding": "same"},
        {"type": "Concatenate", "inputs": ["wide", "average_pooling2d", "input"]},
        {"type": "MaxPooling2D", "pool_size": 2},
        *END,
    ]
    yield case("Concatenate/branches", branches, [4, 4, 2])


def noise():
    steps, images = [4, 2], [3, 2, 2]
    for kind, shape in (("SpatialDropout1D", steps), ("SpatialDropout2D", images)):
        yield case(f"{kind}/of_nothing", between({"type": kind, "rate": 0.0}), shape)
    layer = {"type": "GaussianNoise", "stddev": 0.0}
    yield case("GaussianNoise/of_nothing", between(layer), [4], twin=False)
