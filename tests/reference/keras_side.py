"""Trains a case with Keras, on TensorFlow, in double precision.

Double precision, so that what is written down is right to the last digit of a float and only
Nereid's own rounding counts.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy
import tensorflow

keras.config.set_floatx("float64")

OPTIMIZERS = {
    name.lower(): getattr(keras.optimizers, name)
    for name in (
        "SGD Adam AdamW RMSprop Adagrad Adadelta Adamax Nadam Lion Ftrl Lamb".split()
    )
}
LOSSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
    "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    "log_cosh": keras.losses.LogCosh,
    "mape": keras.losses.MeanAbsolutePercentageError,
    "msle": keras.losses.MeanSquaredLogarithmicError,
    "poisson": keras.losses.Poisson,
    "kl_divergence": keras.losses.KLDivergence,
    "cosine_similarity": keras.losses.CosineSimilarity,
    "mse": keras.losses.MeanSquaredError,
    "mae": keras.losses.MeanAbsoluteError,
    "huber": keras.losses.Huber,
}
PROBABILITIES = {
    "binary_crossentropy": "sigmoid",
    "binary_focal_crossentropy": "sigmoid",
}
"""Last activation of a network whose outputs are probabilities; softmax unless named."""
OF_THE_OPTIMIZER = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "gradient_accumulation_steps",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
)
"""Options that Keras gives to the optimiser and a spec to `fit`."""


def model(case):
    """Builds the network, naming its layers as Keras does."""
    keras.backend.clear_session()
    known = {"input": keras.Input(case.input_shape)}
    newest = known["input"]
    for spec in case.layers:
        given = [known[name] for name in spec.get("inputs", [])] or [newest]
        newest, layer = call(spec, given)
        known[layer.name] = newest
    return keras.Model(known["input"], newest)


def call(spec, given):
    """Makes a layer and gives it its inputs; returns its output and itself."""
    left_out = ("type", "inputs", *IN_THE_CALL)
    params = {k: v for k, v in spec.items() if k not in left_out}
    if params.get("activation") == "gelu_approximate":
        params["activation"] = lambda x: keras.activations.gelu(x, approximate=True)
    if isinstance(penalty := params.get("kernel_regularizer"), dict):
        penalty = dict(penalty)
        kind = {"l1": "L1", "l2": "L2", "l1_l2": "L1L2"}[penalty.pop("type")]
        kind = getattr(keras.regularizers, kind)
        params["kernel_regularizer"] = kind(**penalty)
    kind = spec["type"]
    if kind == "Bidirectional":
        inner = dict(params.pop("layer"))
        params["layer"] = getattr(keras.layers, inner.pop("type"))(**inner)
    layer = LAYERS.get(kind) or getattr(keras.layers, kind)
    layer = layer(**params)
    options = {k: spec[k] for k in IN_THE_CALL if k in spec}
    if kind == "MultiHeadAttention":
        value = given[1] if len(given) > 1 else given[0]
        return layer(given[0], value, *given[2:], **options), layer
    return (layer(*given) if len(given) == 1 else layer(given)), layer


class PositionEmbedding(keras.layers.Layer):
    """KerasHub's layer of this name, which is not worth another dependency."""

    def __init__(self, sequence_length, **options):
        super().__init__(**options)
        self.sequence_length = sequence_length

    def build(self, shape):
        table = (self.sequence_length, shape[-1])
        self.table = self.add_weight(shape=table, name="position_embeddings")

    def call(self, x):
        steps = keras.ops.shape(x)[1]
        return keras.ops.broadcast_to(self.table[:steps], keras.ops.shape(x))


LAYERS = {"PositionEmbedding": PositionEmbedding}
IN_THE_CALL = ("use_causal_mask",)
"""Options that Keras takes with the inputs."""


def weights(network):
    """Variables by their name in Nereid, which is Keras' path without inner cells."""
    return {variable_name(v): v for v in network.weights if "seed" not in v.path}


def variable_name(variable):
    parts = variable.path.split("/")
    parts = [part for part in parts if not part.endswith("_cell")]
    sides = ("forward", "backward")
    return "/".join(
        next((side for side in sides if part.startswith(f"{side}_")), part)
        for part in parts
    )


