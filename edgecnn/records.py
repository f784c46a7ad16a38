"""Every record edgecnn writes or reads, and its JSON form.

Records are frozen; their fields are JSON types, tuples and other records, so any of them goes to a file
and comes back equal. Measurements keep every sample: medians and percentiles are computed, and stored in those alone
that come with edgecnn.

A record that is read is one that can be: the range of a number stands in its type and is checked where JSON is decoded;
what several fields say together is checked wherever a record is made. Texts (``Name``, ``Text``) come from anywhere,
and every record has them as they may be shown (see ``edgecnn.text``). So nobody who gets a record checks it again.
"""

import base64
import logging
import math
import re
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from edgecnn import text
from edgecnn.errors import RecordError
from edgecnn.files import read_bytes

SCHEMA_VERSION = 1

MOST_BYTES = 256 * 1024**2
"""The largest JSON file that is read."""

_MOST_VALUES = 2**27  # of one tensor: half a gigabyte of float32

_NUMBERS = re.compile(rb"\[\n\s*([-+.\deE,\s]+)\n\s*\]")  # no string holds a line break that is not escaped

# Names that are chosen from, each list once: registries, settings and options of commands take them from here.
SchemeName = Literal["float32", "float16", "dynamic-int8", "int8", "int16x8", "int8-qat"]
FormatName = Literal["tflite", "onnx", "c99"]
RuntimeName = Literal["litert", "tflm", "onnxruntime", "c99", "keras", "fake"]
ModelName = Literal["mnist_cnn", "resnet8", "ds_cnn", "mobilenet_v1_025", "mobilenet_v2"]
ProcessorName = Literal["nehalem", "haswell", "cortex-a53", "cortex-a72", "cortex-a76", "arm-max"]
CoreName = Literal["cortex-m0", "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"]
BareTarget = Literal[CoreName, "riscv32"]
KitTarget = Literal["c99", "tflm", "arduino", "linux", CoreName]
CORES = get_args(CoreName)
"""The Cortex-M cores that C code is made, compiled and emulated for, as the compiler calls them."""

Backend = Literal["tensorflow", "jax", "torch"]
Device = Literal["auto", "cpu", "gpu"]
Io = Literal["float32", "int8", "uint8"]
OnnxCpu = Literal["any", "vnni"]
R = TypeVar("R", bound="Record")

