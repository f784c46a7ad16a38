"""The figures of the HTML report, drawn by matplotlib as inline SVG.

Text stays text and uses the page's colours, so figures are readable in light mode, dark mode and print. Rows are
labelled with their number in the results table, since names can be long, similar or hostile. Every point and bar has
its numbers in a ``<title>``, which browsers show on hover, and the class ``mark`` for the page's script.
"""

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from typing import Any

import msgspec
import numpy as np

from edgecnn.optional import require
from edgecnn.records import ColdStart, Emulated, Estimate, LayerErrors, Measurement, Summary
from edgecnn.report import units
from edgecnn.report.grid import label, setting
from edgecnn.report.page import Page, shared_model
from edgecnn.report.rows import BaselineComparison, MeasuredRow, ResultRow
from edgecnn.report.tables import cold_total
from edgecnn.report.units import Unit

# Okabe and Ito's palette: distinguishable with any colour vision, on white and on black.
_COLOURS = {
    "float32": "#8a8f98",
    "float16": "#56b4e9",
    "dynamic-int8": "#e69f00",
    "int8": "#009e73",
    "int16x8": "#cc79a7",
    "int8-qat": "#d55e00",
}
_OTHER_COLOUR = "#8a8f98"
_PARTS = ("#8a8f98", "#56b4e9", "#e69f00")
_BAD = "#d55e00"
_OWN, _SUMMED = "#009e73", "#56b4e9"


class _Marker(msgspec.Struct, frozen=True):
    symbol: str
    name: str


_MARKERS = (_Marker("o", "circle"), _Marker("s", "square"), _Marker("D", "diamond"), _Marker("^", "triangle"))
_LINES = ("-", "--", ":", "-.")
# Placeholder colours, replaced by the page's colours after drawing.
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
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_WIDTH = 5.4
_NAME = 22
_TIP = re.compile(r'<g id="tip(\d+)">')


class Key(msgspec.Struct, frozen=True):
    """One entry of the shared legend of all figures."""

    number: str
    colour: str
    text: str


class Figure(msgspec.Struct, frozen=True):
    """A figure: its SVG, whose accessible name is ``title``, and a caption."""

    title: str
    caption: str
    svg: str


class Figures(msgspec.Struct, frozen=True):
    """All figures of a page, and the legend of their rows.

    ``layers`` show the errors inside files, ``emulated`` the costs on emulated processors.
    """

    figures: tuple[Figure, ...]
    layers: tuple[Figure, ...]
    emulated: tuple[Figure, ...]
    keys: tuple[Key, ...]


class _Canvas:
    """A matplotlib figure being drawn, with the tooltips of its marks."""

    def __init__(self, plt: Any, shared: str) -> None:
        self.plt = plt
        self.shared = shared
        self.tips: list[str] = []

    def axes(self, height: float, rows: int = 1) -> Any:
        """Axes of the page's width, ``rows`` of them stacked vertically."""
        _, axes = self.plt.subplots(rows, 1, figsize=(_WIDTH, height), layout="constrained", squeeze=False)
        return axes[0][0] if rows == 1 else tuple(axes[:, 0])

    def add_tip(self, artist: Any, text: str) -> None:
        """Give ``artist`` the tooltip ``text``."""
        artist.set_gid(f"tip{len(self.tips)}")
        self.tips.append(text)

    def name_rows(self, axes: Any, rows: Sequence[ResultRow]) -> None:
        """Label the left axis with the rows, from the top."""
        _name_places(axes, [f"{_harmless(row.name.removeprefix(self.shared))}  {row.number}" for row in rows])


