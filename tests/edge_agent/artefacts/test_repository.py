"""Two versions of a real model: one warmed beside the other, changed, gone back to, kept."""

import asyncio
import errno
import os
import shutil
from contextlib import asynccontextmanager
from random import Random
from threading import Event

import numpy as np
import pytest

from isochrone.edge_agent.artefacts import joined
from isochrone.edge_agent.artefacts.activation import FILE, Activation, Activations
from isochrone.edge_agent.artefacts.pull import Wish
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, FromDirectory
from isochrone.edge_agent.artefacts.store import Store
from isochrone.edge_agent.runtime.loading import load as loading
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.package.package import PackageError, packages_in
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import BadRequest, NoSpace, NotFound, Unavailable
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import ModelState
from isochrone.router.wire.tensor import Tensor
from tests.conftest import write_double


@asynccontextmanager
async def opened(root, source=None, heard=lambda *_: None, **changes):
    """A pool and its repository, as an agent has them after a start."""
    activations = Activations(root)
    pool = Pool(packages_in(root)[0], active=activations.active())
    config = ArtefactsConfig(
        source=None if source is None else FromDirectory(path=source),
        disk_reserve_bytes=0,
        **changes,
    )
    async with asyncio.TaskGroup() as tasks:
        one = joined.repository(root, config, pool, activations, None, Random(1), heard)
        kept = tasks.create_task(one.keep(0.0))
        await asyncio.sleep(0)
        try:
            yield pool, one
        finally:
            kept.cancel()
            await asyncio.wait([kept])
            await pool.close()


@pytest.fixture
def root(tmp_path):
    """A store with two versions of `double`."""
    path = tmp_path / "packages"
    for version in "12":
        write_double(path, version=version)
    return path


async def answered(pool):
    """Which version answers a call that names none."""
    request = InferRequest((Tensor("x", "FP32", np.ones((1, 2), np.float32)),))
    parts = [part async for part in pool.request("double", None, request)]
    return parts[-1].model_version


def break_file(root, version):
    path = root / "double" / version / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


async def test_a_version_is_changed_and_gone_back_to(root):
    async with opened(root) as (pool, models):
        assert await models.load("double", "1") == "1"
        assert await answered(pool) == "1"
        assert await models.load("double", "2") == "2"
        assert (await answered(pool), pool.state("double", "1")) == ("2", ModelState.COLD)
        assert await models.rollback("double") == "1"
        assert (await answered(pool), pool.state("double", "2")) == ("1", ModelState.COLD)
        assert await models.rollback("double") == "2", "and forth again"


async def test_the_choice_survives_a_restart(root):
    async with opened(root) as (pool, models):
        await models.load("double", "1")
    async with opened(root) as (pool, models):
        assert await answered(pool) == "1"
        assert await models.rollback("double") == "2", "the highest served before"
    async with opened(root) as (pool, _):
        assert await answered(pool) == "2"


async def test_a_version_that_was_chosen_stays_whatever_is_copied_beside_it(root):
    async with opened(root) as (_, models):
        await models.load("double", "2")
        with pytest.raises(BadRequest, match="no other version"):
            await models.rollback("double")
    write_double(root, version="3")
    async with opened(root) as (pool, _):
        assert await answered(pool) == "2"


async def test_loading_without_a_number_is_loading_what_was_chosen(root):
    async with opened(root) as (_, models):
        assert await models.load("double") == "2"
        await models.load("double", "1")
        await models.unload("double")
        assert await models.load("double") == "1"


async def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(root):
    async with opened(root) as (pool, models):
        await models.load("double", "1")
        break_file(root, "2")
        with pytest.raises(Unavailable):
            await models.load("double", "2")
        assert await answered(pool) == "1"
        with pytest.raises(Unavailable):
            await models.rollback("double")
    async with opened(root) as (pool, _):
        assert await answered(pool) == "1"


