#!/usr/bin/env python3
"""Compares Nereid's training with PyTorch's and TensorFlow's, on the same networks, in one run.

    benches/peers/train.py [--rounds 5] [--networks a,b] [--output FILE.json] NEREID

NEREID is the binary, built with `cargo build --release`. Each round measures each contender in
turn, each in a process of its own, all on the processor with all its cores, so that whatever else
the machine does meets all of them alike. Prints the medians of the rounds with their ratios. Data
lies in memory (Nereid's besides in an S3 on loopback); every step takes the next batch of a
shuffled order, computes the loss and its gradients, and lets Adam change the weights. TensorFlow
runs Keras' own `fit` (a compiled graph), PyTorch its usual eager loop; neither's first epoch or
second counts. Needs torch and tensorflow-cpu from PyPI; what is missing is left out.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

# name: (batch, shape of a sample, samples); as in crates/nereid-engine/src/bench.rs.
NETWORKS = {
    "tabular-32": (32, (224,), 16384),
    "tabular-256": (256, (224,), 65536),
    "mnist-cnn-64": (64, (28, 28, 1), 4096),
    "resnet18-32": (32, (32, 32, 3), 256),
    "lstm-32": (32, (32, 16), 2048),
    "transformer-32": (32, (32, 16), 2048),
}
CLASSES = 10


def data(name):
    import numpy

    batch, shape, rows = NETWORKS[name]
    random = numpy.random.default_rng(0)
    x = random.random((rows, *shape), dtype=numpy.float32)
    return batch, x, random.integers(0, CLASSES, rows)


def torch_network(name):
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.chain = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
            self.short = nn.Identity()
            if stride != 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.short = nn.Sequential(conv, nn.BatchNorm2d(outputs))
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.chain(x) + self.short(x))

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(16, 64, 2, batch_first=True)
            self.head = nn.Linear(64, CLASSES)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            import torch

            self.projection = nn.Linear(16, 64)
            self.positions = nn.Parameter(torch.zeros(32, 64))
            layer = nn.TransformerEncoderLayer(
                64, 4, 256, 0.0, "gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(
                layer, 2, nn.LayerNorm(64), enable_nested_tensor=False
            )
            self.head = nn.Linear(64, CLASSES)

        def forward(self, x):
            x = self.encoder(self.projection(x) + self.positions)
            return self.head(x.mean(1))

    if name.startswith("tabular"):
        return nn.Sequential(
            nn.Linear(224, 64), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(64, CLASSES),
        )  # fmt: skip
    if name.startswith("mnist"):
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, CLASSES),
        )  # fmt: skip
    if name.startswith("resnet18"):
        layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        inputs = 64
        for outputs in (64, 128, 256, 512):
            layers += [Residual(inputs, outputs, 1 if outputs == 64 else 2)]
            layers += [Residual(outputs, outputs, 1)]
            inputs = outputs
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)
        )
    return Recurrent() if name.startswith("lstm") else Transformer()


def run_torch(name, seconds):
    import torch

    torch.set_num_threads(os.cpu_count())
    batch, x, y = data(name)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    network = torch_network(name)
    if x.dim() == 4:
        # The layout that PyTorch recommends for convolution on processors.
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    loss = torch.nn.CrossEntropyLoss()
    network.train()

    def train(seconds):
        samples, began = 0, time.perf_counter()
        while True:
            order = torch.randperm(len(x))
            for at in range(0, len(x) - batch + 1, batch):
                rows = order[at : at + batch]
                optimizer.zero_grad()
                value = loss(network(x[rows]), y[rows])
                value.backward()
                optimizer.step()
                value.item()
                samples += batch
                passed = time.perf_counter() - began
                if passed >= seconds:
                    return samples / passed

    train(seconds / 3)
    return train(seconds)


def keras_network(name):
    import keras
    from keras import layers

    def residual(x, filters, strides):
        def conv(x, size, strides):
            x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
            return layers.BatchNormalization()(x)

        y = layers.ReLU()(conv(x, 3, strides))
        y = conv(y, 3, 1)
        if strides != 1 or x.shape[-1] != filters:
            x = conv(x, 1, strides)
        return layers.ReLU()(layers.Add()([x, y]))

    class Positions(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=shape[1:], initializer="zeros")

        def call(self, x):
            return x + self.table

    x = inputs = keras.Input(NETWORKS[name][1])
    if name.startswith("tabular"):
        for rate in (0.2, 0.5):
            x = layers.Dropout(rate)(layers.Dense(64, activation="relu")(x))
    elif name.startswith("mnist"):
        for filters in (32, 64):
            x = layers.Conv2D(filters, 3, activation="relu")(x)
            x = layers.MaxPooling2D()(x)
        x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    elif name.startswith("resnet18"):
        x = layers.Conv2D(64, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        for filters in (64, 128, 256, 512):
            x = residual(x, filters, 1 if filters == 64 else 2)
            x = residual(x, filters, 1)
        x = layers.GlobalAveragePooling2D()(x)
    elif name.startswith("lstm"):
        x = layers.LSTM(64, return_sequences=True)(x)
        x = layers.LSTM(64)(x)
    else:
        x = Positions()(layers.Dense(64)(x))
        for _ in range(2):
            y = layers.LayerNormalization()(x)
            x = x + layers.MultiHeadAttention(4, 16)(y, y)
            y = layers.Dense(256, activation="gelu")(layers.LayerNormalization()(x))
            x = x + layers.Dense(64)(y)
        x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def run_tensorflow(name, seconds):
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    batch, x, y = data(name)
    network = keras_network(name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, metrics=["accuracy"])

    class Stopwatch(keras.callbacks.Callback):
        epochs, began = -1, None

        def on_epoch_end(self, epoch, logs=None):
            now = time.perf_counter()
            # The first epoch compiles the graph.
            self.epochs, self.began = self.epochs + 1, self.began or now
            self.passed = now - self.began
            self.model.stop_training = self.epochs > 0 and self.passed >= seconds

    watch = Stopwatch()
    network.fit(x, y, batch, epochs=100_000, verbose=0, callbacks=[watch])
    return watch.epochs * len(x) / watch.passed


def run_nereid(binary, name, epochs):
    command = [binary, "--json", "bench", "train", "--networks", name, "--epochs", str(epochs)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figure = json.loads(output)[0]
    return [figure[place]["samples_per_second"] for place in ("memory", "s3")]


def run_peer(peer, name, seconds):
    command = [sys.executable, __file__, "--peer", peer, "--networks", name]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def compare(arguments):
    names = arguments.networks.split(",") if arguments.networks else list(NETWORKS)
    peers = [p for p in ("torch", "tensorflow") if importlib.util.find_spec(p)]
    contenders = ("nereid", "nereid from S3", *peers)
    figures = {name: {who: [] for who in contenders} for name in names}
    for number in range(arguments.rounds):
        for name in names:
            memory, s3 = run_nereid(arguments.nereid, name, arguments.epochs)
            figures[name]["nereid"].append(memory)
            figures[name]["nereid from S3"].append(s3)
            for peer in peers:
                figures[name][peer].append(run_peer(peer, name, arguments.seconds))
        print(f"round {number + 1} of {arguments.rounds} done", file=sys.stderr)
    header = ["network", "nereid", "from S3", *(c for p in peers for c in (p, f"nereid/{p}"))]
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for name, by in figures.items():
        medians = {who: statistics.median(speeds) for who, speeds in by.items()}
        cells = [name, *(f"{medians[who]:,.0f}" for who in ("nereid", "nereid from S3"))]
        for peer in peers:
            # Neighbours in time are compared, then the middle one is taken.
            pairs = zip(by["nereid"], by[peer])
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            cells += [f"{medians[peer]:,.0f}", f"{ratio:.2f}"]
        print("| " + " | ".join(cells) + " |")
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump({"cores": os.cpu_count(), "samples_per_second": figures}, file, indent=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nereid", nargs="?", help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", help="names, separated by commas; all unless given")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of Nereid each round")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of a peer each round")
    parser.add_argument("--output", help="file for all figures as JSON")
    parser.add_argument("--peer", choices=("torch", "tensorflow"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        run = run_torch if arguments.peer == "torch" else run_tensorflow
        print(run(arguments.networks, arguments.seconds))
    elif arguments.nereid:
        compare(arguments)
    else:
        parser.error("name the binary to measure")


if __name__ == "__main__":
    main()
