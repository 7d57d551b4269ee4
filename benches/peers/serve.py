#!/usr/bin/env python3
"""Serves an ONNX model by MLServer and by FastAPI with onnxruntime, for `nereid bench serve`.

    benches/peers/serve.py [--venv DIR] [--made NETWORK | --model FILE.onnx] [--port 9100]

Makes a virtual environment with mlserver, fastapi, uvicorn, onnxruntime and (for --made) torch
from PyPI, unless DIR holds one, starts both servers on loopback with one process each, prints the
`--peer` arguments for `nereid bench serve`, and ends with Ctrl-C. --model takes what Nereid exports;
--made writes the same network by torch, untrained. Both speak the Open Inference Protocol's JSON,
compute on one thread per request and are given the machine that Nereid is measured on.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap

PACKAGES = ["mlserver", "fastapi", "uvicorn[standard]", "onnxruntime", "numpy", "onnx"]

# Shapes of a sample; as in crates/nereid-engine/src/bench.rs.
NETWORKS = {"tabular-32": (224,), "mnist-cnn-64": (28, 28, 1)}

FASTAPI = '''
import os
import numpy
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, ["CPUExecutionProvider"])
name = session.get_inputs()[0].name
app = FastAPI()


@app.post("/v2/models/model/infer")
async def infer(request: Request):
    tensor = (await request.json())["inputs"][0]
    values = numpy.asarray(tensor["data"], numpy.float32).reshape(tensor["shape"])
    outputs = session.run(None, {name: values})
    named = zip(session.get_outputs(), outputs)
    return JSONResponse({"model_name": "model", "outputs": [
        {"name": o.name, "shape": list(v.shape), "datatype": "FP32", "data": v.ravel().tolist()}
        for o, v in named
    ]})
'''

MLSERVER = '''
import os
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers)
        self.input = self.session.get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0]).astype("float32")
        outputs = self.session.run(None, {self.input: values})
        named = zip(self.session.get_outputs(), outputs)
        encoded = [NumpyCodec.encode_output(o.name, v) for o, v in named]
        return InferenceResponse(model_name=self.name, outputs=encoded)
'''

# Run by the environment's own Python: writes the network, channels last as Nereid has them.
MAKE = '''
import sys
import torch
from torch import nn

network, path = sys.argv[1:]


class ChannelsFirst(nn.Module):
    def forward(self, x):
        return x.permute(0, 3, 1, 2)


if network == "tabular-32":
    shape = (224,)
    model = nn.Sequential(nn.Linear(224, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                          nn.Linear(64, 10), nn.Softmax(1))
else:
    shape = (28, 28, 1)
    model = nn.Sequential(ChannelsFirst(), nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10), nn.Softmax(1))
torch.onnx.export(model.eval(), (torch.zeros(1, *shape),), path, input_names=["input"],
                  output_names=["probabilities"], dynamic_axes={"input": {0: "n"}}, dynamo=False)
'''


def environment(folder, packages):
    """Makes the virtual environment, unless it is there, and returns its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def write(folder, port):
    """Writes both servers' files."""
    (folder / "peer_fastapi.py").write_text(FASTAPI)
    (folder / "peer_mlserver.py").write_text(MLSERVER)
    (folder / "model-settings.json").write_text(
        '{"name": "model", "implementation": "peer_mlserver.Onnx"}'
    )
    settings = f'''
        {{"host": "127.0.0.1", "http_port": {port}, "grpc_port": {port + 2},
          "metrics_port": {port + 3}, "parallel_workers": 0, "debug": false}}
    '''
    (folder / "settings.json").write_text(textwrap.dedent(settings))


def start(python, folder, model, port):
    """Starts both servers."""
    variables = {**os.environ, "MODEL": str(model), "PYTHONPATH": str(folder)}
    mlserver = [python.parent / "mlserver", "start", folder]
    fastapi = [python, "-m", "uvicorn", "peer_fastapi:app", "--host", "127.0.0.1",
               "--port", str(port + 1), "--log-level", "warning", "--no-access-log"]
    return [subprocess.Popen(command, cwd=folder, env=variables) for command in (mlserver, fastapi)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=pathlib.Path, default=pathlib.Path(".peers-serve"))
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--network", help="the network that --model is of", default="tabular-32")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--made", choices=NETWORKS)
    which.add_argument("--model", type=pathlib.Path)
    args = parser.parse_args()
    packages = PACKAGES + (["torch"] if args.made else [])
    python = environment(args.venv.absolute(), packages)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = args.model and args.model.absolute()
        if args.made:
            model = folder / "made.onnx"
            subprocess.run([python, "-c", MAKE, args.made, model], check=True)
        write(folder, args.port)
        servers = start(python, folder, model, args.port)
        network = args.made or args.network
        path = "v2/models/model/infer"
        for name, port in (("mlserver", args.port), ("fastapi", args.port + 1)):
            print(f"--peer {name}:{network}=http://127.0.0.1:{port}/{path}", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait()


if __name__ == "__main__":
    main()
