"""Versions side by side in a pool: added, activated, removed while calls go on."""

import asyncio

import msgspec
import numpy as np
import pytest

from isochrone.deploy.demo.prose import write_prose
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.edge_agent.runtime.residence.pool import Pool
from isochrone.router.errors import NotFound, Unavailable
from isochrone.router.wire.message import InferRequest
from isochrone.router.wire.report import ModelState as State
from isochrone.router.wire.tensor import Tensor


@pytest.fixture
async def pool(write):
    held = Pool([write(version="1")])
    yield held
    await held.close()


async def _version(pool, question):
    (part,) = [part async for part in pool.request("small", None, question)]
    return part.model_version


async def test_a_version_that_was_added_waits_to_be_activated(pool, write, question):
    await pool.load("small")
    before = pool.models_generation
    pool.add(write(version="2"))
    assert pool.models_generation > before
    assert pool.state("small", "2") is State.COLD
    assert pool.active("small") == "1"
    assert await _version(pool, question) == "1"
    assert await pool.activate("small", "2") == "1"
    assert pool.active("small") == "2"
    assert await _version(pool, question) == "2"
    assert pool.state("small", "1") is State.WARM, "until it is unloaded"
    assert await pool.activate("small", "2") is None
    await pool.activate("small", "1")
    assert await _version(pool, question) == "1"


async def test_adding_the_same_twice_changes_nothing_and_other_content_is_refused(pool, write):
    generation = pool.models_generation
    pool.add(write(version="1"))
    assert pool.models_generation == generation
    package = write(version="1")
    other = msgspec.structs.replace(package.manifest, labels=("x", "y", "z"))
    with pytest.raises(PackageError, match="other content"):
        pool.add(Package(package.path, other))


async def test_a_version_that_fails_to_load_is_not_activated(pool, write, question):
    await pool.load("small")
    package = write(version="2")
    path = package.file(package.manifest.variants[0])
    path.write_bytes(b"x" * path.stat().st_size)
    pool.add(package)
    with pytest.raises(Unavailable):
        await pool.activate("small", "2")
    assert pool.active("small") == "1"
    assert pool.state("small", "1") is State.WARM
    assert await _version(pool, question) == "1"


async def test_a_removed_version_is_not_found_any_more(pool, write, question):
    pool.add(write(version="2"))
    await pool.activate("small", "2")
    await pool.remove("small", "2")
    with pytest.raises(NotFound):
        pool.state("small", "2")
    assert await _version(pool, question) == "1"
    await pool.remove("small", "1")
    assert pool.active("small") is None
    with pytest.raises(NotFound):
        await pool.load("small")


async def test_removing_waits_for_what_runs(tmp_path):
    pool = Pool([write_prose(tmp_path)])
    text = Tensor("text_input", "BYTES", np.array([b"The "], object))
    parts = pool.request("prose", None, InferRequest((text,), parameters={"max_tokens": 3}))
    await anext(parts)
    async with asyncio.TaskGroup() as group:
        removing = group.create_task(pool.remove("prose", pool.package("prose").version))
        await asyncio.sleep(0)
        assert pool.held() == ()
        assert len([part async for part in parts]) == 2
        assert not removing.done()
    await pool.close()


async def test_a_version_that_is_added_anew_is_another_one_than_that_which_leaves(tmp_path):
    package = write_prose(tmp_path)
    pool = Pool([package])
    text = Tensor("text_input", "BYTES", np.array([b"The "], object))
    parts = pool.request("prose", None, InferRequest((text,), parameters={"max_tokens": 3}))
    await anext(parts)
    ((_, before_bytes),) = pool.residents.sizes()
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.remove("prose", "1"))
        await asyncio.sleep(0)
        pool.add(package)
        await pool.load("prose", "1")
        assert [title for title, _ in pool.residents.sizes()] == ["prose 1", "prose 1"]
        assert pool.residents.taken_bytes > before_bytes, "both are in memory"
        assert len([part async for part in parts]) == 2
    assert [title for title, _ in pool.residents.sizes()] == ["prose 1"], "the new one stays"
    assert pool.state("prose") is State.WARM
    await pool.close()


async def test_a_pool_may_be_told_at_first_who_is_active(write):
    pool = Pool([write(version="1"), write(version="2")], active={"small": "1"})
    assert pool.active("small") == "1"
    assert pool.metadata("small").versions == ("2", "1")
    await pool.close()
