"""A cloud process leaves nothing behind, whenever it is told to stop, and ends with its Ray."""

import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.ray


def test_a_cloud_process_that_is_stopped_leaves_no_process_and_no_token(launch_cloud):
    process = launch_cloud([{"name": "table"}])
    process.await_ready()
    second = subprocess.run(process.process.args, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"listen: 127.0.0.1:{process.port} cannot be used" in second.stderr
    assert len(process.members()) > 5
    assert process.stop() == 0
    process.await_gone()
    assert not (process.ray / "auth_token").exists()
    assert list(process.home.iterdir()) == []


def test_a_cloud_process_that_is_stopped_while_it_starts_leaves_nothing(launch_cloud):
    process = launch_cloud([{"name": "table"}])
    process.await_(lambda: len(process.members()) > 3, "Ray does not start")
    assert process.stop() == 0
    process.await_gone()


def test_a_model_without_a_package_is_told_before_ray_starts(launch_cloud):
    process = launch_cloud([{"name": "nobody"}])
    assert process.process.wait(20) == 1
    assert "holds no usable package of nobody" in process.err.read_text()
    assert not process.ray.exists()


def test_a_cloud_process_whose_raylet_dies_ends_with_an_error(launch_cloud):
    process = launch_cloud([{"name": "table"}])
    process.await_ready()
    (raylet,) = [one for one in process.members() if one.endswith(" raylet")]
    os.kill(int(raylet.partition(" ")[0]), signal.SIGKILL)
    assert process.process.wait(100) == 1
    assert "raylet of this machine has died" in process.err.read_text()
    process.await_gone()
