"""The figures of the HTML report, drawn by matplotlib as SVG that stands inside the page.

Text stays text and takes the page's own colour, so that figures can be read in light, dark and print. Rows
are marked with their number in the results table: names can be long, alike or hostile.
"""

import io
import re
from collections.abc import Callable
from itertools import cycle
from typing import Any

import msgspec
import numpy as np

from edgecnn.optional import require
from edgecnn.report import format
from edgecnn.report.format import Unit, plain
from edgecnn.report.page import Page, label, setting
from edgecnn.report.rows import Row

# Okabe and Ito's colours: they can be told apart with any colour vision, on white and on black.
_COLOURS = {
    "float32": "#8a8f98",
    "float16": "#56b4e9",
    "dynamic-int8": "#e69f00",
    "int8": "#009e73",
    "int16x8": "#cc79a7",
    "int8-qat": "#d55e00",
}
_OTHER_COLOUR = "#8a8f98"


class _Marker(msgspec.Struct, frozen=True):
    symbol: str
    name: str


_MARKERS = (_Marker("o", "circle"), _Marker("s", "square"), _Marker("D", "diamond"), _Marker("^", "triangle"))
# Drawn in these colours, replaced by the page's own afterwards.
_TEXT = "#010203"
_GRID = "#040506"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgecnn",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _TEXT,
    "text.parse_math": False,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_WIDTH = 5.4


class Key(msgspec.Struct, frozen=True):
    """One entry of the legend that all figures share."""

    number: str
    colour: str
    text: str


class Figure(msgspec.Struct, frozen=True):
    """A figure: its SVG, which carries ``title`` as its spoken name, and a caption."""

    title: str
    caption: str
    svg: str


class Figures(msgspec.Struct, frozen=True):
    """All figures of a page and the rows that appear in them."""

    figures: tuple[Figure, ...]
    keys: tuple[Key, ...]


