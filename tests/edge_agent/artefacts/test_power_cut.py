"""The power fails at any moment: what is seen afterwards is a whole package or none."""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import time
from random import Random

import pytest

from isochrone.edge_agent.artefacts.activation import Activation, Activations
from isochrone.edge_agent.artefacts.disk import Disk
from isochrone.edge_agent.artefacts.parts import source_of
from isochrone.edge_agent.artefacts.pull import Bringing, Progress, Wish
from isochrone.edge_agent.artefacts.room import Room
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, FromDirectory
from isochrone.edge_agent.artefacts.store import KEPT_S, PULLS, Store
from isochrone.edge_agent.runtime.package.package import packages_in
from isochrone.router.errors import Unavailable
from tests.edge_agent.artefacts.conftest import BIG_BYTES, Nobody, write_weights

MUTATORS = ("fsync", "rename", "mkdir", "unlink", "rmdir", "link", "ftruncate")


class PowerCut(BaseException):
    """Nothing more is done, not even cleaning up."""


def check_whole(root):
    """Every package that is seen is whole, byte for byte; which they are."""
    packages, errors = packages_in(root)
    assert errors == []
    for package in packages:
        for variant in package.manifest.variants:
            package.read(variant)
    return [package.version for package in packages]


async def bring(root, remote, package):
    root.mkdir(exist_ok=True)
    config = ArtefactsConfig(source=FromDirectory(path=remote))
    store, disk = Store(root), Disk()
    source = await source_of(config)
    try:
        bringing = Bringing(store, disk, Room(store, disk, Nobody(), 1 << 30, 0), None)
        wish = Wish(package.name, package.version, package.digest)
        return await bringing.bring(source, Progress(wish))
    finally:
        await source.close()
        await disk.do(int)  # what was begun there has ended
        disk.close()


class Fuse:
    """Lets `left` changes of the disk happen, then none."""

    def __init__(self, monkeypatch, left):
        self.left = left
        for name in MUTATORS:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, real):
        def guarded(*args, **named):
            if self.left <= 0:
                raise PowerCut
            self.left -= 1
            return real(*args, **named)

        return guarded


@pytest.mark.parametrize("before", ["nothing", "another version", "a spoiled one"])
async def test_the_power_may_fail_before_any_change_of_the_disk(tmp_path, monkeypatch, before):
    remote = tmp_path / "remote"
    package = write_weights(remote, "2", sizes=(5000, 300))
    points = 0
    for left in range(200):
        root = tmp_path / f"here-{left}"
        root.mkdir()
        if before == "another version":
            write_weights(root, "1", sizes=(5000, 200))
        if before == "a spoiled one":
            shutil.copytree(remote, root, dirs_exist_ok=True)
            (root / "net" / "2" / "a.onnx").write_bytes(b"spoiled")
        points = left
        with monkeypatch.context() as patched:
            Fuse(patched, left)
            try:
                await bring(root, remote, package)
            except PowerCut:
                pass
            else:
                break
        if before != "a spoiled one":  # that one is seen until it is replaced
            check_whole(root)
        wishes = Store(root).sweep(time.time())  # noqa: TID251 - files have wall-clock times
        assert [digest for _, digest in wishes] in ([], [package.digest])
        await bring(root, remote, package)
        assert "2" in check_whole(root)
        assert not list((root / PULLS).glob("*"))
    assert points > 10, "the disk was changed more often than that"


async def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    package = write_weights(tmp_path / "remote")
    synced: dict[int, int] = {}
    real_sync, real_rename = os.fsync, os.rename
    named = []

    def fsync(descriptor):
        real_sync(descriptor)
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    def rename(source, target, **more):
        if os.fspath(target).endswith("/net/1"):
            for path in [source, *source.iterdir()]:
                found = path.stat()
                assert synced.get(found.st_ino) == found.st_size, path
            synced.clear()
            named.append(target)
        real_rename(source, target, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        patched.setattr(os, "rename", rename)
        come = await bring(tmp_path / "here", tmp_path / "remote", package)
    assert named == [come.path]
    assert come.path.parent.stat().st_ino in synced, "and the name itself afterwards"


async def test_a_process_that_is_killed_leaves_a_whole_package_or_none(tmp_path, shop, remote):
    package = write_weights(remote)
    shop.pause_s = 0.02  # the transfer takes about half a second
    root, rng = tmp_path / "here", Random(5)
    arguments = (str(root), shop.url, package.name, package.version, package.digest)
    kills = 0
    for _ in range(6):
        said = await run_and_kill(arguments, rng.uniform(0.0, 0.3))
        kills += said == b""
        seen = await asyncio.to_thread(check_whole, root)
        assert seen in ([], ["1"])
        if seen:
            break
    if not check_whole(root):
        assert await run_and_kill(arguments, 60) == b"come\n"
    assert check_whole(root) == ["1"]
    assert not list((root / PULLS).glob("*"))
    begins = [begin for name, begin in shop.asked if name == "a.onnx"]
    assert kills >= 1
    assert max(begins) > 0, "it went on where it had been"
    assert shop.sent_bytes < 3 * BIG_BYTES


async def run_and_kill(arguments, after_s):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.edge_agent.artefacts.puller",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert await process.stdout.readline() == b"begun\n"
    try:
        async with asyncio.timeout(after_s):
            said = await process.stdout.readline()
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        said = await process.stdout.readline()
    await process.wait()
    return said


def test_garbage_is_swept_and_what_may_go_on_is_kept(tmp_path):
    remote, root = tmp_path / "remote", tmp_path / "here"
    package, old = write_weights(remote), write_weights(remote, "2")
    write_weights(root, "3")
    store = Store(root)
    raws = {one.version: (one.path / "model.yaml").read_bytes() for one in (package, old)}
    for raw in (*raws.values(), (root / "net" / "3" / "model.yaml").read_bytes()):
        with store.stage("net", raw, None):
            pass
    now_s = time.time()  # noqa: TID251 - files have wall-clock times
    stale = root / PULLS / hashlib.sha256(raws["2"]).hexdigest()
    os.utime(stale, (now_s - KEPT_S - 60,) * 2)
    (root / PULLS / "gone-net-1").mkdir()
    (root / PULLS / ("0" * 64)).mkdir()
    assert [digest for _, digest in store.sweep(now_s)] == [package.digest]
    assert [path.name for path in (root / PULLS).iterdir()] == [package.digest]
    with store.stage("net", raws["1"], None):
        store.sweep(now_s + 2 * KEPT_S)
        assert (root / PULLS / package.digest).exists(), "another process is at it"


def test_a_choice_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    old, new = Activation("1"), Activation("2", "1")
    seen = set()
    for left in range(20):
        root = tmp_path / str(left)
        root.mkdir()
        activations = Activations(root)
        activations.draft("net", old)()
        with monkeypatch.context() as patched:
            fuse = Fuse(patched, left)
            try:
                activations.draft("net", new)()
            except PowerCut:
                assert fuse.left == 0
        seen.add(Activations(root).get("net"))
    assert seen == {old, new}


def test_a_package_is_put_together_by_one_process_at_a_time(tmp_path):
    package = write_weights(tmp_path / "remote")
    raw = (package.path / "model.yaml").read_bytes()
    one, other = Store(tmp_path / "here"), Store(tmp_path / "here")
    with (
        one.stage("net", raw, None),
        pytest.raises(Unavailable, match="another process pulls net 1"),
        other.stage("net", raw, None),
    ):
        pass
    with other.stage("net", raw, None) as staging:
        assert staging.digest == package.digest
