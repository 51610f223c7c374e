"""A file that outlives its process: durable, set aside where it is torn, never a guess."""

import sqlite3

import pytest

from isochrone.router.process.database import open_database

SCHEMA = "CREATE TABLE IF NOT EXISTS t (x)"


def put(connection, value):
    with connection:
        connection.execute("INSERT INTO t VALUES (?)", (value,))


def values(connection):
    return [value for (value,) in connection.execute("SELECT x FROM t")]


def test_it_keeps_and_every_commit_is_on_disk(tmp_path):
    connection = open_database(tmp_path / "a.db", SCHEMA)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    put(connection, "a")
    connection.close()
    again = open_database(tmp_path / "a.db", SCHEMA)
    assert values(again) == ["a"]
    again.close()


TORN = {
    "another file": b"name: shop\n" * 100,
    "only its head": b"SQLite format 3\0",
    "a head and rubbish": b"SQLite format 3\0" + b"\xff" * 8192,
}


@pytest.mark.parametrize("data", TORN.values(), ids=TORN)
def test_a_torn_file_is_set_aside_with_what_lies_beside_it(tmp_path, caplog, data):
    path = tmp_path / "a.db"
    path.write_bytes(data)
    (tmp_path / "a.db-wal").write_bytes(b"old")
    connection = open_database(path, SCHEMA)
    put(connection, 1)
    assert values(connection) == [1]
    connection.close()
    assert (tmp_path / "a.db.broken").read_bytes() == data
    assert [record.message for record in caplog.records] == ["database_broken"]


def test_an_empty_file_is_a_new_one(tmp_path, caplog):
    (tmp_path / "a.db").touch()
    open_database(tmp_path / "a.db", SCHEMA).close()
    assert caplog.records == []


def test_what_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(sqlite3.OperationalError):
        open_database(tmp_path, SCHEMA)


def test_a_spoiled_text_can_be_read():
    connection = open_database(None, SCHEMA)
    connection.execute("INSERT INTO t VALUES (CAST(x'ff61' AS TEXT))")
    assert values(connection) == ["\ufffda"]
    connection.close()
