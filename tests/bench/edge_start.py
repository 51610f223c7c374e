"""How soon and how small an agent is, and what a large package costs: `tests/bench/edge_start.py`.

Seconds say little on another machine. A load of a large package is held against what cannot be
saved in the same run: hashing the file, making a session of it, running it once. `--check` ends
with 1 where a bound is passed.
"""

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import Executor, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, perf_counter

import numpy as np
import onnxruntime as ort
import yaml

from isochrone.deploy.packages.onnx_graph import onnx_bytes
from isochrone.edge_agent.runtime.loading.choice import Choices
from isochrone.edge_agent.runtime.loading.load import Processes, Tools, load, shut_down
from isochrone.edge_agent.runtime.loading.proven import Proofs
from isochrone.edge_agent.runtime.package.manifest import (
    Declared,
    Linear,
    Manifest,
    Relu,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.package import Package, described, write_package
from isochrone.router.process import freed_memory
from isochrone.router.wire.tensor import TensorSpec

FIRST_ANSWER_S = 1.0
RESIDENT_BYTES = 100_000_000
LOAD_RATIO = 1.3
_SMALL, _LARGE = 16, 2560
_LAYERS = 4


def write_square(store: Path, name: str, width: int) -> Package:
    """An ONNX package of four square layers; 2560 wide, its weights take 105 MB."""
    takes, gives = (TensorSpec(end, "FP32", (-1, width)) for end in ("x", "y"))
    rng = np.random.default_rng(3)
    weights = {}
    for index in range(0, 2 * _LAYERS, 2):
        weights[f"{index}.weight"] = rng.random((width, width), np.float32) / width
        weights[f"{index}.bias"] = np.zeros(width, np.float32)
    layers = (Linear(inputs=width, outputs=width), Relu()) * _LAYERS
    data = onnx_bytes(layers, weights, takes, gives)
    manifest = Manifest(
        name=name,
        version="1",
        inputs=(Declared.of(takes),),
        outputs=(Declared.of(gives),),
        warm_up=(Sample((SampleTensor("x", (1, width)),)),),
        variants=(described(data, name="onnx", engine="onnx", file="square.onnx"),),
    )
    return write_package(store, manifest, {"square.onnx": data})


def started(store: Path, model: str, width: int) -> dict[str, float]:
    """Of a real agent: seconds from exec to the first answer, its resident bytes then.

    `cpu_s` is what it computed until then: on a machine that does other things, too, look at that.
    """
    config = {
        "name": "edge",
        "region": "eu-west",
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "packages": str(store),
        "keep_warm": [model],
    }
    path = store / "agent.yaml"
    path.write_text(yaml.safe_dump(config))
    began_s = monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "isochrone.edge_agent", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as agent:
        assert agent.stdout
        address = agent.stdout.readline().removeprefix("ready http://").strip()
        ready_s = monotonic() - began_s
        _ask(address, model, width)
        first_s = monotonic() - began_s
        resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{agent.pid}/status").read_text())
        ticks = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        agent.terminate()
    assert resident
    return {
        "ready_s": ready_s,
        "first_answer_s": first_s,
        "cpu_s": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        "resident_bytes": int(resident[1]) * 1024,
    }


def tools(runner: Executor) -> Tools:
    """One slot on one core."""
    return Tools(runner, 1, 1, perf_counter, Choices(perf_counter), Proofs(perf_counter))


def loaded(package: Package, width: int) -> dict[str, float]:
    """Seconds of one load of a package, and of its inevitable parts, one after the other."""
    variant = package.manifest.variants[0]
    path = package.file(variant)
    began_s = perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    hashed_s = perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    made_s = perf_counter()
    session.run(None, {"x": np.ones((1, width), np.float32)})
    ran_s = perf_counter()
    del session
    freed_memory.give_back()
    with ThreadPoolExecutor(1) as runner:
        ours_began_s = perf_counter()
        found = load(package, tools(runner), None, Processes(), lambda: None)
        ours_s = perf_counter() - ours_began_s
    shut_down(found.model)
    return {
        "sha256_s": hashed_s - began_s,
        "session_s": made_s - hashed_s,
        "run_s": ran_s - made_s,
        "load_s": ours_s,
        "ratio": ours_s / (ran_s - began_s),
    }


def given_back(package: Package) -> dict[str, float]:
    """Private bytes of this process before a load, with the model, and after its shutdown."""
    freed_memory.give_back()
    before = freed_memory.private_bytes()
    with ThreadPoolExecutor(1) as runner:
        found = load(package, tools(runner), None, Processes(), lambda: None)
        during = freed_memory.private_bytes()
        shut_down(found.model)
    return {
        "before_bytes": before,
        "loaded_bytes": during,
        "after_bytes": freed_memory.private_bytes(),
    }


def measured(rounds: int, store: Path) -> dict[str, dict[str, float]]:
    """Medians over some rounds."""
    write_square(store, "small", _SMALL)
    large = write_square(store / "large", "large", _LARGE)
    figures = {
        "start": [started(store, "small", _SMALL) for _ in range(rounds)],
        "load": [loaded(large, _LARGE) for _ in range(rounds)],
        "unload": [given_back(large) for _ in range(rounds)],
    }
    return {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]}
        for name, each in figures.items()
    }


def passed(found: dict[str, dict[str, float]]) -> list[str]:
    """The bounds that were passed, in words."""
    unload = found["unload"]
    kept = unload["after_bytes"] / unload["before_bytes"] - 1
    bounds = [
        ("first answer, s", found["start"]["first_answer_s"], FIRST_ANSWER_S),
        ("resident, bytes", found["start"]["resident_bytes"], RESIDENT_BYTES),
        ("load against its parts", found["load"]["ratio"], LOAD_RATIO),
        ("kept after unloading, share", kept, 0.1),
    ]
    return [f"{what}: {value:.3f}, at most {most}" for what, value, most in bounds if value > most]


def _ask(address: str, model: str, width: int) -> None:
    part = {"name": "x", "datatype": "FP32", "shape": [1, width], "data": [1.0] * width}
    connection = HTTPConnection(address)
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [part]}))
    assert connection.getresponse().status == 200
    connection.close()


def main() -> int:
    """Print the figures; 1 where a bound is passed and `--check` was given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    freed_memory.use_one_heap()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(args.rounds, Path(folder))
    problems = passed(found)
    told = {"schema": "isochrone.edge_start/1", "ok": not problems, "cores": os.cpu_count()}
    print(json.dumps({**told, **found}, indent=2))
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems) and args.check)


if __name__ == "__main__":
    sys.exit(main())
