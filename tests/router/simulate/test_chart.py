"""The picture: well-formed, every rule named once, and no label on another."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.simulate.chart import Line, Point, chart
from isochrone.router.simulate.statistics import Interval

SVG = "{http://www.w3.org/2000/svg}"
LOADS = (0.4, 0.6, 0.8)


def sure(value):
    return Interval(value, value, value)


def line(name, p99s_ms, *, ours=False, share=0.9):
    points = (
        Point(load, sure(p99), sure(share)) for load, p99 in zip(LOADS, p99s_ms, strict=False)
    )
    return Line(name, tuple(points), ours)


def drawn(*lines):
    return ET.fromstring(chart("a < b & c", lines, 0.4))


def labels(root):
    return [one for one in root.iter(f"{SVG}text") if "label" in (one.get("class") or "")]


def test_every_rule_has_a_line_in_both_panels_and_one_label():
    root = drawn(line("ours", (400, 500, 600), ours=True), line("other", (450, 700, 9000)))
    assert sorted(one.text or "" for one in labels(root)) == ["other", "ours"]
    curves = [one.text for one in root.iter(f"{SVG}title")]
    assert curves.count("ours") == curves.count("other") == 2
    assert len(list(root.iter(f"{SVG}circle"))) == 2 * 2 * 3


def test_a_greater_p99_stands_higher_and_loads_go_to_the_right():
    circles = list(drawn(line("one", (400, 500, 9000))).iter(f"{SVG}circle"))[:3]
    heights = [float(one.get("cy", 0)) for one in circles]
    across = [float(one.get("cx", 0)) for one in circles]
    assert heights == sorted(heights, reverse=True)
    assert across == sorted(across)
    steps = [heights[0] - heights[1], heights[1] - heights[2]]
    assert steps[1] / steps[0] == pytest.approx(12.95, rel=0.02)  # log(18) / log(1.25)


def test_ours_is_drawn_above_the_others():
    text = chart("t", (line("ours", (1, 2, 3), ours=True), line("other", (1, 2, 3))), 0.4)
    assert text.index("<title>ours</title>") > text.index("<title>other</title>")


def test_a_name_is_text_and_no_markup():
    root = drawn(line("<script>", (1, 2, 3)))
    assert [one.text for one in labels(root)] == ["<script>"]
    assert not list(root.iter(f"{SVG}script"))


def test_it_follows_a_dark_scheme():
    assert "prefers-color-scheme:dark" in chart("t", (line("one", (1, 2, 3)),), 0.4)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="needs a point"):
        chart("t", (Line("none", ()),), 0.4)


@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1e5), st.floats(0, 1)),
        min_size=1,
        max_size=18,
    )
)
def test_labels_keep_apart_and_all_numbers_are_inside(ends):
    lines = [line(f"r{n}", (p99,), share=share) for n, (p99, share) in enumerate(ends)]
    root = drawn(*lines)
    height = float(root.get("height", 0))
    heights = sorted(float(one.get("y", 0)) for one in labels(root))
    assert all(after - before > 16.5 for before, after in pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] < height
    for circle in root.iter(f"{SVG}circle"):
        assert 80 < float(circle.get("cy", 0)) < height - 40
    assert not re.search(r"nan|inf", " ".join(one.get("d") or "" for one in root.iter()))
