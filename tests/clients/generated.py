"""Drives Nereid through a client that openapi-python-client generated from its document.

Usage: generated.py BASE_URL DIGITS_CSV_GZ JOB_JSON
"""

import io
import json
import sys
import tarfile
import time
from pathlib import Path
from typing import TypeVar

from nereid_client import AuthenticatedClient, Client
from nereid_client.api.datasets import create_dataset, preview_dataset_version, upload_file
from nereid_client.api.endpoints import get_endpoint
from nereid_client.api.health import readyz
from nereid_client.api.inference import predict
from nereid_client.api.jobs import create_job, get_job, list_job_metrics
from nereid_client.api.keys import create_api_key
from nereid_client.api.models import (
    deploy_model_version,
    download_model_artifact,
    get_model_version,
)
from nereid_client.models import (
    CreatedApiKey,
    DatasetFiles,
    DatasetFormat,
    DatasetPreview,
    DatasetVersion,
    DeployJobResult,
    DeployModel,
    Endpoint,
    Health,
    Job,
    JobStatus,
    MetricPoints,
    ModelVersion,
    NewApiKey,
    PredictRequest,
    PredictResponse,
    Problem,
    RegisterDataset,
    Role,
    SubmitTrainJob,
    TrainJobResult,
    Upload,
)
from nereid_client.types import File

T = TypeVar("T")

PATIENCE_S = 120


def expect(kind: type[T], answer: object) -> T:
    """Returns an answer if it is what was asked for."""
    if not isinstance(answer, kind):
        sys.exit(f"wanted {kind.__name__}, got {answer}")
    return answer


def succeeded(client: AuthenticatedClient, job: Job) -> Job:
    """Waits until a job has succeeded."""
    deadline = time.monotonic() + PATIENCE_S
    while job.status not in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED):
        if time.monotonic() > deadline:
            sys.exit(f"job {job.id} is still {job.status} after {PATIENCE_S} s")
        time.sleep(0.2)
        job = expect(Job, get_job.sync(job.id, client=client))
    if job.status != JobStatus.SUCCEEDED:
        sys.exit(f"job {job.id} is {job.status}: {job.error}")
    return job


def main(base_url: str, digits: Path, job_file: Path) -> None:
    anonymous = Client(base_url=base_url, raise_on_unexpected_status=True)
    expect(Health, readyz.sync(client=anonymous))

    # `nereid dev` takes whoever comes from loopback for its administrator; from here on, a key.
    new_key = NewApiKey(name="generated", role=Role.DEPLOYER)
    key = expect(CreatedApiKey, create_api_key.sync(client=anonymous, body=new_key))
    client = AuthenticatedClient(
        base_url=base_url, token=expect(str, key.secret), raise_on_unexpected_status=True
    )

    upload = expect(
        Upload,
        upload_file.sync(
            digits.name, client=client, body=File(payload=io.BytesIO(digits.read_bytes()))
        ),
    )
    dataset = expect(
        DatasetVersion,
        create_dataset.sync(
            client=client,
            body=RegisterDataset(
                name="digits",
                format_=DatasetFormat.CSV,
                files=DatasetFiles.from_dict({"data": upload.uri}),
                label_column="label",
                shape=[8, 8, 1],
            ),
        ),
    )
    preview = expect(
        DatasetPreview,
        preview_dataset_version.sync(dataset.dataset, dataset.version, client=client),
    )
    assert preview.rows, preview

    # The types must carry the whole text.
    text = json.loads(job_file.read_text())
    submit = SubmitTrainJob.from_dict(text)
    sent = submit.to_dict()
    assert sent["spec"]["network"]["layers"][0]["filters"] == 16, sent
    assert len(sent["spec"]["metrics"]) == 3, sent
    job = expect(Job, create_job.sync(client=client, body=submit, idempotency_key="generated"))
    again = expect(Job, create_job.sync(client=client, body=submit, idempotency_key="generated"))
    assert again.id == job.id, (again.id, job.id)
    job = succeeded(client, job)
    trained = expect(TrainJobResult, job.result)
    print(f"job {job.id}")
    points = expect(MetricPoints, list_job_metrics.sync(job.id, client=client))
    assert points.items, points

    version = expect(
        ModelVersion, get_model_version.sync("digits", trained.version, client=client)
    )
    accuracy = version.metrics.additional_properties["test_accuracy"]
    assert accuracy > 0.95, accuracy
    archive = expect(
        File, download_model_artifact.sync("digits", version.version, client=client)
    )
    with tarfile.open(fileobj=archive.payload) as tar:
        assert any(Path(n).name == "manifest.json" for n in tar.getnames()), tar.getnames()

    deploy = deploy_model_version.sync(
        "digits", version.version, client=client, body=DeployModel(replicas=1)
    )
    deployed = expect(DeployJobResult, succeeded(client, expect(Job, deploy)).result)
    endpoint = expect(Endpoint, get_endpoint.sync(deployed.endpoint, client=client))
    assert endpoint.variants, endpoint

    request = PredictRequest(rows=[row.features for row in preview.rows])
    answer = expect(PredictResponse, predict.sync(endpoint.name, client=client, body=request))
    labels = [prediction.label for prediction in answer.predictions]
    truth = [str(row.target) for row in preview.rows]
    right = sum(label == target for label, target in zip(labels, truth, strict=True))
    assert right >= 0.8 * len(truth), (labels, truth)

    # Mistakes are typed too.
    missing = expect(Problem, predict.sync("nothing", client=client, body=request))
    assert (missing.status, missing.code) == (404, "not_found"), missing
    print(
        f"digits version {version.version}: test accuracy {accuracy:.4f}, "
        f"{right} of {len(truth)} predicted right"
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
