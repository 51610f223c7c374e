"""`serve deploy` takes our file on a Ray cluster that somebody else started."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isochrone.cloud.config import CloudConfig, ModelConfig
from isochrone.cloud.serve_file import serve_config

pytestmark = pytest.mark.ray
BODY = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 0, 0, 0]}]}'


def test_serve_deploy_takes_our_file(tmp_path, store, launch_cluster):
    cluster = launch_cluster()
    config = CloudConfig(
        name="deployed",
        region="us-east",
        listen=f"127.0.0.1:{cluster.port}",
        packages=store,
        models=(ModelConfig(name="table", num_cpus=0.1),),
    )
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(serve_config(config)))
    deployed = subprocess.run(
        [Path(sys.executable).with_name("serve"), "deploy", "-a", cluster.dashboard, str(file)],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert deployed.returncode == 0, deployed.stderr
    cluster.await_(lambda: serves(cluster), "nothing is served")
    status, answer = cluster.json("POST", "/v2/models/table/infer", BODY)
    assert (status, answer["outputs"][0]["data"]) == (200, [0.0, 1.0, 2.0])


def serves(cluster):
    try:
        return cluster.ask("GET", "/v2/health/ready")[0] == 200
    except OSError:
        return False
