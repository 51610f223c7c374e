"""A control group of one core and so much memory, of either version, where this machine lets us."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")


class NoGroup(Exception):
    """No control group can be made here; the text says why."""


class Group:
    """Folders of the kernel: who is to be inside writes its id into each of `joins`."""

    def __init__(self, joins: list[Path], killed: Path, most: Path) -> None:
        self.joins = joins
        self._killed = killed
        self._most = most

    def entering(self, command: list[str]) -> list[str]:
        """The same command, from its first instruction inside."""
        script = "".join(f'echo $$ > "{join}"; ' for join in self.joins)
        return ["/bin/sh", "-ec", f'{script}exec "$@"', "sh", *command]

    @property
    def most_bytes(self) -> int:
        """The most memory that was ever used inside."""
        return int(self._most.read_text())

    @property
    def killed(self) -> int:
        """How many processes the kernel killed for want of memory."""
        found = dict(line.split(" ") for line in self._killed.read_text().splitlines())
        return int(found.get("oom_kill", 0))


@contextmanager
def small_group(memory_bytes: int) -> Iterator[Group]:
    """A new group on one core.

    Raises:
        NoGroup: the kernel does not let us make it.
    """
    name = f"isochrone-soak-{os.getpid()}"
    made: list[Path] = []
    try:
        yield _made(name, memory_bytes, made)
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def _made(name: str, memory_bytes: int, made: list[Path]) -> Group:
    core = str(max(os.sched_getaffinity(0)))
    try:
        if (_TOP / "cgroup.controllers").exists():
            return _version_2(_folder(_TOP / name, made), core, memory_bytes)
        cores = _folder(_TOP / "cpuset" / name, made)
        memory = _folder(_TOP / "memory" / name, made)
        return _version_1(cores, memory, core, memory_bytes)
    except OSError as error:
        raise NoGroup(f"no control group can be made here: {error}") from error


def _folder(path: Path, made: list[Path]) -> Path:
    path.mkdir()
    made.append(path)
    return path


def _version_2(group: Path, core: str, memory_bytes: int) -> Group:
    (_TOP / "cgroup.subtree_control").write_text("+cpuset +memory")
    (group / "cpuset.cpus").write_text(core)
    (group / "memory.max").write_text(str(memory_bytes))
    most = group / "memory.peak"
    most.read_text()  # kernels before 5.19 do not tell
    return Group([group / "cgroup.procs"], group / "memory.events", most)


def _version_1(cores: Path, memory: Path, core: str, memory_bytes: int) -> Group:
    (cores / "cpuset.mems").write_text("0")
    (cores / "cpuset.cpus").write_text(core)
    (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
    joins = [folder / "cgroup.procs" for folder in (cores, memory)]
    return Group(joins, memory / "memory.oom_control", memory / "memory.max_usage_in_bytes")
