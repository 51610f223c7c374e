"""The demo's models in a store of the test's own, their images as data sets, and the command."""

import argparse
import json
import shutil

import numpy as np
import pytest

from isochrone.deploy.cli import Command
from isochrone.deploy.demo import training
from isochrone.deploy.packages import distill, export, prune, quantize

ACTIONS: dict[str, Command] = {
    "export": export,
    "quantize": quantize,
    "prune": prune,
    "distill": distill,
}


@pytest.fixture
def store(tmp_path, made):
    """`digits` (ONNX, 5 KB) and `digits-large` (torch, 200 KB)."""
    place = tmp_path / "store"
    shutil.copytree(made.packages["digits"].parents[1], place)
    return place


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """The images that the demo's models learnt from, and those held out."""
    folder = tmp_path_factory.mktemp("images")
    for name, data in zip(("learnt", "held_out"), training.digits(), strict=True):
        np.savez(folder / f"{name}.npz", image=data.images, labels=data.labels)
    return folder


@pytest.fixture
def run(tmp_path, capsys):
    """The command with some arguments: exit code, its JSON, what it printed."""

    def ran(action, *arguments):
        command = ACTIONS[action]
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        result = tmp_path / "result.json"
        args = parser.parse_args([*map(str, arguments), "--json", str(result)])
        code = command.run(args)
        return code, json.loads(result.read_text()), capsys.readouterr()

    return ran
