"""Pulling over HTTP, from servers that break off, stall, lie and never end."""

import asyncio
import errno
import hashlib
import os
import shutil

import msgspec
import pytest

from isochrone.edge_agent.artefacts.pull import Wish
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, FromHttp
from isochrone.edge_agent.artefacts.source import SourceFailed, SourceRefused
from isochrone.edge_agent.artefacts.store import ORIGIN, PULLS
from isochrone.edge_agent.runtime.package.manifest import KeptTensor, Sample, SampleTensor
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    PackageError,
    packages_in,
    write_package,
)
from isochrone.router.errors import BadRequest, NoSpace
from tests.edge_agent.artefacts import shop as faults
from tests.edge_agent.artefacts.conftest import (
    BIG_BYTES,
    SMALL_BYTES,
    config_for,
    pulling,
    write_weights,
)


def in_store(root):
    packages, errors = packages_in(root)
    assert errors == []
    return [(one.name, one.version) for one in packages]


def left_behind(root):
    return [path.name for path in (root / PULLS).rglob("*")] if (root / PULLS).exists() else []


async def test_a_package_comes_byte_for_byte(package, here):
    come = await here.pull(package)
    assert come.path == here.root / "net" / "1"
    names = {path.name for path in package.path.iterdir()}
    assert {path.name for path in come.path.iterdir()} == {*names, ORIGIN}
    for name in names:
        assert (come.path / name).read_bytes() == (package.path / name).read_bytes()
    assert here.came == [come]
    assert left_behind(here.root) == []