def draw(page: Page, most: int | None = None) -> Figures:
    """The first ``most`` figures for the rows of ``page``, by default all; none if nothing was measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    results = tuple(row for row in page.rows if isinstance(row, ResultRow))
    timed = tuple(row for row in results if row.setting == page.findings.setting)
    counted = tuple(row for row in timed if row.accuracy is not None)
    both = [(row, row.end_to_end) for row in timed if row.end_to_end is not None]
    started = [(row, row.cold_start) for row in timed if row.cold_start is not None]
    weighed = [(row, row.memory_bytes) for row in timed if row.memory_bytes is not None]
    powered = [(row, row.joules) for row in timed if row.joules is not None]
    divided = [(one, one.found.latency) for one in page.versus if one.found.latency is not None and one.row in timed]
    files = tuple({row.sha256: row for row in reversed((*timed, *results))}.values())[::-1]
    where = "" if page.findings.setting is None else f" ({setting(page.findings.setting)})"
    unit = page.unit
    hollow = " Hollow: outside tolerance, not on the front." if any(map(_is_outside, counted)) else ""
    shared = shared_model(page)
    figures: list[Figure] = []

    def add(name: str, title: str, caption: str, rows: Sequence[object], drawing: Callable[[_Canvas], None]) -> None:
        if rows and (most is None or len(figures) < most):
            figures.append(Figure(title, caption, _svg(page.letter + name, title, drawing, shared)))

    add(
        "scatter",
        "Accuracy against latency",
        f"Accuracy against median latency{where}: up and to the left is better. Bars are 95 % intervals. "
        f"Shapes: {_shapes(counted)}. {_front(page.findings.front)}{hollow}",
        counted,
        lambda canvas: _scatter(canvas, counted, page.findings.front, unit),
    )
    add(
        "latency",
        "Spread of latency",
        f"All samples of each row ÷ the row's own median{where}. This shows spread, not speed. "
        "Box: 25th to 75th percentile; whiskers: 5th to 95th; dots: medians of the blocks.",
        timed,
        lambda canvas: _boxes(canvas, timed),
    )
    add(
        "endtoend",
        "Invoke alone and end to end",
        f"Median time of invoke alone (filled) and of encode, invoke and decode together (hollow){where}; the line "
        "between them is the time of encode and decode. Bars are 95 % intervals.",
        both,
        lambda canvas: _end_to_end(canvas, both, unit),
    )
    add(
        "baseline",
        "Time against the float baselines",
        f"Median time ÷ median time of each float baseline at the same batch{where}: below 1 is faster. "
        f"Shapes: {_listed_shapes(_baseline_names(one for one, _ in divided))}. Lines are 95 % intervals.",
        divided,
        lambda canvas: _against(canvas, divided),
    )
    add(
        "start",
        "Cold start",
        f"Median time of a fresh process to its first output{where}, in ms: import of the runtime, load of the file, "
        "first inference. A bar with » leaves the axis.",
        started,
        lambda canvas: _cold_starts(canvas, started),
    )
    add(
        "memory",
        "Memory",
        f"Peak resident memory above the empty process{where}; dark marks are the runtime's arena, if known. A bar "
        "with » leaves the axis.",
        weighed,
        lambda canvas: _memory(canvas, weighed),
    )
    add(
        "energy",
        "Energy",
        f"Energy per inference{where}, from a counter that covers the whole processor package.",
        powered,
        lambda canvas: _bars(
            canvas,
            [row for row, _ in powered],
            [1000 * joules for _, joules in powered],
            "energy, mJ per inference",
            lambda place: units.millijoules(powered[place][1]),
        ),
    )
    for name, key, noun in (("threads", _by_threads, "threads"), ("batch", _by_batch, "batch")):
        curves = _curves(results, key)
        add(
            name,
            f"{noun.capitalize()}",
            f"Median latency of a call and images per second against {noun}; bars are 95 % intervals. "
            f"Lines: {_listed(_curve_name(line) for line in curves)}.",
            curves,
            lambda canvas, curves=curves, noun=noun: _sweep(canvas, curves, noun, unit),  # type: ignore[misc]
        )
    add(
        "size",
        "Size of the files",
        "Size of each model file, in KiB.",
        files,
        lambda canvas: _bars(
            canvas,
            files,
            [row.size_bytes / 1024 for row in files],
            "size, KiB",
            lambda place: units.kib(files[place].size_bytes),
        ),
    )
    layers = tuple(
        Figure(
            f"Errors inside {errors.artifact}",
            "Signal-to-noise ratio of each int8 tensor in graph order, in dB: longer is better; 6 dB are one bit. "
            "Upper bar: the layer alone; lower bar: all layers up to it. Orange with “!”: the scale is off, a better "
            "scale would gain 2 dB or more. A tensor without error has no bar.",
            _svg(
                f"{page.letter}layers{number}",
                f"Errors inside {errors.artifact}",
                lambda canvas, errors=errors: _layers(canvas, errors),  # type: ignore[misc]
                shared,
            ),
        )
        for number, errors in enumerate(page.layer_errors)
        if errors.layers
    )
    emulated: tuple[Figure, ...] = ()
    if page.costs:
        title = "Instructions of one inference"
        caption = "Executed by QEMU, in millions: fewer is better on the same processor. They are not timings."
        emulated = (
            Figure(title, caption, _svg(f"{page.letter}emulated", title, lambda c: _emulated(c, page), shared)),
        )
    shown = {row.number: row for row in (*files, *timed)}
    keys = tuple(Key(units.count(number), colour_of(shown[number]), label(shown[number])) for number in sorted(shown))
    return Figures(tuple(figures), layers, emulated, keys)


def bars(name: str, title: str, caption: str, axis: str, values: Sequence[tuple[str, float, str]]) -> Figure:
    """A figure of its own with a bar for each of ``values``: label, length and the text after it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def drawing(canvas: _Canvas) -> None:
        axes = canvas.axes(_height(values))
        lengths = [length for _, length, _ in values]
        drawn = axes.barh(range(len(values)), lengths, color=_COLOURS["int8"], height=0.62)
        for bar, (what, _, text) in zip(drawn, values, strict=True):
            canvas.add_tip(bar, f"{what}: {text}")
        _number_bars(axes, lengths, axis, lambda place: values[place][2])
        _name_places(axes, [_harmless(what) for what, _, _ in values])

    return Figure(title, caption, _svg(name, title, drawing, ""))


