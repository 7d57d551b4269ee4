"""Drives the Open Inference Protocol with KServe's clients, unchanged.

    kserve_inference.py http://127.0.0.1:8080 127.0.0.1:8081 digits.csv.gz

Asks the endpoint that inference.py made. A process of its own: KServe and tritonclient both bring
the protocol's messages, and protobuf takes each name once.
"""

import asyncio
import gzip
import json
import sys
import urllib.request

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

NAME = "clients-digits"


def samples(data):
    """Some rows of the file, without their labels."""
    with gzip.open(data, "rt") as file:
        header, *lines = file.read().splitlines()
    label = header.split(",").index("label")
    rows = [[float(cell) for cell in line.split(",")] for line in lines[:5]]
    for row in rows:
        row.pop(label)
    return np.array(rows, dtype=np.float32).reshape(5, 8, 8, 1)


def plainly(base, images):
    """The probabilities by the route for rows."""
    body = json.dumps({"rows": [image.ravel().tolist() for image in images]}).encode()
    url = f"{base}/v1/endpoints/{NAME}/predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        found = json.load(response)["predictions"]
    return np.array([row["probabilities"] for row in found], dtype=np.float32)


def request(images, binary):
    tensor = InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return InferRequest(NAME, [tensor])


def same(answer, expected):
    found = {output.name: output for output in answer.outputs}["probabilities"].as_numpy()
    assert np.array_equal(found.reshape(expected.shape).astype(np.float32), expected), found


async def main():
    base, address, data = sys.argv[1:4]
    images = samples(data)
    expected = plainly(base, images)
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, NAME)
    for binary in (False, True):
        same(await client.infer(base, request(images, binary), model_name=NAME), expected)
    await client.close()
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready(NAME)
        same(await client.infer(request(images, False)), expected)
    print("KServe's clients over REST and gRPC: done")


if __name__ == "__main__":
    asyncio.run(main())
