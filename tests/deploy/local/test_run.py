"""One run: what stays of its folder, and how signals end it."""

import asyncio
import contextlib
import os
import signal

import pytest

from isochrone.deploy.local.layout import check_free, lay_out
from isochrone.deploy.local.part import PartError
from isochrone.deploy.local.ports import free_ports
from isochrone.deploy.local.run import run_folder, run_to_end
from isochrone.router.errors import ConfigError


@pytest.mark.parametrize(
    ("error", "stays"),
    [(PartError("ended"), True), (ConfigError("x"), False), (KeyboardInterrupt(), False)],
    ids=["a part failed", "wrong usage", "interrupted"],
)
def test_a_folder_stays_where_somebody_will_want_to_look_into_it(error, stays):
    with contextlib.suppress(type(error)), run_folder() as folder:
        logs = folder.ray / "session_2026" / "logs"
        logs.mkdir(parents=True)
        (logs / "serve.log").write_text("said")
        raise error
    assert folder.path.exists() is stays
    assert not folder.ray.exists()
    if stays:
        assert (folder.path / "ray-logs" / "serve.log").read_text() == "said"
        (folder.path / "ray-logs" / "serve.log").unlink()
        (folder.path / "ray-logs").rmdir()
        folder.path.rmdir()


def test_a_folder_that_is_asked_for_stays_and_must_be_new(tmp_path):
    with run_folder(tmp_path / "kept") as folder:
        (folder.path / "file").touch()
    assert (tmp_path / "kept" / "file").exists()
    with pytest.raises(ConfigError, match="File exists; name a new one"), run_folder(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_play_in_good_order(number):
    tidied = []

    async def play() -> int:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            tidied.append(True)
        return 0

    with pytest.raises(KeyboardInterrupt):
        run_to_end(play())
    assert tidied == [True]


def test_a_hang_up_does_not_end_a_play():
    async def play() -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        return 7

    assert run_to_end(play()) == 7


def test_ports_are_different_and_those_asked_for_are_given(tmp_path):
    router, admin = free_ports(2)
    layout = lay_out(tmp_path, tmp_path, router_port=router, admin_port=admin)
    assert layout.router_url("eu-west") == f"http://127.0.0.1:{router}"
    assert layout.admin_url("eu-west") == f"http://127.0.0.1:{admin}"
    ports = [*layout.ports.values(), *layout.admin.values(), *layout.relay_ports.values()]
    assert len(ports) == len(set(ports)) == 6 + 5 + 8


async def test_a_port_in_use_is_named_with_the_remedy():
    (port,) = free_ports(1)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    async with server:
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} is in use.*--router-port"):
            check_free(0, port)
    check_free(0, port)