def samples(name: str, title: str, caption: str, measurement: Measurement, unit: Unit) -> Figure:
    """A figure of its own with every sample of ``measurement`` in the order of time.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def drawing(canvas: _Canvas) -> None:
        axes = canvas.axes(2.6)
        axes.plot([sample * unit.per_second for sample in measurement.samples_s], ".", color=_COLOURS["int8"])
        axes.set_xlabel("sample")
        axes.set_ylabel(f"time, {unit.name}")
        _number_axis(axes.yaxis)

    return Figure(title, caption, _svg(name, title, drawing, ""))


def _runtimes(rows: Iterable[ResultRow]) -> list[str]:
    return sorted({row.runtime for row in rows})


def _shapes(rows: Iterable[ResultRow]) -> str:
    return _listed_shapes(_runtimes(rows))


def _listed_shapes(names: Iterable[str]) -> str:
    return ", ".join(f"{shape.name} {name}" for name, shape in zip(names, cycle(_MARKERS), strict=False))


def _front(rows: Sequence[ResultRow]) -> str:
    names = _listed(f"{units.count(row.number)} ({label(row)})" for row in rows)
    return f"The line is the Pareto front: {names}." if rows else ""


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _is_outside(row: ResultRow) -> bool:
    return bool(row.parities) and not row.within_tolerance


def colour_of(row: MeasuredRow) -> str:
    """The colour of a row's scheme, as ``#rrggbb``."""
    return _COLOURS.get(row.scheme, _OTHER_COLOUR)


def _harmless(name: str) -> str:
    """The end of a name, as long as fits beside an axis, in printable ASCII; names differ at the end."""
    name = "".join(char if char.isascii() and char.isprintable() else "?" for char in name)
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def _timing_tip(timing: Summary, unit: Unit) -> str:
    return f"{units.time_interval(timing.median, timing.low, timing.high, unit)} {unit.name}"


