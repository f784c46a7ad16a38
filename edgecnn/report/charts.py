"""The figures of the HTML report, drawn by matplotlib as SVG that stands inside the page.

Text stays text and takes the page's own colour, so that figures can be read in light, dark and print. Rows carry
their number in the results table, since names can be long, alike or hostile. Every point and bar has its numbers in
a ``<title>``, which browsers show on hovering, and the class ``mark``, by which the page's script finds it.
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
from edgecnn.records import Emulated, Estimate, LayerErrors, Summary
from edgecnn.report import units
from edgecnn.report.grid import label, setting
from edgecnn.report.page import Page, shared_model
from edgecnn.report.rows import BaselineComparison, Row
from edgecnn.report.tables import cold_total
from edgecnn.report.units import Unit

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
_PARTS = ("#8a8f98", "#56b4e9", "#e69f00")
_BAD = "#d55e00"
_OWN, _SUMMED = "#009e73", "#56b4e9"


class _Marker(msgspec.Struct, frozen=True):
    symbol: str
    name: str


_MARKERS = (_Marker("o", "circle"), _Marker("s", "square"), _Marker("D", "diamond"), _Marker("^", "triangle"))
_LINES = ("-", "--", ":", "-.")
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
    """All figures of a page and the rows that appear in them; ``layers`` are of the insides of files, ``emulated`` of
    emulated processors."""

    figures: tuple[Figure, ...]
    layers: tuple[Figure, ...]
    emulated: tuple[Figure, ...]
    keys: tuple[Key, ...]


class _Canvas:
    """A matplotlib figure under way, with the numbers behind each mark."""

    def __init__(self, plt: Any, shared: str) -> None:
        self.plt = plt
        self.shared = shared
        self.tips: list[str] = []

    def axes(self, height: float, rows: int = 1) -> Any:
        """Axes of the page's width, ``rows`` of them above each other."""
        _, axes = self.plt.subplots(rows, 1, figsize=(_WIDTH, height), layout="constrained", squeeze=False)
        return axes[0][0] if rows == 1 else tuple(axes[:, 0])

    def tell(self, artist: Any, text: str) -> None:
        """Let ``artist`` show ``text`` when pointed at."""
        artist.set_gid(f"tip{len(self.tips)}")
        self.tips.append(text)

    def name_rows(self, axes: Any, rows: Sequence[Row]) -> None:
        """Write the rows down the left axis, from the top."""
        _name_places(axes, [f"{_harmless(row.name.removeprefix(self.shared))}  {row.number}" for row in rows])


