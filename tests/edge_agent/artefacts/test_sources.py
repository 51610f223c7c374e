"""Directories and buckets as sources, and a disk that is really full."""

import asyncio
import os
import subprocess

import pytest

from isochrone.edge_agent.artefacts.parts import source_of
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, FromDirectory, FromHttp, FromS3
from isochrone.edge_agent.artefacts.source import SourceFailed, SourceRefused, small
from isochrone.edge_agent.artefacts.store import PULLS, Store
from isochrone.edge_agent.runtime.package.package import MANIFEST, packages_in
from isochrone.router.errors import ConfigError, NoSpace
from tests.edge_agent.artefacts.conftest import config_for, pulling, write_weights

BUCKET = "packages"


async def test_a_package_comes_from_a_directory(tmp_path, remote, package):
    config = ArtefactsConfig(source=FromDirectory(path=remote))
    async with pulling(tmp_path / "here", config) as here:
        come = await here.pull(package)
    assert come.digest == package.digest


def _to_pipe(path):
    path.unlink()
    os.mkfifo(path)


def _to_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(_to_pipe, id="a pipe that nobody writes to"),
        pytest.param(_to_link, id="a link"),
    ],
)
async def test_what_is_no_plain_file_is_refused_at_once(tmp_path, remote, package, spoil):
    spoil(package.path / "a.onnx")
    config = ArtefactsConfig(source=FromDirectory(path=remote))
    async with pulling(tmp_path / "here", config) as here:
        with pytest.raises(SourceRefused, match=r"a\.onnx"):
            await here.pull(package)


async def test_a_disk_that_is_not_mounted_is_waited_for(tmp_path, remote, package):
    away = tmp_path / "away"
    remote.rename(away)
    config = ArtefactsConfig(source=FromDirectory(path=remote))
    async with pulling(tmp_path / "here", config) as here, asyncio.TaskGroup() as tasks:
        pull = tasks.create_task(here.pull(package))
        await asyncio.sleep(0.05)
        assert not pull.done()
        away.rename(remote)
        assert (await pull).digest == package.digest


@pytest.fixture(scope="module")
def s3():
    """A client of an S3 service on loopback, and where that is."""
    boto3 = pytest.importorskip("boto3", reason="the extra s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "not-a-secret")
        patched.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client, url
        client.close()
        server.stop()


def bucket_config(url, **changes):
    source = FromS3(bucket=BUCKET, prefix="shop", region="us-east-1", endpoint_url=url)
    return ArtefactsConfig(source=source, disk_reserve_bytes=0, **changes)


def upload(client, package):
    for path in package.path.iterdir():
        key = f"shop/{package.name}/{package.version}/{path.name}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


async def test_a_package_comes_from_a_bucket_and_goes_on_where_it_was(tmp_path, package, s3):
    client, url = s3
    await asyncio.to_thread(upload, client, package)
    root = tmp_path / "here"
    data = (package.path / "a.onnx").read_bytes()
    with Store(root).stage("net", (package.path / MANIFEST).read_bytes(), None) as staging:
        (staging.path / "a.onnx.partial").write_bytes(data[:100_000])
    async with pulling(root, bucket_config(url)) as here:
        come = await here.pull(package)
        assert come.read(come.manifest.variants[0]) == data
        progress = here.pulls.running()
    assert progress == []


async def test_a_bucket_is_read_from_any_byte_on(s3):
    client, url = s3
    client.put_object(Bucket=BUCKET, Key="shop/some/where", Body=b"0123456789")
    source = await source_of(bucket_config(url))
    async with source.open("some/where", 4) as opened:
        assert b"".join([chunk async for chunk in opened.chunks]) == b"456789"
    with pytest.raises(SourceRefused, match="NoSuchKey"):
        await small(source, "no/where", 10)
    with pytest.raises(SourceRefused, match="over 9 bytes"):
        await small(source, "some/where", 9)
    await source.close()


async def test_a_bucket_that_is_gone_may_come_back():
    source = await source_of(bucket_config("http://127.0.0.1:1"))
    with pytest.raises(SourceFailed):
        await small(source, "some/where", 10)
    await source.close()


@pytest.fixture
def little_disk(tmp_path):
    """A disk of 512 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


async def test_a_disk_that_fills_up_in_the_middle_keeps_what_is_there(
    little_disk, remote, shop, monkeypatch
):
    first, second = (write_weights(remote, n, seed=int(n), sizes=(300_000,)) for n in "12")
    async with pulling(little_disk, config_for(shop)) as here:
        await here.pull(first)
        with pytest.raises(NoSpace, match="300000 bytes more"):
            await here.pull(second)
        # Others write to the disk too: what was free before is not there any more.
        monkeypatch.setattr(Store, "free_bytes", lambda _self: 1 << 30)
        with pytest.raises(NoSpace, match="the disk is full"):
            await here.pull(second)
        packages, errors = packages_in(little_disk)
        assert ([one.version for one in packages], errors) == (["1"], [])
        assert packages[0].read(packages[0].manifest.variants[0])
        assert list((little_disk / PULLS).iterdir()) == []


async def test_what_a_source_needs_is_told(tmp_path):
    http = FromHttp(url="https://127.0.0.1:1", bearer_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="bearer_file"):
        await source_of(ArtefactsConfig(source=http))
    http = FromHttp(url="https://127.0.0.1:1", ca_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="ca_file"):
        await source_of(ArtefactsConfig(source=http))
    with pytest.raises(ConfigError, match=r"no artefacts\.source"):
        await source_of(ArtefactsConfig())


@pytest.mark.usefixtures("package")
async def test_a_server_is_shown_its_token(tmp_path, shop):
    (tmp_path / "token").write_text("sesame\n")
    seen = []

    async def told(request, _data):
        seen.append(request.headers["authorization"])
        return await shop.sent(request, b"")

    shop.faults[MANIFEST] = [told]
    http = FromHttp(url=shop.url, bearer_file=tmp_path / "token")
    source = await source_of(ArtefactsConfig(source=http))
    await small(source, f"net/1/{MANIFEST}", 10)
    await source.close()
    assert seen == ["Bearer sesame"]
