"""Metrics of given outputs, by Keras."""

import keras_side  # First: it says which backend Keras has.

import keras
import numpy
import tensorflow

COUNTED = ["accuracy", "precision", "recall", "f1"]


def records():
    yield classes("spread", rows=40, n=4, seed=1)
    yield classes("one_never_predicted", rows=12, n=5, seed=2, never=3)
    yield classes("many", rows=60, n=12, seed=3)
    yield binary("spread", rows=30, seed=4)
    yield binary("never_positive", rows=9, seed=5, scale=0.4)
    yield numbers("spread", rows=25, seed=6)
    yield numbers("far_from_zero", rows=25, seed=7, offset=1000.0)
    yield area("classes", rows=50, n=3, seed=8)
    yield area("binary", rows=50, n=2, seed=9)
    yield labels("spread", rows=30, n=4, seed=10)
    yield averaged("classes", rows=40, n=4, seed=11)
    yield more_numbers(rows=20, seed=12)


def drawn_classes(rows, n, seed):
    rng = numpy.random.default_rng(seed)
    outputs = rng.dirichlet(numpy.ones(n), rows).astype(numpy.float32)
    return outputs, rng.integers(0, n, rows)


def classes(name, rows, n, seed, never=None):
    outputs, targets = drawn_classes(rows, n, seed)
    if never is not None:
        outputs[:, never] = 0.0
    values = {
        "accuracy": of(keras.metrics.SparseCategoricalAccuracy(), targets, outputs),
        **by_class(one_hot(targets, n), one_hot(outputs.argmax(1), n)),
    }
    metrics = [*COUNTED, "confusion_matrix"]
    for k in (2, 3):
        top = keras.metrics.SparseTopKCategoricalAccuracy(k)
        values[f"top_{k}_accuracy"] = of(top, targets, outputs)
        metrics.append({"type": "top_k_accuracy", "k": k})
    matrix = confusion(targets, outputs.argmax(1), n)
    return record(
        f"classes/{name}", metrics, "classes", n, outputs, targets, values, matrix
    )


def binary(name, rows, seed, scale=1.0):
    rng = numpy.random.default_rng(seed)
    outputs = (rng.uniform(0, scale, (rows, 1))).astype(numpy.float32)
    targets = rng.integers(0, 2, rows)
    predicted = (outputs[:, 0] > 0.5).astype(int)
    values = {
        "accuracy": of(keras.metrics.BinaryAccuracy(), targets[:, None], outputs),
        **by_class(one_hot(targets, 2), one_hot(predicted, 2)),
    }
    metrics = [*COUNTED, "confusion_matrix"]
    matrix = confusion(targets, predicted, 2)
    return record(
        f"binary/{name}", metrics, "binary", 2, outputs, targets, values, matrix
    )


def area(name, rows, n, seed):
    """Areas under ROC curves; of several classes, the mean over each against the rest."""
    outputs, targets = drawn_classes(rows, n, seed)
    if n == 2:
        outputs = outputs[:, 1:]
        column = targets[:, None]
        values = {"binary_accuracy": of(keras.metrics.BinaryAccuracy(), column, outputs)}
        values["auc"] = of(keras.metrics.AUC(), column, outputs)
    else:
        each = [
            of(keras.metrics.AUC(), targets == c, outputs[:, c]) for c in range(n)
        ]
        values = {"auc": numpy.mean(each)}
    reading = "binary" if n == 2 else "classes"
    return record(f"auc/{name}", list(values), reading, n, outputs, targets, values)


def labels(name, rows, n, seed):
    rng = numpy.random.default_rng(seed)
    outputs = rng.uniform(0, 1, (rows, n)).astype(numpy.float32)
    targets = (rng.uniform(0, 1, (rows, n)) < 0.4).astype(int)
    predicted = (outputs > 0.5).astype(int)
    accuracy = of(keras.metrics.BinaryAccuracy(), targets, outputs)
    values = {
        "binary_accuracy": accuracy,
        "hamming_loss": 1 - accuracy,
        "auc": of(keras.metrics.AUC(multi_label=True, num_labels=n), targets, outputs),
        **by_class(targets, predicted),
    }
    return record(
        f"labels/{name}", list(values), "labels", n, outputs, targets.ravel(), values
    )


def averaged(name, rows, n, seed):
    outputs, targets = drawn_classes(rows, n, seed)
    right, guess = one_hot(targets, n), one_hot(outputs.argmax(1), n)
    values, metrics = {}, []
    for average in ("micro", "weighted"):
        f1 = keras.metrics.F1Score(average, threshold=0.5)
        values[f"f1_{average}"] = of(f1, right, guess)
        metrics.append({"type": "f1", "average": average})
    for name_, metric in (
        ("precision", keras.metrics.Precision),
        ("recall", keras.metrics.Recall),
    ):
        values[f"{name_}_micro"] = of(metric(), right, guess)
        metrics.append({"type": name_, "average": "micro"})
    return record(f"averaged/{name}", metrics, "classes", n, outputs, targets, values)


def by_class(right, guess):
    """The unweighted mean over classes, as Nereid defines these three."""
    means = {}
    for name, metric in (
        ("precision", keras.metrics.Precision),
        ("recall", keras.metrics.Recall),
    ):
        each = [of(metric(), right[:, c], guess[:, c]) for c in range(right.shape[1])]
        means[name] = numpy.mean(each)
    means["f1"] = of(keras.metrics.F1Score("macro", threshold=0.5), right, guess)
    return means


def drawn_numbers(rows, seed, offset=0.0):
    rng = numpy.random.default_rng(seed)
    targets = numpy.round(rng.normal(offset, 3, rows) * 64) / 64
    outputs = (targets + rng.normal(0.5, 1, rows)).astype(numpy.float32)
    return outputs[:, None], targets


def numbers(name, rows, seed, offset=0.0):
    outputs, targets = drawn_numbers(rows, seed, offset)
    column = targets[:, None]
    values = {
        "mae": of(keras.metrics.MeanAbsoluteError(), column, outputs),
        "rmse": of(keras.metrics.RootMeanSquaredError(), column, outputs),
        "r2": of(keras.metrics.R2Score(), column, outputs),
    }
    return record(
        f"numbers/{name}", list(values), "values", 1, outputs, targets, values
    )


def more_numbers(rows, seed):
    outputs, targets = drawn_numbers(rows, seed, 5.0)
    column = targets[:, None]
    values = {
        "mse": of(keras.metrics.MeanSquaredError(), column, outputs),
        "mape": of(keras.metrics.MeanAbsolutePercentageError(), column, outputs),
    }
    return record("more/numbers", list(values), "values", 1, outputs, targets, values)


def of(metric, targets, outputs):
    metric.update_state(targets, outputs)
    return float(metric.result())


def one_hot(indices, n):
    return numpy.eye(n)[indices]


def confusion(targets, predicted, n):
    return tensorflow.math.confusion_matrix(targets, predicted, n).numpy().tolist()


def record(name, metrics, reading, names, outputs, targets, values, matrix=None):
    return {
        "name": name,
        "metrics": metrics,
        "reading": reading,
        "names": names,
        "outputs": outputs,
        "targets": targets.tolist(),
        "values": {k: float(v) for k, v in values.items()},
        "matrix": matrix,
    }
