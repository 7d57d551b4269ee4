"""Cases of layers and activations: each layer between others, so that gradients pass it."""

from case import case

END = [{"type": "Flatten"}, {"type": "Dense", "units": 3}]
ACTIVATIONS = "linear relu leaky_relu gelu sigmoid tanh softmax".split()


def between(layer, channels=3):
    """The layer behind a trainable one and before the outputs."""
    return [{"type": "Dense", "units": channels}, layer, *END]


def cases():
    yield from dense()
    yield from activations()
    yield from convolutions()
    yield from pools()
    yield from shapes()
    yield from norms()
    yield from embeddings()


def dense():
    yield case("Dense/plain", [{"type": "Dense", "units": 3}], [4])
    yield case(
        "Dense/without_bias", [{"type": "Dense", "units": 3, "use_bias": False}], [4]
    )
    yield case("Dense/of_steps", between({"type": "Dense", "units": 2}), [3, 2])
    yield case("Dense/of_images", between({"type": "Dense", "units": 2}), [2, 3, 2])


def activations():
    for name in ACTIVATIONS:
        hidden = {"type": "Dense", "units": 5, "activation": name}
        yield case(f"activation/{name}", [hidden, {"type": "Dense", "units": 3}], [4])
        layer = {"type": "Activation", "activation": name}
        yield case(f"Activation/{name}", between(layer), [3, 2])


def convolutions():
    for n, params in enumerate(
        [
            {},
            {"strides": 2},
            {"padding": "same"},
            {"padding": "same", "strides": 2},
            {"padding": "same", "dilation_rate": 2},
            {"dilation_rate": 2, "use_bias": False},
            {"kernel_size": 2, "padding": "same", "activation": "relu"},
            {"kernel_size": 4, "padding": "same", "strides": 3},
            {"kernel_size": 1, "strides": 2, "activation": "softmax"},
            {"padding": "causal"},
            {"padding": "causal", "dilation_rate": 4, "activation": "relu"},
            {"kernel_size": 4, "padding": "causal", "strides": 2},
        ]
    ):
        layer = {"type": "Conv1D", "filters": 2, "kernel_size": 3, **params}
        yield case(f"Conv1D/{n}_{label(params)}", between(layer), [7, 2])
    for n, params in enumerate(
        [
            {},
            {"strides": 2},
            {"padding": "same"},
            {"padding": "same", "strides": 2},
            {"padding": "same", "strides": [1, 3]},
            {"padding": "same", "dilation_rate": 2},
            {"dilation_rate": [1, 2], "use_bias": False},
            {"kernel_size": [2, 3], "padding": "same", "activation": "tanh"},
            {"kernel_size": [4, 2], "padding": "same", "strides": [3, 2]},
            {"kernel_size": 1},
            {"kernel_size": 1, "strides": 2},
            {"kernel_size": [5, 6]},
        ]
    ):
        layer = {"type": "Conv2D", "filters": 4, "kernel_size": 3, **params}
        yield case(f"Conv2D/{n}_{label(params)}", between(layer), [5, 6, 2])
    stack = [
        {"type": "Conv2D", "filters": 3, "kernel_size": 3, "activation": "relu"},
        {"type": "MaxPooling2D"},
        {"type": "Conv2D", "filters": 4, "kernel_size": 2, "padding": "same"},
        {"type": "GlobalAveragePooling2D"},
        {"type": "Dense", "units": 3, "activation": "softmax"},
    ]
    yield case("Conv2D/stack", stack, [8, 7, 1])


def pools():
    for kind in ("Max", "Average"):
        for n, params in enumerate(
            [
                {"pool_size": 2},
                {"pool_size": 3, "strides": 1},
                {"pool_size": 2, "padding": "same"},
                {"pool_size": 3, "strides": 2, "padding": "same"},
                {"pool_size": 2, "strides": 3, "padding": "same"},
            ]
        ):
            layer = {"type": f"{kind}Pooling1D", **params}
            yield case(f"{kind}Pooling1D/{n}_{label(params)}", between(layer), [7, 2])
        for n, params in enumerate(
            [
                {"pool_size": 2},
                {"pool_size": [3, 2], "strides": 1},
                {"pool_size": 2, "padding": "same"},
                {"pool_size": 3, "strides": [2, 1], "padding": "same"},
                {"pool_size": [2, 3], "strides": 3, "padding": "same"},
            ]
        ):
            layer = {"type": f"{kind}Pooling2D", **params}
            name = f"{kind}Pooling2D/{n}_{label(params)}"
            yield case(name, between(layer), [5, 7, 2])
    for rank, shape in ((1, [4, 2]), (2, [3, 4, 2])):
        layer = {"type": f"GlobalAveragePooling{rank}D"}
        ends = [{"type": "Dense", "units": 4}, layer, {"type": "Dense", "units": 3}]
        yield case(f"GlobalAveragePooling{rank}D/plain", ends, shape)


def shapes():
    conv = {"type": "Conv2D", "filters": 3, "kernel_size": 2}
    yield case("Flatten/of_planes", [conv, *END], [3, 4, 2])
    for target in ([-1, 2], [4, 3, 2], [24]):
        layer = {"type": "Reshape", "target_shape": target}
        name = "x".join(str(n) for n in target)
        yield case(f"Reshape/{name}", between(layer, 4), [6, 2])
        planes = [conv, layer, {"type": "Dense", "units": 2}, *END]
        yield case(f"Reshape/{name}_of_planes", planes, [3, 5, 2])
    yield case("Dropout/of_nothing", between({"type": "Dropout", "rate": 0.0}), [3])


def norms():
    # No bias before a batch normalisation: its gradient would be nothing but rounding.
    before = {"type": "Dense", "units": 3, "use_bias": False}
    conv = {"type": "Conv2D", "filters": 3, "kernel_size": 2, "use_bias": False}
    for n, params in enumerate([{}, {"momentum": 0.8, "epsilon": 1e-5}]):
        layer = {"type": "BatchNormalization", **params}
        for name, first, shape in (
            ("rows", before, [4]),
            ("steps", before, [3, 2]),
            ("planes", conv, [4, 3, 2]),
        ):
            name = f"BatchNormalization/{n}_{name}"
            # PyTorch's moving variance is the unbiased one.
            yield case(name, [first, layer, *END], shape, rows=8)
    for n, params in enumerate([{}, {"epsilon": 1e-5}]):
        layer = {"type": "LayerNormalization", **params}
        yield case(f"LayerNormalization/{n}_rows", between(layer, 5), [4])
        yield case(f"LayerNormalization/{n}_images", between(layer, 4), [2, 3, 2])


def embeddings():
    layer = {"type": "Embedding", "input_dim": 7, "output_dim": 3}
    mean = {"type": "GlobalAveragePooling1D"}
    for name, layers, shape in (
        ("flat", [layer, *END], [4]),
        ("mean", [layer, mean, {"type": "Dense", "units": 3}], [5]),
        ("of_tables", [layer, *END], [2, 3]),
    ):
        yield case(f"Embedding/{name}", layers, shape, vocabulary=7)


def label(params):
    """A name of parameters that a file can carry."""
    words = []
    for key, value in params.items():
        value = "x".join(map(str, value)) if isinstance(value, list) else value
        words.append(f"{key}_{value}")
    return "_".join(words) or "defaults"
