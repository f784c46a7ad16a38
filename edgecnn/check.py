"""Check whether a .tflite fits and runs on a target: rules with their sources, and the target's tools if installed."""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from edgecnn.emulation import build, missing_tools, sources_of
from edgecnn.emulation.processors import version_of
from edgecnn.errors import ArtifactError, ConfigError, MissingExtraError, SessionError, UnsupportedError
from edgecnn.files import need_model, read_bytes, sha256_bytes
from edgecnn.formats.c99 import to_c
from edgecnn.formats.c99.lower import lower, problems
from edgecnn.formats.c99.memory import Choice, choices
from edgecnn.optional import installed
from edgecnn.records import C_KITS, CORES, SCHEMA_VERSION, TargetCheck
from edgecnn.registry import Registry
from edgecnn.runtimes.tflm import arena_of
from edgecnn.tflite.graph import Graph, Operator, read_anyway
from edgecnn.tflite.micro import activation, weights
from edgecnn.tflite.micro import problems as problems_in_tflm
from edgecnn.vela import ACCELERATORS, compiled

COMPILER = "arm-none-eabi-gcc"
_UNITS = {"": 1, "k": 1024, "m": 1024**2}


class _Found(msgspec.Struct, kw_only=True):
    """The results collected so far."""

    reasons: list[str]
    notes: list[str]
    arena_bytes: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    cycles: int | None = None


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A target with its budgets in bytes; ``None`` means no budget."""

    name: str
    check: Callable[..., None]
    flash: int | None
    ram: int | None


def check(path: Path, target: str) -> TargetCheck:
    """Check whether the .tflite at ``path`` fits and runs on ``target``, with every reason if not.

    ``target`` is "tflm", "c99" or another kit of C code such as "web", "edgetpu", a core such as "cortex-m4", or an
    Ethos-U such as "ethos-u55-128"; the last two optionally with budgets: "cortex-m4:flash=256k,ram=64k" (k is 1,024
    bytes).

    Raises:
        UnknownNameError: unknown target; the message lists the choices.
        ConfigError: the budgets are invalid, or the target has none.
        ArtifactError: the file is missing, damaged, or not a .tflite.
        EmulationError: the compiler fails.
        MissingExtraError: the target is an Ethos-U, and Arm's compiler is not installed.
    """
    asked = _asked(target)
    if path.suffix != ".tflite":
        raise ArtifactError(f"{path} is not a .tflite file; make one with: edgecnn export --schemes int8")
    need_model(path)
    model = read_bytes(path)
    graph = read_anyway(model, path.name)
    found = _Found(reasons=[], notes=[])
    try:
        asked.check(graph, model, asked, found)
    except (IndexError, KeyError) as error:  # an operator without its required inputs or options
        raise ArtifactError(f"{path.name} is damaged: {type(error).__name__} {error} in its operators") from error
    return TargetCheck(
        schema_version=SCHEMA_VERSION,
        file=path.name,
        sha256=sha256_bytes(model),
        target=target,
        reasons=tuple(found.reasons),
        notes=tuple(found.notes),
        arena_bytes=found.arena_bytes,
        flash_bytes=found.flash_bytes,
        ram_bytes=found.ram_bytes,
        cycles=found.cycles,
    )


def byte_count(text: str) -> int | None:
    """The bytes in a number such as "64k" (k is 1,024); None if ``text`` is none."""
    read = re.fullmatch(r"(\d+)([km]?)", text.lower())
    return None if read is None else int(read[1]) * _UNITS[read[2]]


def _asked(target: str) -> _Asked:
    name, _, text = target.partition(":")
    rules = _TARGETS[name]
    budgets: dict[str, int] = {}
    for part in text.split(",") if text else ():
        kind, _, size = part.lower().partition("=")
        budget = byte_count(size)
        if kind not in ("flash", "ram") or budget is None or kind in budgets:
            raise ConfigError(
                f"{part!r} is not a budget; give flash and ram once each, as in cortex-m4:flash=256k,ram=64k"
            )
        budgets[kind] = budget
    if budgets and name not in (*CORES, *ACCELERATORS):
        raise ConfigError(f"{name} has no budgets; use them with a core, as in cortex-m4:flash=256k,ram=64k")
    return _Asked(name=name, check=rules, flash=budgets.get("flash"), ram=budgets.get("ram"))


# TensorFlow Lite for Microcontrollers


def _tflm(graph: Graph, model: bytes, asked: _Asked, found: _Found) -> None:
    """Check the rules of ``micro.problems``, then run TFLM, which overrules them."""
    rules = [*graph.unsupported, *problems_in_tflm(graph)]
    if any(_per_channel_dense(subgraph) for subgraph in graph.subgraphs):
        found.notes.append(
            "dense layers have a scale per channel: TFLM supports them since autumn 2024; it refused them from May "
            "2024, and older versions give wrong results (tflite-micro pull requests 2673 and 2602)"
        )
    try:
        found.arena_bytes = arena_of(graph, model)
    except MissingExtraError as error:
        found.reasons += rules
        found.notes.append(f"rules only, TFLM was not run: {error}")
    except UnsupportedError as error:
        found.reasons += error.reasons
        if graph.unsupported:
            found.notes.append("rules only, TFLM was not run: edgecnn does not run such files")
        elif rules:
            found.notes.append(f"TFLM reports: {error.__cause__}")
    else:
        found.notes.append(
            "TFLM ran it once on this machine; the arena was measured here and may be larger on a device"
        )
        found.notes += [f"TFLM ran it anyway: {rule}" for rule in rules]


def _per_channel_dense(graph: Graph) -> list[Operator]:
    return [
        operator
        for operator in graph.operators
        if operator.kind == "FULLY_CONNECTED" and len(weights(graph, operator).scale) > 1
    ]


# Generated C, on any machine and on a Cortex-M


def _c99(graph: Graph, model: bytes, asked: _Asked, found: _Found) -> None:
    """Check whether the graph can be generated as C (see ``edgecnn.formats.c99``), and its arena."""
    found.reasons += problems(graph)
    if not found.reasons:
        plans = [*choices(graph)]
        found.arena_bytes = plans[0].arena
        if state := lower(graph).state_bytes:
            found.notes.append(f"it keeps {state:,} bytes of state between calls, beside the arena")
        found.notes.append("the generator supports it; it was not compiled")
        found.notes += _smaller(plans)


def _cortex(graph: Graph, model: bytes, asked: _Asked, found: _Found) -> None:
    """As c99, plus flash and RAM against the budgets, measured with the compiler if it is installed."""
    found.reasons += problems(graph)
    if found.reasons:
        return
    code = to_c(graph, "model")
    sources = sources_of(code, "model")
    ends = sources.input_size + sources.output_size
    found.arena_bytes = code.plan.arena_bytes
    if missing := missing_tools(asked.name, "build-tools"):
        program = lower(graph)
        found.flash_bytes = program.constant_bytes
        found.ram_bytes = found.arena_bytes + program.state_bytes + ends
        found.notes.append(
            f"flash counts only the weights and RAM only the arena plan, because {missing[0]} is not installed; code, "
            "start-up code, stack and the rest of your program are not included"
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            firmware = build(sources, asked.name, Path(folder), roomy=True)
        found.flash_bytes, found.ram_bytes = firmware.flash, firmware.ram + ends
        found.notes.append(
            f"flash and RAM of the model as compiled by {version_of(COMPILER)}, -O2; start-up code, stack and the rest "
            "of your program are not included"
        )
    found.notes.append(f"RAM includes {ends:,} bytes of input and output, and an arena of {found.arena_bytes:,}")
    found.notes += _smaller([*choices(graph)])
    _against_budgets(asked, found)


def _against_budgets(asked: _Asked, found: _Found) -> None:
    for kind, taken, allowed in (("flash", found.flash_bytes, asked.flash), ("RAM", found.ram_bytes, asked.ram)):
        if taken is not None and allowed is not None and taken > allowed:
            found.reasons.append(
                f"it needs {taken:,} bytes of {kind}, {allowed:,} are available: {taken - allowed:,} too many"
            )


def _smaller(plans: Sequence[Choice]) -> Iterator[str]:
    """The smaller arenas that are possible; the first of ``plans`` is without bands."""
    _, *smaller = plans
    if smaller:
        sizes = ", ".join(f"{plan.arena:,} bytes (about {plan.slower:.1%} more instructions)" for plan in smaller)
        yield f"with the first layers in bands of rows (edgecnn embed --ram), the arena can have {sizes}"


# Ethos-U


def _ethos_u(graph: Graph, model: bytes, asked: _Asked, found: _Found) -> None:
    """Compile it with Vela: which operators are left to the CPU, and Vela's estimates against the budgets."""
    try:
        result = compiled(model, asked.name)
    except SessionError as error:
        found.reasons.append(str(error))
        return
    named = {graph.tensors[operator.outputs[0]].name: operator for operator in graph.operators if operator.outputs}
    for name, why in result.on_cpu.items():
        found.notes.append(f"the CPU runs {named.get(name, repr(name))}" + (f": {why}" if why else ""))
    if not result.on_npu:
        found.reasons.append(f"no operator runs on {asked.name}")
        return
    found.cycles, found.flash_bytes, found.ram_bytes = result.cycles, result.flash, result.sram
    found.notes.append(
        f"cycles, flash and RAM are estimates of Vela {installed('ethos-u-vela')} for its configuration "
        f"{result.system}, at {result.clock / 1e6:g} MHz; nothing was run, and they leave out what the CPU runs"
    )
    _against_budgets(asked, found)