def _estimate_tip(estimate: Estimate) -> str:
    return str(units.ratio_interval(estimate.value, estimate.low, estimate.high))


def _name_tip(row: ResultRow) -> str:
    return f"{units.count(row.number)}: {label(row)} [{setting(row.setting)}]"


def _scatter(canvas: _Canvas, rows: Sequence[ResultRow], front: Sequence[ResultRow], unit: Unit) -> None:
    axes = canvas.axes(4.2)
    markers = dict(zip(_runtimes(rows), cycle(_MARKERS), strict=False))
    times = []
    spots: list[tuple[float, float, str]] = []
    for row in rows:
        if row.accuracy is None:
            continue
        time = row.timing.median * unit.per_second
        times.append(time)
        share, (low, high) = row.accuracy.value, row.accuracy.interval
        points = axes.errorbar(
            time,
            100 * share,
            xerr=_reach(time, row.timing.low * unit.per_second, row.timing.high * unit.per_second),
            yerr=_reach(100 * share, 100 * low, 100 * high),
            fmt=markers[row.runtime].symbol,
            color=colour_of(row),
            markerfacecolor="none" if _is_outside(row) else colour_of(row),
            elinewidth=1,
            markersize=8,
        )
        for bar in points.lines[2]:
            bar.set_alpha(0.5)
        on_front = ", on the Pareto front" if row in front else ""
        canvas.add_tip(
            points.lines[0],
            f"{_name_tip(row)}: {units.accuracy(row.accuracy)} %, {_timing_tip(row.timing, unit)}{on_front}",
        )
        spots.append((time, 100 * share, units.count(row.number)))
    if front:
        axes.plot(
            [row.timing.median * unit.per_second for row in front],
            [100 * row.accuracy.value for row in front if row.accuracy is not None],
            drawstyle="steps-post",
            color=_TEXT,
            linewidth=1.2,
            linestyle=(0, (5, 2)),
            zorder=1,
            label="Pareto front",
        )
        axes.legend(loc="lower right")
    _time_axis(axes, times)
    axes.set_xlabel(f"median latency, {unit.name}")
    axes.set_ylabel(units.metric(row.accuracy for row in rows))
    axes.margins(x=0.08)
    _number_spots(axes, spots)