def draw(page: Page) -> Figures:
    """The figures that the rows of ``page`` allow; none when nothing was measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    timed = tuple(row for row in page.rows if row.kind == "result" and row.setting == page.findings.setting)
    counted = tuple(row for row in timed if row.accuracy is not None)
    files = tuple({row.sha256: row for row in page.rows if row.size_bytes is not None}.values())
    where = "" if page.findings.setting is None else f" ({setting(page.findings.setting)})"
    figures = []
    if counted:
        shapes = zip(_runtimes(counted), cycle(_MARKERS), strict=False)
        legend = ", ".join(f"{shape.name} {plain(runtime)}" for runtime, shape in shapes)
        caption = (
            f"Accuracy against median latency{where}: up and to the left is better. "
            f"Bars are 95 % intervals. Shapes: {legend}."
        )
        svg = _svg("scatter", "Accuracy against latency", lambda plt: _scatter(plt, counted, page.unit))
        figures.append(Figure("Accuracy against latency", caption, svg))
    if timed:
        caption = (
            f"All samples of each row ÷ the row's own median{where}: how steady each row is, not how fast. "
            "Box from the 25th to the 75th percentile, whiskers from the 5th to the 95th; dots are the "
            "medians of the blocks."
        )
        svg = _svg("latency", "Spread of latency", lambda plt: _boxes(plt, timed))
        figures.append(Figure("Spread of latency", caption, svg))
    if files:
        svg = _svg("size", "Size of the files", lambda plt: _sizes(plt, files))
        figures.append(Figure("Size of the files", "Size of each model file, in KiB.", svg))
    shown = {row.number: row for row in (*timed, *files)}
    keys = tuple(Key(format.count(number), _colour(shown[number]), label(shown[number])) for number in sorted(shown))
    return Figures(tuple(figures), keys)


def _runtimes(rows: tuple[Row, ...]) -> list[str]:
    return sorted({row.runtime for row in rows if row.runtime is not None})


def _colour(row: Row) -> str:
    return _COLOURS.get(row.scheme or "", _OTHER_COLOUR)


def _scatter(plt: Any, rows: tuple[Row, ...], unit: Unit) -> Any:
    figure, axes = plt.subplots(figsize=(_WIDTH, 4.2), layout="constrained")
    markers = dict(zip(_runtimes(rows), cycle(_MARKERS), strict=False))
    times = []
    places = cycle(((7, 5), (-14, -13), (7, -13), (-14, 5)))  # of numbers around points, as many points are close
    for row, place in zip(rows, places, strict=False):
        if row.timing is None or row.accuracy is None or row.runtime is None:
            continue
        time = row.timing.median * unit.per_second
        times.append(time)
        share, (low, high) = row.accuracy.value, row.accuracy.interval
        axes.errorbar(
            time,
            100 * share,
            xerr=[
                [max(0.0, time - row.timing.low * unit.per_second)],
                [max(0.0, row.timing.high * unit.per_second - time)],
            ],
            yerr=[[100 * (share - low)], [100 * (high - share)]],
            fmt=markers[row.runtime].symbol,
            color=_colour(row),
            elinewidth=1,
            markersize=7,
        )
        axes.annotate(
            format.count(row.number),
            (time, 100 * share),
            place,
            textcoords="offset points",
            fontweight="bold",
        )
    if max(times) > 5 * min(times):
        axes.set_xscale("log")
    _number_axis(axes.xaxis)
    axes.set_xlabel(f"median latency, {unit.name}")
    axes.set_ylabel("accuracy, %")
    return figure


def _boxes(plt: Any, rows: tuple[Row, ...]) -> Any:
    figure, axes = plt.subplots(figsize=(_WIDTH, 1.1 + 0.36 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        if row.measurement is None:
            continue
        samples = np.array(row.measurement.samples)
        middle = float(np.median(samples))
        p5, p25, p75, p95 = (float(value) / middle for value in np.percentile(samples, (5, 25, 75, 95)))
        line = {"color": _colour(row), "linewidth": 1.4}
        axes.bxp(
            [{"med": 1.0, "q1": p25, "q3": p75, "whislo": p5, "whishi": p95}],
            positions=[place],
            widths=0.5,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": _TEXT, "linewidth": 1.6},
        )
        blocks = [float(np.median(block)) / middle for block in row.measurement.blocks]
        axes.plot(blocks, [place] * len(blocks), ".", color=_TEXT, markersize=3.5, alpha=0.6)
    _number_axis(axes.xaxis)
    axes.set_xlabel("time ÷ the row's own median")
    _row_axis(axes, rows)
    return figure


def _sizes(plt: Any, rows: tuple[Row, ...]) -> Any:
    figure, axes = plt.subplots(figsize=(_WIDTH, 1.1 + 0.36 * len(rows)), layout="constrained")
    sizes = [(row.size_bytes or 0) / 1024 for row in rows]
    axes.barh(range(len(rows)), sizes, color=[_colour(row) for row in rows], height=0.62)
    for place, row in enumerate(rows):
        axes.annotate(
            format.kib(row.size_bytes or 0),
            (sizes[place], place),
            (4, 0),
            textcoords="offset points",
            verticalalignment="center",
        )
    axes.set_xlim(0, max(sizes) * 1.18 or 1)
    _number_axis(axes.xaxis)
    axes.set_xlabel("size, KiB")
    _row_axis(axes, rows)
    return figure


def _row_axis(axes: Any, rows: tuple[Row, ...]) -> None:
    axes.set_yticks(range(len(rows)), [format.count(row.number) for row in rows], fontweight="bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _number_axis(axis: Any) -> None:
    """At most five plain numbers along an axis, also a logarithmic one: no powers of ten."""
    ticker = require("matplotlib.ticker")
    if axis.get_scale() == "log":
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=8))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_major_locator(ticker.MaxNLocator(5))
    axis.set_major_formatter(lambda value, _: format.tick(value))


def _svg(name: str, title: str, drawing: Callable[[Any], Any]) -> str:
    """The SVG element that ``drawing`` makes, with ids of its own and the page's colours."""
    matplotlib = require("matplotlib")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot")
    with matplotlib.rc_context({**_STYLE, "svg.id": name}):
        figure = drawing(plt)
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
        plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # several figures share one page, and ids are the page's
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace(_TEXT, "currentColor").replace(_GRID, "var(--line)")
    return re.sub(r"<svg\b", f'<svg role="img" aria-label="{title}"', text, count=1).strip()
