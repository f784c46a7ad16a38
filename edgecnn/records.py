"""All records that edgecnn writes or reads, and their JSON form.

Records are frozen. Their fields are JSON types, tuples and other records, so they are equal after a round trip through
a file. Measurements keep all samples; medians and percentiles are computed, and stored only in the baselines shipped
with edgecnn.

Records are valid by construction, so code that uses them need not check them again. Ranges of numbers are part of their
types and are checked when JSON is decoded; consistency of several fields is checked whenever a record is made. Texts
(``Name``, ``Text``) may be untrusted, and are made safe to display (see ``edgecnn.text``).
"""

import base64
import logging
import math
import re
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from edgecnn import text
from edgecnn.errors import RecordError
from edgecnn.files import read_bytes

SCHEMA_VERSION = 2

MOST_BYTES = 256 * 1024**2
"""The maximum size of a JSON file to read, in bytes."""

_MOST_VALUES = 2**27  # of one tensor: half a gigabyte of float32

_NUMBERS = re.compile(rb"\[\n\s*([-+.\deE,\s]+)\n\s*\]")  # in strings, line breaks are escaped

# All sets of names: registries, settings and command options use these definitions.
SchemeName = Literal["float32", "float16", "dynamic-int8", "int8", "int16x8", "int8-qat"]
FormatName = Literal["tflite", "onnx", "c99"]
RuntimeName = Literal["litert", "tflm", "onnxruntime", "openvino", "c99", "keras", "fake"]
ModelName = Literal[
    "mnist_cnn",
    "resnet8",
    "ds_cnn",
    "mobilenet_v1_025",
    "mobilenet_v2",
    "unet",
    "autoencoder",
    "motion_cnn",
    "person_cnn",
]
ProcessorName = Literal["nehalem", "haswell", "cortex-a53", "cortex-a72", "cortex-a76", "arm-max"]
CoreName = Literal[
    "cortex-m0", "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m85"
]
BareTarget = Literal[CoreName, "riscv32"]
CKit = Literal["c99", "arduino", "web", "wheel", "android", "ios"]
KitTarget = Literal[CKit, "tflm", "linux", CoreName]
CORES = get_args(CoreName)
"""The Cortex-M cores that C code is generated, compiled and emulated for, with the compiler's names."""
C_KITS = get_args(CKit)
"""The kits that contain C code for any processor: whatever the generator supports fits."""

Backend = Literal["tensorflow", "jax", "torch"]
Device = Literal["auto", "cpu", "gpu"]
Io = Literal["float32", "int8", "uint8"]
OnnxCpu = Literal["any", "vnni"]
QatEngine = Literal["keras", "tfmot"]
TaskName = Literal["classification", "multilabel", "regression", "segmentation", "reconstruction", "custom", "several"]
R = TypeVar("R", bound="Record")