def _number_spots(axes: Any, spots: Sequence[tuple[float, float, str]]) -> None:
    """Place each number near its point, with the least overlap, and not nearer to another point."""
    axes.figure.draw_without_rendering()
    scale = axes.figure.dpi / 72
    points = [tuple(axes.transData.transform(spot[:2]) / scale) for spot in spots]
    taken = [(x, y, 5.0) for x, y in points]
    for (x, y), spot in zip(points, spots, strict=True):
        width = 3.5 * len(spot[2])
        around = [
            (dx * (reach + width), dy * reach)
            for reach in (10, 18, 27, 36)
            for dx, dy in ((1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (1, 0), (-1, 0), (0, 1.1), (0, -1.1))
        ]
        others = [(ox, oy) for ox, oy in points if math.hypot(ox - x, oy - y) > 8]
        costs = []
        for dx, dy in around:
            covered = sum(max(0.0, width + 6 + size - math.hypot(x + dx - ox, y + dy - oy)) for ox, oy, size in taken)
            far = math.hypot(dx, dy)
            mistaken = any(math.hypot(x + dx - ox, y + dy - oy) < far for ox, oy in others)
            costs.append(covered + 0.12 * far + 50 * mistaken)
        dx, dy = around[costs.index(min(costs))]
        taken.append((x + dx, y + dy, width))
        axes.annotate(
            spot[2], spot[:2], (dx, dy), textcoords="offset points", ha="center", va="center", fontweight="bold"
        )


def _reach(value: float, low: float, high: float) -> list[list[float]]:
    """The lengths of an interval below and above ``value``, for error bars; 0 if the interval is unknown."""
    if not math.isfinite(high):
        return [[0.0], [0.0]]
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _time_axis(axes: Any, times: Sequence[float]) -> None:
    if max(times) > 5 * min(times) > 0:
        axes.set_xscale("log")
    _number_axis(axes.xaxis)


def _boxes(canvas: _Canvas, rows: Sequence[ResultRow]) -> None:
    axes = canvas.axes(_height(rows))
    for place, row in enumerate(rows):
        samples = np.array(row.measurement.samples_s)
        middle = max(float(np.median(samples)), 1e-9)  # a nanosecond: the clock's unit
        p5, p25, p75, p95 = (float(value) / middle for value in np.percentile(samples, (5, 25, 75, 95)))
        line = {"color": colour_of(row), "linewidth": 1.4}
        drawn = axes.bxp(
            [{"med": 1.0, "q1": p25, "q3": p75, "whislo": p5, "whishi": p95}],
            positions=[place],
            widths=0.5,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"edgecolor": colour_of(row), "facecolor": colour_of(row) + "33", "linewidth": 1.4},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": _TEXT, "linewidth": 1.6},
        )
        tip = ", ".join(
            f"{name} {units.ratio(value)}" for name, value in (("p5", p5), ("p25", p25), ("p75", p75), ("p95", p95))
        )
        canvas.add_tip(drawn["boxes"][0], f"{_name_tip(row)}: {tip} times its median")
        blocks = [float(np.median(np.array(block) / 1e9)) / middle for block in row.measurement.blocks_ns]
        axes.plot(blocks, [place] * len(blocks), ".", color=_TEXT, markersize=3.5, alpha=0.6)
    _number_axis(axes.xaxis)
    axes.set_xlabel("time ÷ the row's own median")
    canvas.name_rows(axes, rows)


def _bars(
    canvas: _Canvas, rows: Sequence[ResultRow], values: Sequence[float], axis: str, text: Callable[[int], str]
) -> None:
    axes = canvas.axes(_height(rows))
    bars = axes.barh(range(len(rows)), values, color=[colour_of(row) for row in rows], height=0.62)
    for place, (row, bar) in enumerate(zip(rows, bars, strict=True)):
        canvas.add_tip(bar, f"{_name_tip(row)}: {axis.partition(',')[0]} {text(place)}{axis.partition(',')[2]}")
    _bar_axis(canvas, axes, rows, values, axis, text)


def _end_to_end(canvas: _Canvas, both: Sequence[tuple[ResultRow, Summary]], unit: Unit) -> None:
    axes = canvas.axes(_height(both))
    times = []
    for place, (row, whole) in enumerate(both):
        pair = []
        for timing, filled, what in ((row.timing, True, "invoke alone"), (whole, False, "end to end")):
            pair.append(timing.median * unit.per_second)
            points = axes.errorbar(
                pair[-1],
                place,
                xerr=_reach(pair[-1], timing.low * unit.per_second, timing.high * unit.per_second),
                fmt="o",
                color=colour_of(row),
                markerfacecolor=colour_of(row) if filled else "none",
                elinewidth=1,
                markersize=7,
            )
            canvas.add_tip(points.lines[0], f"{_name_tip(row)}: {what} {_timing_tip(timing, unit)}")
        axes.plot(pair, [place, place], color=colour_of(row), linewidth=1.6, zorder=1)
        times += pair
    _time_axis(axes, times)
    axes.set_xlabel(f"median time, {unit.name}")
    canvas.name_rows(axes, [row for row, _ in both])