def draw(page: Page) -> Figures:
    """The figures that the rows of ``page`` allow; none when nothing was measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    results = tuple(row for row in page.rows if row.kind == "result")
    timed = tuple(row for row in results if row.setting == page.findings.setting)
    counted = tuple(row for row in timed if row.accuracy is not None)
    both = tuple(row for row in timed if row.end_to_end is not None)
    started = tuple(row for row in timed if row.cold_start is not None)
    weighed = tuple(row for row in timed if row.memory_bytes is not None)
    powered = tuple(row for row in timed if row.joules is not None)
    divided = tuple(one for one in page.versus if one.found.latency is not None and one.row in timed)
    sized = [row for row in (*timed, *results) if row.size_bytes is not None]
    files = tuple({row.sha256: row for row in reversed(sized)}.values())[::-1]
    where = "" if page.findings.setting is None else f" ({setting(page.findings.setting)})"
    unit = page.unit
    hollow = " Hollow: outside tolerance, not on the front." if any(map(_is_outside, counted)) else ""
    shared = shared_model(page)
    figures: list[Figure] = []

    def add(name: str, title: str, caption: str, rows: Sequence[object], drawing: Callable[[_Canvas], None]) -> None:
        if rows:
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
        f"All samples of each row ÷ the row's own median{where}: how steady each row is, not how fast. "
        "Box from the 25th to the 75th percentile, whiskers from the 5th to the 95th; dots are the "
        "medians of the blocks.",
        timed,
        lambda canvas: _boxes(canvas, timed),
    )
    add(
        "endtoend",
        "Invoke alone and end to end",
        f"Median time of invoke alone (filled) and of encode, invoke and decode together (hollow){where}; the line "
        "between them is what encode and decode cost. Bars are 95 % intervals.",
        both,
        lambda canvas: _end_to_end(canvas, both, unit),
    )
    add(
        "baseline",
        "Time against the float baselines",
        f"Median time ÷ that of each float baseline at the same batch{where}: left of 1 is faster than the baseline. "
        f"Shapes: {_listed_shapes(_baseline_names(divided))}. Lines are 95 % intervals.",
        divided,
        lambda canvas: _against(canvas, divided),
    )
    add(
        "start",
        "Cold start",
        f"Median seconds of a fresh process to its first answer{where}, in ms: import of the runtime, load of the "
        "file, first inference.",
        started,
        lambda canvas: _cold_starts(canvas, started),
    )
    add(
        "memory",
        "Memory",
        f"Peak resident memory above the empty process{where}; dark marks are the runtime's own arena, where it tells.",
        weighed,
        lambda canvas: _memory(canvas, weighed),
    )
    add(
        "energy",
        "Energy",
        f"Energy of one inference{where}, read from a counter that covers the whole package.",
        powered,
        lambda canvas: _bars(
            canvas,
            powered,
            [1000 * (row.joules or 0) for row in powered],
            "energy, mJ per inference",
            lambda place: f"{units.millijoules(powered[place].joules or 0)}",
        ),
    )
    for name, key, noun in (("threads", _by_threads, "threads"), ("batch", _by_batch, "batch")):
        curves = _curves(results, key)
        add(
            name,
            f"{noun.capitalize()}",
            f"Median latency of a call and images a second against {noun}; bars are 95 % intervals. "
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
            [(row.size_bytes or 0) / 1024 for row in files],
            "size, KiB",
            lambda place: units.kib(files[place].size_bytes or 0),
        ),
    )
    layers = tuple(
        Figure(
            f"Errors inside {errors.artifact}",
            "Signal-to-noise ratio of each int8 tensor in the order of the graph, in dB: longer is better, 6 dB are "
            "one bit. Upper bar: the layer alone; lower bar: all layers up to it. Orange with “!”: its scale is off, "
            "another would have spared 2 dB or more. A tensor without error has no bar.",
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
    keys = tuple(Key(units.count(number), _colour(shown[number]), label(shown[number])) for number in sorted(shown))
    return Figures(tuple(figures), layers, emulated, keys)


def _runtimes(rows: Iterable[Row]) -> list[str]:
    return sorted({row.runtime for row in rows if row.runtime is not None})


def _shapes(rows: Iterable[Row]) -> str:
    return _listed_shapes(_runtimes(rows))


def _listed_shapes(names: Iterable[str]) -> str:
    return ", ".join(f"{shape.name} {name}" for name, shape in zip(names, cycle(_MARKERS), strict=False))


def _front(rows: Sequence[Row]) -> str:
    names = _listed(f"{units.count(row.number)} ({label(row)})" for row in rows)
    return f"The line is the Pareto front: {names}." if rows else ""


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _is_outside(row: Row) -> bool:
    return bool(row.parities) and not row.within_tolerance


def _colour(row: Row) -> str:
    return _COLOURS.get(row.scheme or "", _OTHER_COLOUR)


def _harmless(name: str) -> str:
    """As much of a name as fits beside an axis and every font can draw; the end, where names differ."""
    name = "".join(char if char.isascii() and char.isprintable() else "?" for char in name)
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def _timing_tip(timing: Summary, unit: Unit) -> str:
    return f"{units.time_interval(timing.median, timing.low, timing.high, unit)} {unit.name}"


def _estimate_tip(estimate: Estimate) -> str:
    return str(units.ratio_interval(estimate.value, estimate.low, estimate.high))


def _name_tip(row: Row) -> str:
    where = "" if row.setting is None else f" [{setting(row.setting)}]"
    return f"{units.count(row.number)}: {label(row)}{where}"


def _scatter(canvas: _Canvas, rows: Sequence[Row], front: Sequence[Row], unit: Unit) -> None:
    axes = canvas.axes(4.2)
    markers = dict(zip(_runtimes(rows), cycle(_MARKERS), strict=False))
    times = []
    spots: list[tuple[float, float, str]] = []
    for row in rows:
        if row.timing is None or row.accuracy is None or row.runtime is None:
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
            color=_colour(row),
            markerfacecolor="none" if _is_outside(row) else _colour(row),
            elinewidth=1,
            markersize=8,
        )
        for bar in points.lines[2]:
            bar.set_alpha(0.5)
        on_front = ", on the Pareto front" if row in front else ""
        canvas.tell(
            points.lines[0],
            f"{_name_tip(row)}: {units.accuracy(row.accuracy)} %, {_timing_tip(row.timing, unit)}{on_front}",
        )
        spots.append((time, 100 * share, units.count(row.number)))
    if front:
        axes.plot(
            [row.timing.median * unit.per_second for row in front if row.timing is not None],
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
    axes.set_ylabel("accuracy, %")
    axes.margins(x=0.08)
    _number_spots(axes, spots)


def _number_spots(axes: Any, spots: Sequence[tuple[float, float, str]]) -> None:
    """Put each number beside its point, where it covers least and is nearest to its own point."""
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
    """How far an interval reaches below and above, as error bars want it; none where it is not known."""
    if not math.isfinite(high):
        return [[0.0], [0.0]]
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _time_axis(axes: Any, times: Sequence[float]) -> None:
    if max(times) > 5 * min(times) > 0:
        axes.set_xscale("log")
    _number_axis(axes.xaxis)


def _boxes(canvas: _Canvas, rows: Sequence[Row]) -> None:
    axes = canvas.axes(_height(rows))
    for place, row in enumerate(rows):
        if row.measurement is None:
            continue
        samples = np.array(row.measurement.samples)
        middle = max(float(np.median(samples)), 1e-9)  # a nanosecond: the clock's unit
        p5, p25, p75, p95 = (float(value) / middle for value in np.percentile(samples, (5, 25, 75, 95)))
        line = {"color": _colour(row), "linewidth": 1.4}
        drawn = axes.bxp(
            [{"med": 1.0, "q1": p25, "q3": p75, "whislo": p5, "whishi": p95}],
            positions=[place],
            widths=0.5,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"edgecolor": _colour(row), "facecolor": _colour(row) + "33", "linewidth": 1.4},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": _TEXT, "linewidth": 1.6},
        )
        tip = ", ".join(
            f"{name} {units.ratio(value)}" for name, value in (("p5", p5), ("p25", p25), ("p75", p75), ("p95", p95))
        )
        canvas.tell(drawn["boxes"][0], f"{_name_tip(row)}: {tip} times its median")
        blocks = [float(np.median(block)) / middle for block in row.measurement.blocks]
        axes.plot(blocks, [place] * len(blocks), ".", color=_TEXT, markersize=3.5, alpha=0.6)
    _number_axis(axes.xaxis)
    axes.set_xlabel("time ÷ the row's own median")
    canvas.name_rows(axes, rows)


def _bars(canvas: _Canvas, rows: Sequence[Row], values: Sequence[float], axis: str, text: Callable[[int], str]) -> None:
    axes = canvas.axes(_height(rows))
    bars = axes.barh(range(len(rows)), values, color=[_colour(row) for row in rows], height=0.62)
    for place, (row, bar) in enumerate(zip(rows, bars, strict=True)):
        canvas.tell(bar, f"{_name_tip(row)}: {axis.partition(',')[0]} {text(place)}{axis.partition(',')[2]}")
        _annotate(axes, text(place), values[place], place)
    _bar_axis(canvas, axes, rows, max(values), axis)


def _end_to_end(canvas: _Canvas, rows: Sequence[Row], unit: Unit) -> None:
    axes = canvas.axes(_height(rows))
    times = []
    for place, row in enumerate(rows):
        pair = []
        for timing, filled, what in ((row.timing, True, "invoke alone"), (row.end_to_end, False, "end to end")):
            assert timing is not None
            pair.append(timing.median * unit.per_second)
            points = axes.errorbar(
                pair[-1],
                place,
                xerr=_reach(pair[-1], timing.low * unit.per_second, timing.high * unit.per_second),
                fmt="o",
                color=_colour(row),
                markerfacecolor=_colour(row) if filled else "none",
                elinewidth=1,
                markersize=7,
            )
            canvas.tell(points.lines[0], f"{_name_tip(row)}: {what} {_timing_tip(timing, unit)}")
        axes.plot(pair, [place, place], color=_colour(row), linewidth=1.6, zorder=1)
        times += pair
    _time_axis(axes, times)
    axes.set_xlabel(f"median time, {unit.name}")
    canvas.name_rows(axes, rows)


def _cold_starts(canvas: _Canvas, rows: Sequence[Row]) -> None:
    axes = canvas.axes(_height(rows) + 0.4)
    ends = []
    for place, row in enumerate(rows):
        cold = row.cold_start
        assert cold is not None
        start = 0.0
        for colour, what, seconds in zip(
            _PARTS, ("import", "load", "first inference"), (cold.import_s, cold.load_s, cold.first_s), strict=True
        ):
            (bar,) = axes.barh(
                place, 1000 * seconds, left=start, color=colour, height=0.62, label=what if not place else None
            )
            canvas.tell(bar, f"{_name_tip(row)}: {what} {units.duration(seconds)}")
            start += 1000 * seconds
        ends.append(start)
        _annotate(axes, units.time(cold_total(cold), units.MILLISECONDS), start, place)
    _bar_axis(canvas, axes, rows, max(ends), "time, ms")
    _legend_above(axes, 3)


def _memory(canvas: _Canvas, rows: Sequence[Row]) -> None:
    axes = canvas.axes(_height(rows))
    sizes = [(row.memory_bytes or 0) / 1024**2 for row in rows]
    bars = axes.barh(range(len(rows)), sizes, color=[_colour(row) for row in rows], height=0.62)
    for place, (row, bar) in enumerate(zip(rows, bars, strict=True)):
        memory = None if row.measurement is None else row.measurement.memory
        arena = None if memory is None else memory.arena_bytes
        tip = f"{_name_tip(row)}: {units.mib(row.memory_bytes or 0)} MiB above the empty process"
        canvas.tell(bar, tip if arena is None else f"{tip}, the runtime's arena {units.kib(arena)} KiB")
        _annotate(axes, units.mib(row.memory_bytes or 0), sizes[place], place)
        if arena is not None:
            axes.plot([arena / 1024**2] * 2, [place - 0.31, place + 0.31], color=_TEXT, linewidth=2)
    _bar_axis(canvas, axes, rows, max(sizes), "memory above the empty process, MiB")


def _baseline_names(beside: Sequence[BaselineComparison]) -> list[str]:
    return list(dict.fromkeys(one.baseline.name for one in beside))


def _emulated(canvas: _Canvas, page: Page) -> None:
    costs = page.costs
    axes = canvas.axes(_height(costs))
    colours = {row.sha256: _colour(row) for row in page.rows}
    bars = axes.barh(
        range(len(costs)),
        [cost.instructions / 1e6 for cost in costs],
        color=[colours.get(cost.artifact_sha256, _OTHER_COLOUR) for cost in costs],
        height=0.62,
    )
    for place, (cost, bar) in enumerate(zip(costs, bars, strict=True)):
        canvas.tell(bar, f"{cost.artifact} on {cost.target}: {units.count(cost.instructions)} instructions")
        _annotate(axes, units.millions(cost.instructions), cost.instructions / 1e6, place)
    _number_bars(axes, max(cost.instructions for cost in costs) / 1e6, "instructions, millions")
    _name_places(axes, [_harmless(_emulated_name(cost, canvas.shared)) for cost in costs])


def _emulated_name(cost: Emulated, shared: str) -> str:
    return f"{cost.artifact.removeprefix(shared)}  {cost.target.removeprefix('cortex-')}"


def _against(canvas: _Canvas, beside: Sequence[BaselineComparison]) -> None:
    rows = tuple({one.row.number: one.row for one in beside}.values())
    axes = canvas.axes(_height(rows))
    names = _baseline_names(beside)
    spread = 0.5 / max(1, len(names) - 1) if len(names) > 1 else 0.0
    ratios = [1.0]
    for one in beside:
        time = one.found.latency
        assert time is not None
        number = names.index(one.baseline.name)
        place = rows.index(one.row) + (number * spread - 0.25 if spread else 0.0)
        ratios.append(time.value)
        points = axes.errorbar(
            time.value,
            place,
            xerr=_reach(time.value, time.low, time.high),
            fmt=_MARKERS[number % len(_MARKERS)].symbol,
            color=_colour(one.row),
            elinewidth=1.2,
            markersize=7,
        )
        canvas.tell(
            points.lines[0],
            f"{_name_tip(one.row)}: {_estimate_tip(time)} times {names[number]}",
        )
    axes.axvline(1, color=_TEXT, linewidth=1)
    _time_axis(axes, ratios)
    axes.set_xlabel("time ÷ the baseline's")
    canvas.name_rows(axes, rows)


def _by_threads(row: Row) -> tuple[object, int] | None:
    """What stays the same along a curve over threads, and where on it the row is."""
    where = row.setting
    return None if where is None else ((row.sha256, row.name, row.runtime, where.device, where.batch), where.threads)


def _by_batch(row: Row) -> tuple[object, int] | None:
    where = row.setting
    return None if where is None else ((row.sha256, row.name, row.runtime, where.device, where.threads), where.batch)


_Curve = tuple[tuple[int, Row], ...]


def _curves(rows: Sequence[Row], key: Callable[[Row], tuple[object, int] | None]) -> tuple[_Curve, ...]:
    """Rows that differ in one setting alone, by that setting; only where there are several."""
    lines: dict[object, dict[int, Row]] = {}
    for row in rows:
        found = key(row)
        if found is not None:
            lines.setdefault(found[0], {}).setdefault(found[1], row)
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
        look = {"color": _colour(first), "linestyle": styles[first.runtime or ""], "linewidth": 1.3}
        sizes = [size for size, _ in line]
        timings = [row.timing for _, row in line if row.timing is not None]
        upper.plot(sizes, [timing.median * unit.per_second for timing in timings], **look)
        lower.plot(sizes, [timing.throughput for timing in timings], **look)
        for size, row in line:
            timing = row.timing
            assert timing is not None
            time = timing.median * unit.per_second
            look = {"color": _colour(row), "marker": markers[row.runtime or ""].symbol, "markersize": 7}
            upper.errorbar(
                size,
                time,
                yerr=_reach(time, timing.low * unit.per_second, timing.high * unit.per_second),
                color=_colour(row),
                elinewidth=1,
            )
            (above,) = upper.plot(size, time, **look)
            (below,) = lower.plot(size, timing.throughput, **look)
            canvas.tell(above, f"{_name_tip(row)}: {_timing_tip(timing, unit)}")
            canvas.tell(below, f"{_name_tip(row)}: {units.rate(timing.throughput)} images/s")
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
        for value, offset, colour, whose in (
            (layer.own_snr_db, -0.2, _BAD if layer.scale_is_off else _OWN, "alone"),
            (layer.snr_db, 0.2, _SUMMED, "all layers up to it"),
        ):
            if value is None:
                continue
            longest = max(longest, value)
            (bar,) = axes.barh(
                place + offset, value, color=colour, height=0.36, hatch="///" if colour == _BAD else None
            )
            canvas.tell(bar, f"{what}: {whose} {units.decibels(value)} dB{off}")
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


def _annotate(axes: Any, text: str, end: float, place: float) -> None:
    """Put a number behind the end of a bar."""
    axes.annotate(text, (end, place), (4, 0), textcoords="offset points", verticalalignment="center")


def _bar_axis(canvas: _Canvas, axes: Any, rows: Sequence[Row], longest: float, title: str) -> None:
    _number_bars(axes, longest, title)
    canvas.name_rows(axes, rows)


def _number_bars(axes: Any, longest: float, title: str) -> None:
    axes.set_xlim(0, longest * 1.2 or 1)
    _number_axis(axes.xaxis)
    axes.set_xlabel(title)


def _legend_above(axes: Any, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0, handlelength=1)


def _name_places(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
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
    axis.set_major_formatter(lambda value, _: units.tick(value))


def _svg(name: str, title: str, drawing: Callable[[_Canvas], None], shared: str) -> str:
    """The SVG element that ``drawing`` makes, with ids of its own, the page's colours and the marks' numbers."""
    matplotlib = require("matplotlib")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot")
    # not from a matplotlibrc, which is looked for in the current folder first and could have LaTeX run
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
    # several figures share one page, and ids are the page's
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace(_TEXT, "currentColor").replace(_GRID, "var(--line)")
    return re.sub(r"<svg\b", lambda _: f'<svg role="img" aria-label="{html.escape(title)}"', text, count=1).strip()
