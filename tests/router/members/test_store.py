"""What is remembered across restarts."""

import sqlite3

import msgspec
import pytest

from isochrone.router.errors import ConfigError, Unavailable
from isochrone.router.members.store import Store
from isochrone.router.wire.journal import Entry
from isochrone.router.wire.report import Enrolment

TWO_DAYS_S = 2 * 86_400.0
URL = "http://127.0.0.1:9001"
SHOP = Enrolment(
    wire_version=1,
    name="shop-1",
    instance="i1",
    boot_id="b1",
    sequence=3,
    url=URL,
    region="eu-west",
    slots=2,
    models=(),
)


def store_at(path, now_s):
    """A store whose clocks stand still."""
    return Store(path, lambda: now_s, lambda: 0.0)


async def test_what_was_enrolled_is_there_again_with_its_age(tmp_path):
    store = store_at(tmp_path / "state.db", 1000.0)
    await store.save(SHOP, URL)
    store.close()
    again = store_at(tmp_path / "state.db", 1060.0)
    assert again.load() == [(SHOP, URL, 60.0)]
    again.close()


async def test_who_has_left_is_not_asked_again_but_its_models_stay_known(tmp_path):
    store = store_at(tmp_path / "state.db", 1000.0)
    await store.save(SHOP, URL)
    await store.forget(SHOP.name)
    assert store.load() == [(SHOP, "", 0.0)]
    await store.save(SHOP, URL)
    assert store.load() == [(SHOP, URL, 0.0)]
    store.close()


async def test_a_day_old_enrolment_is_forgotten(tmp_path):
    store = store_at(tmp_path / "state.db", 1000.0)
    await store.save(SHOP, URL)
    store.close()
    again = store_at(tmp_path / "state.db", 1000.0 + 24 * 3600)
    assert again.load() == []
    again.close()


async def test_a_clock_that_was_set_back_gives_no_negative_age(tmp_path):
    store = store_at(tmp_path / "state.db", 1000.0)
    await store.save(SHOP, URL)
    store.close()
    again = store_at(tmp_path / "state.db", 10.0)
    assert again.load() == [(SHOP, URL, 0.0)]
    again.close()


async def test_what_another_version_wrote_is_passed_over(tmp_path):
    path = tmp_path / "state.db"
    store_at(path, 1000.0).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO enrolment VALUES ('x', 'u', '{}', 1000)")
    connection.close()
    store = store_at(path, 1001.0)
    assert store.load() == []
    store.close()


def test_a_file_that_is_torn_is_set_aside_and_said(tmp_path, caplog):
    path = tmp_path / "state.db"
    path.write_text("something else, " * 100)
    store = store_at(path, 0.0)
    assert store.load() == []
    store.close()
    (said,) = [record for record in caplog.records if record.message == "database_broken"]
    assert said.levelname == "ERROR"
    assert (tmp_path / "state.db.broken").read_text().startswith("something else")


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="state_file cannot be used"):
        store_at(tmp_path / "nowhere" / "state.db", 0.0)


async def test_a_clock_that_is_set_makes_nothing_old(tmp_path):
    wall = [1_000_000.0]
    store = Store(tmp_path / "state.db", lambda: wall[0], lambda: 0.0)
    await store.save(SHOP, URL)
    for jump_s in (TWO_DAYS_S, -2 * TWO_DAYS_S):
        wall[0] += jump_s
        other = msgspec.structs.replace(SHOP, name="shop-2", sequence=int(wall[0]))
        await store.save(other, URL)
        assert {enrolment.name: age for enrolment, _, age in store.load()} == {
            "shop-1": 0.0,
            "shop-2": 0.0,
        }
    store.close()


def entry(number, **more):
    return Entry(id=f"{1:016x}-{number}", at_s=5.0, kind="rolled_back", **more)


async def test_what_is_told_twice_is_kept_once(tmp_path):
    store = store_at(tmp_path / "state.db", 1000.0)
    assert await store.keep("shop-1", [entry(1), entry(2)]) == [entry(1), entry(2)]
    assert await store.keep("shop-1", [entry(2), entry(3)]) == [entry(3)]
    assert await store.keep("shop-2", [entry(2)]) == [entry(2)]
    store.close()
    again = store_at(tmp_path / "state.db", 1000.0)
    assert await again.told(2) == [("shop-2", entry(2)), ("shop-1", entry(3))]
    assert await again.keep("shop-1", [entry(1)]) == []
    again.close()


async def test_what_cannot_be_kept_is_to_be_told_again():
    store = store_at(None, 1000.0)
    store.close()
    with pytest.raises(Unavailable):
        await store.keep("shop-1", [entry(1)])