Name = Annotated[str, Meta(extra={"most": text.NAME})]
Text = Annotated[str, Meta(extra={"most": text.MESSAGE})]
# Whole numbers that float64 holds exactly; real numbers and their products and ratios that do not overflow.
Integer = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Real = Annotated[float, Meta(ge=-1e30, le=1e30)]
Amount = Annotated[float, Meta(ge=0, le=1e30)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
# As float32, a positive number too
Scale = Annotated[float, Meta(ge=2.0**-149, le=3.4028234663852886e38)]
ZeroPoint = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
Size = Annotated[int, Meta(ge=0, le=2**31)]
Block = Annotated[tuple[Seconds, ...], Meta(min_length=1)]
Blocks = Annotated[tuple[Block, ...], Meta(max_length=10_000)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records.

    Raises:
        RecordError: the fields do not fit each other.
    """

    def __post_init__(self) -> None:
        for name, most in _texts(type(self)):
            found = getattr(self, name)
            clean = _shown(found, most)
            if clean != found:
                msgspec.structs.force_setattr(self, name, clean)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


@cache
def _texts(kind: type[Record]) -> tuple[tuple[str, int], ...]:
    """The fields of ``kind`` that hold texts to be shown, and how many characters each may have at most."""
    found = ((name, _most(hint)) for name, hint in get_type_hints(kind, include_extras=True).items())
    return tuple((name, most) for name, most in found if most is not None)


def _most(hint: Any) -> int | None:
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        if isinstance(part, Meta):
            if part.extra is not None:
                return int(part.extra["most"])
        elif (most := _most(part)) is not None:
            return most
    return None


def _shown(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return text.shown(value, most)
    if isinstance(value, tuple):
        return tuple(_shown(part, most) for part in value)
    return {_shown(key, most): _shown(part, most) for key, part in value.items()} if isinstance(value, dict) else value


def _check(right: bool, problem: str) -> None:
    if not right:
        raise RecordError(problem)


class FileRecord(Record, frozen=True):
    """A record that is a file of its own, and says by which version of these records it was written."""

    schema_version: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.schema_version == SCHEMA_VERSION,
            f"it has schema version {self.schema_version}, this edgecnn reads {SCHEMA_VERSION}; make the file again, "
            "or use the edgecnn that made it",
        )


def to_json(record: Record) -> bytes:
    """Encode a record as UTF-8 JSON, indented, with a final newline; the numbers of an array share a line."""
    indented = msgspec.json.format(msgspec.json.encode(record), indent=1)
    return _NUMBERS.sub(lambda array: b"[" + b",".join(array[1].replace(b",", b" ").split()) + b"]", indented) + b"\n"


def from_json(data: bytes, kind: type[R], where: object) -> R:
    """Decode ``data`` as a record of type ``kind``; ``where`` names its origin in the error.

    Raises:
        RecordError: not JSON, more than ``MOST_BYTES``, a field missing, unknown, of the wrong type or of a value that
            cannot be; the message has the field's path.
    """
    try:
        if len(data) > MOST_BYTES:
            raise RecordError(f"it has more than {MOST_BYTES // 1024**2} MiB")
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise RecordError(f"{where} is not a valid {kind.__name__} file: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecordError) as error:
        raise RecordError(f"{where} is not a valid {kind.__name__} file: {error}") from error


@lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Log a warning, the first time that a process comes upon it: files are opened again and again."""
    logging.getLogger("edgecnn").warning(message)


def from_metadata(stored: bytes, kind: type[R], where: str) -> R | None:
    """The record of type ``kind`` that a model file carries; ``where`` names it.

    A damaged one counts as none, since a model runs without it; a warning tells.
    """
    try:
        return from_json(stored, kind, where)
    except RecordError as error:
        warn_once(f"{error}; the model is taken as one without it")
        return None


def read_record(path: Path, kind: type[R]) -> R:
    """The record of type ``kind`` in the JSON file at ``path``.

    Raises:
        RecordError: the file cannot be read, or as for ``from_json``.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    return from_json(data, kind, path)


class Quantization(Record, frozen=True):
    """Affine quantisation, ``real = scale * (integer - zero_point)``; one scale, or one per index of ``axis``."""

    scale: Annotated[tuple[Scale, ...], Meta(min_length=1)]
    zero_point: tuple[ZeroPoint, ...]
    axis: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            len(self.scale) == len(self.zero_point),
            f"{len(self.scale)} scales have {len(self.zero_point)} zero points; each has one",
        )


class TensorSpec(Record, frozen=True):
    """An input or output of a model. ``None`` in the shape is the free batch dimension."""

    name: Name
    shape: Annotated[tuple[Size | None, ...], Meta(min_length=1)]
    dtype: Annotated[str, Meta(pattern="^(float(16|32|64)|u?int(8|16|32|64)|bool)$")]
    layout: Literal["NHWC", "NCHW", "NC"]
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.layout != "NCHW" or len(self.shape) == 4,
            f"the layout NCHW is one of 4 sizes, the shape has {len(self.shape)}",
        )
        _check(
            math.prod(1 if size is None else size for size in self.shape) <= _MOST_VALUES,
            f"a tensor of shape {self.shape} has more than {_MOST_VALUES} values",
        )
        _check(
            self.quantization is None or self.dtype.startswith(("int", "uint")),
            f"values of type {self.dtype} have no scale; integers have one",
        )


class Preprocessing(Record, frozen=True):
    """How raw values become model input: ``input = raw * scale + offset``, which lies in ``input_range``."""

    scale: Real
    offset: Real
    input_range: tuple[Real, Real]


class Scheme(Record, frozen=True):
    """A way to store weights and activations, and how it was reached."""

    name: SchemeName
    weights: Literal["float32", "float16", "int8"]
    activations: Literal["float32", "int8", "int16"]
    method: Literal["none", "ptq", "qat"]


class Tuning(Record, frozen=True):
    """Which operators of an int8 ONNX file stay in float, chosen by measuring on one machine.

    ``operators`` are all operators of the .tflite in order, ``in_float`` the positions of those computed in float;
    ``unsigned`` says that the activations of the others are stored as uint8.
    Ratios are latency divided by that of the float32 .onnx in the same measurement, one thread, batch 1: below 1
    is faster. ``ratio_low`` and ``ratio_high`` are the quartiles over the measured blocks.
    """

    operators: tuple[Name, ...]
    in_float: tuple[Count, ...]
    unsigned: bool
    cpu: Name | None
    runtime: Name
    ratio: Amount
    ratio_low: Amount
    ratio_high: Amount
    untuned_ratio: Amount
    tried: Count

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            all(position < len(self.operators) for position in self.in_float),
            f"in_float is {self.in_float}, but there are {len(self.operators)} operators",
        )


class Provenance(Record, frozen=True):
    """What an artifact was made from; stored inside the file itself and in its sidecar.

    ``architecture`` is the hash of the Keras model's layers and shapes (see ``models.architecture``).
    """

    model: Name
    model_sha256: Name
    scheme: Name
    labels: tuple[Name, ...]
    preprocessing: Preprocessing
    data: Text
    data_sha256: Name
    calibration_images: Count | None
    versions: dict[Name, Name]
    tuning: Tuning | None = None
    architecture: Name | None = None


class MemoryBlock(Record, frozen=True):
    """A value, or a layer's scratch memory, in the arena of generated C: ``bytes`` from ``offset`` on.

    It is needed from layer ``first`` to layer ``last``, both included; blocks needed at the same time share bytes
    only where a layer writes its output over an input it has read.
    """

    name: Name
    offset: Count
    bytes: Count
    first: Count
    last: Count


class MemoryPlan(Record, frozen=True):
    """The arena of generated C, in bytes, and what lies in it; input and output are the caller's."""

    arena_bytes: Annotated[int, Meta(ge=0, le=2**30)]
    blocks: tuple[MemoryBlock, ...]


class Companion(Record, frozen=True):
    """A file that belongs to an artifact and stands beside it, such as the header of a .c file."""

    file: Name
    sha256: Name


class GeneratedC(Record, frozen=True):
    """What a generated .c file says of itself. ``name`` begins its functions' names.

    ``caller_arena`` says that its invoke function takes the arena as a third argument.
    """

    name: Name
    input: TensorSpec
    output: TensorSpec
    memory: MemoryPlan
    caller_arena: bool
    provenance: Provenance | None = None


class Artifact(Record, frozen=True):
    """One model file: what is in it, where it comes from, and its hash. ``file`` stands beside the sidecar.

    ``memory`` is known of generated C only, ``architecture`` is that of a .keras file itself.
    """

    file: Name
    format: Name
    scheme: Name
    input: TensorSpec
    output: TensorSpec
    sha256: Name
    size_bytes: Count
    provenance: Provenance | None = None
    companions: tuple[Companion, ...] = ()
    memory: MemoryPlan | None = None
    architecture: Name | None = None

    @property
    def name(self) -> str:
        """Short name for tables, such as ``int8.tflite``."""
        return self.file

    @property
    def float_model(self) -> tuple[str | None, str | None]:
        """SHA-256 and architecture of the float Keras model that this is or was made from, where known."""
        if self.format == "keras":
            return self.sha256, self.architecture
        return (None, None) if self.provenance is None else (self.provenance.model_sha256, self.provenance.architecture)


class Epoch(Record, frozen=True):
    """Loss and accuracy (0…1) of one epoch, on the training and the held-out images."""

    loss: Real
    accuracy: Share
    val_loss: Real | None = None
    val_accuracy: Share | None = None


class History(Record, frozen=True):
    """A training, epoch by epoch."""

    epochs: tuple[Epoch, ...]


class Accuracy(Record, frozen=True):
    """Right answers out of a number of images."""

    correct: Count
    total: Positive

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.correct <= self.total, f"{self.correct} right answers are more than {self.total} images")

    @property
    def value(self) -> float:
        """Share of right answers, 0…1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of the share (Wilson 1927)."""
        return wilson(self.correct, self.total)


class Answers(Record, frozen=True):
    """Which test images were classified right, image by image, so that two countings can be paired.

    ``right`` is base64 of one bit per image, in the order of the images, the first one in the highest bit of the first
    byte; the last byte is filled up with zeros. ``images_sha256`` covers the test images and their labels: where it is
    equal, the images are the same, in the same order.
    """

    total: Positive
    right: str
    images_sha256: Name

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            packed, wanted = base64.b64decode(self.right, validate=True), math.ceil(self.total / 8)
        except ValueError as error:
            raise RecordError(f"answers are not base64: {error}") from error
        _check(len(packed) == wanted, f"answers hold {len(packed)} bytes, {self.total} images need {wanted}")


def _check_answers(accuracy: Accuracy | None, answers: Answers | None) -> None:
    if accuracy is not None and answers is not None:
        _check(
            accuracy.total == answers.total,
            f"the accuracy is of {accuracy.total} images, the answers are of {answers.total}",
        )


def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion (E. B. Wilson, JASA 22, 1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    # at the ends the interval is exact, which rounding would miss
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == total else middle + half


class Difference(Record, frozen=True):
    """How far two sets of outputs are apart, over ``images`` images.

    ``max_abs`` and ``mean_abs`` are in the unit of the output, whose span over all reference outputs is ``span``;
    ``max_lsb`` and ``mean_lsb`` count steps of the quantised output and are ``None`` for float outputs.
    ``agree`` counts images with the same top class, ``worst_image`` is the index of the largest difference.
    """

    images: Positive
    span: Amount
    max_abs: Amount
    mean_abs: Amount
    worst_image: Count
    agree: Count
    max_lsb: Count | None = None
    mean_lsb: Amount | None = None
    within_one_lsb: Share | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.agree <= self.images, f"{self.agree} images with the same top class are more than {self.images}")

    @property
    def agreement(self) -> float:
        """Share of images with the same top class, 0…1."""
        return self.agree / self.images


class Tolerance(Record, frozen=True):
    """What verification allows; ``None`` means not limited.

    ``max_abs`` and ``mean_abs`` are shares of the span of the reference outputs, so that one table serves
    probabilities and logits; ``accuracy_drop`` is a share too: 0.01 is one point. ``agreement`` and
    ``accuracy_drop`` count as broken only where chance does not explain it (95 %).
    """

    max_abs: Amount | None
    mean_abs: Amount
    agreement: Real
    accuracy_drop: Real
    mean_lsb: Amount | None = None


class Parity(Record, frozen=True):
    """An artifact against a reference on the same images, and what broke the tolerance, if anything."""

    artifact: Name
    artifact_sha256: Name
    runtime: Name
    reference: Text
    accuracy: Accuracy
    reference_accuracy: Accuracy
    difference: Difference
    tolerance: Tolerance
    violations: tuple[Text, ...] = ()


class Environment(Record, frozen=True):
    """The machine and software a number was measured on. Unknown values are ``None``, never guessed.

    ``affinity`` lists the cores this process may use; ``cpu_quota`` (in cores) and ``memory_limit_bytes`` are those of
    a container; ``frequency_hz`` is the range the governor may choose from. ``timer_s`` is the shortest time that the
    clock tells from nothing: its resolution, or what reading it costs, whichever is more.
    """

    machine: Name
    system: Name
    cpu: Name | None
    cpu_features: tuple[Name, ...]
    cores: Positive
    usable_cores: Positive
    memory_bytes: Count | None
    governor: Name | None
    load_1min: Amount | None
    python: Text
    versions: dict[Name, Name]
    gpu: Name | None = None
    affinity: tuple[Count, ...] = ()
    cpu_quota: Amount | None = None
    memory_limit_bytes: Count | None = None
    frequency_hz: tuple[Count, Count] | None = None
    timer_s: Seconds | None = None


class ColdStart(Record, frozen=True):
    """Seconds that a fresh process takes to its first answer: import the runtime, load the file, run it once."""

    import_s: Seconds
    load_s: Seconds
    first_s: Seconds


class Memory(Record, frozen=True):
    """Resident memory in bytes: of the worker before it imports the runtime, and its peak by the end.

    ``arena_bytes`` is what the runtime itself says that activations take, ``None`` where it says nothing.
    """

    empty_bytes: Count
    peak_bytes: Count
    arena_bytes: Count | None = None


class Energy(Record, frozen=True):
    """What a counter of the machine (``counter`` names it) read over a number of inferences, in joules.

    The counter covers everything that runs on the package, not this process alone.
    """

    counter: Name
    joules: Amount
    inferences: Positive


class Estimate(Record, frozen=True):
    """A value and its 95 % interval; from one block alone, the interval is 0 to infinity: nothing is known of it."""

    value: Real
    low: Real
    high: Real


class Summary(Record, frozen=True):
    """Latency of one invocation in seconds; ``low`` and ``high`` bound the 95 % interval of the median.

    ``p99`` is ``None`` of fewer samples than it takes. ``throughput`` is all images over all measured time, in images
    per second.
    """

    samples: Positive
    median: Seconds
    low: Seconds
    high: Seconds
    p90: Estimate
    p99: Estimate | None
    throughput: Amount


class Summaries(Record, frozen=True):
    """What the samples of a measurement come to, with the reasons to distrust them, where they are kept elsewhere."""

    invoke: Summary
    end_to_end: Summary | None
    warnings: tuple[Text, ...]


class Measurement(Record, frozen=True):
    """Latency of one artifact on one runtime: every sample, in seconds, block by block.

    ``blocks`` time ``invoke`` alone, ``end_to_end`` time encode, invoke and decode together, in the same rounds.
    ``warmup`` holds the samples taken before the first block and at the start of each, while caches fill again;
    they take no part in any statistic; ``steady`` says whether the first warm-up ended because the times had settled.
    ``load_s`` is the time to open the session, model file to ready, in a fresh process. ``threads`` 0 leaves the
    number to the runtime. ``others_busy`` is, for each block, the share of all cores that other processes took: right
    on average only, below 0 or above 1 in blocks that are shorter than the 10 ms in which the system counts.
    ``processes`` is the number of blocks that each of the worker processes measured, one after the other; none where
    all come from one process. ``summaries`` stand for samples that are not here, in baselines that come with edgecnn.
    """

    artifact: Name
    artifact_sha256: Name
    runtime: Name
    device: Name
    threads: Count
    batch: Positive
    load_s: Seconds
    warmup: tuple[Seconds, ...]
    blocks: Blocks
    end_to_end: Blocks = ()
    steady: bool = True
    others_busy: tuple[Real, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    energy: Energy | None = None
    processes: tuple[Positive, ...] = ()
    summaries: Summaries | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(bool(self.blocks) != bool(self.summaries), "a measurement has either blocks or summaries")
        _check(
            not self.processes or sum(self.processes) == len(self.blocks),
            f"the processes measured {sum(self.processes)} blocks, {len(self.blocks)} are there",
        )
        _check(
            len(self.end_to_end) in (0, len(self.blocks)),
            f"{len(self.end_to_end)} blocks were timed end to end, {len(self.blocks)} without",
        )

    @property
    def samples(self) -> tuple[float, ...]:
        """All samples of all blocks, in seconds."""
        return tuple(sample for block in self.blocks for sample in block)


class Result(Record, frozen=True, tag="result"):
    """One row of a report: an artifact on a runtime, measured and verified."""

    artifact: Artifact
    measurement: Measurement
    accuracy: Accuracy | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_answers(self.accuracy, self.answers)


class Failure(Record, frozen=True, tag="failure"):
    """A row that could not be made, with the reason. ``expected`` marks an unsupported combination."""

    subject: Text
    stage: Name
    error: Name
    reason: Text
    expected: bool = False


class BenchResults(FileRecord, frozen=True):
    """What one call of ``bench`` measured, on one machine.

    ``unfinished`` is there where the call was interrupted: a hash of what it was to measure and how. The same call
    goes on with it.
    """

    environment: Environment
    seed: Integer
    rows: tuple[Result | Failure, ...]
    unfinished: Name | None = None


class Baseline(FileRecord, frozen=True):
    """The float Keras model on one device, recorded with ``edgecnn baseline``.

    ``measurement`` has batch 1: its blocks time the model with input and output on the device, its ``end_to_end``
    with the copies from and to the host. ``throughput`` holds one measurement for each larger batch, all from one
    process, whose ``load_s`` is the time to compile and run the batch once; ``throughput_end`` says why there is no
    larger one still. ``peak_device_bytes`` is the device's memory in use at most, in any of these measurements, where
    the back end tells. ``compiled_with`` names what compiled the model, or says why it was not compiled.
    ``tensor_float_32`` says whether the back end's settings let a GPU round factors to TensorFloat-32 (10 bits of
    mantissa); ``None`` on a CPU, which does not. ``architecture`` is the hash of the model's layers and shapes (see
    ``models.architecture``), ``note`` what else is to be known of the record.
    """

    model: Name
    model_sha256: Name
    backend: Name
    device: Name
    environment: Environment
    measurement: Measurement
    accuracy: Accuracy | None
    answers: Answers | None = None
    throughput: tuple[Measurement, ...] = ()
    throughput_end: Text | None = None
    peak_device_bytes: Count | None = None
    compiled_with: Text | None = None
    tensor_float_32: bool | None = None
    architecture: Name | None = None
    note: Text | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_answers(self.accuracy, self.answers)


class StageTime(Record, frozen=True):
    """How long a stage of a run took; ``reused`` when its outputs were already there."""

    name: Name
    seconds: Seconds
    reused: bool


Precision = Literal["int8", "int16", "hybrid", "float", "conversion", "data"]


class InspectedTensor(Record, frozen=True):
    """An input or output of a node. ``None`` in the shape is a size that is not known.

    ``dtype`` is the type the values are quantised to where they are, ``scales`` the number of scales (0: not
    quantised; several: one per channel), ``scale`` and ``zero_point`` their smallest and largest.
    """

    name: Name
    shape: tuple[Size | None, ...] | None
    dtype: Name
    constant: bool = False
    scales: Count = 0
    scale: tuple[Real, Real] | None = None
    zero_point: tuple[ZeroPoint, ZeroPoint] | None = None


class InspectedNode(Record, frozen=True):
    """An operator of a model file, or a node the runtime put in, and what became of it in the runtime.

    ``position`` and ``kind`` are those in the file (``None``: put in by the runtime), ``kernel`` is what runs for it
    (``None``: nothing of its own). ``fate``: it runs; it runs inside a delegate; it was fused into a neighbour; it was
    computed once, when the file was loaded; it was put in by the runtime. ``precision`` is what the kernel computes
    in: int8 (signed or not), int16, hybrid (float activations, int8 weights), float; or a conversion of type or
    layout, or data that are moved or shapes that are computed. ``macs`` are multiply-accumulates of one run.
    ``saturates``: on x86 without VNNI, ONNX Runtime's sums of its products can leave 16 bits.
    ``seconds`` are those of one run, with the profiler's cost; ``time_share`` (0…1) is the share in all nodes' seconds.
    """

    position: Count | None
    name: Name
    kind: Name | None
    kernel: Name | None
    fate: Literal["runs", "delegated", "fused", "folded", "inserted"]
    precision: Precision | None
    inputs: tuple[InspectedTensor, ...]
    outputs: tuple[InspectedTensor, ...]
    macs: Count
    parameters: Count
    weight_bytes: Count
    seconds: Seconds | None = None
    time_share: Share | None = None
    saturates: bool = False


class Inspection(FileRecord, frozen=True):
    """What is in a model file, and how a runtime executes it on one thread of this machine.

    ``nodes`` stand in the order they run, then those that do not run. ``run_seconds`` holds the time of each run,
    without a profiler. ``time_shares`` (none where time per node is not known) and ``mac_shares`` give the share
    (0…1) of each precision. ``notes`` say how these are known, and what is not.
    """

    file: Name
    format: Name
    size_bytes: Count
    sha256: Name
    runtime: Name
    environment: Environment
    nodes: tuple[InspectedNode, ...]
    macs: Count
    parameters: Count
    weight_bytes: Count
    run_seconds: tuple[Seconds, ...]
    time_shares: dict[Name, Share]
    mac_shares: dict[Name, Share]
    notes: tuple[Text, ...]

    @property
    def not_int8(self) -> tuple[InspectedNode, ...]:
        """Nodes that compute in something else than int8; conversions and moved data compute nothing."""
        return tuple(node for node in self.nodes if node.precision in ("float", "hybrid", "int16"))

    @property
    def not_portable(self) -> tuple[InspectedNode, ...]:
        """Nodes that can give other answers on x86 without VNNI."""
        return tuple(node for node in self.nodes if node.saturates)


class AccuracyStep(Record, frozen=True):
    """One step on the way from the float model to a runtime, against the step before, on the same images.

    ``gained`` images were wrong before and are right now, ``lost`` the other way round; ``agree`` counts images whose
    top class is that of the step before, ``None`` at the first. ``note`` says what is unusual about the step.
    """

    name: Name
    accuracy: Accuracy
    gained: Count
    lost: Count
    agree: Count | None
    note: Text | None = None

    @property
    def change(self) -> float:
        """Accuracy minus that of the step before, in points (percent of the images)."""
        return 100 * (self.gained - self.lost) / self.accuracy.total

    @property
    def agreement(self) -> float | None:
        """Share of images with the top class of the step before, 0…1."""
        return None if self.agree is None else self.agree / self.accuracy.total


class AccuracyPath(Record, frozen=True):
    """From the float model to an int8 .tflite and its .onnx, step by step, with their verification."""

    artifact: Name
    artifact_sha256: Name
    scheme: Name
    steps: tuple[AccuracyStep, ...]
    parities: tuple[Parity, ...]


class LayerError(Record, frozen=True):
    """How far an int8 tensor of a .tflite is from its float value; ``position`` is its operator's, or the input's None.

    ``own_…`` is the error of the operator alone, computed in float on its actual int8 inputs; ``snr_db`` and
    ``max_abs`` that of all operators up to it. ``max_abs`` is in the tensor's unit, SNR in decibels:
    ``10 * log10(sum(float²) / sum(error²))``, ``None`` without error. ``lost_db`` is how far the own error lies above
    that of rounding to 255 steps over the values the tensor has: a scale c times too large loses 20 log10(c) dB, one
    too small saturates. Shares, 0…1: ``at_low`` and ``at_high`` of values at the ends of the integers (where a relu's
    zeros belong), ``clipped`` of values whose float value lies beyond those ends.
    """

    OFF_DB: ClassVar[float] = 2.0

    tensor: Name
    position: Count | None
    operator: Name
    scale: Scale
    zero_point: ZeroPoint
    own_snr_db: Real | None
    own_max_abs: Amount
    lost_db: Real | None
    snr_db: Real | None
    max_abs: Amount
    at_low: Share
    at_high: Share
    clipped: Share

    @property
    def own_max_lsb(self) -> float:
        """The largest own error in steps of the tensor."""
        return self.own_max_abs / self.scale

    @property
    def max_lsb(self) -> float:
        """The largest error of all operators up to this one in steps of the tensor."""
        return self.max_abs / self.scale

    @property
    def scale_is_off(self) -> bool:
        """Whether another scale would have spared ``OFF_DB`` or more."""
        return self.lost_db is not None and self.lost_db >= self.OFF_DB


class LayerErrors(Record, frozen=True):
    """The errors inside one int8 .tflite over ``images`` images, the worst layer first.

    First come layers whose scale is off, then the others, each by their own SNR. ``weights_snr_db`` compares the
    output of the graph in float, with the file's integer weights, with that of ``reference``; ``output_snr_db`` the
    int8 output.
    """

    artifact: Name
    artifact_sha256: Name
    images: Positive
    images_from: Name
    runtime: Name
    reference: Text
    weights_snr_db: Real | None
    output_snr_db: Real | None
    layers: tuple[LayerError, ...]


class TargetCheck(FileRecord, frozen=True):
    """Whether a .tflite fits and runs on a target; ``reasons`` say why not, ``notes`` how that is known.

    ``arena_bytes`` is the memory for activations, ``flash_bytes`` and ``ram_bytes`` what the model takes of a
    microcontroller; ``None`` where nothing was measured.
    """

    file: Name
    sha256: Name
    target: Name
    reasons: tuple[Text, ...]
    notes: tuple[Text, ...]
    arena_bytes: Count | None = None
    flash_bytes: Count | None = None
    ram_bytes: Count | None = None

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


class Emulated(Record, frozen=True):
    """What an int8 artifact costs as C on an emulated processor. ``instructions`` are of one inference, and no timing.

    They are those of ``functions`` together. ``opt`` is the compiler's level of optimisation; ``compiler`` and
    ``emulator`` are what the two say of themselves. Bytes are those of the model alone: ``code`` without weights,
    ``flash`` with them, static ``ram`` with the ``arena`` in it, and at most ``stack`` on top of it. Input and output
    arrays are the caller's.
    """

    artifact: Name
    artifact_sha256: Name
    target: Name
    opt: Name
    compiler: Text
    emulator: Text
    instructions: Count
    functions: dict[Name, Count]
    code_bytes: Count
    flash_bytes: Count
    ram_bytes: Count
    stack_bytes: Count
    arena_bytes: Count


class EmulatedPython(Record, frozen=True):
    """A Python for another architecture that QEMU runs: what it was unpacked from, ``files`` by SHA-256.

    ``machine`` is the architecture as Python says it, ``python`` the version without the last number, ``versions``
    those of the runtimes.
    """

    machine: Name
    python: Text
    versions: dict[Name, Name]
    files: dict[str, str]


class ProcessorState(Record, frozen=True):
    """Whether model files can be run on an emulated processor; ``missing`` says what is not there and how to get it.

    ``python`` is the path of the Python that is emulated, ``versions`` are its runtimes'.
    """

    processor: Name
    stands_for: Name
    emulator: Text | None
    python: Text | None
    versions: dict[Name, Name]
    missing: tuple[Text, ...]


class ProcessorAnswers(Record, frozen=True, tag="answers"):
    """What a model file answers on an emulated processor, for the first test images.

    ``emulator`` and ``runtime`` are what the two say of themselves, ``runtime_here`` is the runtime of the machine of
    the report. ``against_reference`` compares with the Keras model the file came from, ``against_here`` with the same
    file on that machine. ``instructions`` are those of one inference, the median over the images, and are not timings;
    ``None`` where they could not be counted.
    """

    processor: Name
    emulator: Text
    runtime: Name
    runtime_here: Name
    against_reference: Parity
    against_here: Parity
    instructions: Count | None = None

    @property
    def artifact(self) -> str:
        """The model file's name."""
        return self.against_here.artifact

    @property
    def parities(self) -> tuple[Parity, Parity]:
        """Both comparisons."""
        return self.against_reference, self.against_here

    @property
    def violations(self) -> tuple[str, ...]:
        """What is out of tolerance, and against what."""
        return tuple(f"against {one.reference}: {line}" for one in self.parities for line in one.violations)


class FileAnswers(Record, frozen=True):
    """What became of one model file on each emulated processor."""

    rows: tuple[ProcessorAnswers | Failure, ...]


class Kit(FileRecord, frozen=True):
    """What ``edgecnn embed`` wrote into a folder; it is ``kit.json`` there. ``files`` are the others by SHA-256.

    ``arena_bytes`` is what the code in the kit sets aside for activations; ``arena_measured_bytes`` what TFLM took on
    the machine that made the kit, ``None`` where the code needs no interpreter.
    """

    target: Name
    name: Name
    model: Name
    model_sha256: Name
    files: dict[Name, Name]
    versions: dict[Name, Name]
    arena_bytes: Count | None = None
    arena_measured_bytes: Count | None = None


class Report(FileRecord, frozen=True):
    """A run in one record: what was made, how it was verified, how fast it is, what failed.

    ``data`` is ``None`` where only latency was measured. ``layers`` are the errors inside int8 .tflite files.
    ``emulated`` is what artifacts cost on processors that are emulated here, whichever machine ``rows`` are from;
    ``processors`` is what they answer on some.
    ``others`` are reports of other machines shown beside this one; none of their rows is ranked against its own.
    ``unfinished`` is that of ``BenchResults``.
    """

    title: Text
    data: Text | None
    data_sha256: Name | None
    test_images: Count
    environment: Environment
    seed: Integer
    rows: tuple[Result | Failure, ...]
    parities: tuple[Parity, ...]
    baselines: tuple[Baseline, ...] = ()
    stages: tuple[StageTime, ...] = ()
    layers: tuple[LayerErrors, ...] = ()
    emulated: tuple[Emulated, ...] = ()
    processors: tuple[ProcessorAnswers, ...] = ()
    others: "tuple[Report, ...]" = ()
    unfinished: Name | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(not any(other.others for other in self.others), "reports beside a report have none beside themselves")


class BundledFile(Record, frozen=True):
    """A file of a bundle: its path inside, with ``/``, and what it must be."""

    name: Name
    sha256: Name
    size_bytes: Count


class BundledImages(Record, frozen=True):
    """The test images of a bundle: ``images`` of the ``of`` that the data set ``data`` has, as it has them.

    ``shape`` is that of one image (height, width, channels), ``data_sha256`` the whole data set's.
    """

    data: Text
    data_sha256: Name
    images: Positive
    of: Positive
    shape: tuple[Size, Size, Size]
    dtype: Literal["uint8", "float32"]
    class_names: tuple[Name, ...]
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.images <= self.of, f"{self.images} of {self.of} images cannot be")


class Bundle(FileRecord, frozen=True):
    """The manifest of a bundle: what a device needs to measure the artifacts of a run. ``files`` names all others."""

    model: Name
    model_sha256: Name
    test: BundledImages
    files: tuple[BundledFile, ...]