def _cold_starts(canvas: _Canvas, started: Sequence[tuple[ResultRow, ColdStart]]) -> None:
    axes = canvas.axes(_height(started) + 0.4)
    ends = []
    for place, (row, cold) in enumerate(started):
        start = 0.0
        for colour, what, seconds in zip(
            _PARTS, ("import", "load", "first inference"), (cold.import_s, cold.load_s, cold.first_s), strict=True
        ):
            (bar,) = axes.barh(
                place, 1000 * seconds, left=start, color=colour, height=0.62, label=what if not place else None
            )
            canvas.add_tip(bar, f"{_name_tip(row)}: {what} {units.duration(seconds)}")
            start += 1000 * seconds
        ends.append(start)
    totals = [units.time(cold_total(cold), units.MILLISECONDS) for _, cold in started]
    _bar_axis(canvas, axes, [row for row, _ in started], ends, "time, ms", lambda place: totals[place])
    _legend_above(axes, 3)


def _memory(canvas: _Canvas, weighed: Sequence[tuple[ResultRow, int]]) -> None:
    rows = [row for row, _ in weighed]
    axes = canvas.axes(_height(rows))
    sizes = [size / 1024**2 for _, size in weighed]
    bars = axes.barh(range(len(rows)), sizes, color=[colour_of(row) for row in rows], height=0.62)
    for place, ((row, size), bar) in enumerate(zip(weighed, bars, strict=True)):
        memory = row.measurement.memory
        arena = None if memory is None else memory.arena_bytes
        tip = f"{_name_tip(row)}: {units.mib(size)} MiB above the empty process"
        canvas.add_tip(bar, tip if arena is None else f"{tip}, the runtime's arena {units.kib(arena)} KiB")
        if arena is not None:
            axes.plot([arena / 1024**2] * 2, [place - 0.31, place + 0.31], color=_TEXT, linewidth=2)
    title = "memory above the empty process, MiB"
    _bar_axis(canvas, axes, rows, sizes, title, lambda place: units.mib(weighed[place][1]))


def _baseline_names(beside: Iterable[BaselineComparison]) -> list[str]:
    return list(dict.fromkeys(one.baseline.name for one in beside))


def _emulated(canvas: _Canvas, page: Page) -> None:
    costs = page.costs
    axes = canvas.axes(_height(costs))
    colours = {row.sha256: colour_of(row) for row in page.rows if isinstance(row, MeasuredRow)}
    bars = axes.barh(
        range(len(costs)),
        [cost.instructions / 1e6 for cost in costs],
        color=[colours.get(cost.artifact_sha256, _OTHER_COLOUR) for cost in costs],
        height=0.62,
    )
    for cost, bar in zip(costs, bars, strict=True):
        canvas.add_tip(bar, f"{cost.artifact} on {cost.target}: {units.count(cost.instructions)} instructions")
    ends = [cost.instructions / 1e6 for cost in costs]
    _number_bars(axes, ends, "instructions, millions", lambda place: units.millions(costs[place].instructions))
    _name_places(axes, [_harmless(_emulated_name(cost, canvas.shared)) for cost in costs])


def _emulated_name(cost: Emulated, shared: str) -> str:
    return f"{cost.artifact.removeprefix(shared)}  {cost.target.removeprefix('cortex-')}"


def _against(canvas: _Canvas, divided: Sequence[tuple[BaselineComparison, Estimate]]) -> None:
    rows = tuple({one.row.number: one.row for one, _ in divided}.values())
    axes = canvas.axes(_height(rows))
    names = _baseline_names(one for one, _ in divided)
    spread = 0.5 / max(1, len(names) - 1) if len(names) > 1 else 0.0
    ratios = [1.0]
    for one, time in divided:
        number = names.index(one.baseline.name)
        place = rows.index(one.row) + (number * spread - 0.25 if spread else 0.0)
        ratios.append(time.value)
        points = axes.errorbar(
            time.value,
            place,
            xerr=_reach(time.value, time.low, time.high),
            fmt=_MARKERS[number % len(_MARKERS)].symbol,
            color=colour_of(one.row),
            elinewidth=1.2,
            markersize=7,
        )
        canvas.add_tip(
            points.lines[0],
            f"{_name_tip(one.row)}: {_estimate_tip(time)} times {names[number]}",
        )
    axes.axvline(1, color=_TEXT, linewidth=1)
    _time_axis(axes, ratios)
    axes.set_xlabel("time ÷ the baseline's")
    canvas.name_rows(axes, rows)


