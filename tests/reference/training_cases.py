"""Cases of losses and optimisers."""

from case import SCCE, case


def network(units, activation=None):
    last = {"type": "Dense", "units": units}
    if activation:
        last["activation"] = activation
    return [{"type": "Dense", "units": 5, "activation": "tanh"}, last]


def cases():
    yield from losses()
    yield from class_weights()
    yield from optimizers()
    yield from clipping()


def losses():
    for kind, ending, classes in (
        ("sparse_categorical_crossentropy", "softmax", 3),
        ("categorical_crossentropy", "softmax", 3),
        ("binary_crossentropy", "sigmoid", 2),
    ):
        units = 1 if classes == 2 else classes
        for name, params, activation in (
            ("logits_found", {}, None),
            ("logits_declared", {"from_logits": True}, None),
            ("probabilities_found", {}, ending),
            ("probabilities_declared", {"from_logits": False}, ending),
        ):
            yield case(
                f"{kind}/{name}",
                network(units, activation),
                [4],
                loss={"type": kind, **params},
                classes=classes,
            )
    for name, activation in (("logits", None), ("probabilities", "softmax")):
        loss = {"type": "categorical_crossentropy", "label_smoothing": 0.15}
        yield case(
            f"categorical_crossentropy/smooth_{name}",
            network(3, activation),
            [4],
            loss=loss,
        )
    for kind, params in (
        ("mse", {}),
        ("mae", {}),
        ("huber", {}),
        ("huber", {"delta": 0.3}),
    ):
        name = "_".join(f"{k}_{v}" for k, v in params.items()) or "plain"
        loss = {"type": kind, **params}
        yield case(f"{kind}/{name}", network(1), [4], loss=loss, classes=0)


def class_weights():
    for kind, classes, ending in (
        ("sparse_categorical_crossentropy", 3, None),
        ("categorical_crossentropy", 3, "softmax"),
        ("binary_crossentropy", 2, None),
        ("binary_crossentropy", 2, "sigmoid"),
    ):
        for name, weight in (
            ("by_class", {"c0": 0.5, "c1": 3.0}),
            ("balanced", "balanced"),
        ):
            yield case(
                f"{kind}/{name}_{ending or 'logits'}",
                network(1 if classes == 2 else classes, ending),
                [4],
                loss={"type": kind},
                classes=classes,
                rows=7,
                fit={"class_weight": weight},
            )


def optimizers():
    for kind, params, twin, alike in (
        ("sgd", {}, True, 1e-9),
        ("sgd", {"momentum": 0.9}, True, 1e-9),
        ("sgd", {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True}, True, 1e-9),
        # PyTorch adds epsilon to the corrected root, which differs by little.
        ("adam", {}, True, 1e-6),
        (
            "adam",
            {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4},
            False,
            0,
        ),
        ("adamw", {}, True, 1e-6),
        ("adamw", {"learning_rate": 0.02, "weight_decay": 0.1}, True, 1e-5),
        # PyTorch adds epsilon outside of the root.
        ("rmsprop", {}, True, 1e-4),
        ("rmsprop", {"rho": 0.7, "momentum": 0.6}, True, 1e-4),
        ("rmsprop", {"learning_rate": 0.01, "epsilon": 1e-3}, False, 0),
    ):
        name = "_".join(f"{k}_{v}" for k, v in params.items()) or "defaults"
        optimizer = {"type": kind, **params}
        yield optimised(f"{kind}/{name}", optimizer, twin=twin, alike=alike)


def clipping():
    for name, fit, alike in (
        ("clipnorm", {"clipnorm": 0.05}, 1e-4),
        ("clipvalue", {"clipvalue": 0.02}, 1e-6),
    ):
        for kind in ("sgd", "adam"):
            rate = {"sgd": 0.5, "adam": 0.01}[kind]
            optimizer = {"type": kind, "learning_rate": rate}
            yield optimised(f"{name}/{kind}", optimizer, fit=fit, alike=alike)
    momentum = {"type": "sgd", "learning_rate": 0.5, "momentum": 0.9}
    yield optimised("clipnorm/momentum", momentum, fit={"clipnorm": 0.05}, alike=1e-4)


def optimised(name, optimizer, fit=None, **options):
    """Ten steps on two batches in turn, whose gradients are far from 0."""
    return case(
        f"optimizer/{name}",
        network(3),
        [4],
        loss=SCCE,
        optimizer=optimizer,
        fit={"batch_size": 4, **(fit or {})},
        rows=8,
        **options,
    )
