"""The few calls of Nereid's REST API that the examples need, with nothing but the standard library."""

import csv
import io
import json
import os
import time
import urllib.error
import urllib.request

URL = os.environ.get("NEREID_URL", "http://127.0.0.1:8080")
FINAL = ("succeeded", "failed", "stopped")


def call(method, path, body=None, data=None):
    """Sends a request; returns the JSON answer, or ends with the problem that the server names."""
    headers = {"Content-Type": "application/octet-stream"}
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    if key := os.environ.get("NEREID_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(URL + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        raise SystemExit(f"{method} {path}: {e.code}\n{e.read().decode()}") from None


def upload(name, content):
    """Puts bytes into S3 and returns their URI."""
    return call("PUT", f"/v1/uploads/{name}", data=content)["uri"]


def dataset(name, format, files, **source):
    """Registers files, contents by role, as a version of a dataset; returns its reference."""
    uris = {role: upload(f"{name}-{role}.{format}", content) for role, content in files.items()}
    version = call("POST", "/v1/datasets", {"name": name, "format": format, "files": uris, **source})
    return f"{name}@{version['version']}"


def table(name, columns, rows, **source):
    """Registers rows as a CSV dataset; the last column is the label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    files = {"data": text.getvalue().encode()}
    return dataset(name, "csv", files, label_column=columns[-1], **source)


def train(spec):
    """Trains to the end; returns the version's metrics."""
    job = call("POST", "/v1/jobs", {"kind": "train", "spec": spec})
    print(f"job {job['id']}", end="", flush=True)
    shown = None
    while job["status"] not in FINAL:
        time.sleep(0.5)
        job = call("GET", f"/v1/jobs/{job['id']}")
        epoch = (job.get("progress") or {}).get("epoch")
        if epoch != shown:
            shown = epoch
            print(".", end="", flush=True)
    print(f" {job['status']}")
    if job["status"] != "succeeded":
        raise SystemExit(json.dumps(job.get("error"), indent=2))
    model, version = spec["model"], job["result"]["version"]
    return call("GET", f"/v1/models/{model}/versions/{version}")["metrics"]

