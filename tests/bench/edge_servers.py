"""The servers of the edge benchmark, each a process on one core: the agent, and MLServer."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import MSG_WAITALL, create_connection, create_server
from time import perf_counter, sleep

import yaml

from isochrone.edge_agent.runtime.package.manifest import Declared, Manifest, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import described, write_package
from isochrone.router.wire import codec
from isochrone.router.wire.json_codec import BINARY_WISHES, encode_request
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.tensor import Tensor
from tests.bench.edge_client import used_s
from tests.bench.edge_models import GIVES, Made

FORMS = ("binary", "json")
_START_S = 60.0
_GOOD = b"HTTP/1.1 200"
_MLSERVER = ("mlserver==1.7.1", "onnxruntime")


class Unavailable(Exception):
    """A server that cannot be had here, and why."""


def request_bytes(
    made: Made, form: str, more: Sequence[tuple[str, str]] = (), path: str | None = None
) -> bytes:
    """A whole HTTP request for a model's answer, `form` json or binary."""
    request = InferRequest((Tensor(made.takes.name, "FP32", made.given),))
    if form == "json":
        fields, body = [codec.JSON], encode_request(request)
    else:
        wish = InferRequest(request.inputs, parameters={BINARY_WISHES: True})
        fields, body = codec.encode_request(wish)
    lines = [f"POST {path or f'/v2/models/{made.name}/infer'} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name.decode()}: {value.decode()}" for name, value in fields]
    lines += [f"{name}: {value}" for name, value in more]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started in here runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A process that answers; it is ended by `close`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        core: int,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        forms: Sequence[str] = FORMS,
    ) -> None:
        """`forms` are those that it can be asked in."""
        self.name = name
        self.forms = forms
        self.port = port
        self.core = core
        self.start_s = 0.0
        self._log = (folder / f"{name}.log").open("w")
        self._began_s = perf_counter()
        with pinned(core):
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=self._log, stderr=self._log
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait_for(self, made: Made) -> None:
        """Until it answers for a model; notes how long that took from its start.

        Raises:
            Unavailable: it ended, or took too long.
        """
        request = request_bytes(made, self.forms[-1])
        while perf_counter() - self._began_s < _START_S:
            if self._process.poll() is not None:
                break
            if self._answers(request):
                self.start_s = perf_counter() - self._began_s
                return
            sleep(0.01)
        raise Unavailable(f"{self.name} did not answer: {Path(self._log.name).read_text()[-2000:]}")

    def used_s(self) -> float:
        """The processor time that it has taken."""
        return used_s(self.pid)

    def resident_bytes(self) -> int:
        """Its resident memory."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _answers(self, request: bytes) -> bool:
        try:
            with create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(request)
                return connection.recv(len(_GOOD), MSG_WAITALL) == _GOOD
        except OSError:
            return False


def agent(models: Sequence[Made], folder: Path, core: int, **config: object) -> Server:
    """An edge agent with these models."""
    for made in models:
        _write(made, folder / "packages")
    port = _free_port()
    content = {
        "name": "bench",
        "region": "here",
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": "127.0.0.1:0"},
        "packages": "packages",
        "keep_warm": [made.name for made in models],
        "slots": 1,
        "queue": 256,
        **config,
    }
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "isochrone.edge_agent", str(path)]
    root = str(Path(__file__).parents[2])
    environment = {"PATH": os.defpath, "PYTHONPATH": root}
    return Server("agent", command, port, core, folder, environment)


def floor(models: Sequence[Made], folder: Path, core: int) -> Server:
    """What no server can go below: it only reads, runs and writes."""
    for made in models:
        (folder / f"{made.name}.onnx").write_bytes(made.data)
    port = _free_port()
    command = [sys.executable, "-m", "tests.bench.edge_floor", str(port), str(folder)]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])}
    return Server("floor", command, port, core, folder, environment, ("binary",))


def mlserver(models: Sequence[Made], folder: Path, core: int, place: Path) -> Server:
    """MLServer with these models, from an environment that is made in `place` where need be.

    Raises:
        Unavailable: it cannot be installed.
    """
    python = _environment(place)
    ports = [_free_port() for _ in range(3)]
    names = ("http_port", "grpc_port", "metrics_port")
    settings = {**dict(zip(names, ports, strict=True)), "host": "127.0.0.1", "parallel_workers": 0}
    settings |= {"debug": False, "logging_settings": None}
    (folder / "settings.json").write_text(json.dumps(settings))
    for made in models:
        place_of = folder / made.name
        place_of.mkdir()
        (place_of / "model.onnx").write_bytes(made.data)
        told = {
            "name": made.name,
            "implementation": "edge_mlserver.OnnxRuntime",
            "parameters": {"uri": str(place_of / "model.onnx")},
        }
        (place_of / "model-settings.json").write_text(json.dumps(told))
    environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parent)}
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    return Server("mlserver", command, ports[0], core, folder, environment, ("json",))


def _write(made: Made, store: Path) -> None:
    shape = (1, *made.takes.shape[1:])
    manifest = Manifest(
        name=made.name,
        version="1",
        inputs=(Declared.of(made.takes),),
        outputs=(Declared.of(GIVES),),
        warm_up=(Sample((SampleTensor(made.takes.name, shape),)),),
        variants=(described(made.data, name="fp32", engine="onnx", file="model.onnx"),),
    )
    write_package(store, manifest, {"model.onnx": made.data})


def _environment(place: Path) -> Path:
    python = place / "bin" / "python"
    if not (place / "bin" / "mlserver").exists():
        print(f"installing {' '.join(_MLSERVER)} into {place}", file=sys.stderr)
        make = [sys.executable, "-m", "venv", "--clear", str(place)]
        install = [str(python), "-m", "pip", "install", "-q", *_MLSERVER]
        for command in (make, install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(f"MLServer cannot be installed: {done.stderr.strip()[-300:]}")
    return python


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