# Edge TPU

_EDGETPU = frozenset(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC
    LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE
    STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
    """.split()  # noqa: SIM905 - a table, not a list
)
_NO_FUSED_ACTIVATION = frozenset({"AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D"})
_LARGEST_SOFTMAX = 16_000
_DIMENSIONS = 3


def _edgetpu(graph: Graph, model: bytes, asked: _Asked, found: _Found) -> None:
    """Check the published requirements of the Edge TPU for compiler 16.0, the last version.

    Source: "TensorFlow models on the Edge TPU", sections "Model requirements" and "Supported operations" of Coral's
    documentation (docs/edgetpu/models-intro).
    """
    found.notes.append("published rules only: the Edge TPU's compiler was not run; it also has unpublished size limits")
    found.reasons += graph.unsupported
    first: Operator | None = None
    for operator in graph.operators:
        against = list(_against_edgetpu(graph, operator))
        found.reasons += [f"{operator} {reason}" for reason in against]
        first = first or (operator if against else None)
    if first is not None:
        found.notes.append(f"the compiler would leave {first} and everything after it to the CPU")


def _against_edgetpu(graph: Graph, operator: Operator) -> Iterator[str]:
    tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
    if operator.kind not in _EDGETPU:
        yield "is not in the table of supported operations"
    wrong = {tensor.dtype for tensor in tensors if tensor.data is None} - {"int8", "uint8"}
    if wrong and operator.kind != "QUANTIZE":
        yield f"computes in {', '.join(sorted(wrong))}; only int8 and uint8 are supported"
    for tensor in tensors:
        if -1 in tensor.shape:
            yield f"has a dynamic dimension: {tensor.name} of shape {tensor.shape}; export with a fixed batch"
        elif any(size > 1 for size in tensor.shape[:-_DIMENSIONS]) and tensor.data is None:
            yield f"has more than three dimensions above 1: {tensor.name} of shape {tensor.shape}"
    options = operator.options
    if operator.kind in _NO_FUSED_ACTIVATION and options.get("fusedActivationFunction"):
        yield "has a fused activation, which is not allowed for this operation"
    if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and options["dilationWFactor"] != options["dilationHFactor"]:
        yield "has different dilations in x and y"
    if operator.kind == "FULLY_CONNECTED" and len(weights(graph, operator).scale) > 1:
        yield (
            "has a scale per channel, unsupported for dense layers by the Edge TPU's last compiler; convert with "
            "converter._experimental_disable_per_channel_quantization_for_dense_layers = True"
        )
    if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") and weights(graph, operator).data is None:
        yield "has computed weights; they must be constant"
    if operator.kind == "SOFTMAX":
        shape = activation(graph, operator).shape
        if any(size > 1 for size in shape[:-1]) or shape[-1] > _LARGEST_SOFTMAX:
            yield f"has input shape {shape}; supported is one dimension of at most {_LARGEST_SOFTMAX:,}"
    if operator.kind == "MEAN" and len(operator.inputs) > 1:
        axes = graph.tensors[operator.inputs[1]].data
        rank = len(graph.tensors[operator.inputs[0]].shape)
        if axes is not None and any(int(axis) % max(rank, 1) == 0 for axis in axes.ravel()):
            yield "reduces the batch"


_TARGETS: Registry[str, Callable[[Graph, bytes, _Asked, _Found], None]] = Registry(
    "target",
    {
        "tflm": _tflm,
        "edgetpu": _edgetpu,
        **dict.fromkeys(C_KITS, _c99),
        **dict.fromkeys(CORES, _cortex),
        **dict.fromkeys(ACCELERATORS, _ethos_u),
    },
)
