"""Drives Nereid through a client that openapi-python-client generated from its document.

Usage: generated.py BASE_URL DIGITS_CSV_GZ JOB_JSON
"""

import json
import sys
import time
from pathlib import Path

from nereid_client import Client
from nereid_client.api.datasets import register_dataset
from nereid_client.api.endpoints import predict
from nereid_client.api.jobs import create_job, get_job
from nereid_client.api.models import deploy_model_version
