"""Makes the files beside this script, which the tests of the data formats read.

Run in this folder, with pandas, pyarrow, pillow, scikit-learn and vega_datasets installed.
cars.* hold the data set of the 1983 Data Exposition of the American Statistical Association, as
vega_datasets ships it; digits.* come from scikit-learn (UCI, Optical Recognition of Handwritten
Digits).
"""

import datetime
import decimal
import io
import json
import tarfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits
from vega_datasets import local_data


def cars():
    frame = local_data.cars()
    frame["Year"] = frame["Year"].dt.strftime("%Y-%m-%d")
    frame = frame.sample(frac=1.0, random_state=0).reset_index(drop=True)
    frame.to_csv("cars.csv", index=False)
    with open("cars.jsonl", "w") as out:
        for row in json.loads(frame.to_json(orient="records")):
            # Missing values are left out in half of the rows and null in the others.
            if row["Cylinders"] == 4:
                row = {k: v for k, v in row.items() if v is not None}
            out.write(json.dumps(row) + "\n")
    frame["Year"] = pd.to_datetime(frame["Year"])
    frame["Origin"] = frame["Origin"].astype("category")
    frame.index = frame.index + 1000
    frame.drop(index=[]).to_parquet("cars.parquet", row_group_size=150)


def types():
    n = 5
    table = pa.table({
        "flag": pa.array([True, False, None, True, False]),
        "small": pa.array([1, 255, 3, 4, 5], pa.uint8()),
        "large": pa.array([2**63, 1, 2, 3, 4], pa.uint64()),
        "half": pa.array(np.array([0.5, 1, 2, 3, 4], np.float16)),
        "price": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50")] * 2, pa.decimal128(7, 2)).slice(0, n),
        "day": pa.array([datetime.date(2000, 3, 1), None, datetime.date(1969, 12, 31)] * 2).slice(0, n),
        "time": pa.array([datetime.datetime(2000, 3, 1, 12)] * n, pa.timestamp("us")),
        "word": pa.array(["a", "b", None, "a", "ü"]).dictionary_encode(),
        "label": pa.array(["x", "y", "x", "y", "x"]),
    })
    options = {"store_decimal_as_integer": True, "compression": "zstd"}
    pq.write_table(table, "types.parquet", data_page_version="2.0", **options)
    rows = [{"i": i, "s": None if i % 7 == 3 else f"prefix-{i % 50}", "t": f"word {i}" * (i % 5 + 1)} for i in range(400)]
    encoded = pa.Table.from_pylist(rows)
    encodings = {"i": "DELTA_BINARY_PACKED", "s": "DELTA_LENGTH_BYTE_ARRAY", "t": "DELTA_BYTE_ARRAY"}
    for version in ["1.0", "2.0"]:
        name = f"delta-v{version[0]}.parquet"
        pq.write_table(encoded, name, use_dictionary=False, column_encoding=encodings, data_page_version=version)
    nested = pa.table({"a": [1.0, 2.0], "list": [[1, 2], [3]], "label": ["x", "y"]})
    pq.write_table(nested, "nested.parquet")


def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images[:300].reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    labels = labels[:300]
    np.savez_compressed(
        "digits.npz",
        x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:],
    )
    with tarfile.open("digits.tar.gz", "w:gz") as out:
        for i, (image, label) in enumerate(zip(images[:120], labels)):
            add(out, f"./digits/{label}/{i:03}.png", Image.fromarray(image[:, :, 0]))
    # Samples of WebDataset: an image and its class under the same key, colour and grey mixed.
    with tarfile.open("shard.tar", "w", format=tarfile.GNU_FORMAT) as out:
        for i in range(6):
            side = 8 + 4 * (i % 2)
            image = Image.new("RGB" if i % 2 else "L", (side, side), (10 * i, 90, 200) if i % 2 else 40 * i)
            name = "long/" * 25 + f"{i:06}"
            add(out, f"{name}.jpg" if i % 3 else f"{name}.png", image)
            put(out, f"{name}.cls", str(i % 3).encode())
            put(out, f"{name}.json", b"{}")


def add(out, name, image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if name.endswith("jpg") else "PNG")
    put(out, name, buffer.getvalue())


def put(out, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    out.addfile(info, io.BytesIO(content))


cars()
types()
digits()
