"""Drives the Open Inference Protocol with NVIDIA's clients, unchanged.

    inference.py http://127.0.0.1:8080 127.0.0.1:8081 digits.csv.gz digits-job.json

Trains and deploys the digits of the demo under a name of its own, then asks it by tritonclient over
HTTP and gRPC, and by the plain route for predictions. kserve_inference.py goes on with that endpoint.
"""

import base64
import gzip
import json
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

NAME = "clients-digits"


def call(base, method, path, body=None, headers=None):
    """One request to the REST API; the JSON of its answer."""
    if isinstance(body, (dict, list)):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(base + path, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            text = response.read()
    except urllib.error.HTTPError as e:
        raise AssertionError(f"{method} {path}: {e.code} {e.read().decode()}") from e
    return json.loads(text) if text else None


def deploy(base, data, job):
    """Trains and deploys; returns some rows as they are in the file and their labels."""
    with open(data, "rb") as file:
        packed = file.read()
    octets = {"Content-Type": "application/octet-stream"}
    stored = call(base, "PUT", "/v1/uploads/digits.csv.gz", packed, octets)
    source = {
        "name": NAME,
        "format": "csv",
        "files": {"data": stored["uri"]},
        "label_column": "label",
        "shape": [8, 8, 1],
    }
    call(base, "POST", "/v1/datasets", source)
    with open(job, encoding="utf-8") as file:
        job = json.load(file)
    job["spec"].update(model=NAME, dataset=NAME)
    job["spec"]["fit"]["epochs"] = 3
    wait(base, call(base, "POST", "/v1/jobs", job)["id"])
    deployment = call(base, "POST", f"/v1/models/{NAME}/versions/1/deploy", {})
    wait(base, deployment["id"])
    header, *lines = gzip.decompress(packed).decode().splitlines()
    label = header.split(",").index("label")
    rows = [[float(cell) for cell in line.split(",")] for line in lines[:5]]
    labels = [str(int(row.pop(label))) for row in rows]
    return np.array(rows, dtype=np.float32).reshape(5, 8, 8, 1), labels


def wait(base, job):
    while True:
        found = call(base, "GET", f"/v1/jobs/{job}")
        if found["status"] in ("succeeded", "failed", "stopped"):
            assert found["status"] == "succeeded", found
            return
        time.sleep(0.2)


def refused(ask, *words):
    """The message of a call that must fail."""
    try:
        ask()
    except InferenceServerException as e:
        message = str(e)
        assert all(word in message for word in words), message
        return
    raise AssertionError("the call was answered")


def described(client, plain):
    """Health, metadata, configuration, index and statistics; `plain` makes dictionaries."""
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME) and client.is_model_ready(NAME, "1")
    server = plain(client.get_server_metadata())
    assert server["name"] == "nereid" and "binary_tensor_data" in server["extensions"], server
    model = plain(client.get_model_metadata(NAME))
    assert model["inputs"][0]["name"] == "input", model
    assert [int(n) for n in model["inputs"][0]["shape"]] == [-1, 8, 8, 1], model
    assert model["versions"] == ["1"], model
    config = plain(client.get_model_config(NAME, "1"))
    config = config.get("config", config)
    assert config["name"] == NAME and int(config["max_batch_size"]) == 4096, config
    assert config["input"][0]["data_type"] == "TYPE_FP32", config
    index = plain(client.get_model_repository_index())
    entries = index["models"] if isinstance(index, dict) else index
    assert {"name": NAME, "version": "1", "state": "READY"}.items() <= next(
        e for e in entries if e["name"] == NAME
    ).items(), entries
    refused(lambda: client.get_model_metadata("nobody"), "nobody")


def counted(client, plain):
    stats = plain(client.get_inference_statistics(NAME))["model_stats"][0]
    assert int(stats["inference_count"]) >= 5, stats
    assert int(stats["inference_stats"]["success"]["count"]) >= 1, stats
    assert plain(client.get_inference_statistics())["model_stats"]


