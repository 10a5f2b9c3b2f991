"""The geometry of charts: numbers in, rectangles and points out. The template `macros/charts.html`
draws them.

Attributes only and no style, so that the strict Content-Security-Policy holds; colours are classes
s0 to s5.
"""

import functools
import itertools
from dataclasses import dataclass, field

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 230, 0, 28, 26
MARKS_MAX = 7
MARK_ROOM = 17  # half of what the text below the first bar takes


@dataclass(frozen=True)
class Bar:
    """One rectangle.

    Of which series, where, and the sentence that a pointer or a screen reader gets.
    """

    series: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    """Everything to draw.

    `grid` of (y, text), `marks` of (x, text), `bars` or `lines`, and `rows` for the table.
    """

    label: str
    series: list[str]
    grid: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    rows: list[tuple[str, list[str]]]
    bars: list[Bar] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    empty: bool = False


def _ceiling(value: float) -> int | float:
    """The next round number at or above a value, whose half is round as well.

    Whole for values from 1 on.
    """
    if value <= 0:
        return 1
    step = 10 ** (len(str(int(value))) - 1) if value >= 1 else 0.1
    while step > value:
        step /= 10
    rounds = (1, 2, 4, 6, 8, 10) if step < 10 else (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10)
    return next(
        top for top in (round(n * step) if step >= 1 else n * step for n in rounds) if top >= value
    )


def _frame(label, series, points, top, write):
    plot = HEIGHT - TOP - BOTTOM
    grid = [
        (TOP + plot * (1 - half / 2), write(top * half // 2 if top >= 2 else top * half / 2))
        for half in (0, 1, 2)
    ]
    slot = (WIDTH - LEFT) / max(len(points), 1)
    every = -(-len(points) // MARKS_MAX) or 1
    marks = [
        (max(MARK_ROOM, round(LEFT + slot * (i + 0.5), 1)), name)
        for i, (name, _) in enumerate(points)
        if i % every == 0
    ]
    rows = [(name, [write(v) for v in values]) for name, values in points]
    return (
        {"label": label, "series": series, "grid": grid, "marks": marks, "rows": rows},
        slot,
        plot,
    )


def stacked_bars(label, points, series=("",), write=str) -> Chart:
    """Bars, one a point, stacked by series.

    In: what the chart is of; points [(name, [value of each series])]; the names of the series;
    `write` turns a value into text. Values are numbers of at least 0 (a negative one is drawn as 0,
    and written as it is).
    """
    series = list(series)
    tallest = max((sum(max(v, 0) for v in values) for _, values in points), default=0)
    top = _ceiling(tallest)
    parts, slot, plot = _frame(label, series, points, top, write)
    bars = []
    for i, (name, values) in enumerate(points):
        y = float(TOP + plot)
        for s, value in enumerate(values):
            height = plot * max(value, 0) / top
            y -= height
            if height:
                title = (
                    f"{name} · {series[s]}: {write(value)}"
                    if series[s]
                    else f"{name}: {write(value)}"
                )
                bars.append(
                    Bar(
                        s,
                        round(LEFT + slot * (i + 0.15), 1),
                        round(y, 1),
                        round(slot * 0.7, 1),
                        round(height, 1),
                        title,
                    )
                )
    return Chart(**parts, bars=bars, empty=tallest <= 0)


def _written(write, value) -> str:
    return "–" if value is None else write(value)


def _stretched(run: list[str], slot: float) -> list[str]:
    """A lone point as a short line, for a line of one point is not drawn."""
    if len(run) > 1:
        return run
    x, _, y = run[0].partition(",")
    return [f"{float(x) - slot / 4:.1f},{y}", f"{float(x) + slot / 4:.1f},{y}"]


def lines(label, points, series=("",), write=str) -> Chart:
    """Lines, one a series, over the same points as `stacked_bars` takes; None where there is no
    value, and the line has a gap."""
    tallest = max((v for _, values in points for v in values if v is not None), default=0)
    top = _ceiling(tallest)
    written = functools.partial(_written, write)
    parts, slot, plot = _frame(label, list(series), points, top, written)
    drawn = []
    for s in range(len(series)):
        at = [
            ""
            if values[s] is None
            else f"{LEFT + slot * (i + 0.5):.1f},{TOP + plot * (1 - max(values[s], 0) / top):.1f}"
            for i, (_, values) in enumerate(points)
        ]
        for known, run in itertools.groupby(at, key=bool):
            if known:
                drawn.append((s, " ".join(_stretched(list(run), slot))))
    return Chart(**parts, lines=drawn, empty=tallest <= 0)