Name = Annotated[str, Meta(extra={"most": text.NAME})]
Text = Annotated[str, Meta(extra={"most": text.MESSAGE})]
# Integers that are exact in float64; real numbers whose products and ratios do not overflow.
Integer = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Real = Annotated[float, Meta(ge=-1e30, le=1e30)]
Amount = Annotated[float, Meta(ge=0, le=1e30)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
# positive as float32 too
Scale = Annotated[float, Meta(ge=2.0**-149, le=3.4028234663852886e38)]
ZeroPoint = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
Size = Annotated[int, Meta(ge=0, le=2**31)]
Block = Annotated[tuple[Count, ...], Meta(min_length=1)]  # of nanoseconds
Blocks = Annotated[tuple[Block, ...], Meta(max_length=10_000)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records.

    Raises:
        RecordError: the fields are inconsistent.
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

    def _repr_html_(self) -> str | None:
        """What a notebook shows instead of ``repr``."""
        return in_notebook(self)


def _as_text(record: Record) -> str | None:
    """None: a notebook shows ``repr``."""
    return None


in_notebook: Callable[[Record], str | None] = _as_text
"""The HTML of a record, or None; ``edgecnn`` sets it when a public name is used, because it is made of everything."""


@cache
def _texts(kind: type[Record]) -> tuple[tuple[str, int], ...]:
    """The text fields of ``kind``, and their maximum lengths."""
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
    """A record stored as a file of its own, with the version of the schema."""

    schema_version: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_version(self.schema_version)


def _check_version(version: int) -> None:
    _check(
        version == SCHEMA_VERSION,
        f"it has schema version {version}, this edgecnn reads {SCHEMA_VERSION}; make the file again, or use the "
        "version of edgecnn that made it",
    )


class _Version(msgspec.Struct):
    """The schema version of any file; other fields are ignored."""

    schema_version: int


def to_json(record: Record) -> bytes:
    """Encode a record as indented UTF-8 JSON with a final newline; an array of numbers is one line."""
    indented = msgspec.json.format(msgspec.json.encode(record), indent=1)
    return _NUMBERS.sub(lambda array: b"[" + b",".join(array[1].replace(b",", b" ").split()) + b"]", indented) + b"\n"


def from_json(data: bytes, kind: type[R], where: object) -> R:
    """Decode ``data`` as a record of type ``kind``; ``where`` names its origin in the error.

    Raises:
        RecordError: not JSON, more than ``MOST_BYTES``, or a field is missing, unknown, of the wrong type or out of
            range; the message has the field's path.
    """
    try:
        if len(data) > MOST_BYTES:
            raise RecordError(f"it has more than {MOST_BYTES // 1024**2} MiB")
        if issubclass(kind, FileRecord):
            # check the version first: errors about fields of another version would be misleading
            _check_version(msgspec.json.decode(data, type=_Version).schema_version)
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise RecordError(f"{where} is not a valid {kind.__name__} file: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecordError) as error:
        raise RecordError(f"{where} is not a valid {kind.__name__} file: {error}") from error


@lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Log a warning once per process, since files are opened repeatedly."""
    logging.getLogger("edgecnn").warning(message)


def end_key(kind: str, number: int) -> str:
    """The key of the property in an .onnx file that describes an input or output: ``kind``, and its number from 0."""
    return f"edgecnn.{kind}.{number}" if number else f"edgecnn.{kind}"


def from_metadata(stored: bytes, kind: type[R], where: str) -> R | None:
    """The record of type ``kind`` stored in a model file; ``where`` names it.

    A damaged record is ignored with a warning, since the model runs without it.
    """
    try:
        return from_json(stored, kind, where)
    except RecordError as error:
        warn_once(f"{error}; it is ignored")
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
            f"{len(self.scale)} scales have {len(self.zero_point)} zero points; the numbers must be equal",
        )


class TensorSpec(Record, frozen=True):
    """An input or output of a model. ``None`` in the shape is the dynamic batch dimension."""

    name: Name
    shape: Annotated[tuple[Size | None, ...], Meta(min_length=1)]
    dtype: Annotated[str, Meta(pattern="^(float(16|32|64)|u?int(8|16|32|64)|bool)$")]
    layout: Literal["NHWC", "NCHW", "NC"]
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.layout != "NCHW" or len(self.shape) == 4,
            f"the layout NCHW needs 4 dimensions, the shape has {len(self.shape)}",
        )
        _check(
            math.prod(1 if size is None else size for size in self.shape) <= _MOST_VALUES,
            f"a tensor of shape {self.shape} has more than {_MOST_VALUES} values",
        )
        _check(
            self.quantization is None or self.dtype.startswith(("int", "uint")),
            f"values of type {self.dtype} cannot have a scale; only integers can",
        )

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """The shape of one sample, channels last."""
        _, *sizes = self.shape
        return (*sizes[1:], sizes[0]) if self.layout == "NCHW" else tuple(sizes)

    @property
    def size(self) -> int:
        """The number of values; those of one sample if the batch is dynamic."""
        return math.prod(size or 1 for size in self.shape)

    @property
    def sample_size(self) -> int:
        """The number of values of one sample."""
        return math.prod(size or 1 for size in self.sample_shape)


class Preprocessing(Record, frozen=True):
    """Conversion of raw values to model input, within ``input_range``: ``input = raw * scale + offset``.

    Before that, photos were resized to ``resize``, height and width, if it is given (Pillow's bilinear filter). Of
    several inputs, ``scale`` and ``offset`` are for those of type uint8; the others are taken as they are.
    """

    scale: Real
    offset: Real
    input_range: tuple[Real, Real]
    resize: tuple[Positive, Positive] | None = None


class Scheme(Record, frozen=True):
    """The types of weights and activations, and the method of quantisation."""

    name: SchemeName
    weights: Literal["float32", "float16", "int8"]
    activations: Literal["float32", "int8", "int16"]
    method: Literal["none", "ptq", "qat"]


class Tuning(Record, frozen=True):
    """Which operators of an int8 ONNX file stay in float, chosen by measurements on one machine.

    ``operators`` are all operators of the .tflite in order, ``in_float`` the positions of those computed in float.
    With ``unsigned``, the activations of the others are stored as uint8.
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


class OutputLabels(Record, frozen=True):
    """What one of several outputs means: ``labels`` name its classes, or its values."""

    name: Name
    task: TaskName
    labels: tuple[Name, ...]


class Provenance(Record, frozen=True):
    """The origin of an artifact; stored inside the file itself and in its sidecar.

    ``calibration_methods`` say how post-training quantisation chose ranges and weights (see ``ptq.calibrated``).
    ``architecture`` is the hash of the Keras model's layers and shapes (see ``models.architecture``). ``labels`` name
    the classes, or the outputs of a ``task`` without classes; those of the task "several" are in ``outputs``. The
    second of two classes is decided by a single output above ``threshold``: 0.5 for a probability, 0 for a logit.
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
    calibration_methods: tuple[Name, ...] = ()
    task: TaskName = "classification"
    threshold: Real = 0.5
    outputs: tuple[OutputLabels, ...] = ()

    @property
    def summary(self) -> str:
        """What other programs show of the file."""
        return f"{self.task}, {self.scheme}, made by edgecnn {self.versions.get('edgecnn', '')}".rstrip()


class MemoryBlock(Record, frozen=True):
    """A value, or a layer's scratch memory, in the arena of generated C: ``bytes`` at ``offset``.

    It is live from layer ``first`` to layer ``last``, inclusive. Blocks that are live at the same time share bytes only
    if a layer overwrites an input that it has read with its output.
    """

    name: Name
    offset: Count
    bytes: Count
    first: Count
    last: Count


class MemoryPlan(Record, frozen=True):
    """The arena of generated C: its size in bytes and its blocks; input and output belong to the caller.

    ``constant_bytes`` are those of the weights and tables, which stay in flash.
    """

    arena_bytes: Annotated[int, Meta(ge=0, le=2**30)]
    blocks: tuple[MemoryBlock, ...]
    constant_bytes: Count | None = None


class Companion(Record, frozen=True):
    """A file that belongs to an artifact, in the same folder, such as the header of a .c file."""

    file: Name
    sha256: Name


class _Ends:
    """The inputs and outputs of a model: most have one of each."""

    __slots__ = ()
    input: TensorSpec
    output: TensorSpec
    more_inputs: tuple[TensorSpec, ...]
    more_outputs: tuple[TensorSpec, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs, in order."""
        return (self.input, *self.more_inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All outputs, in order."""
        return (self.output, *self.more_outputs)

    @property
    def ends(self) -> tuple[dict[str, tuple[int | None, ...]], dict[str, tuple[int | None, ...]]]:
        """The shapes of one sample of each input and each output, channels last, by name."""
        inputs, outputs = ({spec.name: spec.sample_shape for spec in specs} for specs in (self.inputs, self.outputs))
        return inputs, outputs


class GeneratedC(_Ends, Record, frozen=True):
    """The metadata in a generated .c file. ``name`` is the prefix of its functions.

    Several inputs, or outputs, are one after the other in one buffer. With ``caller_arena``, the invoke function has
    the arena as its third argument.
    """

    name: Name
    input: TensorSpec
    output: TensorSpec
    memory: MemoryPlan
    caller_arena: bool
    provenance: Provenance | None = None
    more_inputs: tuple[TensorSpec, ...] = ()
    more_outputs: tuple[TensorSpec, ...] = ()


class Artifact(_Ends, Record, frozen=True):
    """The metadata of a model file. ``file`` is its name, in the folder of the sidecar.

    ``more_inputs`` and ``more_outputs`` follow the first ones. ``memory`` is for generated C only, ``architecture`` for
    .keras files only.
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
    more_inputs: tuple[TensorSpec, ...] = ()
    more_outputs: tuple[TensorSpec, ...] = ()

    @property
    def name(self) -> str:
        """Short name for tables, such as ``int8.tflite``."""
        return self.file

    @property
    def float_model(self) -> tuple[str | None, str | None]:
        """SHA-256 and architecture of the float Keras model: this file, or the one it was made from; if known."""
        if self.format == "keras":
            return self.sha256, self.architecture
        return (None, None) if self.provenance is None else (self.provenance.model_sha256, self.provenance.architecture)


class Epoch(Record, frozen=True):
    """Loss, and accuracy (0…1) or mean absolute error, of one epoch, on the training and the held-out samples."""

    loss: Real
    accuracy: Share | None = None
    mae: Amount | None = None
    val_loss: Real | None = None
    val_accuracy: Share | None = None
    val_mae: Amount | None = None


class History(Record, frozen=True):
    """The epochs of a training."""

    epochs: tuple[Epoch, ...]


class Accuracy(Record, frozen=True):
    """The score of a model on ``total`` test samples: at most 1, higher is better.

    Of a classifier, it is the number of ``correct`` samples. Of other tasks, it is the ``share`` with its 95 %
    interval ``spread``, for the ``metric`` of the task (see ``edgecnn.tasks``) or of the user. ``more`` are further
    metrics by name.
    """

    total: Positive
    correct: Count | None = None
    metric: Name = "accuracy"
    share: Real | None = None
    spread: tuple[Real, Real] | None = None
    more: tuple[tuple[Name, Real], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        counted, measured = self.correct is not None, self.share is not None
        _check(counted != measured, "a score has either a number of right answers or a share")
        _check(measured == (self.spread is not None), "a share needs its interval, and a count has none of its own")
        _check((self.correct or 0) <= self.total, f"{self.correct} right answers are more than {self.total} images")

    @property
    def value(self) -> float:
        """The score: the share of correct samples, 0…1, or the metric of the task."""
        return self.correct / self.total if self.share is None else self.share  # type: ignore[operator]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the score; of a count, the Wilson score interval (Wilson 1927)."""
        return wilson(self.correct or 0, self.total) if self.spread is None else self.spread


class Answers(Record, frozen=True):
    """How good the answer to each of ``total`` test samples is, so that two results can be paired.

    ``right`` is base64 of one bit per sample, in the order of the samples, the first one in the highest bit of the
    first byte; the last byte is padded with zeros. If answers are not just right or wrong, ``credits`` is base64 of a
    little-endian float32 per sample, whose mean is the score (see ``edgecnn.tasks``). ``images_sha256`` is a hash of
    the test samples and their labels in order; equal hashes mean equal samples.
    """

    total: Positive
    images_sha256: Name
    right: str | None = None
    credits: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check((self.right is None) != (self.credits is None), "answers are either right and wrong, or credits")
        wanted = math.ceil(self.total / 8) if self.credits is None else 4 * self.total
        try:
            packed = len(base64.b64decode(self.right or self.credits or "", validate=True))
        except ValueError as error:
            raise RecordError(f"answers are not base64: {error}") from error
        _check(packed == wanted, f"answers have {packed} bytes, {self.total} images need {wanted}")


def _check_answers(accuracy: Accuracy | None, answers: Answers | None) -> None:
    if accuracy is not None and answers is not None:
        _check(
            accuracy.total == answers.total,
            f"the accuracy is for {accuracy.total} images, the answers are for {answers.total}",
        )


def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion (E. B. Wilson, JASA 22, 1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    # exact at both ends, without rounding errors
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == total else middle + half


class Difference(Record, frozen=True):
    """The difference between two sets of outputs, over ``images`` images.

    ``max_abs`` and ``mean_abs`` are in the unit of the output; ``span`` is the span of all reference outputs.
    ``max_lsb`` and ``mean_lsb`` are in steps of the quantised output, ``None`` for float outputs. ``agree`` is the
    number of equal ``decisions`` (see ``edgecnn.tasks``), such as images with the same top class; ``None`` for a task
    without decisions. ``decisions`` is ``None`` if each image has one. ``worst_image`` is the index of the image with
    the largest difference. ``output`` is the one of several outputs that differs most, to which all but ``agree``
    belongs.
    """

    images: Positive
    span: Amount
    max_abs: Amount
    mean_abs: Amount
    worst_image: Count
    agree: Count | None = None
    decisions: Positive | None = None
    max_lsb: Count | None = None
    mean_lsb: Amount | None = None
    within_one_lsb: Share | None = None
    output: Name | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.decisions or self.images
        _check((self.agree or 0) <= most, f"{self.agree} equal decisions are more than {most}")

    @property
    def agreement(self) -> float | None:
        """Share of equal decisions, 0…1, such as images with the same top class."""
        return None if self.agree is None else self.agree / (self.decisions or self.images)


class Tolerance(Record, frozen=True):
    """The limits of a verification; ``None`` means no limit.

    ``max_abs`` and ``mean_abs`` are shares of the span of the reference outputs, so that one table is valid for
    probabilities and logits. ``accuracy_drop`` is a share too: 0.01 is one point. The limits ``agreement`` and
    ``accuracy_drop`` count as violated only if chance does not explain it (95 %).
    """

    max_abs: Amount | None
    mean_abs: Amount
    agreement: Real
    accuracy_drop: Real
    mean_lsb: Amount | None = None


class Parity(Record, frozen=True):
    """The comparison of an artifact with a reference on the same images, and the violations of the tolerance."""

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
    """The machine and software of a measurement. Unknown values are ``None``, never guessed.

    ``affinity`` lists the cores that the process may use; ``cpu_quota`` (in cores) and ``memory_limit_bytes`` are the
    container's; ``frequency_hz`` is the range of the governor. ``timer_s`` is the shortest measurable time: the clock's
    resolution or the cost of reading it, whichever is larger.
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
    """Seconds of a fresh process to its first output: import of the runtime, load of the file, first inference."""

    import_s: Seconds
    load_s: Seconds
    first_s: Seconds


class Memory(Record, frozen=True):
    """Resident memory of the worker in bytes: before it imports the runtime, and its peak.

    ``arena_bytes`` is the size of activations as reported by the runtime, ``None`` if it reports none.
    """

    empty_bytes: Count
    peak_bytes: Count
    arena_bytes: Count | None = None


class Energy(Record, frozen=True):
    """Energy of a number of inferences in joules, from the hardware counter named ``counter``.

    The counter covers everything that runs on the processor package, not only this process.
    """

    counter: Name
    joules: Amount
    inferences: Positive


class Estimate(Record, frozen=True):
    """A value and its 95 % interval; with a single block the interval is unknown: 0 to infinity."""

    value: Real
    low: Real
    high: Real


class Summary(Record, frozen=True):
    """Latency of one invocation in seconds; ``low`` and ``high`` bound the 95 % interval of the median.

    ``p99`` is ``None`` if there are too few samples. ``throughput`` is the number of images ÷ the total measured time,
    in images per second.
    """

    samples: Positive
    median: Seconds
    low: Seconds
    high: Seconds
    p90: Estimate
    p99: Estimate | None
    throughput: Amount


class Summaries(Record, frozen=True):
    """Statistics and warnings of a measurement whose samples are stored elsewhere."""

    invoke: Summary
    end_to_end: Summary | None
    warnings: tuple[Text, ...]


class Measurement(Record, frozen=True):
    """Latency of one artifact on one runtime: all samples in integer nanoseconds, block by block.

    ``blocks_ns`` are times of ``invoke`` alone, ``end_to_end_ns`` of encode, invoke and decode together, in the same
    rounds. ``warmup_ns`` are the samples before the first block and at the start of each block, while caches fill; no
    statistic uses them. ``steady``: whether all warm-ups ended with steady times. ``load_s`` is the time to open the
    session in a fresh process. With ``threads`` 0 the runtime chooses the number. ``others_busy`` is, for each block,
    the share of all cores used by other processes; it is correct only on average, and can be below 0 or above 1 in
    blocks shorter than the system's 10 ms tick. ``blocks_per_process`` is the number of blocks of each worker process
    in order; empty if there was only one. ``summaries`` replace the samples in baselines shipped with edgecnn.
    """

    artifact: Name
    artifact_sha256: Name
    runtime: Name
    device: Name
    threads: Count
    batch: Positive
    load_s: Seconds
    warmup_ns: tuple[Count, ...]
    blocks_ns: Blocks
    end_to_end_ns: Blocks = ()
    steady: bool = True
    others_busy: tuple[Real, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    energy: Energy | None = None
    blocks_per_process: tuple[Positive, ...] = ()
    summaries: Summaries | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(bool(self.blocks_ns) != bool(self.summaries), "a measurement has either blocks or summaries")
        measured = sum(self.blocks_per_process)
        _check(
            not self.blocks_per_process or measured == len(self.blocks_ns),
            f"blocks_per_process has a total of {measured} blocks, but there are {len(self.blocks_ns)}",
        )
        _check(
            len(self.end_to_end_ns) in (0, len(self.blocks_ns)),
            f"{len(self.end_to_end_ns)} blocks were timed end to end, {len(self.blocks_ns)} without",
        )

    @property
    def samples_s(self) -> tuple[float, ...]:
        """All samples of all blocks, in seconds."""
        return tuple(sample / 1e9 for block in self.blocks_ns for sample in block)


class Result(Record, frozen=True, tag="result"):
    """One row of a report: the measurement of an artifact on a runtime."""

    artifact: Artifact
    measurement: Measurement
    accuracy: Accuracy | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_answers(self.accuracy, self.answers)


class Failure(Record, frozen=True, tag="failure"):
    """A failed row, with the reason. ``expected`` marks an unsupported combination."""

    subject: Text
    stage: Name
    error: Name
    reason: Text
    expected: bool = False

    @classmethod
    def of(cls, subject: str, stage: str, error: Exception, *, expected: bool = False) -> Self:
        """The row for an ``error``."""
        return cls(subject=subject, stage=stage, error=type(error).__name__, reason=str(error), expected=expected)


class BenchResults(FileRecord, frozen=True):
    """The results of one call of ``bench``, on one machine.

    ``unfinished`` is set if the call was interrupted: a hash of its arguments. The same call can resume.
    """

    environment: Environment
    seed: Integer
    rows: tuple[Result | Failure, ...]
    unfinished: Name | None = None


class Baseline(FileRecord, frozen=True):
    """The float Keras model on one device, recorded with ``edgecnn baseline``.

    ``measurement`` has batch 1: its blocks time the model with input and output on the device, its ``end_to_end``
    includes the copies to and from the host. ``throughput`` has one measurement for each larger batch, all from one
    process, whose ``load_s`` is the time to compile and run the batch once; ``throughput_end`` is the reason why larger
    batches were not measured. ``peak_device_bytes`` is the peak device memory of all these measurements, if the back
    end reports it. ``compiled_with`` names the compiler of the model, or the reason why it was not compiled.
    ``tensor_float_32``: whether the back end's settings let a GPU round factors to TensorFloat-32 (10 bits of
    mantissa); ``None`` on a CPU. ``architecture`` is the hash of the model's layers and shapes (see
    ``models.architecture``), ``note`` a remark on the record.
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
    """The duration of a stage of a run; ``reused`` if its outputs already existed."""

    name: Name
    seconds: Seconds
    reused: bool


Precision = Literal["int8", "int16", "hybrid", "float", "conversion", "data"]


class InspectedTensor(Record, frozen=True):
    """An input or output of a node. ``None`` in the shape is an unknown size.

    ``dtype`` is the (quantised) type, ``scales`` the number of scales (0: not quantised; several: one per channel),
    ``scale`` and ``zero_point`` their minimum and maximum.
    """

    name: Name
    shape: tuple[Size | None, ...] | None
    dtype: Name
    constant: bool = False
    scales: Count = 0
    scale: tuple[Real, Real] | None = None
    zero_point: tuple[ZeroPoint, ZeroPoint] | None = None


class InspectedNode(Record, frozen=True):
    """An operator of a model file, or a node inserted by the runtime, and how the runtime executes it.

    ``position`` and ``kind`` are those in the file (``None``: inserted by the runtime); ``kernel`` is the kernel that
    runs for it (``None``: no kernel of its own). ``fate``: it runs; runs inside a delegate; was fused into a neighbour;
    was constant-folded at load time; or was inserted by the runtime. ``precision`` is the type of the computation:
    int8 (signed or not), int16, hybrid (float activations, int8 weights) or float; "conversion" of type or layout; or
    "data" (data movement or shape computation). ``macs`` are multiply-accumulates of one run. ``saturates``: on x86
    without VNNI, sums of its products in ONNX Runtime can exceed 16 bits. ``seconds`` are those of one run, including
    the profiler's overhead; ``time_share`` (0…1) is the share of the total of all nodes.
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
    """The content of a model file, and how a runtime executes it on one thread of this machine.

    ``nodes`` are in the order of execution, followed by those that do not run. ``run_seconds`` are the times of each
    run, without a profiler. ``time_shares`` (empty if times per node are unknown) and ``mac_shares`` are the shares
    (0…1) of each precision. ``notes`` list the sources of these data and their gaps.
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
        """Nodes that do not compute in int8, except conversions and data movement."""
        return tuple(node for node in self.nodes if node.precision in ("float", "hybrid", "int16"))

    @property
    def not_portable(self) -> tuple[InspectedNode, ...]:
        """Nodes whose outputs can differ on x86 without VNNI."""
        return tuple(node for node in self.nodes if node.saturates)


class AccuracyStep(Record, frozen=True):
    """One step from the float model to a runtime, compared with the previous step on the same images.

    ``change`` is the accuracy minus that of the previous step, in percentage points. ``gained`` is the number of images
    with a better answer than in the previous step (of a classifier: wrong there and right here), ``lost`` the reverse.
    ``agreement`` is the share of equal decisions, 0…1, such as the same top class; ``None`` in the first step, and for
    a task without decisions. ``note`` is a remark.
    """

    name: Name
    accuracy: Accuracy
    gained: Count
    lost: Count
    change: Real
    agreement: Share | None = None
    note: Text | None = None


class AccuracyPath(Record, frozen=True):
    """From the float model to an int8 .tflite and its .onnx, step by step, with their verification."""

    artifact: Name
    artifact_sha256: Name
    scheme: Name
    steps: tuple[AccuracyStep, ...]
    parities: tuple[Parity, ...]


class LayerError(Record, frozen=True):
    """The error of an int8 tensor of a .tflite; ``position`` is that of its operator, ``None`` for the model's input.

    ``own_…`` is the error of the operator alone, against float computed on its actual int8 inputs; ``snr_db`` and
    ``max_abs`` are the error of all operators up to it. ``max_abs`` is in the tensor's unit, SNR in decibels:
    ``10 * log10(sum(float²) / sum(error²))``, ``None`` without error. ``lost_db`` is the own error relative to that of
    rounding to 255 steps over the range of the tensor's values: a scale c times too large loses 20 log10(c) dB, a scale
    too small saturates. Shares, 0…1: ``at_low`` and ``at_high`` of values at the ends of the integer range (such as the
    zeros of a relu), ``clipped`` of values whose float value is outside the range.
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
        """Whether a better scale would gain ``OFF_DB`` or more."""
        return self.lost_db is not None and self.lost_db >= self.OFF_DB


class LayerErrors(Record, frozen=True):
    """The errors inside one int8 .tflite over ``images`` images, the worst layer first.

    Layers whose scale is off are first, then the others, both sorted by their own SNR. ``weights_snr_db`` compares the
    graph in float, with the file's integer weights, with ``reference``; ``output_snr_db`` compares the int8 output.
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
    """Whether a .tflite fits and runs on a target; ``reasons`` why not, and ``notes`` on the method.

    ``arena_bytes`` is the memory for activations, ``flash_bytes`` and ``ram_bytes`` are the model's flash and RAM on a
    microcontroller; ``None`` if not measured. ``cycles`` is the compiler's estimate for an Ethos-U.
    """

    file: Name
    sha256: Name
    target: Name
    reasons: tuple[Text, ...]
    notes: tuple[Text, ...]
    arena_bytes: Count | None = None
    flash_bytes: Count | None = None
    ram_bytes: Count | None = None
    cycles: Count | None = None

    @property
    def fits(self) -> bool:
        """Whether there is no reason against it."""
        return not self.reasons


class Emulated(Record, frozen=True):
    """Cost of an int8 artifact as C on an emulated processor.

    ``instructions`` are those of one inference, the sum over ``functions``; they are not a timing. ``opt`` is the
    compiler's optimisation level; ``compiler`` and ``emulator`` are their versions. Bytes are those of the model alone:
    ``code`` without weights, ``flash`` with weights, static ``ram`` including the ``arena``, and peak ``stack``. Input
    and output arrays belong to the caller and are not included.
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


class Demo(Record, frozen=True):
    """A model that runs in report.html: its file, and a script that defines it and test samples to try it with."""

    file: Name
    script: str


class FileCosts(Record, frozen=True):
    """The costs of one model file on all emulated microcontrollers, and what could not be counted."""

    emulated: tuple[Emulated, ...]
    failures: tuple[Failure, ...]


class EmulatedPython(Record, frozen=True):
    """A Python for another architecture, to run in QEMU; ``files`` are its packages and wheels by SHA-256.

    ``machine`` is the architecture as in ``platform.machine()``, ``python`` the minor version such as 3.11,
    ``versions`` are those of the runtimes.
    """

    machine: Name
    python: Text
    versions: dict[Name, Name]
    files: dict[str, str]


class ProcessorState(Record, frozen=True):
    """Whether model files can run on an emulated processor; ``missing`` lists what to install, and how.

    ``python`` is the path of the emulated Python, ``versions`` are those of its runtimes.
    """

    processor: Name
    stands_for: Name
    emulator: Text | None
    python: Text | None
    versions: dict[Name, Name]
    missing: tuple[Text, ...]


class ProcessorAnswers(Record, frozen=True, tag="answers"):
    """Outputs of a model file on an emulated processor, for the first test images, compared with two references.

    ``emulator``, ``runtime`` and ``runtime_here`` (on the report's machine) are names with versions.
    ``against_reference`` compares with the Keras model of the file, ``against_here`` with the same file on the report's
    machine. ``instructions`` are those of one inference, the median over the images, and not a timing; ``None`` if they
    could not be counted.
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
        """The violated tolerances, with their reference."""
        return tuple(f"against {one.reference}: {line}" for one in self.parities for line in one.violations)


class FileAnswers(Record, frozen=True):
    """The results of one model file on all emulated processors."""

    rows: tuple[ProcessorAnswers | Failure, ...]


class Kit(FileRecord, frozen=True):
    """A folder written by ``edgecnn embed``, stored there as ``kit.json``; ``files`` are the others by SHA-256.

    ``arena_bytes`` is the size reserved for activations in the kit's code; ``arena_measured_bytes`` is what TFLM needed
    on the machine that made the kit, ``None`` if the code needs no interpreter. ``more_models`` are further models by
    SHA-256.
    """

    target: Name
    name: Name
    model: Name
    model_sha256: Name
    files: dict[Name, Name]
    versions: dict[Name, Name]
    arena_bytes: Count | None = None
    arena_measured_bytes: Count | None = None
    more_models: dict[Name, Name] = {}


class Report(FileRecord, frozen=True):
    """All results of a run: measurements, verifications and failures.

    ``data`` is ``None`` if only latency was measured. ``task`` is what its labels mean, and ``guessing`` the score of
    the best constant outputs, such as the most frequent class of the test images every time. ``layers`` are the errors
    inside int8 .tflite files. ``emulated`` are costs of artifacts on emulated processors, ``processors`` their outputs
    there; both are independent of the machine of ``rows``. ``others`` are further reports, of other machines or runs;
    their rows are not ranked with those of this report. ``unfinished`` is as in ``BenchResults``.
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
    guessing: Share | None = None
    task: TaskName = "classification"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(not any(other.others for other in self.others), "reports in others must have no others themselves")


class BundledFile(Record, frozen=True):
    """A file of a bundle: its path inside, with ``/``, its hash and its size."""

    name: Name
    sha256: Name
    size_bytes: Count


class BundledInput(Record, frozen=True):
    """One of several inputs: its name, and the shape and type of its samples."""

    name: Name
    shape: tuple[Size, ...]
    dtype: Literal["uint8", "float32"]


class BundledImages(Record, frozen=True):
    """The test images of a bundle: ``images`` of the ``of`` test images of the data set ``data``, unprocessed.

    ``shape`` is that of one image, such as height, width and channels, ``data_sha256`` that of the whole data set. Of
    several inputs, all are in ``inputs``, and ``shape`` is empty; several outputs are in ``outputs``.
    """

    data: Text
    data_sha256: Name
    images: Positive
    of: Positive
    shape: tuple[Size, ...]
    dtype: Literal["uint8", "float32"]
    class_names: tuple[Name, ...]
    preprocessing: Preprocessing
    task: TaskName = "classification"
    inputs: tuple[BundledInput, ...] = ()
    outputs: tuple[OutputLabels, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.images <= self.of, f"a bundle cannot have {self.images} of {self.of} images")


class Bundle(FileRecord, frozen=True):
    """The manifest of a bundle, which a device needs to measure the artifacts of a run; ``files`` lists all members.

    ``parities`` are the run's verifications of these very files.
    """

    model: Name
    model_sha256: Name
    test: BundledImages
    files: tuple[BundledFile, ...]
    parities: tuple[Parity, ...] = ()