async def test_a_full_disk_is_noticed_while_the_old_one_serves(root, monkeypatch):
    async with opened(root) as (pool, models):
        await models.load("double", "1")
        before = (root / FILE).read_bytes()

        def fsync(_descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            with pytest.raises(NoSpace):
                await models.load("double", "2")
        assert (await answered(pool), (root / FILE).read_bytes()) == ("1", before)


async def test_who_stops_waiting_does_not_stop_a_change(root):
    async with opened(root) as (pool, models):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await models.load("double", "1")
        assert await models.load("double") == "2", "it does not count before it is warm"
        async with asyncio.timeout(5):
            while await answered(pool) != "1":  # noqa: ASYNC110 - a task of its own
                await asyncio.sleep(0)


async def test_calls_are_answered_all_through_a_change(root):
    async with opened(root) as (pool, models):
        await models.load("double", "1")
        seen: list[str] = []

        async def ask():
            while seen[-10:] != ["2"] * 10:
                seen.append(await answered(pool))

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
            await models.load("double", "2")
        assert seen == sorted(seen), "the old one to the end, then the new one"


async def test_a_long_call_of_the_old_version_holds_up_no_other_change(root):
    async with opened(root) as (pool, models):
        await models.load("double", "1")
        long_call = pool.lend("double", "1")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await models.load("double", "2")
        assert await answered(pool) == "2"
        assert Activations(root).active() == {"double": "2"}, "a power cut does not undo it"
        async with asyncio.timeout(5):
            await models.load("double", "2")
            long_call.give_back()
            await models.rollback("double")
        assert await answered(pool) == "1"


async def test_going_back_to_a_version_that_still_answers_waits_for_no_call(root):
    async with opened(root) as (pool, models):
        await models.load("double", "1")
        long_call = pool.lend("double", "1")
        change = asyncio.get_running_loop().create_task(models.load("double", "2"))
        while pool.state("double", "1") is not ModelState.DRAINING:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.001)
        async with asyncio.timeout(3):
            await models.rollback("double")
            await change
        assert await answered(pool) == "1"
        assert pool.state("double", "1") is ModelState.WARM, "it was not loaded again"
        assert pool.state("double", "2") is ModelState.COLD
        long_call.give_back()
        assert await answered(pool) == "1"


async def test_unloading_waits_for_a_call_only_so_long_and_goes_on(root):
    async with opened(root) as (pool, models):
        for version in "12":
            await pool.load("double", version)
        long_call = pool.lend("double", "1")
        assert not await models.unload("double", wait_s=0.2)
        states = {held.version: held.state for held in pool.held()}
        assert states == {"1": ModelState.DRAINING, "2": ModelState.COLD}
        long_call.give_back()
        assert await models.unload("double")
        assert pool.state("double", "1") is ModelState.COLD


async def test_unloading_begins_when_no_version_is_being_changed(root, monkeypatch):
    goes_on, load = Event(), start

    def slow(*given):
        goes_on.wait(10)
        return load(*given)

    async with opened(root) as (pool, models):
        await models.load("double", "1")
        monkeypatch.setattr(loading, "start", slow)
        change = asyncio.get_running_loop().create_task(models.load("double", "2"))
        while pool.state("double", "2") is ModelState.COLD:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.001)
        assert not await models.unload("double", wait_s=0.05)
        assert await answered(pool) == "1", "the change is not cut in two"
        goes_on.set()
        await change
        assert await models.unload("double")
        assert {held.state for held in pool.held()} == {ModelState.COLD}


async def test_a_choice_that_cannot_be_kept_is_taken_back(root, monkeypatch):
    def commit(_activations, _chosen):
        raise NoSpace("no space left")

    async with opened(root) as (pool, models):
        await models.load("double", "1")
        with monkeypatch.context() as patched:
            patched.setattr(Activations, "commit", commit)
            with pytest.raises(NoSpace):
                await models.load("double", "2")
        assert await answered(pool) == "1"


async def test_every_change_is_told(root, tmp_path):
    package = write_double(tmp_path / "remote", version="3")
    told: list[tuple[str, ...]] = []
    async with opened(root, tmp_path / "remote", lambda *told_: told.append(told_)) as (_, models):
        await models.load("double", "1")
        await models.load("double", "2")
        await models.load("double", "2")
        await models.rollback("double")
        await models.pull(Wish("double", "3", package.digest), 10)
        (spare,) = await models.spare()
        await models.let_go(spare)
    assert told == [
        ("updated", "double", "1"),
        ("updated", "double", "2"),
        ("rolled_back", "double", "1"),
        ("arrived", "double", "3"),
        ("removed", "double", "3"),
    ]


async def test_what_was_wanted_meanwhile_is_not_let_go(root, tmp_path):
    package = write_double(tmp_path / "remote", version="3")
    async with opened(root, tmp_path / "remote") as (pool, models):
        await models.pull(Wish("double", "3", package.digest), 10)
        (spare,) = await models.spare()
        await models.load("double", "3")
        assert not await models.let_go(spare)
        assert await answered(pool) == "3"
        await models.load("double", "1")
        await models.load("double", "2")
        assert await models.let_go(spare)
        assert not await models.let_go(spare), "it has gone already"


