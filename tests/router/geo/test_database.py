"""A GeoIP file that is changed in any way under a process that uses it."""

import os
import shutil

import pytest

from isochrone.router.errors import ConfigError
from isochrone.router.geo.address import read_address
from isochrone.router.geo.database import GeoDatabase
from isochrone.router.geo.place import Place, Source
from isochrone.router.geo.region import Point

LONDON = read_address("81.2.69.142")
IN_CITY = Place(Point(51.5142, -0.0931), "GB", None, Source.GEOIP)
IN_COUNTRY = Place(None, "GB", None, Source.GEOIP)


@pytest.fixture
def live(maxmind, tmp_path):
    path = tmp_path / "live.mmdb"
    shutil.copy(maxmind / "GeoIP2-City-Test.mmdb", path)
    return path


@pytest.fixture
def database(live):
    database = GeoDatabase(live)
    yield database
    database.close()


def test_a_file_that_is_cut_off_in_place_is_no_end_of_the_process(live, database):
    os.truncate(live, 0)
    assert database.find(LONDON) == IN_CITY
    assert database.failures == 0


def overwritten(new, live):
    shutil.copyfile(new, live)


def renamed(new, live):
    beside = live.with_name("new.mmdb")
    shutil.copyfile(new, beside)
    beside.replace(live)


def linked(new, live):
    beside = live.with_name("link")
    beside.symlink_to(new)
    beside.replace(live)


@pytest.mark.parametrize("change", [overwritten, renamed, linked])
def test_a_good_new_file_is_taken_up_once_it_has_settled(maxmind, live, database, change):
    assert not database.refresh()
    change(maxmind / "GeoIP2-Country-Test.mmdb", live)
    assert not database.refresh()
    assert database.find(LONDON) == IN_CITY
    assert database.refresh()
    assert database.find(LONDON) == IN_COUNTRY
    assert not database.refresh()


def cut(live, _):
    os.truncate(live, live.stat().st_size // 2)


def emptied(live, _):
    live.write_bytes(b"")


def of_another_kind(live, maxmind):
    shutil.copyfile(maxmind / "GeoLite2-ASN-Test.mmdb", live)


def damaged_inside(live, maxmind):
    shutil.copyfile(maxmind / "GeoIP2-City-Test-Broken-Double-Format.mmdb", live)


def removed(live, _):
    live.unlink()


def a_fifo(live, _):
    live.unlink()
    os.mkfifo(live)


def a_device(live, _):
    live.unlink()
    live.symlink_to("/dev/zero")


def a_folder(live, _):
    live.unlink()
    live.mkdir()


BAD = [cut, emptied, of_another_kind, damaged_inside, removed, a_fifo, a_device, a_folder]


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_new_file_is_said_once_and_the_old_one_stays(maxmind, live, database, spoil):
    spoil(live, maxmind)
    assert not database.refresh()
    with pytest.raises(ConfigError, match=r"live\.mmdb: "):
        database.refresh()
    assert not database.refresh()
    assert database.find(LONDON) == IN_CITY
    assert "live.mmdb" in database.refused
    if not live.is_symlink() and not live.is_file():
        live.rmdir() if live.is_dir() else live.unlink(missing_ok=True)
    renamed(maxmind / "GeoIP2-Country-Test.mmdb", live)
    database.refresh()
    assert database.refresh()
    assert database.refused is None
    assert database.find(LONDON) == IN_COUNTRY


@pytest.mark.parametrize("spoil", [a_fifo, a_device, a_folder])
def test_what_is_no_regular_file_is_refused_at_the_start_without_waiting(maxmind, live, spoil):
    spoil(live, maxmind)
    with pytest.raises(ConfigError, match="is no regular file"):
        GeoDatabase(live)


def test_a_file_that_is_still_being_written_is_left_alone(maxmind, live, database):
    whole = (maxmind / "GeoIP2-Country-Test.mmdb").read_bytes()
    for end in range(1, 6):
        live.write_bytes(whole[: len(whole) * end // 6])
        assert not database.refresh()
    live.write_bytes(whole)
    assert not database.refresh()
    assert database.refresh()
