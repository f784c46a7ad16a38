"""Terminal output of an inspection: one line per node, in 100 columns."""

import textwrap
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecnn.records import InspectedNode, InspectedTensor, Inspection
from edgecnn.report import units
from edgecnn.report.terminal import WIDTH, console_or

_STYLES = {"int8": "green", "int16": "yellow", "hybrid": "yellow", "float": "bold red", "conversion": "italic"}
_TYPES = {"float32": "f32", "float16": "f16", "float64": "f64", "unknown": "?"}


def show(inspection: Inspection, console: Console | None = None) -> None:
    """Print the nodes of ``inspection`` and the totals to ``console``, by default stdout.

    If the output is not a terminal, it is ``WIDTH`` columns wide.
    """
    console = console_or(console)
    cpu = inspection.environment.cpu or "an unknown CPU"
    console.print(Text(inspection.file, style="bold"), end="")
    console.print(Text(f" on {inspection.runtime}, 1 thread, {cpu}"))
    console.print(_table(inspection))
    console.print()
    for line in totals(inspection):
        console.print(Text(line, style="bold"))
    for note in inspection.notes:
        console.print(Text("\n  ".join(textwrap.wrap(f"• {note}", WIDTH - 3))))


def totals(inspection: Inspection) -> tuple[str, ...]:
    """Three lines: ``2,528,000 MACs: 100 % int8``, the parameters and sizes, the time of a run."""
    return (
        f"{units.count(inspection.macs)} MACs{_shares(inspection.mac_shares)}",
        f"{units.count(inspection.parameters)} parameters in {units.kib(inspection.weight_bytes)} KiB; "
        f"the file has {units.kib(inspection.size_bytes)} KiB",
        f"{units.duration(median(inspection.run_seconds))} a run{_shares(inspection.time_shares)}",
    )


def _shares(shares: dict[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{units.significant(share * 100)} % {precision}" for precision, share in ordered)
    return f": {listed}" if listed else ""


def _table(inspection: Inspection) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    # ONNX Runtime's kernels are named after their operators; LiteRT's are XNNPACK or builtin.
    delegates = inspection.format == "tflite"
    timed = bool(inspection.time_shares)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("operator" if delegates else "kernel", overflow="fold")
    table.add_column("output", overflow="fold")
    table.add_column("scale, zero", overflow="fold")
    for heading in ("scales", "KiB", "MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("runs in", no_wrap=True)
    if delegates:
        table.add_column("kernel", no_wrap=True)
    if timed:
        table.add_column("time %", justify="right", no_wrap=True)
    for node in inspection.nodes:
        if node.fate in ("fused", "folded"):
            continue
        output = node.outputs[0] if node.outputs else None
        cells = [
            "+" if node.position is None else str(node.position),
            (node.kind if delegates else node.kernel) or "",
            "" if output is None else _output(output),
            "" if output is None else _steps(output),
            _scales(node),
            units.kib(node.weight_bytes) if node.weight_bytes else "",
            units.count(node.macs) if node.macs else "",
        ]
        row = [Text(cell) for cell in cells]
        row.append(Text(node.precision or "", style=_STYLES.get(node.precision or "", "")))
        if delegates:
            row.append(Text(node.kernel or ""))
        if timed:
            row.append(Text("" if node.time_share is None else units.significant(node.time_share * 100)))
        table.add_row(*row)
    return table


def _output(tensor: InspectedTensor) -> str:
    sizes = "?" if tensor.shape is None else "×".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{_TYPES.get(tensor.dtype, tensor.dtype)} {sizes}"


def _steps(tensor: InspectedTensor) -> str:
    if tensor.scale is None:
        return ""
    zero = tensor.zero_point[0] if tensor.zero_point else 0
    return f"{units.significant(tensor.scale[0])}, {zero}".replace("-", "−")


def _scales(node: InspectedNode) -> str:
    """The number of scales of a node's weights: 1, or one per channel."""
    scales = max((tensor.scales for tensor in node.inputs if tensor.constant), default=0)
    return str(scales) if scales else ""
