"""Trains the preset resnet18 on made-up 32×32 colour images of ten classes; its loss has to fall.

Each class is a shape of its own, in random colours, places and noise. Needs NumPy.
"""

import io
import json

import numpy as np

from nereid_api import call, dataset, train

ROWS, SIZE, CLASSES = 640, 32, 10


def images(rng):
    """Draws pictures of `ROWS` gratings, whose angle tells the class, on noise."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    labels = rng.integers(0, CLASSES, ROWS)
    pictures = np.empty((ROWS, SIZE, SIZE, 3), np.uint8)
    for picture, label in zip(pictures, labels):
        angle = np.pi * label / CLASSES
        wave = np.sin(2 * np.pi * (4 * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
        colour = rng.uniform(0.4, 1.0, 3)
        noise = rng.normal(0, 0.2, (SIZE, SIZE, 3))
        values = 0.5 + 0.4 * wave[..., None] * colour + noise
        picture[:] = np.clip(values * 255, 0, 255)
    return pictures, labels.astype(np.uint8)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def main():
    pictures, labels = images(np.random.default_rng(1))
    data = dataset("gratings", "npy", {"data": npy(pictures), "labels": npy(labels)})
    train({
        "model": "resnet18-gratings",
        "dataset": data,
        "network": {"preset": "resnet18", "stem": "small"},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.001},
        "metrics": ["accuracy"],
        "fit": {"epochs": 3, "batch_size": 32, "seed": 1},
    })
    version = call("GET", "/v1/models/resnet18-gratings/versions?page_size=1")["items"][0]
    points = call("GET", f"/v1/jobs/{version['lineage']['job_id']}/metrics?limit=200")["items"]
    epochs = [p["values"]["loss"] for p in points if p["epoch"] % 1 == 0 and "loss" in p["values"]]
    print("loss after each epoch:", json.dumps([round(loss, 3) for loss in epochs]))
    if not epochs[-1] < 0.7 * epochs[0]:
        raise SystemExit("the loss does not fall")


if __name__ == "__main__":
    main()
