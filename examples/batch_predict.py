"""Predicts a file of rows in S3 as a job; its answers have to be those of an endpoint.

Needs nothing but the standard library. A row that does not fit is passed over and noted.
"""

import csv
import io
import json
import math
import os
import random
import time
import urllib.parse

from nereid_api import FINAL, call, table, train, upload

ROWS, MODEL = 20_000, "batch-rings"


def point(rng, ring):
    """A point on one of two rings."""
    radius, angle = 1 + ring + rng.gauss(0, 0.1), rng.uniform(0, 2 * math.pi)
    return round(radius * math.cos(angle), 5), round(radius * math.sin(angle), 5)


def run(kind, spec):
    """Runs a job to its end and returns its result."""
    job = call("POST", "/v1/jobs", {"kind": kind, "spec": spec})
    while job["status"] not in FINAL:
        time.sleep(0.2)
        job = call("GET", f"/v1/jobs/{job['id']}")
    if job["status"] != "succeeded":
        raise SystemExit(json.dumps(job.get("error"), indent=2))
    return job["result"]


def main():
    rng = random.Random(1)
    rings = [rng.randrange(2) for _ in range(ROWS)]
    points = [point(rng, ring) for ring in rings]
    known = [[*xy, ring] for xy, ring in zip(points[:2_000], rings)]
    data = table(f"{MODEL}-known", ["x", "y", "ring"], known)
    train({
        "model": MODEL,
        "dataset": data,
        "network": {"layers": [
            {"type": "Dense", "units": 16, "activation": "relu"},
            {"type": "Dense", "units": 2},
        ]},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.01},
        "fit": {"epochs": 10, "seed": 1},
    })
    version = call("GET", f"/v1/models/{MODEL}")["latest_version"]
    run("deploy", {"model": MODEL, "version": version})

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "x", "y"])
    writer.writerows((f"p{i}", *xy) for i, xy in enumerate(points))
    text.write("broken,1,somewhere\n")
    uri = upload(f"{MODEL}.csv", text.getvalue().encode())
    # A prefix of its own for each job; any bucket that the service may write to will do.
    bucket = os.environ.get("NEREID_OUTPUT_BUCKET", urllib.parse.urlparse(uri).netloc)
    result = run("batch_predict", {
        "model": MODEL,
        "version": version,
        "input": {"uri": uri, "format": "csv"},
        "output": {"uri": f"s3://{bucket}/predictions/{MODEL}/{time.time_ns()}/", "id_columns": ["id"]},
        "on_error": "skip",
        "max_errors": 10,
    })
    print(json.dumps(result, indent=2))
    if (result["rows"], result["rejected"]) != (ROWS, 1):
        raise SystemExit("not every row was predicted once")

    # What was written is a dataset like any other: its first rows tell what the job answered.
    name = f"{MODEL}-answers"
    again = run("batch_predict", {
        "model": MODEL,
        "version": version,
        "input": {"uri": uri, "format": "csv", "columns": {"id": {"kind": "ignore"}}},
        "output": {
            "uri": f"s3://{bucket}/predictions/{MODEL}/{time.time_ns()}/",
            "format": "csv",
            "id_columns": ["x", "y"],
        },
        "on_error": "skip",
    })
    answers = call("POST", "/v1/datasets", {
        "name": name,
        "format": "csv",
        "files": {"data": again["output"]},
        "label_column": "prediction_label",
    })
    preview = call("GET", f"/v1/datasets/{name}/versions/{answers['version']}/preview")["rows"]
    columns = answers["schema"]["columns"]
    rows = [dict(zip(columns, row["features"])) for row in preview]
    asked = call("POST", f"/v1/endpoints/{MODEL}/predict",
                 {"rows": [{"x": row["x"], "y": row["y"]} for row in rows]})["predictions"]
    for row, told, answer in zip(rows, preview, asked):
        if str(told["target"]) != answer["label"]:
            raise SystemExit(f"{row} was {told['target']} as a row of the job, {answer['label']} alone")
    print(f"the endpoint says the same of the first {len(asked)} rows")


if __name__ == "__main__":
    main()
