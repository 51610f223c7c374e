"""Access lines: whole, in batches, and dropped rather than in the way."""

import json
import os
from pathlib import Path

import pytest

from isochrone.router.errors import ConfigError
from isochrone.router.process import access_log
from isochrone.router.process.access_log import AccessLog


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_lines_are_written_at_a_flush_and_appended(tmp_path):
    path = tmp_path / "access.jsonl"
    for status in (200, 503):
        log = AccessLog(path)
        line = {"time": 1.5, "request_id": "a", "status": status, "path": "a\nb"}
        log.write(line)
        assert len(lines(path)) == (status == 503)
        log.flush()
        assert lines(path)[-1] == line
        log.close()
    assert len(lines(path)) == 2


def test_a_full_buffer_does_not_wait_for_a_flush(tmp_path):
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    for number in range(2000):
        log.write({"number": number, "pad": "x" * 50})
    assert len(lines(path)) > 1000
    log.close()
    assert [line["number"] for line in lines(path)] == list(range(2000))


def test_a_full_disk_costs_lines_which_are_counted():
    log = AccessLog(Path("/dev/full"))
    for _ in range(3):
        log.write({"status": 200})
    log.flush()
    log.close()
    assert log.dropped == 3


def test_a_pipe_that_takes_a_part_gets_whole_lines_again(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(pipe)
    os.set_blocking(log._file, False)
    for number in range(3000):
        log.write({"number": number, "pad": "x" * 40})
    log.flush()
    first = os.read(reading, 1 << 20)
    log.write({"number": -1})
    log.flush()
    *whole, torn, last = (first + os.read(reading, 1 << 20)).splitlines()
    assert [json.loads(line)["number"] for line in whole] == list(range(len(whole)))
    assert not torn.endswith(b"}")
    assert last == b'{"number":-1}'
    assert len(whole) + log.dropped == 3000
    os.close(reading)
    log.write({"number": -2})
    log.close()  # nobody reads any more
    assert len(whole) + log.dropped == 3001


def test_standard_error_is_the_destination_without_a_path(capfd):
    log = AccessLog(None)
    log.write({"status": 200})
    log.close()
    assert capfd.readouterr().err == '{"status":200}\n'


def test_a_file_that_cannot_be_opened_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="access log"):
        AccessLog(tmp_path / "missing" / "access.jsonl")


def test_a_line_longer_than_everything_is_dropped(tmp_path):
    log = AccessLog(tmp_path / "a")
    log.write({"pad": "x" * access_log.LINE_BYTES})
    assert log.dropped == 1
    log.close()


def test_a_file_that_is_large_enough_becomes_the_one_before(tmp_path):
    path = tmp_path / "access.jsonl"
    log = AccessLog(path, 1000)
    for number in range(200):
        log.write({"number": number, "pad": "x" * 20})
        log.flush()
    before, now = lines(tmp_path / "access.jsonl.1"), lines(path)
    numbers = [line["number"] for line in before + now]
    assert numbers == list(range(numbers[0], 200)), "none is lost between the two"
    assert max(path.stat().st_size, (tmp_path / "access.jsonl.1").stat().st_size) < 1100
    log.close()
    again = AccessLog(path, 1000)
    for _ in range(40):
        again.write({"pad": "x" * 20})
        again.flush()
    assert path.stat().st_size < 1100, "what was there at the start counts"
    again.close()


def test_only_files_are_renamed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(pipe, 10)
    log.write({"pad": "x" * 100})
    log.close()
    assert list(tmp_path.iterdir()) == [pipe]
    os.close(reading)


def test_a_folder_that_takes_no_new_name_costs_no_line(tmp_path):
    path = tmp_path / "access.jsonl"
    (tmp_path / "access.jsonl.1").mkdir()
    log = AccessLog(path, 10)
    for number in range(3):
        log.write({"number": number})
        log.flush()
    assert [line["number"] for line in lines(path)] == [0, 1, 2]
    log.close()