async def test_a_file_that_cannot_be_read_chooses_nothing(root, caplog):
    (root / FILE).write_text('{"double": {"active"')
    async with opened(root) as (pool, models):
        assert await answered(pool) == "2"
        await models.load("double", "1")
    assert Activations(root).get("double") == Activation("1", "2")
    assert "activations_unreadable" in caplog.text


async def test_what_is_not_there_is_not_gone_back_to(root):
    async with opened(root) as (_, models):
        with pytest.raises(BadRequest, match="no other version"):
            await models.rollback("double")
        with pytest.raises(NotFound):
            await models.rollback("nobody")
        with pytest.raises(NotFound):
            await models.load("double", "9")
        with pytest.raises(BadRequest, match=r"artefacts\.source"):
            await models.pull(Wish("double", "3"), 1)
    assert not (root / FILE).exists()


async def test_a_pulled_version_waits_until_it_is_wanted(root, tmp_path):
    package = write_double(tmp_path / "remote", version="3")
    wish = Wish("double", "3", package.digest)
    async with opened(root, tmp_path / "remote") as (pool, models):
        assert await answered(pool) == "2"
        assert (await models.pull(wish, 10)).done
        assert await answered(pool) == "2"
        told = {one.version: one for one in await models.models()}
        assert (told["3"].pulled, told["3"].active, told["2"].active) == (True, False, True)
        assert [one.version for one in pool.held() if one.active] == ["2"], "as the report says"
        assert told["3"].digest == package.digest
    async with opened(root, tmp_path / "remote") as (pool, models):
        assert await answered(pool) == "2", "nor does a restart change who serves"
        await models.load("double", "3")
        assert await answered(pool) == "3"
        assert {one.version for one in await models.models() if one.previous} == {"2"}


async def test_a_version_in_use_is_not_pulled_with_other_content(root, tmp_path):
    path = write_double(tmp_path / "remote", version="2").path / "model.yaml"
    path.write_text(path.read_text() + "tolerance: 0.5\n")
    (other,) = packages_in(tmp_path / "remote")[0]
    async with opened(root, tmp_path / "remote") as (_, models):
        shutil.rmtree(root / "double" / "2")  # by hand, under a running agent
        with pytest.raises(PackageError, match="in use with other content"):
            await models.pull(Wish("double", "2", other.digest), 10)


async def test_only_what_was_pulled_and_is_cold_and_unchosen_is_spare(root, tmp_path):
    for version in "3456":
        write_double(tmp_path / "remote", version=version)
    remote = {one.version: one.digest for one in packages_in(tmp_path / "remote")[0]}
    async with opened(root, tmp_path / "remote") as (pool, models):
        for version, digest in remote.items():
            await models.pull(Wish("double", version, digest), 10)
        await models.load("double", "3")
        await models.load("double", "4")
        await pool.load("double", "5")
        assert [one.version for one in await models.spare()] == ["6"]


async def test_a_cut_pull_goes_on_at_the_next_start(root, tmp_path):
    package = write_double(tmp_path / "remote", version="3")
    async with opened(root) as (_, models):
        raw = (package.path / "model.yaml").read_bytes()
        with models._store.stage("double", raw, None):
            pass
    async with opened(root, tmp_path / "remote") as (pool, models):
        async with asyncio.timeout(5):
            while len(pool.held()) < 3:  # noqa: ASYNC110 - a pull of its own
                await asyncio.sleep(0.01)
        assert pool.state("double", "3") is ModelState.COLD


async def test_two_cut_pulls_of_one_version_keep_nobody_from_serving(root, tmp_path, caplog):
    package = write_double(tmp_path / "remote", version="3")
    raw = (package.path / "model.yaml").read_bytes()
    async with opened(root) as (_, models):
        for content in (raw, raw + b"\n"):
            with models._store.stage("double", content, None):
                pass
        assert len(models._store.sweep(0.0)) == 2
    async with opened(root, tmp_path / "remote") as (pool, models):
        await models.load("double", "1")
        assert await answered(pool) == "1"
    assert "not_resumed" in caplog.text


async def test_a_disk_that_cannot_be_swept_keeps_nobody_from_serving(root, monkeypatch, caplog):
    def sweep(_self, _now_s):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Store, "sweep", sweep)
    async with opened(root) as (pool, models):
        await models.load("double", "1")
        assert await answered(pool) == "1"
    assert "not_swept" in caplog.text


async def test_an_agent_that_leaves_changes_nothing_any_more(root):
    async with opened(root) as (_, models):
        pass
    with pytest.raises(Unavailable, match="starting or leaving"):
        await models.load("double", "1")
    assert not (root / FILE).exists()