async def test_a_sample_in_a_file_comes_with_the_package(remote, here):
    data = bytes(range(8))
    kept = KeptTensor(
        file="sample-1-1.tensor", bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    first = write_weights(remote)
    files = {one.file: first.read(one) for one in first.manifest.variants} | {kept.file: data}
    sample = Sample((SampleTensor("x", (1, 2), kept=kept),), real=True)
    manifest = msgspec.structs.replace(first.manifest, version="2", warm_up=(sample,))
    come = await here.pull(write_package(remote, manifest, files))
    assert (come.path / kept.file).read_bytes() == data
    (come.path / kept.file).write_bytes(bytes(8))
    come = await here.pull(come)
    assert (come.path / kept.file).read_bytes() == data, "a spoiled one is brought anew"


async def test_what_is_here_is_not_fetched_again(package, shop, here):
    await here.pull(package)
    shop.asked.clear()
    await here.pull(package)
    assert {name for name, _ in shop.asked} <= {MANIFEST, "manifest.sig"}


async def test_two_pulls_at_once_are_one_transfer(package, shop, here):
    wish = Wish(package.name, package.version, package.digest)
    assert here.pulls.begin(wish) is here.pulls.begin(wish)
    await here.pull(package)
    assert shop.sent_bytes == sum(path.stat().st_size for path in package.path.iterdir())
    assert len(here.came) == 1


async def test_another_digest_of_what_is_being_pulled_is_refused(package, here):
    here.pulls.begin(Wish(package.name, package.version, package.digest))
    with pytest.raises(BadRequest, match="another digest"):
        here.pulls.begin(Wish(package.name, package.version, "0" * 64))


async def test_a_cut_transfer_goes_on_where_it_was(package, shop, here):
    shop.faults["a.onnx"] = [shop.cut_after(163840), shop.cut_after_more(81920)]
    await here.pull(package)
    begins = [begin for name, begin in shop.asked if name == "a.onnx"]
    assert len(begins) == 3
    assert begins == sorted(begins)
    assert begins[-1] > 0
    # What was in flight when the connection was lost comes again, and nothing else.
    assert begins[1] > 163840 // 2


async def test_a_server_without_ranges_sends_all_of_it_again(package, shop, here):
    shop.faults["a.onnx"] = [shop.cut_after(163840), shop.whole()]
    await here.pull(package)
    assert in_store(here.root) == [("net", "1")]


async def test_what_another_process_had_got_is_gone_on_with(tmp_path, package, shop):
    shop.faults["a.onnx"] = [shop.cut_after(163840), faults.stall()]
    root = tmp_path / "here"
    async with pulling(root, config_for(shop, pull_timeout_s=0.5)) as first:
        with pytest.raises(SourceFailed, match=r"given up after 0\.5 s"):
            await first.pull(package)
        assert in_store(root) == []
    async with pulling(root, config_for(shop)) as second:
        await second.pull(package)
    assert [begin > 0 for name, begin in shop.asked if name == "a.onnx"][-1]


async def test_a_spoiled_beginning_is_found_and_fetched_again(tmp_path, package, shop):
    root = tmp_path / "here"
    shop.faults["a.onnx"] = [shop.cut_after(163840), faults.stall()]
    async with pulling(root, config_for(shop, pull_timeout_s=0.5)) as first:
        with pytest.raises(SourceFailed):
            await first.pull(package)
    (partial,) = (root / PULLS).rglob("a.onnx.partial")
    with partial.open("r+b") as file:  # as a power cut may leave it
        file.write(b"\0" * 4096)
    async with pulling(root, config_for(shop)) as second:
        await second.pull(package)
    assert [begin for name, begin in shop.asked if name == "a.onnx"][-1] == 0


@pytest.mark.parametrize("code", [500, 503, 429, 408])
async def test_a_server_that_is_not_well_is_asked_again(package, shop, here, code):
    shop.faults[MANIFEST] = [faults.status(code)] * 2
    await here.pull(package)
    assert [name for name, _ in shop.asked].count(MANIFEST) == 3


async def test_a_server_that_stalls_is_asked_again(tmp_path, package, shop):
    shop.faults["b.onnx"] = [faults.stall()]
    config = ArtefactsConfig(source=FromHttp(url=shop.url), disk_reserve_bytes=0, stall_s=0.1)
    async with pulling(tmp_path / "here", config) as here:
        await here.pull(package)


async def test_a_server_that_is_gone_is_waited_for_until_time_is_up(tmp_path, package):
    gone = ArtefactsConfig(source=FromHttp(url="http://127.0.0.1:1"), pull_timeout_s=0.3)
    async with pulling(tmp_path / "here", gone) as here:
        pull = here.pulls.begin(Wish(package.name, package.version, package.digest))
        await pull.ended.wait()
        assert isinstance(pull.error, SourceFailed)
        assert "given up after 0.3 s" in pull.error.message
        assert "127.0.0.1:1" in pull.progress.interrupted, "who asks hears why it waits"


def _other(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("file", "fault", "says"),
    [
        pytest.param("a.onnx", lambda s: s.instead(_other), "sha256 is", id="a flipped byte"),
        pytest.param("a.onnx", lambda _: faults.endless(), "more than", id="a body without end"),
        pytest.param("a.onnx", lambda s: s.instead(lambda d: d + b"x"), "more than", id="longer"),
        pytest.param(
            MANIFEST, lambda _: faults.endless(), "over 1048576", id="an endless manifest"
        ),
        pytest.param(MANIFEST, lambda s: s.instead(_other), "has sha256", id="another manifest"),
        pytest.param(MANIFEST, lambda _: faults.status(404), "answers 404", id="nothing there"),
        pytest.param("a.onnx", lambda _: faults.status(416), "shorter there", id="a short file"),
        pytest.param("a.onnx", lambda _: faults.status(403), "answers 403", id="not for us"),
        pytest.param(
            "a.onnx",
            lambda _: faults.status(302, Location="http://127.0.0.1:1/"),
            "redirected",
            id="a redirect",
        ),
        pytest.param(
            "a.onnx", lambda _: faults.status(200, Content_Encoding="gzip"), "compressed", id="gzip"
        ),
        pytest.param(
            "a.onnx",
            lambda _: faults.status(206, Content_Range="bytes 7-9/10"),
            "byte 0",
            id="a part",
        ),
    ],
)
async def test_a_lying_server_is_refused_and_leaves_nothing(package, shop, here, file, fault, says):
    shop.faults[file] = [fault(shop)]
    with pytest.raises(SourceRefused, match=says):
        await here.pull(package)
    assert in_store(here.root) == []
    assert left_behind(here.root) == []
    await here.pull(package)
    assert in_store(here.root) == [("net", "1")], "and the right one is taken afterwards"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param("file: a.onnx", "file: ../../a.onnx", "file", id="out of the package"),
        pytest.param("file: a.onnx", "file: /tmp/a.onnx", "file", id="absolute"),
        pytest.param("file: a.onnx", "file: .a.onnx", "file", id="hidden"),
        pytest.param("name: net\n", "name: ../net\n", "name", id="a name that climbs"),
        pytest.param("name: net\n", "name: other\n", "is other 1 inside", id="another model"),
        pytest.param("version: '1'", "version: '2'", "is net 2 inside", id="another version"),
        pytest.param("variants:", "variant:", "variant", id="no manifest of ours"),
    ],
)
async def test_a_hostile_manifest_writes_nothing(tmp_path, package, here, old, new, says):
    path = package.path / MANIFEST
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    before = set(tmp_path.rglob("*"))
    # The digest is right: it was made by whom we trust, or by whoever told us the digest.
    with pytest.raises((PackageError, SourceRefused), match=says):
        await here.have(Wish("net", "1", _digest(path)))
    assert {path for path in tmp_path.rglob("*") if path.is_file()} <= before


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("package")
async def test_without_digest_and_keys_nothing_is_taken(here):
    with pytest.raises(PackageError, match="name its digest"):
        await here.have(Wish("net", "1"))