def _by_threads(row: ResultRow) -> tuple[object, int]:
    """The key of the row's curve over threads, and the row's number of threads."""
    where = row.setting
    return (row.sha256, row.name, row.runtime, where.device, where.batch), where.threads


def _by_batch(row: ResultRow) -> tuple[object, int]:
    where = row.setting
    return (row.sha256, row.name, row.runtime, where.device, where.threads), where.batch


_Curve = tuple[tuple[int, ResultRow], ...]


def _curves(rows: Sequence[ResultRow], key: Callable[[ResultRow], tuple[object, int]]) -> tuple[_Curve, ...]:
    """Groups of two or more rows that differ in one setting only, sorted by that setting."""
    lines: dict[object, dict[int, ResultRow]] = {}
    for row in rows:
        alike, size = key(row)
        lines.setdefault(alike, {}).setdefault(size, row)
    return tuple(tuple(sorted(line.items(), key=lambda point: point[0])) for line in lines.values() if len(line) > 1)


def _curve_name(line: _Curve) -> str:
    numbers = ", ".join(units.count(row.number) for _, row in line)
    return f"{label(line[0][1])} (rows {numbers})"


def _sweep(canvas: _Canvas, curves: Sequence[_Curve], noun: str, unit: Unit) -> None:
    upper, lower = canvas.axes(5.6, rows=2)
    markers = dict(zip(_runtimes(row for line in curves for _, row in line), cycle(_MARKERS), strict=False))
    styles = dict(zip(markers, cycle(_LINES), strict=False))
    for line in curves:
        first = line[0][1]
        look = {"color": colour_of(first), "linestyle": styles[first.runtime], "linewidth": 1.3}
        sizes = [size for size, _ in line]
        timings = [row.timing for _, row in line]
        upper.plot(sizes, [timing.median * unit.per_second for timing in timings], **look)
        lower.plot(sizes, [timing.throughput for timing in timings], **look)
        for size, row in line:
            timing = row.timing
            time = timing.median * unit.per_second
            look = {"color": colour_of(row), "marker": markers[row.runtime].symbol, "markersize": 7}
            upper.errorbar(
                size,
                time,
                yerr=_reach(time, timing.low * unit.per_second, timing.high * unit.per_second),
                color=colour_of(row),
                elinewidth=1,
            )
            (above,) = upper.plot(size, time, **look)
            (below,) = lower.plot(size, timing.throughput, **look)
            canvas.add_tip(above, f"{_name_tip(row)}: {_timing_tip(timing, unit)}")
            canvas.add_tip(below, f"{_name_tip(row)}: {units.rate(timing.throughput)} images/s")
        upper.annotate(
            units.count(line[-1][1].number),
            (sizes[-1], timings[-1].median * unit.per_second),
            (7, -4),
            textcoords="offset points",
            fontweight="bold",
        )
    places = sorted({size for line in curves for size, _ in line})
    for axes, axis in ((upper, f"median latency, {unit.name}"), (lower, "images/s")):
        if noun == "batch":
            axes.set_xscale("log", base=2)
        axes.set_xticks(places, [units.count(place) if place else "default" for place in places])
        axes.minorticks_off()
        axes.set_ylabel(axis)
        axes.set_yscale("log")
        _number_axis(axes.yaxis)
        axes.set_xlabel(noun)


