"""What is remembered across restarts."""

import sqlite3

import pytest

from router.errors import ConfigError
from router.fleet.store import Store
from router.wire.report import Enrolment

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


async def test_what_was_enrolled_is_there_again_with_its_age(tmp_path):
    store = Store(tmp_path / "state.db", lambda: 1000.0)
    await store.save(SHOP, URL)
    store.close()
    again = Store(tmp_path / "state.db", lambda: 1060.0)
    assert again.load() == [(SHOP, URL, 60.0)]
    again.close()


async def test_who_has_left_is_not_asked_again_but_its_models_stay_known(tmp_path):
    store = Store(tmp_path / "state.db", lambda: 1000.0)
    await store.save(SHOP, URL)
    await store.forget(SHOP.name)
    assert store.load() == [(SHOP, "", 0.0)]
    await store.save(SHOP, URL)
    assert store.load() == [(SHOP, URL, 0.0)]
    store.close()


async def test_a_day_old_enrolment_is_forgotten(tmp_path):
    store = Store(tmp_path / "state.db", lambda: 1000.0)
    await store.save(SHOP, URL)
    store.close()
    again = Store(tmp_path / "state.db", lambda: 1000.0 + 24 * 3600)
    assert again.load() == []
    again.close()


async def test_a_clock_that_was_set_back_gives_no_negative_age(tmp_path):
    store = Store(tmp_path / "state.db", lambda: 1000.0)
    await store.save(SHOP, URL)
    store.close()
    again = Store(tmp_path / "state.db", lambda: 10.0)
    assert again.load() == [(SHOP, URL, 0.0)]
    again.close()


async def test_what_another_version_wrote_is_passed_over(tmp_path):
    path = tmp_path / "state.db"
    Store(path, lambda: 1000.0).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO enrolment VALUES ('x', 'u', '{}', 1000)")
    connection.close()
    store = Store(path, lambda: 1001.0)
    assert store.load() == []
    store.close()


def test_a_file_that_is_no_store_is_a_clear_error(tmp_path):
    path = tmp_path / "state.db"
    path.write_text("something else, " * 100)
    with pytest.raises(ConfigError, match="state_file cannot be used"):
        Store(path, lambda: 0.0)
