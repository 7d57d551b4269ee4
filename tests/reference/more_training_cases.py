"""Cases of further optimisers, schedules and what is done with gradients and weights."""

from case import STEPS, case
from layer_cases import label
from training_cases import network, optimised

ALL_DECAY = {"exclude_from_weight_decay": []}
"""Keras lets every weight decay; Nereid spares biases unless told not to."""


def cases():
    yield from losses()
    yield from optimizers()
    yield from decay()
    yield from schedules()
    yield from gradients()
    yield from averages()


def losses():
    for activation in (None, "sigmoid"):
        for kind, params in (
            ("binary_crossentropy", {"label_smoothing": 0.1}),
            ("binary_focal_crossentropy", {}),
            ("binary_focal_crossentropy", {"gamma": 1.5, "label_smoothing": 0.1}),
            ("binary_focal_crossentropy", {"apply_class_balancing": True, "alpha": 0.4}),
        ):
            name = f"loss/{kind}_{label(params)}_{activation or 'logits'}"
            loss = {"type": kind, **params}
            layers = network(1, activation)
            yield case(name, layers, [4], loss=loss, classes=2, twin=False)
    for activation in (None, "softmax"):
        for params in ({}, {"gamma": 1.5, "alpha": 0.6, "label_smoothing": 0.1}):
            kind = "categorical_focal_crossentropy"
            name = f"loss/{kind}_{label(params)}_{activation or 'logits'}"
            loss = {"type": kind, **params}
            yield case(name, network(3, activation), [4], loss=loss, twin=False)
    for kind, activation, counts in (
        ("log_cosh", None, False),
        ("msle", "sigmoid", True),
        ("poisson", "sigmoid", True),
    ):
        yield case(
            f"loss/{kind}",
            network(1, activation),
            [4],
            loss={"type": kind},
            classes=0,
            counts=counts,
            twin=False,
        )
    for kind, activation in (
        ("mse", None),
        ("binary_crossentropy", "sigmoid"),
        ("kl_divergence", "softmax"),
        ("cosine_similarity", None),
    ):
        yield case(
            f"autoencoder/{kind}",
            network(4, activation),
            [4],
            loss={"type": kind},
            classes=0,
            autoencoder=True,
            twin=False,
        )


def optimizers():
    for kind, params, alike in (
        # PyTorch adds epsilon to the corrected root.
        ("adam", {"amsgrad": True, "learning_rate": 0.01}, 1e-4),
        ("adamw", {"amsgrad": True, "learning_rate": 0.01}, 1e-4),
        ("rmsprop", {"centered": True, "learning_rate": 0.002}, None),
        ("rmsprop", {"centered": True, "momentum": 0.5}, None),
        ("adagrad", {}, 1e-6),
        ("adagrad", {"learning_rate": 0.05, "initial_accumulator_value": 0.3}, 1e-6),
        ("adadelta", {}, 1e-6),
        ("adadelta", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-5}, 1e-6),
        ("adamax", {}, 1e-6),
        ("adamax", {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.9}, 1e-5),
        ("nadam", {}, None),
        ("nadam", {"learning_rate": 0.01, "beta_2": 0.9, "epsilon": 1e-4}, None),
        ("ftrl", {}, None),
        (
            "ftrl",
            {
                "learning_rate": 0.05,
                "l1_regularization_strength": 0.001,
                "l2_regularization_strength": 0.01,
                "l2_shrinkage_regularization_strength": 0.02,
                "beta": 0.1,
            },
            None,
        ),
        ("ftrl", {"learning_rate": 0.05, "learning_rate_power": -0.3}, None),
        ("lamb", {}, None),
        ("lamb", {"learning_rate": 0.01, "beta_1": 0.8, "epsilon": 1e-4}, None),
        ("lion", {}, None),
        ("lion", {"learning_rate": 0.005, "beta_1": 0.8, "beta_2": 0.9}, None),
    ):
        optimizer = {"type": kind, **params}
        name = f"{kind}/{label(params)}"
        yield optimised(name, optimizer, twin=alike is not None, alike=alike or 0)


