"""Terminal output of both diagnoses."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecnn.records import AccuracyPath, LayerError, LayerErrors
from edgecnn.report import units
from edgecnn.report.terminal import console_or

_NO_ERROR = "exact"


def show_path(path: AccuracyPath, console: Console | None = None) -> None:
    """Print accuracy step by step to ``console``, by default stdout."""
    console = console_or(console)
    first, last = path.steps[0].accuracy, path.steps[-1].accuracy
    console.print(Text(f"{path.artifact}, {units.count(first.total)} test images", style="bold"))
    table = _table("step", f"{first.metric} % [95 %]", "points", "better", "worse", "same answer %")
    notes = []
    for step in path.steps:
        mark = ""
        if step.note is not None:
            notes.append(step.note)
            mark = f" ({len(notes)})"
        start = step is path.steps[0]
        table.add_row(
            Text(step.name + mark),
            str(units.accuracy(step.accuracy)),
            "" if start else units.points(step.change),
            "" if start else units.count(step.gained),
            "" if start else units.count(step.lost),
            "" if step.agreement is None else units.percent(step.agreement),
        )
    net = sum(step.gained - step.lost for step in path.steps)
    gained, lost = units.count(max(net, 0)), units.count(max(-net, 0))
    table.add_row("total, net", "", units.points(100 * (last.value - first.value)), gained, lost, "")
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(Text(f"({number}) {note}"))


def show_layers(errors: LayerErrors, console: Console | None = None) -> None:
    """Print the layers, worst first, to ``console``, by default stdout."""
    console = console_or(console)
    console.print(Text(f"{errors.artifact}, {errors.images} {errors.images_from}", style="bold"))
    console.print(
        Text(
            f"Compared: int8 values of {errors.runtime} with the same graph in float (same integer weights). own: "
            "the layer alone, in float on its actual int8 inputs; sum: all layers up to it. lost: own error above "
            "rounding to 255 steps over the layer's range, marked ! from "
            f"{units.significant(LayerError.OFF_DB, 1)} dB: the scale is too large or clips; these come first. "
            "low, high: values at the integer limits (zeros of a ReLU are at the low limit); cut: beyond the limits.",
            style="italic",
        )
    )
    table = _table("#", "operator", "own dB", "lost dB", "LSB", "sum dB", "LSB", "error", "low %", "high %", "cut %")
    for layer in errors.layers:
        lost = "" if layer.lost_db is None else units.significant(layer.lost_db, 2)
        table.add_row(
            "" if layer.position is None else str(layer.position),
            Text(layer.operator),
            _decibels(layer.own_snr_db),
            lost + "!" if layer.scale_is_off else lost,
            units.significant(layer.own_max_lsb),
            _decibels(layer.snr_db),
            units.significant(layer.max_lsb),
            units.significant(layer.max_abs),
            units.percent(layer.at_low),
            units.percent(layer.at_high),
            units.percent(layer.clipped),
            style="bold red" if layer.scale_is_off else "",
        )
    console.print(table)
    console.print(
        Text(
            f"Output against the {errors.reference}: {_decibels(errors.weights_snr_db)} dB in float with the file's "
            f"weights, {_decibels(errors.output_snr_db)} dB in int8."
        )
    )


def _decibels(value: float | None) -> str:
    return _NO_ERROR if value is None else units.significant(value)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        text = column in ("step", "operator")
        table.add_column(column, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    return table
