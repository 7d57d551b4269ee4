"""Checks what a demo left in a bucket: each published file is there and is what its manifest says.

Usage: verify_bucket.py ENDPOINT BUCKET
"""

import hashlib
import json
import sys

import boto3


def main(endpoint: str, bucket: str) -> None:
    s3 = boto3.client("s3", endpoint_url=endpoint)

    def read(key: str) -> bytes:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    manifests = [key for key in keys if key.endswith("/manifest.json")]
    assert manifests, keys
    checked = 0
    for key in manifests:
        folder = key.removesuffix("manifest.json")
        files = json.loads(read(key))["files"]
        assert files, key
        for file in files:
            content = read(folder + file["path"])
            found = (len(content), hashlib.sha256(content).hexdigest())
            assert found == (file["bytes"], file["sha256"]), (folder, file, found)
            checked += 1
    print(f"{len(manifests)} manifests, {checked} files: sizes and SHA-256 are right")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
