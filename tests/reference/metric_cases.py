"""Metrics of given outputs, by Keras."""

import keras_side  # First: it says which backend Keras has.

import keras
import numpy
import tensorflow


def records():
    yield classes("spread", rows=40, n=4, seed=1)
    yield classes("one_never_predicted", rows=12, n=5, seed=2, never=3)
    yield classes("many", rows=60, n=12, seed=3)
    yield binary("spread", rows=30, seed=4)
    yield binary("never_positive", rows=9, seed=5, scale=0.4)
    yield numbers("spread", rows=25, seed=6)
    yield numbers("far_from_zero", rows=25, seed=7, offset=1000.0)


def classes(name, rows, n, seed, never=None):
    rng = numpy.random.default_rng(seed)
    outputs = rng.dirichlet(numpy.ones(n), rows).astype(numpy.float32)
    if never is not None:
        outputs[:, never] = 0.0
    targets = rng.integers(0, n, rows)
    values = {
        "accuracy": of(keras.metrics.SparseCategoricalAccuracy(), targets, outputs),
        **by_class(outputs.argmax(1), targets, n),
    }
    metrics = ["accuracy", "precision", "recall", "f1", "confusion_matrix"]
    for k in (2, 3):
        top = keras.metrics.SparseTopKCategoricalAccuracy(k)
        values[f"top_{k}_accuracy"] = of(top, targets, outputs)
        metrics.append({"type": "top_k_accuracy", "k": k})
    return record(f"classes/{name}", metrics, n, False, outputs, targets, values)


def binary(name, rows, seed, scale=1.0):
    rng = numpy.random.default_rng(seed)
    outputs = (rng.uniform(0, scale, (rows, 1))).astype(numpy.float32)
    targets = rng.integers(0, 2, rows)
    predicted = (outputs[:, 0] > 0.5).astype(int)
    values = {
        "accuracy": of(keras.metrics.BinaryAccuracy(), targets[:, None], outputs),
        **by_class(predicted, targets, 2),
    }
    metrics = ["accuracy", "precision", "recall", "f1", "confusion_matrix"]
    return record(f"binary/{name}", metrics, 2, True, outputs, targets, values)


def by_class(predicted, targets, n):
    """The unweighted mean over classes, as Nereid defines these three."""
    right, guess = numpy.eye(n)[targets], numpy.eye(n)[predicted]
    means = {}
    for name, metric in (
        ("precision", keras.metrics.Precision),
        ("recall", keras.metrics.Recall),
    ):
        means[name] = numpy.mean([of(metric(class_id=c), right, guess) for c in range(n)])
    means["f1"] = of(keras.metrics.F1Score("macro", threshold=0.5), right, guess)
    return means


def numbers(name, rows, seed, offset=0.0):
    rng = numpy.random.default_rng(seed)
    targets = numpy.round(rng.normal(offset, 3, rows) * 64) / 64
    outputs = (targets + rng.normal(0.5, 1, rows)).astype(numpy.float32)[:, None]
    column = targets[:, None]
    values = {
        "mae": of(keras.metrics.MeanAbsoluteError(), column, outputs),
        "rmse": of(keras.metrics.RootMeanSquaredError(), column, outputs),
        "r2": of(keras.metrics.R2Score(), column, outputs),
    }
    return record(f"numbers/{name}", list(values), 0, False, outputs, targets, values)


def of(metric, targets, outputs):
    metric.update_state(targets, outputs)
    return float(metric.result())


def record(name, metrics, n, is_binary, outputs, targets, values):
    matrix = None
    if n:
        predicted = (outputs[:, 0] > 0.5) if is_binary else outputs.argmax(1)
        matrix = tensorflow.math.confusion_matrix(targets, predicted, n).numpy().tolist()
    return {
        "name": name,
        "metrics": metrics,
        "classes": n,
        "binary": is_binary,
        "outputs": outputs,
        "targets": targets.tolist(),
        "values": values,
        "matrix": matrix,
    }