def _layers(canvas: _Canvas, errors: LayerErrors) -> None:
    layers = sorted(errors.layers, key=lambda layer: -1 if layer.position is None else layer.position)
    axes = canvas.axes(1.2 + 0.42 * len(layers))
    longest = 1.0
    for place, layer in enumerate(layers):
        what = "input" if layer.position is None else f"{layer.position} {layer.operator}"
        off = ", its scale is off" if layer.scale_is_off else ""
        for value, offset, colour, part in (
            (layer.own_snr_db, -0.2, _BAD if layer.scale_is_off else _OWN, "alone"),
            (layer.snr_db, 0.2, _SUMMED, "all layers up to it"),
        ):
            if value is None:
                continue
            longest = max(longest, value)
            (bar,) = axes.barh(
                place + offset, value, color=colour, height=0.36, hatch="///" if colour == _BAD else None
            )
            canvas.add_tip(bar, f"{what}: {part} {units.decibels(value)} dB{off}")
        ends = max(0.0, layer.own_snr_db or 0.0)
        mark = " !" if layer.scale_is_off else ""
        text = units.decibels(layer.own_snr_db) + mark
        _annotate(axes, text, ends, place - 0.2)
    axes.set_xlim(right=longest * 1.2)
    _number_axis(axes.xaxis)
    axes.set_xlabel("signal-to-noise ratio, dB")
    names = ["input" if layer.position is None else f"{layer.position} {layer.operator}" for layer in layers]
    _name_places(axes, [_harmless(name) for name in names])


def _height(rows: Sequence[object], each: float = 0.36) -> float:
    return 1.1 + each * len(rows)


def _annotate(axes: Any, text: str, end: float, place: float, **style: Any) -> None:
    """Write a number after the end of a bar."""
    axes.annotate(text, (end, place), (4, 0), textcoords="offset points", verticalalignment="center", **style)


def _bar_axis(
    canvas: _Canvas, axes: Any, rows: Sequence[ResultRow], ends: Sequence[float], title: str, text: Callable[[int], str]
) -> None:
    _number_bars(axes, ends, title, text)
    canvas.name_rows(axes, rows)


def _number_bars(axes: Any, ends: Sequence[float], title: str, text: Callable[[int], str]) -> None:
    """Write ``text(place)`` after the end of each bar; a bar that is much too long leaves the axis."""
    longest = _longest_shown(ends)
    axes.set_xlim(0, longest * 1.2 or 1)
    for place, end in enumerate(ends):
        if end <= longest * 1.2:
            _annotate(axes, text(place), end, place)
        else:
            over = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            _annotate(axes, f"» {text(place)}", longest, place, bbox=over)
    _number_axis(axes.xaxis)
    axes.set_xlabel(title)


def _longest_shown(ends: Sequence[float]) -> float:
    """Where an axis of bars ends: at the longest, unless a few are three times as long as the next and flatten it."""
    ordered = sorted(ends, reverse=True)
    cuts = [place for place in range(1, len(ordered) // 3 + 1) if ordered[place - 1] > 3 * ordered[place] > 0]
    return ordered[cuts[-1]] if cuts else ordered[0]


def _legend_above(axes: Any, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0, handlelength=1)


def _name_places(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _number_axis(axis: Any) -> None:
    """Label an axis with a few plain numbers; no powers of ten on a logarithmic axis."""
    ticker = require("matplotlib.ticker")
    if axis.get_scale() == "log":
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=8))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_major_locator(ticker.MaxNLocator(5))
    axis.set_major_formatter(lambda value, _: units.tick(value))


def _svg(name: str, title: str, drawing: Callable[[_Canvas], None], shared: str) -> str:
    """The SVG element that ``drawing`` makes, with unique ids, the page's colours and the tooltips of marks."""
    matplotlib = require("matplotlib")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot")
    # ignore any matplotlibrc: it is searched for in the current folder first, and could enable LaTeX
    with plt.style.context(["default", {**_STYLE, "svg.id": name}]):
        canvas = _Canvas(plt, shared)
        drawing(canvas)
        figure = plt.gcf()
        out = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
        plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _TIP.sub(lambda tip: f'<g class="mark"><title>{html.escape(canvas.tips[int(tip[1])])}</title>', text)
    # several figures share one page, so ids must be unique
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace(_TEXT, "currentColor").replace(_GRID, "var(--line)")
    return re.sub(r"<svg\b", lambda _: f'<svg role="img" aria-label="{html.escape(title)}"', text, count=1).strip()
