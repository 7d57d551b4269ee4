"""Writes the reference vectors that Nereid's engine is tested against.

    pip install -r requirements.txt
    python generate.py [FOLDER]

Each file of cases is JSON with one case a line. Numbers are the shortest decimals that give the
same 32-bit float back.
"""

import argparse
import json
import pathlib

import keras_side  # First: it says which backend Keras has.

import keras
import numpy
import tensorflow
import torch

import callback_cases
import initializer_cases
import layer_cases
import metric_cases
import more_layer_cases
import more_training_cases
import torch_side
import training_cases

TRAININGS = {
    "layers": layer_cases,
    "more_layers": more_layer_cases,
    "training": training_cases,
    "more_training": more_training_cases,
}
MEASURED = {
    "metrics": metric_cases,
    "callbacks": callback_cases,
    "initializers": initializer_cases,
}
DISAGREEMENTS = []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = pathlib.Path(__file__).parent
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=here)
    parser.add_argument("--only", help="name of one topic")
    parser.add_argument(
        "--new", action="store_true", help="keep the trainings that are there already"
    )
    args = parser.parse_args()
    for topic, module in {**TRAININGS, **MEASURED}.items():
        if args.only not in (None, topic):
            continue
        if topic in TRAININGS:
            known = kept(args.folder / f"{topic}.json") if args.new else {}
            records = [
                r
                for case in module.cases()
                if (r := known.get(case.name) or attempt(case))
            ]
        else:
            records = [plain(r) for r in module.records()]
        write(args.folder / f"{topic}.json", records)
    if DISAGREEMENTS:
        raise SystemExit("\n".join(DISAGREEMENTS))


def kept(path):
    """The records of a file by name."""
    return {r["name"]: r for r in json.loads(path.read_text())["cases"]}


def attempt(case):
    """Records a case, or notes why not, so that one run shows all mistakes."""
    try:
        return record(case)
    except Exception as e:
        DISAGREEMENTS.append(f"{case.name}: {type(e).__name__}: {e}")
        return None


def record(case):
    """Runs a case on both sides and writes it down."""
    result = keras_side.run(case)
    sources = ["keras"]
    if case.twin:
        twin = torch_side.run(case, result["weights"])
        difference = torch_side.difference(result, twin)
        if not difference <= case.alike:
            DISAGREEMENTS.append(f"{case.name}: PyTorch differs by {difference:.1e}")
        sources.append("torch")
    classes = case.classes > 0
    targets = [f"c{t}" if classes else float(t) for t in case.targets]
    if case.autoencoder:
        targets = []
    return {
        "name": case.name,
        "sources": sources,
        "spec": case.spec(),
        "input": array(case.inputs),
        "targets": targets,
        "weights": {name: array(value) for name, value in result["weights"].items()},
        "output": array(result["output"]),
        "losses": array(result["losses"]),
        "gradients": {n: array(value) for n, value in result["gradients"].items()},
        "after": {name: array(value) for name, value in result["after"].items()},
    }


def plain(record):
    """Writes the arrays of a record as those of a training."""
    of = lambda v: array(v) if isinstance(v, numpy.ndarray) else v
    return {key: of(value) for key, value in record.items()}


def array(values):
    values = numpy.asarray(values)
    flat = [shortest(v) for v in values.ravel()]
    return {"shape": list(values.shape), "values": flat}


def shortest(value):
    single = numpy.float32(value)
    if not numpy.isfinite(single):
        raise SystemExit("a reference is not finite")
    number = float(str(single))
    return int(number) if number == int(number) else number


def write(path, records):
    names = [r["name"] for r in records]
    doubles = {n for n in names if names.count(n) > 1}
    if doubles:
        raise SystemExit(f"cases of one name: {', '.join(sorted(doubles))}")
    versions = {
        "keras": keras.__version__,
        "numpy": numpy.__version__,
        "tensorflow": tensorflow.__version__,
        "torch": torch.__version__.split("+")[0],
    }
    lines = [json.dumps(r, separators=(",", ":")) for r in records]
    head = json.dumps(versions)
    path.write_text(f'{{"versions": {head}, "cases": [\n' + ",\n".join(lines) + "\n]}\n")
    print(f"{path.name}: {len(records)} cases, {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