async def test_an_equal_file_is_not_fetched_twice(remote, package, shop, here):
    await here.pull(package)
    second = write_weights(remote, version="2")
    shop.asked.clear()
    come = await here.pull(second)
    assert "a.onnx" not in [name for name, _ in shop.asked]
    assert come.read(come.manifest.variants[0]) == package.read(package.manifest.variants[0])
    assert (come.path / "a.onnx").samefile(here.root / "net" / "1" / "a.onnx")


async def test_a_spoiled_package_is_brought_anew_and_only_what_is_wrong(package, shop, here):
    come = await here.pull(package)
    file = come.path / "b.onnx"
    file.write_bytes(_other(file.read_bytes()))
    shop.asked.clear()
    again = await here.pull(package)
    assert [name for name, _ in shop.asked if name.endswith(".onnx")] == ["b.onnx"]
    assert [again.read(one) for one in again.manifest.variants]
    assert left_behind(here.root) == []


async def test_a_version_is_never_exchanged_for_other_content(remote, package, here):
    await here.pull(package)
    shutil.rmtree(remote / "net")
    other = write_weights(remote, seed=2)
    with pytest.raises(PackageError, match="another version"):
        await here.pull(other)


async def test_too_much_for_the_budget_is_refused_beforehand_with_numbers(tmp_path, remote, shop):
    package = write_weights(remote, sizes=(2 << 20, SMALL_BYTES))
    async with pulling(tmp_path / "here", config_for(shop, disk_budget_bytes=1 << 20)) as here:
        with pytest.raises(NoSpace, match=r"2107152 bytes more.*1048576 \(artefacts.disk_budget"):
            await here.pull(package)
        assert shop.sent_bytes < SMALL_BYTES, "only the manifest came"
        assert left_behind(here.root) == []


async def test_the_reserve_of_the_disk_is_kept(tmp_path, package, shop):
    config = config_for(shop)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    config = msgspec.structs.replace(config, disk_reserve_bytes=free + (64 << 20))
    async with pulling(tmp_path / "here", config) as here:
        with pytest.raises(NoSpace, match="disk_reserve_bytes"):
            await here.pull(package)


async def test_what_nobody_needs_makes_room(tmp_path, remote, shop):
    packages = [write_weights(remote, str(n), seed=n, sizes=(400_000,)) for n in (1, 2, 3, 4)]
    async with pulling(tmp_path / "here", config_for(shop, disk_budget_bytes=1_250_000)) as here:
        come = [await here.pull(package) for package in packages[:3]]
        with pytest.raises(NoSpace):
            await here.pull(packages[3])
        here.keeper.spared = tuple(come[:2])
        await here.pull(packages[3])
        assert here.keeper.gone == ("1",), "no more than needed"
        assert in_store(here.root) == [("net", version) for version in "234"]


async def test_two_that_come_at_once_do_not_have_the_same_room(tmp_path, remote, shop):
    packages = [write_weights(remote, str(n), seed=n, sizes=(400_000,)) for n in (1, 2)]
    shop.pause_s = 0.02
    async with pulling(tmp_path / "here", config_for(shop, disk_budget_bytes=600_000)) as here:
        pulls = [here.pull(package) for package in packages]
        came = await asyncio.gather(*pulls, return_exceptions=True)
        assert sorted(isinstance(one, NoSpace) for one in came) == [False, True]
        assert len(in_store(here.root)) == 1


async def test_what_would_free_nothing_does_not_go(tmp_path, remote, shop):
    twins = [write_weights(remote, str(n), seed=1, sizes=(400_000,)) for n in (1, 2)]
    other = write_weights(remote, "3", seed=3, sizes=(400_000,))
    async with pulling(tmp_path / "here", config_for(shop, disk_budget_bytes=600_000)) as here:
        come = [await here.pull(package) for package in twins]
        here.keeper.spared = tuple(come[:1])
        with pytest.raises(NoSpace):
            await here.pull(other)
        assert here.keeper.gone == ()


async def test_a_full_disk_in_the_middle_loses_nothing(remote, package, here, monkeypatch):
    await here.pull(package)
    second = write_weights(remote, "2", seed=2)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fsync(_descriptor):
        raise full

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(NoSpace, match="the disk is full"):
        await here.pull(second)
    monkeypatch.undo()
    assert in_store(here.root) == [("net", "1")]
    assert left_behind(here.root) == []
    await here.pull(second)


async def test_an_agent_that_leaves_stops_pulling_and_keeps_what_came(tmp_path, package, shop):
    shop.pause_s = 0.05
    async with pulling(tmp_path / "here", config_for(shop)) as here:
        pull = here.pulls.begin(Wish(package.name, package.version, package.digest))
        async with asyncio.timeout(5):
            while not pull.progress.bytes_done:  # noqa: ASYNC110 - another task's progress
                await asyncio.sleep(0.01)
        await here.stop()
    (partial,) = (here.root / PULLS).rglob("a.onnx.partial")
    assert 0 < partial.stat().st_size < BIG_BYTES
