"""The nodes of an inspection as a table, for the terminal and for notebooks."""

from collections.abc import Callable

from edgecnn.records import InspectedNode, InspectedTensor, Inspection
from edgecnn.report import units
from edgecnn.report.grid import Cell, Column, Grid, Tone, laid_out

_TYPES = {"float32": "f32", "float16": "f16", "float64": "f64", "unknown": "?"}
_TONES: dict[str | None, Tone] = {"int8": "good", "float": "bad", "conversion": "aside"}


def table(inspection: Inspection) -> Grid:
    """One row per node that runs; the columns that fold have no key."""
    # ONNX Runtime's kernels are named after their operators; LiteRT's are XNNPACK or builtin.
    delegates = inspection.format == "tflite"

    def text(title: str, of: Callable[[InspectedNode], str], key: str = "", numeric: bool = False) -> Column:
        return Column(title, lambda node: Cell(of(node)), key, numeric)

    columns = [
        text("#", lambda node: "+" if node.position is None else str(node.position), "number", numeric=True),
        text("operator", lambda node: node.kind or "") if delegates else text("kernel", lambda node: node.kernel or ""),
        text("output", lambda node: _output(node.outputs[0]) if node.outputs else ""),
        text("scale, zero", lambda node: _steps(node.outputs[0]) if node.outputs else ""),
        text("scales", _scales, "scales", numeric=True),
        text("KiB", lambda node: units.kib(node.weight_bytes) if node.weight_bytes else "", "size", numeric=True),
        text("MACs", lambda node: units.count(node.macs) if node.macs else "", "macs", numeric=True),
        Column("runs in", lambda node: Cell(node.precision or "", tone=_TONES.get(node.precision, "")), "precision"),
    ]
    if delegates:
        columns.append(text("kernel", lambda node: node.kernel or "", "kernel"))
    if inspection.time_shares:
        columns.append(
            text(
                "time %",
                lambda node: "" if node.time_share is None else units.significant(node.time_share * 100),
                "time",
                numeric=True,
            )
        )
    running = [node for node in inspection.nodes if node.fate not in ("fused", "folded")]
    return laid_out("Operators in the order in which the runtime executes them.", columns, running)


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