def decay():
    for kind in "sgd adam rmsprop adagrad adadelta adamax nadam ftrl lamb lion".split():
        optimizer = {"type": kind, "weight_decay": 0.05, "learning_rate": 0.01}
        if kind == "sgd":
            optimizer["momentum"] = 0.5
        yield optimised(f"decay/{kind}", optimizer, fit=ALL_DECAY, twin=False)
    spared = {"exclude_from_weight_decay": ["*/bias"]}
    for kind in ("sgd", "adamw"):
        optimizer = {"type": kind, "weight_decay": 0.1, "learning_rate": 0.02}
        yield optimised(f"decay/{kind}_spared", optimizer, fit=spared, twin=False)


def schedules():
    start = {"initial_learning_rate": 0.1}
    for kind, params in (
        ("cosine_decay", {"decay_steps": 7}),
        ("cosine_decay", {"decay_steps": 8, "alpha": 0.2}),
        (
            "cosine_decay",
            {"decay_steps": 6, "warmup_target": 0.3, "warmup_steps": 3},
        ),
        ("cosine_decay_restarts", {"first_decay_steps": 3}),
        (
            "cosine_decay_restarts",
            {"first_decay_steps": 4, "t_mul": 1.0, "m_mul": 0.7, "alpha": 0.1},
        ),
        ("exponential_decay", {"decay_steps": 4, "decay_rate": 0.5}),
        (
            "exponential_decay",
            {"decay_steps": 4, "decay_rate": 0.5, "staircase": True},
        ),
        ("inverse_time_decay", {"decay_steps": 3, "decay_rate": 0.6}),
        (
            "inverse_time_decay",
            {"decay_steps": 3, "decay_rate": 0.6, "staircase": True},
        ),
        ("polynomial_decay", {"decay_steps": 6}),
        ("polynomial_decay", {"decay_steps": 6, "end_learning_rate": 0.02, "power": 2.0}),
        ("polynomial_decay", {"decay_steps": 4, "cycle": True}),
    ):
        rate = {"type": kind, **start, **params}
        optimizer = {"type": "sgd", "learning_rate": rate}
        name = f"schedule/{kind}_{label(params)}"
        yield optimised(name, optimizer, twin=False)
    steps = {"boundaries": [2, 5, 8], "values": [0.1, 0.05, 0.2, 0.01]}
    rate = {"type": "piecewise_constant_decay", **steps}
    for kind in ("sgd", "rmsprop"):
        optimizer = {"type": kind, "learning_rate": rate}
        yield optimised(f"schedule/steps_{kind}", optimizer, twin=False)
    for params in ({}, {"pct_start": 0.5, "anneal_strategy": "linear"}):
        rate = {"type": "one_cycle", "max_lr": 0.2, "total_steps": STEPS, **params}
        optimizer = {"type": "sgd", "learning_rate": rate}
        yield optimised(f"schedule/one_cycle_{label(params)}", optimizer)


def gradients():
    """Clipping of all together, and accumulation: five changes of the weights in ten steps."""
    # PyTorch adds 1e-6 to the norm, and Adam makes much of it.
    for kind, rate, alike in (("sgd", 0.5, 1e-4), ("adam", 0.01, 1e-3)):
        optimizer = {"type": kind, "learning_rate": rate}
        together = {"global_clipnorm": 0.1}
        yield optimised(f"global_clipnorm/{kind}", optimizer, fit=together, alike=alike)
    momentum = {"type": "sgd", "learning_rate": 0.2, "momentum": 0.8}
    adam = {"type": "adam", "learning_rate": 0.01}
    for name, optimizer in (("momentum", momentum), ("adam", adam)):
        for fit in (
            {"gradient_accumulation_steps": 2},
            {"gradient_accumulation_steps": 5, "clipnorm": 0.05},
        ):
            yield optimised(f"accumulated/{name}_{label(fit)}", optimizer, fit=fit, twin=False)


def averages():
    adam = {"type": "adam", "learning_rate": 0.02}
    for fit in (
        {"use_ema": True},
        {"use_ema": True, "ema_momentum": 0.7},
        {"use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 4},
        {"use_ema": True, "ema_momentum": 0.6, "gradient_accumulation_steps": 2},
    ):
        yield optimised(f"ema/{label(fit)}", adam, fit=fit, twin=False)