def over_http(address, images):
    """Everything that tritonclient[http] does; returns the probabilities."""
    with triton_http.InferenceServerClient(address) as client:
        described(client, lambda found: found)
        answers = []
        for binary_in in (False, True):
            for binary_out in (False, True):
                for packing in (None, "gzip", "deflate"):
                    tensor = triton_http.InferInput("input", list(images.shape), "FP32")
                    tensor.set_data_from_numpy(images, binary_data=binary_in)
                    wanted = [
                        triton_http.InferRequestedOutput(name, binary_data=binary_out)
                        for name in ("probabilities", "class")
                    ]
                    found = client.infer(
                        NAME,
                        [tensor],
                        outputs=wanted,
                        request_id="seven",
                        priority=1,
                        timeout=20_000_000,
                        request_compression_algorithm=packing,
                        response_compression_algorithm=packing,
                    )
                    assert found.get_response()["id"] == "seven"
                    answers.append(found.as_numpy("probabilities"))
                    assert found.as_numpy("class").dtype == np.int64
        assert answers[0].shape == (5, 10)
        # JSON has the shortest digits that read back as the same number.
        assert all((answer == answers[0]).all() for answer in answers)
        typed(triton_http, client, images, answers[0])
        classes(triton_http, client, images, answers[0], binary_data=True)
        everything = client.infer(NAME, [tensor])
        assert (everything.as_numpy("probabilities") == answers[0]).all()
        wrong = triton_http.InferInput("input", [1, 3], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
        refused(lambda: client.infer(NAME, [wrong]), "3")
        refused(lambda: client.infer(NAME, [tensor], model_version="9"), "9")
        # A request may be nothing but bytes.
        raw = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
        alone = call(f"http://{address}", "POST", f"/v2/models/{NAME}/infer", images.tobytes(), raw)
        assert alone["outputs"][0]["shape"][0] == 5, alone
        counted(client, lambda found: found)
        client.unload_model(NAME)
        assert not client.is_model_ready(NAME)
        client.load_model(NAME)
        assert client.is_model_ready(NAME)
    return answers[0]


def over_grpc(address, images, expected):
    """Everything that tritonclient[grpc] does."""

    def plain(message):
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(message, preserving_proto_field_name=True)

    with triton_grpc.InferenceServerClient(address) as client:
        described(client, plain)
        for packing in (None, "gzip"):
            tensor = triton_grpc.InferInput("input", list(images.shape), "FP32")
            tensor.set_data_from_numpy(images)
            found = client.infer(
                NAME, [tensor], request_id="eight", client_timeout=20, compression_algorithm=packing
            )
            assert found.get_response().id == "eight"
            assert (found.as_numpy("probabilities") == expected).all()
        typed(triton_grpc, client, images, expected)
        classes(triton_grpc, client, images, expected)
        wrong = triton_grpc.InferInput("input", [1, 3], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
        refused(lambda: client.infer(NAME, [wrong]), "INVALID_ARGUMENT")
        refused(lambda: client.get_model_metadata("nobody"), "NOT_FOUND")
        answers = []
        client.start_stream(lambda result, error: answers.append((result, error)))
        for i in range(4):
            client.async_stream_infer(NAME, [wrong if i == 2 else tensor], request_id=str(i))
        client.stop_stream()
        assert len(answers) == 4, answers
        for i, (result, error) in enumerate(answers):
            assert (error is not None) == (i == 2), (i, error)
            if error is None:
                assert result.get_response().id == str(i)
                assert (result.as_numpy("probabilities") == expected).all()
        counted(client, plain)
        client.unload_model(NAME)
        assert not client.is_model_ready(NAME)
        client.load_model(NAME)
        assert client.is_model_ready(NAME)


def typed(module, client, images, expected):
    """The pixels are whole numbers from 0 to 16, which each numeric type holds."""
    import ml_dtypes

    types = {
        "FP16": np.float16, "BF16": ml_dtypes.bfloat16, "FP64": np.float64,
        "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
        "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    }  # fmt: skip
    for name, kind in types.items():
        tensor = module.InferInput("input", list(images.shape), name)
        tensor.set_data_from_numpy(images.astype(kind))
        found = client.infer(NAME, [tensor]).as_numpy("probabilities")
        assert (found == expected).all(), name


def classes(module, client, images, expected, **options):
    tensor = module.InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    wanted = [module.InferRequestedOutput("probabilities", class_count=3, **options)]
    found = client.infer(NAME, [tensor], outputs=wanted).as_numpy("probabilities")
    assert found.shape == (5, 3), found
    for row, best in zip(found, expected.argmax(axis=1)):
        value, index, label = row[0].decode().split(":")
        assert int(index) == best and label == str(best) and 0 < float(value) <= 1


def png(pixels):
    """A grey PNG of rows of bytes."""
    height, width = pixels.shape

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def predicted(base, images, labels):
    """The plain way to predict: rows, CSV, and images in three forms."""
    path = f"/v1/endpoints/{NAME}/predict"
    rows = call(base, "POST", path, {"rows": [image.ravel().tolist() for image in images]})
    csv = "\n".join(",".join(str(v) for v in image.ravel()) for image in images).encode()
    files = [png(image[:, :, 0].astype(np.uint8)) for image in images]
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        + file
        + b"\r\n"
        for file in files
    )
    texts = [base64.b64encode(file).decode() for file in files]
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    for found in (
        call(base, "POST", path, csv, {"Content-Type": "text/csv"}),
        call(base, "POST", path, {"images": texts}),
        call(base, "POST", path, form + b"--x--\r\n", multipart),
    ):
        assert found["predictions"] == rows["predictions"], found
    one = call(base, "POST", path + "?top_k=3", files[0], {"Content-Type": "image/png"})
    top = one["predictions"][0]["top"]
    assert len(top) == 3 and top[0]["label"] == rows["predictions"][0]["label"], one
    right = sum(p["label"] == label for p, label in zip(rows["predictions"], labels))
    assert right >= 4, (rows, labels)


def main():
    base, grpc, data, job = sys.argv[1:5]
    images, labels = deploy(base, data, job)
    address = base.split("://")[1]
    expected = over_http(address, images)
    print("tritonclient[http]: done")
    over_grpc(grpc, images, expected)
    print("tritonclient[grpc]: done")
    predicted(base, images, labels)
    print("predict by rows, CSV and images: done")


if __name__ == "__main__":
    main()
