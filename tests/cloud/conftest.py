"""Tiny real packages, and one real cloud process for all tests of a module that need it."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from isochrone.edge_agent.runtime.package.manifest import (
    Declared,
    Generate,
    Linear,
    Manifest,
    Sample,
    SampleTensor,
)
from isochrone.edge_agent.runtime.package.package import described, write_package

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
ALPHABET = "_abcdefghij"
START_S = 120.0
STOP_S = 40.0


def graph_bytes(nodes, inputs, outputs, constants):
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_table(store: Path, name: str, version="1"):
    """A model that multiplies rows of 4 by WEIGHTS, in onnxruntime."""
    data = graph_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    variant = described(data, name="fp32", engine="onnx", file="model.onnx")
    return write(store, name, version, variant, {"model.onnx": data})


def write_torch_table(store: Path, name: str):
    """The same in torch."""
    data = save({"0.weight": np.ascontiguousarray(WEIGHTS.T), "0.bias": np.zeros(3, np.float32)})
    variant = described(
        data,
        name="fp32",
        engine="torch",
        file="model.safetensors",
        architecture=(Linear(inputs=4, outputs=3),),
    )
    return write(store, name, "1", variant, {"model.safetensors": data})


def write(store, name, version, variant, files):
    manifest = Manifest(
        name=name,
        version=version,
        inputs=(Declared("x", "FP32", (-1, 4)),),
        outputs=(Declared("y", "FP32", (-1, 3)),),
        warm_up=(Sample((SampleTensor("x", (1, 4)),)),),
        variants=(variant,),
    )
    return write_package(store, manifest, files)


def write_talk(store: Path):
    """A model that goes on with the alphabet, letter by letter."""
    following = np.roll(np.eye(len(ALPHABET), dtype=np.float32), 1, axis=1)
    data = graph_bytes(
        [
            helper.make_node("Gather", ["ids", "last"], ["id"], axis=1),
            helper.make_node("Gather", ["table", "id"], ["logits"]),
        ],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(ALPHABET)])],
        [
            numpy_helper.from_array(np.array(1, dtype=np.int64), "last"),
            numpy_helper.from_array(following, "table"),
        ],
    )
    manifest = Manifest(
        name="talk",
        version="1",
        inputs=(Declared("text_input", "BYTES", (1,)),),
        outputs=(Declared("text_output", "BYTES", (1,)),),
        generate=Generate(alphabet=ALPHABET, context=2),
        warm_up=(Sample((SampleTensor("text_input", (1,), ("a",)),), {"max_tokens": 2}),),
        variants=(described(data, name="fp32", engine="onnx", file="model.onnx"),),
    )
    return write_package(store, manifest, {"model.onnx": data})


def write_spin(store: Path):
    """A model that counts to x, one by one: a few hundred thousand a second."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Add", ["count", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.INT64, [1]),
        ],
    )
    data = graph_bytes(
        [helper.make_node("Loop", ["x", "yes", "zero"], ["y"], body=body)],
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1])],
        [
            numpy_helper.from_array(np.array(True), "yes"),
            numpy_helper.from_array(np.array([0]), "zero"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    manifest = Manifest(
        name="spin",
        version="1",
        inputs=(Declared("x", "INT64", (1,)),),
        outputs=(Declared("y", "INT64", (1,)),),
        warm_up=(Sample((SampleTensor("x", (1,), (1,)),)),),
        variants=(described(data, name="fp32", engine="onnx", file="model.onnx"),),
    )
    return write_package(store, manifest, {"model.onnx": data})


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """A directory with every package that the tests of this folder use."""
    folder: Path = tmp_path_factory.mktemp("packages")
    for name in ("table", "narrow", "sleepy"):
        write_table(folder, name)
    write_torch_table(folder, "torch-table")
    write_talk(folder)
    write_spin(folder)
    return folder


class Process:
    """A process of ours in a session of its own, with a home of its own."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "HOME": str(self.home), **environment},  # noqa: TID251 - a child's
            )

    def await_(self, condition, what: str, timeout_s: float = START_S):
        """What `condition` gives, once it gives something."""
        until_s = time.monotonic() + timeout_s
        while not (found := condition()):
            told = f"{what}: {self.err.read_text()[-3000:]}"
            assert self.process.poll() is None, told
            assert time.monotonic() < until_s, told
            time.sleep(0.05)
        return found

    def members(self) -> list[str]:
        """The living processes of its session."""
        return [name for pid in Path("/proc").glob("[0-9]*") if (name := self._member(pid))]

    def stop(self) -> int:
        """SIGTERM, and what it ended with."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def await_gone(self) -> None:
        """Nothing of its session lives any more: what Ray was starting ends a moment later."""
        until_s = time.monotonic() + STOP_S
        while members := self.members():
            assert time.monotonic() < until_s, members
            time.sleep(0.05)

    def kill(self) -> None:
        """End everything of its session by force."""
        for member in self.members():
            os.kill(int(member.partition(" ")[0]), signal.SIGKILL)
        self.process.wait(STOP_S)

    def _member(self, entry: Path) -> str | None:
        try:
            name, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:
            return None
        state, _parent, _group, session = rest.split()[:4]
        ours = int(session) == self.process.pid and state not in "ZX"
        return name.replace("(", "") if ours else None


class Client:
    """Asks one cloud process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method, path, body=b"", **headers):
        """Status, header fields in lower case, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, fields, answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=b"", **headers):
        """Status and decoded body."""
        status, _, answer = self.ask(method, path, body, **headers)
        return status, json.loads(answer)


class Cloud(Process, Client):
    """`isochrone cloud` with some models, ready."""

    def __init__(self, folder: Path, ray: Path, store: Path, models: list[dict]) -> None:
        self.ray = ray
        port = free_port()
        config = {
            "name": "here",
            "region": "us-east",
            "listen": f"127.0.0.1:{port}",
            "packages": str(store),
            "models": [{"num_cpus": 0.1, **model} for model in models],
            "body_bytes": 6 << 20,
            "ray": {"num_cpus": 3, "object_store_bytes": 80 << 20, "temp_dir": str(ray)},
        }
        self.config = folder / "cloud.yaml"
        self.config.write_text(yaml.safe_dump(config))
        command = [
            sys.executable,
            "-m",
            "isochrone.deploy.cli",
            "cloud",
            "--config",
            str(self.config),
        ]
        Process.__init__(self, command, folder)
        Client.__init__(self, port)

    def await_ready(self) -> None:
        """Return once it says that it is."""
        line = f"ready http://127.0.0.1:{self.port}\n"
        self.await_(lambda: self.out.read_text() == line, "not ready")

    def replica(self, model: str) -> int:
        """The process of a model's only replica."""
        title = f"ray::ServeReplica:here:{model}".encode()
        pids = [int(member.partition(" ")[0]) for member in self.members()]
        (found,) = [p for p in pids if title in Path(f"/proc/{p}/cmdline").read_bytes()]
        return found

    def serve_logs(self, model: str) -> list[str]:
        """What Ray Serve logged in the replicas of a model."""
        logs = (self.ray / "session_latest" / "logs" / "serve").glob(f"replica_here_{model}_*.log")
        return [line for log in logs for line in log.read_text().splitlines()]


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Start cloud processes; whatever is left of them in the end is killed."""
    started: list[Process] = []
    short = Path(tempfile.mkdtemp(prefix="isc-"))  # Ray makes sockets far below it

    def launch(kind, *arguments):
        ray = short / str(len(started))
        started.append(kind(tmp_path_factory.mktemp("cloud"), ray, *arguments))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
    shutil.rmtree(short)


@pytest.fixture(scope="module")
def cloud(launch, store):
    """A cloud process with every kind of model."""
    models = [
        {"name": "table"},
        {"name": "torch-table"},
        {"name": "talk"},
        {"name": "narrow", "max_ongoing_requests": 1, "target_ongoing_requests": 1}
        | {"max_queued_requests": 1},
        {"name": "sleepy", "replicas_min": 0},
        {"name": "spin"},
    ]
    process = launch(Cloud, store, models)
    process.await_ready()
    return process


@pytest.fixture
def make_table():
    """Writes the small ONNX package into another store."""
    return write_table


@pytest.fixture
def listening_port():
    """A port on 127.0.0.1 on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def launch_cloud(launch, store):
    """Start a cloud process with these models, and do not wait for it."""
    return lambda models: launch(Cloud, store, models)


class Cluster(Process, Client):
    """A Ray cluster with its dashboard on loopback, as an operator would start it."""

    def __init__(self, folder: Path, ray: Path) -> None:
        dashboard = free_port()
        token = folder / "token"
        token.write_text("0" * 64)
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0"}
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self.environment = {**os.environ, **secret, **quiet}  # noqa: TID251 - a child's
        options = {
            "node-ip-address": "127.0.0.1",
            "port": free_port(),
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": free_port(),
            "num-cpus": 2,
            "object-store-memory": 80 << 20,
            "temp-dir": ray,
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        command += [f"--{name}={value}" for name, value in options.items()]
        Process.__init__(self, command, folder, **secret, **quiet)
        Client.__init__(self, free_port())
        self.await_(self._listens, "no dashboard")

    def _listens(self) -> bool:
        return "Ray runtime started" in self.out.read_text()


@pytest.fixture
def launch_cluster(launch):
    """Start a Ray cluster and wait for it."""
    return lambda: launch(Cluster)
