"""A picture of a comparison: p99 and the share within the objective over load, a line per rule.

Plain SVG with its own style sheet, which follows the viewer's light or dark scheme.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from isochrone.router.simulate.statistics import Interval

_HEIGHT = 470.0
_TOP, _BOTTOM = 86.0, 48.0
_LEFT, _PANEL, _GAP = 62.0, 300.0, 74.0
_LABEL_ROOM, _LETTER = 56.0, 7.4
_LABEL_STEP = 17.0
_COLOURS = 8
_DASHES = ("", "7 4", "2 3")


@dataclass(frozen=True, slots=True)
class Point:
    """What one rule did at one load; `p99_ms` in milliseconds, `within_share` 0..1."""

    load: float
    p99_ms: Interval
    within_share: Interval


@dataclass(frozen=True, slots=True)
class Line:
    """One rule, in order of load. One that is `ours` stands out."""

    name: str
    points: tuple[Point, ...]
    ours: bool = False


Placed = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One diagram: which number it shows, and where that stands."""

    title: str
    left: float
    value: Callable[[Point], Interval]
    y: Placed
    ticks: Sequence[tuple[float, str]]


def chart(title: str, lines: Sequence[Line], objective_s: float) -> str:
    """The picture as the text of an SVG file.

    Raises:
        ValueError: there is no point to draw.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError("a chart needs a point")
    x = _x_axis([point.load for point in points])
    panels = _panels(points, objective_s)
    ordered = sorted(lines, key=lambda line: line.ours)  # ours is drawn last, above the others
    styles = _styles(lines)
    parts = [_head(title, lines)]
    for panel in panels:
        parts += _frame(panel, x, sorted({point.load for point in points}))
        parts += [_curve(panel, x, line, styles[line.name]) for line in ordered]
    parts += _labels(panels[-1], lines, styles)
    return "\n".join([*parts, "</svg>", ""])


def _panels(points: Sequence[Point], objective_s: float) -> list[_Panel]:
    slow = [value for point in points if (value := point.p99_ms.mean) > 0] or [1.0]
    ticks = _log_ticks(min(slow), max(slow))
    share = _share_ticks(min(point.within_share.mean for point in points))
    return [
        _Panel("p99, ms (log scale)", _LEFT, lambda point: point.p99_ms, _log_axis(ticks), ticks),
        _Panel(
            f"answered within {objective_s * 1000:g} ms",
            _LEFT + _PANEL + _GAP,
            lambda point: point.within_share,
            _linear_axis(share),
            share,
        ),
    ]


def _x_axis(loads: Sequence[float]) -> Placed:
    low, high = min(loads), max(loads)
    if high == low:
        return lambda _load: _PANEL / 2
    inset = 16.0
    return lambda load: inset + (load - low) / (high - low) * (_PANEL - 2 * inset)


def _upwards(share: float) -> float:
    return _HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * (_HEIGHT - _TOP - _BOTTOM)


def _log_axis(ticks: Sequence[tuple[float, str]]) -> Placed:
    low, high = math.log(ticks[0][0]), math.log(ticks[-1][0])
    return lambda value: _upwards((math.log(max(value, 1e-9)) - low) / (high - low))


def _linear_axis(ticks: Sequence[tuple[float, str]]) -> Placed:
    low, high = ticks[0][0], ticks[-1][0]
    return lambda value: _upwards((value - low) / (high - low))


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """1, 2, 5 times powers of ten around the values."""
    steps = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for digit in (1, 2, 5)
    ]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate([*steps, math.inf]) if step >= high)
    chosen = steps[first : max(last, first + 1) + 1]
    return [(step, f"{step:,.0f}" if step >= 1 else f"{step:g}") for step in chosen]


def _share_ticks(low: float) -> list[tuple[float, str]]:
    """Up to 100 %, from a round number below the least."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if 1 - 5 * step <= low or step == 0.2)
    first = max(0, math.floor(low / step + 1e-9))
    last = round(1 / step)
    marks = range(min(first, last - 1), last + 1)
    return [(mark * step, f"{mark * step:.0%}") for mark in marks]


