"""Trains networks on data that scikit-learn and statsmodels ship, and compares their scores on the
same split with those of scikit-learn's own models.

A score may be at most TOLERANCE below the better of scikit-learn's.
"""

import numpy as np
import statsmodels.api as sm
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nereid_api import table, train

TOLERANCE = 0.03
WINDOW = 24


def ours(name, parts, loss, metric, layers, epochs, rate, shape=None):
    """Trains in Nereid; returns the score on the test part."""
    (x_train, y_train), (x_test, y_test) = parts
    columns = [f"x{i}" for i in range(x_train.shape[1])] + ["y"]
    source = {"target": "class" if metric == "accuracy" else "value"}
    if shape:
        source["shape"] = shape

    def register(part, x, y):
        rows = [[*map(float, row), label] for row, label in zip(x, y.tolist())]
        return table(f"{name}-{part}", columns, rows, **source)

    metrics = train({
        "model": name,
        "dataset": register("train", x_train, y_train),
        "test_dataset": register("test", x_test, y_test),
        "network": {"layers": layers},
        "loss": {"type": loss},
        "optimizer": {"type": "adam", "learning_rate": rate},
        "metrics": [metric],
        "fit": {"epochs": epochs, "batch_size": 32, "seed": 1, "normalization": "standard"},
    })
    return metrics[f"test_{metric}"]


def theirs(parts, *models):
    """Scores of scikit-learn's models on the test part."""
    (x_train, y_train), (x_test, y_test) = parts
    scores = {}
    for model in models:
        fitted = make_pipeline(StandardScaler(), model).fit(x_train, y_train)
        scores[type(model).__name__] = fitted.score(x_test, y_test)
    return scores


def split(x, y, **kwargs):
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0, **kwargs)
    return (x_train, y_train), (x_test, y_test)


def dense(units, activation="linear"):
    return {"type": "Dense", "units": units, "activation": activation}


def diabetes():
    x, y = load_diabetes(return_X_y=True)
    parts = split(x, y)
    # Losses of targets in the hundreds would want rates of their own.
    scale = parts[0][1].std()
    scaled = tuple((x, (y - parts[0][1].mean()) / scale) for x, y in parts)
    score = ours("diabetes", scaled, "mse", "r2", [dense(16, "relu"), {"type": "Dropout", "rate": 0.2}, dense(1)], 60, 0.002)
    return "R²", score, theirs(scaled, Ridge(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=2000, random_state=0))


def wine():
    x, y = load_wine(return_X_y=True)
    parts = split(x, y, stratify=y)
    score = ours("wine", parts, "sparse_categorical_crossentropy", "accuracy", [dense(16, "relu"), dense(3)], 60, 0.01)
    return "accuracy", score, theirs(parts, LogisticRegression(), MLPClassifier(hidden_layer_sizes=(16,), max_iter=2000, random_state=0))


def sunspots():
    series = np.sqrt(sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy())
    windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
    x, y = windows[:, :-1], windows[:, -1]
    # The last quarter is the future, which no training may see.
    cut = len(x) * 3 // 4
    parts = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    layers = [
        {"type": "Conv1D", "filters": 16, "kernel_size": 5, "activation": "relu"},
        {"type": "Flatten"},
        dense(16, "relu"),
        dense(1),
    ]
    score = ours("sunspots", parts, "mse", "r2", layers, 150, 0.002, shape=[WINDOW, 1])
    return "R²", score, theirs(parts, Ridge(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=2000, random_state=0))


def main():
    failed = []
    for task in diabetes, wine, sunspots:
        what, score, others = task()
        shown = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
        print(f"{task.__name__}: {what} {score:.3f}; scikit-learn: {shown}")
        if score < max(others.values()) - TOLERANCE:
            failed.append(task.__name__)
    if failed:
        raise SystemExit(f"more than {TOLERANCE} below scikit-learn: {', '.join(failed)}")


if __name__ == "__main__":
    main()