def ends_in_probabilities(case):
    last = case.layers[-1].get("activation", "linear")
    return last == PROBABILITIES.get(case.loss["type"], "softmax")


def loss_of(case):
    """Returns the loss of outputs and targets of a batch, weighted as in training."""
    params = {k: v for k, v in case.loss.items() if k != "type"}
    kind = case.loss["type"]
    if kind.endswith("crossentropy"):
        params.setdefault("from_logits", not ends_in_probabilities(case))
    function = LOSSES[kind](**params)
    by_class = case.class_weights()

    def loss(outputs, targets):
        sample_weight = None if by_class is None else by_class[targets]
        if case.autoencoder:
            return function(targets, outputs)
        if kind in ("categorical_crossentropy", "categorical_focal_crossentropy"):
            targets = keras.ops.one_hot(targets, case.classes, dtype="float64")
        elif kind != "sparse_categorical_crossentropy":
            targets = targets.reshape(-1, 1).astype(float)
        return function(targets, outputs, sample_weight=sample_weight)

    return loss


def optimizer_of(case):
    params = {k: v for k, v in case.optimizer.items() if k != "type"}
    for option in OF_THE_OPTIMIZER:
        if option in case.fit:
            params[option] = case.fit[option]
    rate = params.get("learning_rate")
    if isinstance(rate, dict):
        params["learning_rate"] = schedule_of(rate)
    optimizer = OPTIMIZERS[case.optimizer["type"]](**params)
    if excluded := case.fit.get("exclude_from_weight_decay"):
        optimizer.exclude_from_weight_decay(var_names=[n.strip("*/") for n in excluded])
    return optimizer


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """What Keras lacks: the rates of PyTorch's schedule of this name, one by one."""

    def __init__(self, **params):
        from torch_layers import torch

        nothing = torch.optim.SGD([torch.zeros(1)])
        options = {**params, "cycle_momentum": False}
        schedule = torch.optim.lr_scheduler.OneCycleLR(nothing, **options)
        rates = []
        for _ in range(params["total_steps"]):
            rates += schedule.get_last_lr()
            nothing.step()
            if len(rates) < params["total_steps"]:
                schedule.step()
        self.rates = keras.ops.convert_to_tensor(rates)

    def __call__(self, step):
        return self.rates[keras.ops.cast(step, "int32")]


def schedule_of(spec):
    params = {k: v for k, v in spec.items() if k != "type"}
    name = "".join(word.capitalize() for word in spec["type"].split("_"))
    if name == "OneCycle":
        return OneCycle(**params)
    return getattr(keras.optimizers.schedules, name)(**params)


def run(case):
    """Returns all that is to be compared, as arrays by name."""
    network = model(case)
    named = weights(network)
    for name, variable in named.items():
        variable.assign(case.initial(name, variable.shape))
    initial = snapshot(named)
    output = network(case.inputs, training=False).numpy()
    trained = train(case, network, loss_of(case), optimizer_of(case))
    result = {"weights": initial, "output": output, **trained, "after": snapshot(named)}
    return result


def train(case, network, loss_of, optimizer):
    """Trains for all epochs; returns the loss of each and the first gradients."""
    variables = network.trainable_variables
    epochs = case.spec()["fit"]["epochs"]
    targets = case.inputs if case.autoencoder else case.targets
    first, losses = None, []
    for _ in range(epochs):
        total = 0.0
        for start in range(0, case.rows, case.batch_size):
            batch = slice(start, start + case.batch_size)
            with tensorflow.GradientTape() as tape:
                outputs = network(case.inputs[batch], training=True)
                loss = loss_of(outputs, targets[batch]) + sum(network.losses)
            gradients = tape.gradient(loss, variables)
            if first is None:
                first = {
                    variable_name(v): dense(g) for v, g in zip(variables, gradients)
                }
            optimizer.apply(gradients, variables)
            total += float(loss) * len(case.inputs[batch])
        losses.append(total / case.rows)
    optimizer.finalize_variable_values(variables)
    return {"losses": losses, "gradients": first}


def dense(gradient):
    return tensorflow.convert_to_tensor(gradient).numpy()


def snapshot(named):
    return {name: numpy.array(variable) for name, variable in named.items()}
