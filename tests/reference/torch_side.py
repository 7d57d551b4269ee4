"""Trains a case with PyTorch, from the same weights."""

import numpy

from keras_side import ends_in_probabilities
from torch_layers import F, Pass, torch


def loss_of(case):
    """Returns the mean loss over samples, weighted as Keras weights it."""
    kind = case.loss["type"]
    by_class = case.class_weights()

    def loss(outputs, targets):
        if kind in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
            smoothing = case.loss.get("label_smoothing", 0.0)
            indices = torch.tensor(targets)
            losses = F.cross_entropy(
                outputs, indices, reduction="none", label_smoothing=smoothing
            )
        else:
            y, t = outputs[:, 0], torch.tensor(targets.astype(float))
            losses = {
                "binary_crossentropy": F.binary_cross_entropy_with_logits,
                "mse": F.mse_loss,
                "mae": F.l1_loss,
                "huber": lambda *a, **k: F.huber_loss(
                    *a, **k, delta=case.loss.get("delta", 1.0)
                ),
            }[kind](y, t, reduction="none")
        if by_class is not None:
            losses = losses * torch.tensor(by_class[targets])
        return losses.mean()

    return loss


def optimizer_of(case, parameters):
    """PyTorch's optimiser with Keras' numbers."""
    p = dict(case.optimizer)
    kind = p.pop("type")
    rate = p.pop("learning_rate", 0.01 if kind == "sgd" else 0.001)
    if isinstance(rate, dict):
        rate = rate["max_lr"]
    if kind == "sgd":
        return torch.optim.SGD(parameters, rate, **p)
    if kind == "rmsprop":
        rho, epsilon = p.get("rho", 0.9), p.get("epsilon", 1e-7)
        momentum = p.get("momentum", 0.0)
        return torch.optim.RMSprop(parameters, rate, rho, epsilon, momentum=momentum)
    if kind == "adagrad":
        start = p.get("initial_accumulator_value", 0.1)
        return torch.optim.Adagrad(
            parameters, rate, initial_accumulator_value=start, eps=1e-7
        )
    if kind == "adadelta":
        rho, epsilon = p.get("rho", 0.95), p.get("epsilon", 1e-7)
        return torch.optim.Adadelta(parameters, rate, rho, epsilon)
    betas = (p.get("beta_1", 0.9), p.get("beta_2", 0.999))
    epsilon = p.get("epsilon", 1e-7)
    if kind == "adamw":
        decay = p.get("weight_decay", 0.004)
        amsgrad = p.get("amsgrad", False)
        return torch.optim.AdamW(
            parameters, rate, betas, epsilon, decay, amsgrad=amsgrad
        )
    if kind == "adamax":
        return torch.optim.Adamax(parameters, rate, betas, epsilon)
    amsgrad = p.get("amsgrad", False)
    return torch.optim.Adam(parameters, rate, betas, epsilon, amsgrad=amsgrad)


def schedule_of(case, optimizer):
    """PyTorch's one-cycle schedule, if the case has it."""
    rate = case.optimizer.get("learning_rate")
    if not isinstance(rate, dict):
        return None
    params = {k: v for k, v in rate.items() if k != "type"}
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, **params, cycle_momentum=False
    )


def clip(case, parameters):
    if "global_clipnorm" in case.fit:
        torch.nn.utils.clip_grad_norm_(parameters, case.fit["global_clipnorm"])
    for parameter in parameters:
        if "clipnorm" in case.fit:
            torch.nn.utils.clip_grad_norm_([parameter], case.fit["clipnorm"])
        if "clipvalue" in case.fit:
            torch.nn.utils.clip_grad_value_([parameter], case.fit["clipvalue"])


def run(case, initial):
    """Returns what `keras_side.run` does, but for the moving averages."""
    weights = {
        name: torch.tensor(value, requires_grad=not fixed(name))
        for name, value in initial.items()
    }
    parameters = [w for w in weights.values() if w.requires_grad]
    inputs = torch.tensor(case.inputs)
    with torch.no_grad():
        output = Pass(case, weights, training=False).run(inputs, logits=False)
    logits = case.classes > 0 and ends_in_probabilities(case)
    loss_function, optimizer = loss_of(case), optimizer_of(case, parameters)
    schedule = schedule_of(case, optimizer)
    first_gradients, losses = None, []
    for _ in range(case.spec()["fit"]["epochs"]):
        total = 0.0
        for start in range(0, case.rows, case.batch_size):
            batch = slice(start, start + case.batch_size)
            optimizer.zero_grad()
            outputs = Pass(case, weights, training=True).run(inputs[batch], logits)
            loss = loss_function(outputs, case.targets[batch]) + penalty(case, weights)
            loss.backward()
            if first_gradients is None:
                first_gradients = arrays({n: w.grad for n, w in weights.items()})
            clip(case, parameters)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            total += loss.item() * len(inputs[batch])
        losses.append(total / case.rows)
    after = arrays({n: w for n, w in weights.items() if w.requires_grad})
    return {
        "output": output.numpy(),
        "losses": losses,
        "gradients": first_gradients,
        "after": after,
    }


def penalty(case, weights):
    """What regularisers add to the loss."""
    total, names = 0.0, Pass(case, weights, training=False)
    for spec in case.layers:
        name, given = names.name(spec), spec.get("kernel_regularizer")
        if given is None:
            continue
        given = {"type": given} if isinstance(given, str) else given
        kernel, usual = weights[f"{name}/kernel"], 0.01
        if given["type"] == "l1_l2":
            usual = 0.0
        if "l1" in given["type"]:
            total = total + given.get("l1", usual) * kernel.abs().sum()
        if "l2" in given["type"]:
            total = total + given.get("l2", usual) * kernel.square().sum()
    return total


def fixed(name):
    return "/moving_" in name


def arrays(tensors):
    return {
        name: t.detach().numpy().copy() for name, t in tensors.items() if t is not None
    }


def difference(keras, twin):
    """Largest difference, each relative to the largest value of its tensor."""
    worst = 0.0
    for key in ("output", "losses", "gradients", "after"):
        ours, theirs = keras[key], twin[key]
        if not isinstance(ours, dict):
            ours, theirs = {key: ours}, {key: theirs}
        largest = {name: numpy.abs(value).max() for name, value in ours.items()}
        # A tensor of nothing but rounding is measured by the others.
        floor = 1e-6 * max(largest.values())
        for name, value in theirs.items():
            by = numpy.abs(numpy.asarray(value) - numpy.asarray(ours[name])).max()
            worst = max(worst, float(by / max(largest[name], floor)))
    return worst
