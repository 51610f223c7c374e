"""Log lines, in both formats, and what happens when they cannot be written."""

import errno
import io
import json
import logging

import pytest

from isochrone.router.process import log


@pytest.fixture
def logged():
    """Set the log up on a stream, and put pytest's own back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    stream = io.StringIO()

    def setup(level, style):
        log.setup(level, style, stream)
        return stream

    yield setup
    root.handlers[:] = before
    root.setLevel(level)


NAME = logging.getLogger("isochrone.test")


def test_text_lines_carry_the_fields(logged):
    stream = logged("info", "text")
    log.event(NAME, "model_loaded", model="digits", seconds=0.25, why="a b", count=3)
    line = stream.getvalue()
    assert line.endswith(
        ' info isochrone.test: model_loaded model=digits seconds=0.25 why="a b" count=3\n'
    )


def test_json_lines_carry_the_fields(logged):
    stream = logged("info", "json")
    log.event(NAME, "model_loaded", model="digits", seconds=float("nan"), level=logging.WARNING)
    line = json.loads(stream.getvalue(), parse_constant=pytest.fail)
    assert line["event"] == "model_loaded"
    assert (line["model"], line["seconds"], line["level"]) == ("digits", "nan", "warning")
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("control", ["\n", "\r", "\x1b[31m", "\x00", "\x85", "\u2028", "\ud800"])
def test_no_line_can_be_forged(logged, style, control):
    stream = logged("info", style)
    NAME.info("path %s", f"a{control}2026 info forged")
    log.event(NAME, "seen", path=f"a{control}b")
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert control not in text.removesuffix("\n").replace("\n", "", 1)


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_kept(logged, style):
    stream = logged("info", style)
    try:
        raise ValueError("it\nbroke")
    except ValueError:
        NAME.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert "ValueError" in stream.getvalue()
    assert all(line.startswith("    ") for line in rest)


def test_what_is_below_the_level_is_not_written(logged):
    stream = logged("warning", "text")
    log.event(NAME, "quiet")
    NAME.info("quiet")
    assert stream.getvalue() == ""


def test_a_closed_pipe_costs_lines_and_nothing_else(logged):
    logged("info", "text")
    broken = io.StringIO()
    broken.close()
    handler = log.setup("info", "text", broken)
    log.event(NAME, "lost")
    NAME.info("lost")
    assert handler.dropped == 2


class FullDisk(io.StringIO):
    def write(self, _):
        raise OSError(errno.ENOSPC, "no space left")


def test_a_full_disk_costs_lines_and_nothing_else(logged):
    logged("info", "text")
    handler = log.setup("info", "text", FullDisk())
    NAME.info("lost")
    log.event(NAME, "lost")
    assert handler.dropped == 2
