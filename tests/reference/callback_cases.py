"""What Keras' callbacks do to a training whose losses are given."""

import keras_side  # First: it says which backend Keras has.

import keras

FALLING = [1.0, 0.8, 0.7, 0.71, 0.705, 0.69, 0.7, 0.7, 0.7, 0.5, 0.6, 0.6, 0.6, 0.6]
FLAT = [1.0] * 14
NAMES = {
    "early_stopping": keras.callbacks.EarlyStopping,
    "reduce_lr_on_plateau": keras.callbacks.ReduceLROnPlateau,
}


def records():
    plateau = "reduce_lr_on_plateau"
    for name, key, values in (
        ("falling", "loss", FALLING),
        ("flat", "loss", FLAT),
        ("rising", "accuracy", [1 - v for v in FALLING]),
    ):
        for params in (
            {"patience": 2},
            {"factor": 0.5, "patience": 1, "cooldown": 2, "min_lr": 0.0003},
            {"factor": 0.5, "patience": 1, "min_delta": 0.02},
            {"factor": 0.3, "patience": 3, "cooldown": 1},
        ):
            yield record(name, plateau, params, key, values)
        for params in (
            {},
            {"patience": 1},
            {"patience": 2},
            {"patience": 3, "min_delta": 0.02},
            {"patience": 20},
        ):
            yield record(name, "early_stopping", params, key, values)


class Rated:
    """As much of a model as the callbacks ask for."""

    class Optimizer:
        def __init__(self, rate):
            self.learning_rate = keras.Variable(rate)

    def __init__(self, rate):
        self.optimizer = self.Optimizer(rate)
        self.stop_training = False
        self.metrics = []

    def get_weights(self):
        return []


def record(name, kind, params, key, values, rate=0.01):
    mode = "max" if key == "accuracy" else "min"
    callback = NAMES[kind](monitor=key, mode=mode, **params)
    model = Rated(rate)
    callback.set_model(model)
    callback.on_train_begin()
    rates, stopped = [], None
    for epoch, value in enumerate(values):
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {key: value})
        rates.append(float(model.optimizer.learning_rate))
        if model.stop_training:
            stopped = epoch
            break
    words = "_".join(f"{k}_{v}" for k, v in params.items()) or "defaults"
    return {
        "name": f"{kind}/{name}_{words}",
        "callback": {"type": kind, "monitor": key, **params},
        "key": key,
        "values": values,
        "rate": rate,
        "rates": rates,
        "stopped": stopped,
    }
