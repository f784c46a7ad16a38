"""The README's picture, drawn from a committed result: median latency and accuracy of every exported file."""

import io

from edgecnn.optional import require
from edgecnn.records import Report
from edgecnn.report import charts, rows, units


def latency(report: Report) -> bytes:
    """An SVG of dots on a logarithmic axis, one line per file."""
    matplotlib = require("matplotlib")
    matplotlib.use("Agg")
    plt = require("matplotlib.pyplot")
    measured = [row for row in rows.table(report) if isinstance(row, rows.ResultRow)]
    unit = units.unit_for(row.timing.median for row in measured)
    style = {"svg.hashsalt": "edgecnn", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(9, 0.36 * len(measured) + 1.1), layout="constrained")
        for place, row in enumerate(measured):
            value = row.timing.median * unit.per_second
            axes.plot(value, place, "o", markersize=9, color=charts.colour_of(row))
            ratio = "" if row.time_to_float32 is None else f", ÷ float32 {row.time_to_float32.value:.2f}"
            accuracy = "" if row.accuracy is None else f", {100 * row.accuracy.value:.2f} %"
            axes.text(
                value * 1.15, place, f"{units.time(row.timing.median, unit)} {unit.name}{ratio}{accuracy}", va="center"
            )
        axes.set_yticks(range(len(measured)), [f"{row.scheme} · {row.runtime}" for row in measured])
        axes.invert_yaxis()
        axes.set_xscale("log")
        medians = [row.timing.median * unit.per_second for row in measured]
        axes.set_xlim(min(medians) / 1.5, max(medians) * 30)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(
            f"median latency of one image, one thread, {unit.name}; accuracy on {report.test_images:,} images"
        )
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None}, facecolor="white")
        plt.close(figure)
    return drawn.getvalue()