def _frame(panel: _Panel, x: Placed, loads: Sequence[float]) -> list[str]:
    left, right = panel.left, panel.left + _PANEL
    bottom = _HEIGHT - _BOTTOM
    parts = [_text(left, _TOP - 16, panel.title, "title")]
    for value, label in panel.ticks:
        y = panel.y(value)
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(_text(left - 8, y + 4, label, "tick end"))
    for load in loads:
        at = left + x(load)
        parts.append(f'<path class="axis" d="M{at:.1f} {bottom:.1f}v5"/>')
        parts.append(_text(at, bottom + 19, f"{load:g}", "tick middle"))
    parts.append(f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
    parts.append(_text((left + right) / 2, bottom + 38, "load", "tick middle"))
    return parts


def _curve(panel: _Panel, x: Placed, line: Line, style: str) -> str:
    """A line with a dot at each load, and a whisker for its interval."""
    if not line.points:
        return ""
    spots = [(panel.left + x(point.load), panel.value(point)) for point in line.points]
    path = "L".join(f"{at:.1f} {panel.y(value.mean):.1f}" for at, value in spots)
    whiskers = "".join(
        f'<path class="whisker" d="M{at:.1f} {panel.y(value.lo):.1f}V{panel.y(value.hi):.1f}"/>'
        for at, value in spots
        if value.hi > value.lo
    )
    dots = "".join(
        f'<circle cx="{at:.1f}" cy="{panel.y(value.mean):.1f}" r="{3.6 if line.ours else 2.6}"/>'
        for at, value in spots
    )
    return f'<g {style}><title>{escape(line.name)}</title><path d="M{path}"/>{whiskers}{dots}</g>'


def _labels(panel: _Panel, lines: Sequence[Line], styles: dict[str, str]) -> list[str]:
    """Each rule's name beside the end of its line, moved apart where they would meet."""
    shown = [line for line in lines if line.points]
    ends = {line.name: panel.y(panel.value(line.points[-1]).mean) for line in shown}
    ordered = sorted(shown, key=lambda line: ends[line.name])
    heights = _apart([ends[line.name] for line in ordered], _HEIGHT - 10)
    edge = panel.left + _PANEL
    parts = []
    for line, height in zip(ordered, heights, strict=True):
        bend = f"M{edge - 14:.1f} {ends[line.name]:.1f}L{edge + 14:.1f} {height:.1f}h16"
        name = _text(edge + 35, height + 4, line.name, "label ours" if line.ours else "label")
        parts.append(f'<g {styles[line.name]}><path class="lead" d="{bend}"/></g>{name}')
    return parts


def _apart(wanted: Sequence[float], lowest: float) -> list[float]:
    """Ascending heights, at least a label's step from each other, none below `lowest`."""
    heights = list(wanted)
    for index, (before, _) in enumerate(pairwise(wanted), start=1):
        del before
        heights[index] = max(heights[index], heights[index - 1] + _LABEL_STEP)
    for index in range(len(heights) - 1, -1, -1):
        limit = lowest if index == len(heights) - 1 else heights[index + 1] - _LABEL_STEP
        heights[index] = min(heights[index], limit)
    return heights


def _styles(lines: Sequence[Line]) -> dict[str, str]:
    """A colour each, and where they are used up a dash as well; the first is for ours."""
    styles = {}
    others = 0
    for line in lines:
        if line.ours:
            styles[line.name] = 'class="line ours"'
            continue
        dash = _DASHES[others // _COLOURS % len(_DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        styles[line.name] = f'class="line c{others % _COLOURS}"{dashed}'
        others += 1
    return styles


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _head(title: str, lines: Sequence[Line]) -> str:
    longest = max(len(line.name) for line in lines)
    width = _LEFT + 2 * _PANEL + _GAP + _LABEL_ROOM + _LETTER * longest
    size = f'viewBox="0 0 {width:.0f} {_HEIGHT:.0f}" width="{width:.0f}" height="{_HEIGHT:.0f}"'
    names = ", ".join(line.name for line in lines)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(f'p99 and the share within the objective over load: {names}')}</desc>",
            f"<style>{_STYLE}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            _text(_LEFT, 34, title, "heading"),
        ]
    )


_LIGHT = ("#0072b2", "#b3541e", "#00795c", "#a8387a", "#7a6a00", "#5a4fcf", "#7d5a3c", "#5d6b78")
_DARK = ("#58b4f0", "#f29a5f", "#3fcfa4", "#ef8cc4", "#d9c64a", "#a99ffb", "#cda583", "#a5b3c1")


def _palette(colours: Sequence[str]) -> str:
    return "".join(f".c{index}{{color:{colour}}}" for index, colour in enumerate(colours))


_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#3c4652}"
    ".heading{font-size:17px;font-weight:600;fill:#12181f}.title{font-weight:600;fill:#12181f}"
    ".tick{fill:#5b6672}.end{text-anchor:end}.middle{text-anchor:middle}"
    ".paper{fill:#fff}.grid{stroke:#e3e7eb}.axis{stroke:#8a949e}"
    ".line path{fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round}"
    ".line circle{fill:currentColor}"
    ".line .whisker{stroke-width:1;opacity:.55;stroke-dasharray:none}"
    ".line .lead{stroke-width:1.2;opacity:.8}"
    ".line.ours{color:#d3122a}.line.ours path{stroke-width:3}.line.ours .whisker{stroke-width:1.4}"
    ".label.ours{font-weight:700;fill:#d3122a}" + _palette(_LIGHT) + "@media(prefers-color-scheme:"
    "dark){text{fill:#c3ccd5}.heading,.title{fill:#f2f5f7}.tick{fill:#9aa6b1}.paper{fill:#14181d}"
    ".grid{stroke:#2a3138}.axis{stroke:#6d7883}.line.ours{color:#ff5c6c}"
    ".label.ours{fill:#ff5c6c}" + _palette(_DARK) + "}"
)
