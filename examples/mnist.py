"""Trains a convolutional network with augmentation on MNIST to 0.99 on its 10,000 test images.

python3 examples/mnist.py FOLDER, where FOLDER holds MNIST's four IDX files, gzip-compressed.
"""

import pathlib
import sys

from nereid_api import dataset, train

GOAL = 0.99


def mnist(folder, part):
    """Registers one half of MNIST."""
    files = {}
    for role, kind in ("data", "images-idx3"), ("labels", "labels-idx1"):
        (path,) = folder.glob(f"{part}-{kind}-ubyte.gz")
        files[role] = path.read_bytes()
    return dataset(f"mnist-{part}", "idx", files, shape=[28, 28, 1])


def main(folder):
    def conv(filters):
        return {"type": "Conv2D", "filters": filters, "kernel_size": 3, "activation": "relu"}

    metrics = train({
        "model": "mnist-augmented",
        "dataset": mnist(folder, "train"),
        "test_dataset": mnist(folder, "t10k"),
        "network": {"layers": [
            conv(32), {"type": "MaxPooling2D"},
            conv(64), {"type": "MaxPooling2D"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 128, "activation": "relu"},
            {"type": "Dropout", "rate": 0.3},
            {"type": "Dense", "units": 10},
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.001},
        "metrics": ["accuracy"],
        "fit": {
            "epochs": 4, "batch_size": 64, "seed": 1, "validation_split": 0.05,
            "augmentation": [
                {"type": "RandomTranslation", "height_factor": 0.08, "width_factor": 0.08},
                {"type": "RandomRotation", "factor": 0.02},
            ],
        },
        "callbacks": [{"type": "reduce_lr_on_plateau", "monitor": "val_loss", "patience": 1}],
    })
    print(f"test accuracy {metrics['test_accuracy']:.4f}, test loss {metrics['test_loss']:.4f}")
    if metrics["test_accuracy"] < GOAL:
        raise SystemExit(f"below {GOAL}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(pathlib.Path(sys.argv[1]))
