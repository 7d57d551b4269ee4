"""What a reference case is: a Nereid spec, the numbers that go in, and their order."""

import dataclasses
import zlib

import numpy

STEPS = 10


@dataclasses.dataclass
class Case:
    """A training as Nereid's API takes it, without model and dataset.

    Layers, losses and optimisers carry Keras' own names and parameters in a spec, so that a spec
    is also what the other libraries are driven by.
    """

    name: str
    layers: list
    input_shape: tuple
    loss: dict
    optimizer: dict
    fit: dict
    rows: int
    classes: int
    """Number of classes; 0 if targets are numbers."""
    vocabulary: int
    """Inputs are whole numbers below it; any numbers if 0."""
    autoencoder: bool
    """Inputs, from above 0 to 1, are their own targets."""
    counts: bool
    """Targets are whole numbers from 0."""
    twin: bool
    """Whether PyTorch defines the same, so that it must agree."""
    alike: float
    """How far PyTorch may stray, relative to the largest value of a tensor."""
    inputs: numpy.ndarray = None
    targets: numpy.ndarray = None

    def __post_init__(self):
        rng = self.generator("data")
        shape = (self.rows, *self.input_shape)
        if self.vocabulary:
            self.inputs = rng.integers(0, self.vocabulary, shape).astype(float)
        else:
            # Exact in every float and in a few decimals.
            self.inputs = numpy.round(rng.normal(0, 1, shape) * 64) / 64
        if self.autoencoder:
            self.inputs = numpy.clip(numpy.abs(self.inputs) / 2, 1 / 64, 1)
        if self.classes:
            self.targets = numpy.arange(self.rows) % self.classes
            rng.shuffle(self.targets)
        elif self.counts:
            self.targets = rng.integers(0, 6, self.rows).astype(float)
        else:
            self.targets = numpy.round(rng.normal(0, 1, self.rows) * 64) / 64

    def generator(self, purpose):
        """Numbers that follow from the case's name, whatever other cases there are."""
        return numpy.random.default_rng(zlib.crc32(f"{self.name}:{purpose}".encode()))

    def initial(self, name, shape):
        """Draws a weight: all different, none at a default that would hide a mistake."""
        rng = self.generator(name)
        role = name.rsplit("/", 1)[-1]
        if role == "moving_variance":
            values = rng.uniform(0.5, 1.5, shape)
        elif role in ("gamma", "scale"):
            values = rng.uniform(0.7, 1.3, shape)
        else:
            fan_in = max(1, int(numpy.prod(shape[:-1]))) if len(shape) > 1 else 8
            values = rng.normal(0, 1, shape) / numpy.sqrt(fan_in)
        return values.astype(numpy.float32).astype(float)

    def spec(self):
        """The spec as Nereid reads it."""
        task = {"task": "autoencoding"} if self.autoencoder else {}
        return {
            **task,
            "network": {"layers": self.layers},
            "loss": self.loss,
            "optimizer": self.optimizer,
            "fit": {
                "epochs": STEPS * self.batch_size // self.rows,
                "batch_size": self.batch_size,
                "shuffle": False,
                "normalization": "none",
                **self.fit,
            },
        }

    @property
    def batch_size(self):
        return self.fit.get("batch_size", self.rows)

    def class_weights(self):
        """Weight of each class in the loss, as Keras' `class_weight`; None if all weigh 1."""
        wanted = self.fit.get("class_weight")
        if wanted is None:
            return None
        if wanted == "balanced":
            counts = numpy.bincount(self.targets, minlength=self.classes)
            return self.rows / (self.classes * counts)
        return numpy.array([wanted.get(f"c{i}", 1.0) for i in range(self.classes)])


SCCE = {"type": "sparse_categorical_crossentropy"}


def case(name, layers, input_shape, **options):
    """A case with the usual loss, optimiser and size unless told otherwise."""
    defaults = {
        "loss": SCCE,
        "optimizer": {"type": "sgd", "learning_rate": 0.05},
        "fit": {},
        "rows": 6,
        "classes": 3,
        "vocabulary": 0,
        "autoencoder": False,
        "counts": False,
        "twin": True,
        "alike": 5e-8,
    }
    return Case(name, layers, tuple(input_shape), **{**defaults, **options})
