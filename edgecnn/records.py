"""Every record edgecnn writes or reads, and its JSON form.

Records are frozen; their fields are JSON types, tuples and other records, so any of them goes to a file
and comes back equal. Measurements keep every sample: medians and percentiles are computed, and stored in those alone
that come with edgecnn.
"""

import re
from statistics import NormalDist
from typing import Any, ClassVar, Literal, Self, TypeVar

import msgspec

from edgecnn.errors import RecordError

SCHEMA_VERSION = 1

_NUMBERS = re.compile(rb"\[\n\s*([-+.\deE,\s]+)\n\s*\]")  # no string holds a line break that is not escaped

Io = Literal["float32", "int8", "uint8"]
OnnxCpu = Literal["any", "vnni"]
R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


def to_json(record: Record) -> bytes:
    """Encode a record as UTF-8 JSON, indented, with a final newline; the numbers of an array share a line."""
    indented = msgspec.json.format(msgspec.json.encode(record), indent=1)
    return _NUMBERS.sub(lambda array: b"[" + b",".join(array[1].replace(b",", b" ").split()) + b"]", indented) + b"\n"


def from_json(data: bytes, kind: type[R], where: object) -> R:
    """Decode ``data`` as a record of type ``kind``; ``where`` names its origin in the error.

    Raises:
        RecordError: not JSON, a field missing, unknown or of the wrong type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{where} is not a valid {kind.__name__} file: {error}") from error


class Quantization(Record, frozen=True):
    """Affine quantisation, ``real = scale * (integer - zero_point)``; one scale, or one per index of ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


class TensorSpec(Record, frozen=True):
    """An input or output of a model. ``None`` in the shape is the free batch dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: Literal["NHWC", "NCHW", "NC"]
    quantization: Quantization | None = None


class Preprocessing(Record, frozen=True):
    """How raw values become model input: ``input = raw * scale + offset``, which lies in ``input_range``."""

    scale: float
    offset: float
    input_range: tuple[float, float]


class Scheme(Record, frozen=True):
    """A way to store weights and activations, and how it was reached."""

    name: str
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

    operators: tuple[str, ...]
    in_float: tuple[int, ...]
    unsigned: bool
    cpu: str | None
    runtime: str
    ratio: float
    ratio_low: float
    ratio_high: float
    untuned_ratio: float
    tried: int


class Provenance(Record, frozen=True):
    """What an artifact was made from; stored inside the file itself and in its sidecar.

    ``architecture`` is the hash of the Keras model's layers and shapes (see ``models.architecture``).
    """

    model: str
    model_sha256: str
    scheme: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    data: str
    data_sha256: str
    calibration_images: int | None
    versions: dict[str, str]
    tuning: Tuning | None = None
    architecture: str | None = None


class MemoryBlock(Record, frozen=True):
    """A value, or a layer's scratch memory, in the arena of generated C: ``bytes`` from ``offset`` on.

    It is needed from layer ``first`` to layer ``last``, both included; blocks needed at the same time share bytes
    only where a layer writes its output over an input it has read.
    """

    name: str
    offset: int
    bytes: int
    first: int
    last: int


class MemoryPlan(Record, frozen=True):
    """The arena of generated C, in bytes, and what lies in it; input and output are the caller's."""

    arena_bytes: int
    blocks: tuple[MemoryBlock, ...]


class Companion(Record, frozen=True):
    """A file that belongs to an artifact and stands beside it, such as the header of a .c file."""

    file: str
    sha256: str


class GeneratedC(Record, frozen=True):
    """What a generated .c file says of itself. ``name`` begins its functions' names.

    ``caller_arena`` says that its invoke function takes the arena as a third argument.
    """

    name: str
    input: TensorSpec
    output: TensorSpec
    memory: MemoryPlan
    caller_arena: bool
    provenance: Provenance | None = None


class Artifact(Record, frozen=True):
    """One model file: what is in it, where it comes from, and its hash. ``file`` stands beside the sidecar.

    ``memory`` is known of generated C only, ``architecture`` is that of a .keras file itself.
    """

    file: str
    format: str
    scheme: str
    input: TensorSpec
    output: TensorSpec
    sha256: str
    size_bytes: int
    provenance: Provenance | None = None
    companions: tuple[Companion, ...] = ()
    memory: MemoryPlan | None = None
    architecture: str | None = None

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

    loss: float
    accuracy: float
    val_loss: float | None = None
    val_accuracy: float | None = None


class History(Record, frozen=True):
    """A training, epoch by epoch."""

    epochs: tuple[Epoch, ...]


class Accuracy(Record, frozen=True):
    """Right answers out of a number of images."""

    correct: int
    total: int

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

    total: int
    right: str
    images_sha256: str


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

    images: int
    span: float
    max_abs: float
    mean_abs: float
    worst_image: int
    agree: int
    max_lsb: int | None = None
    mean_lsb: float | None = None
    within_one_lsb: float | None = None

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

    max_abs: float | None
    mean_abs: float
    agreement: float
    accuracy_drop: float
    mean_lsb: float | None = None


class Parity(Record, frozen=True):
    """An artifact against a reference on the same images, and what broke the tolerance, if anything."""

    artifact: str
    artifact_sha256: str
    runtime: str
    reference: str
    accuracy: Accuracy
    reference_accuracy: Accuracy
    difference: Difference
    tolerance: Tolerance
    violations: tuple[str, ...] = ()


class Environment(Record, frozen=True):
    """The machine and software a number was measured on. Unknown values are ``None``, never guessed.

    ``affinity`` lists the cores this process may use; ``cpu_quota`` (in cores) and ``memory_limit_bytes`` are those of
    a container; ``frequency_hz`` is the range the governor may choose from. ``timer_s`` is the shortest time that the
    clock tells from nothing: its resolution, or what reading it costs, whichever is more.
    """

    machine: str
    system: str
    cpu: str | None
    cpu_features: tuple[str, ...]
    cores: int
    usable_cores: int
    memory_bytes: int | None
    governor: str | None
    load_1min: float | None
    python: str
    versions: dict[str, str]
    gpu: str | None = None
    affinity: tuple[int, ...] = ()
    cpu_quota: float | None = None
    memory_limit_bytes: int | None = None
    frequency_hz: tuple[int, int] | None = None
    timer_s: float | None = None


class ColdStart(Record, frozen=True):
    """Seconds that a fresh process takes to its first answer: import the runtime, load the file, run it once."""

    import_s: float
    load_s: float
    first_s: float


class Memory(Record, frozen=True):
    """Resident memory in bytes: of the worker before it imports the runtime, and its peak by the end.

    ``arena_bytes`` is what the runtime itself says that activations take, ``None`` where it says nothing.
    """

    empty_bytes: int
    peak_bytes: int
    arena_bytes: int | None = None


class Energy(Record, frozen=True):
    """What a counter of the machine (``counter`` names it) read over a number of inferences, in joules.

    The counter covers everything that runs on the package, not this process alone.
    """

    counter: str
    joules: float
    inferences: int


class Estimate(Record, frozen=True):
    """A value and its 95 % interval; from one block alone, the interval is 0 to infinity: nothing is known of it."""

    value: float
    low: float
    high: float


class Summary(Record, frozen=True):
    """Latency of one invocation in seconds; ``low`` and ``high`` bound the 95 % interval of the median.

    ``p99`` is ``None`` of fewer samples than it takes. ``throughput`` is all images over all measured time, in images
    per second.
    """

    samples: int
    median: float
    low: float
    high: float
    p90: Estimate
    p99: Estimate | None
    throughput: float


class Summaries(Record, frozen=True):
    """What the samples of a measurement come to, with the reasons to distrust them, where they are kept elsewhere."""

    invoke: Summary
    end_to_end: Summary | None
    warnings: tuple[str, ...]


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

    artifact: str
    artifact_sha256: str
    runtime: str
    device: str
    threads: int
    batch: int
    load_s: float
    warmup: tuple[float, ...]
    blocks: tuple[tuple[float, ...], ...]
    end_to_end: tuple[tuple[float, ...], ...] = ()
    steady: bool = True
    others_busy: tuple[float, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    energy: Energy | None = None
    processes: tuple[int, ...] = ()
    summaries: Summaries | None = None

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


class Failure(Record, frozen=True, tag="failure"):
    """A row that could not be made, with the reason. ``expected`` marks a combination that makes no sense."""

    subject: str
    stage: str
    error: str
    reason: str
    expected: bool = False


class BenchResults(Record, frozen=True):
    """What one call of ``bench`` measured, on one machine.

    ``unfinished`` is there where the call was interrupted: a hash of what it was to measure and how. The same call
    goes on with it.
    """

    schema_version: int
    environment: Environment
    seed: int
    rows: tuple[Result | Failure, ...]
    unfinished: str | None = None


class Baseline(Record, frozen=True):
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

    schema_version: int
    model: str
    model_sha256: str
    backend: str
    device: str
    environment: Environment
    measurement: Measurement
    accuracy: Accuracy | None
    answers: Answers | None = None
    throughput: tuple[Measurement, ...] = ()
    throughput_end: str | None = None
    peak_device_bytes: int | None = None
    compiled_with: str | None = None
    tensor_float_32: bool | None = None
    architecture: str | None = None
    note: str | None = None


class StageTime(Record, frozen=True):
    """How long a stage of a run took; ``reused`` when its outputs were already there."""

    name: str
    seconds: float
    reused: bool


Precision = Literal["int8", "int16", "hybrid", "float", "conversion", "data"]


class InspectedTensor(Record, frozen=True):
    """An input or output of a node. ``None`` in the shape is a size that is not known.

    ``dtype`` is the type the values are quantised to where they are, ``scales`` the number of scales (0: not
    quantised; several: one per channel), ``scale`` and ``zero_point`` their smallest and largest.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    constant: bool = False
    scales: int = 0
    scale: tuple[float, float] | None = None
    zero_point: tuple[int, int] | None = None


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

    position: int | None
    name: str
    kind: str | None
    kernel: str | None
    fate: Literal["runs", "delegated", "fused", "folded", "inserted"]
    precision: Precision | None
    inputs: tuple[InspectedTensor, ...]
    outputs: tuple[InspectedTensor, ...]
    macs: int
    parameters: int
    weight_bytes: int
    seconds: float | None = None
    time_share: float | None = None
    saturates: bool = False


class Inspection(Record, frozen=True):
    """What is in a model file, and how a runtime executes it on one thread of this machine.

    ``nodes`` stand in the order they run, then those that do not run. ``run_seconds`` holds the time of each run,
    without a profiler. ``time_shares`` (none where time per node is not known) and ``mac_shares`` give the share
    (0…1) of each precision. ``notes`` say how these are known, and what is not.
    """

    schema_version: int
    file: str
    format: str
    size_bytes: int
    sha256: str
    runtime: str
    environment: Environment
    nodes: tuple[InspectedNode, ...]
    macs: int
    parameters: int
    weight_bytes: int
    run_seconds: tuple[float, ...]
    time_shares: dict[str, float]
    mac_shares: dict[str, float]
    notes: tuple[str, ...]

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

    name: str
    accuracy: Accuracy
    gained: int
    lost: int
    agree: int | None
    note: str | None = None

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

    artifact: str
    artifact_sha256: str
    scheme: str
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

    tensor: str
    position: int | None
    operator: str
    scale: float
    zero_point: int
    own_snr_db: float | None
    own_max_abs: float
    lost_db: float | None
    snr_db: float | None
    max_abs: float
    at_low: float
    at_high: float
    clipped: float

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

    artifact: str
    artifact_sha256: str
    images: int
    images_from: str
    runtime: str
    reference: str
    weights_snr_db: float | None
    output_snr_db: float | None
    layers: tuple[LayerError, ...]


class TargetCheck(Record, frozen=True):
    """Whether a .tflite fits and runs on a target; ``reasons`` say why not, ``notes`` how that is known.

    ``arena_bytes`` is the memory for activations, ``flash_bytes`` and ``ram_bytes`` what the model takes of a
    microcontroller; ``None`` where nothing was measured.
    """

    schema_version: int
    file: str
    sha256: str
    target: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    arena_bytes: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


class Emulated(Record, frozen=True):
    """What an int8 artifact costs as C on an emulated processor: ``instructions`` of one inference, which are no time.

    They are those of ``functions`` together. ``opt`` is the compiler's level of optimisation; ``compiler`` and
    ``emulator`` are what the two say of themselves. Bytes are those of the model alone: ``code`` without weights,
    ``flash`` with them, static ``ram`` with the ``arena`` in it, and at most ``stack`` on top of it. Input and output
    arrays are the caller's.
    """

    artifact: str
    artifact_sha256: str
    target: str
    opt: str
    compiler: str
    emulator: str
    instructions: int
    functions: dict[str, int]
    code_bytes: int
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    arena_bytes: int


class EmulatedPython(Record, frozen=True):
    """A Python for another architecture that QEMU runs: what it was unpacked from, ``files`` by SHA-256.

    ``machine`` is the architecture as Python says it, ``python`` the version without the last number, ``versions``
    those of the runtimes.
    """

    machine: str
    python: str
    versions: dict[str, str]
    files: dict[str, str]


class ProcessorState(Record, frozen=True):
    """Whether model files can be run on an emulated processor; ``missing`` says what is not there and how to get it.

    ``python`` is the path of the Python that is emulated, ``versions`` are its runtimes'.
    """

    processor: str
    stands_for: str
    emulator: str | None
    python: str | None
    versions: dict[str, str]
    missing: tuple[str, ...]


class ProcessorAnswers(Record, frozen=True, tag="answers"):
    """What a model file answers on an emulated processor, for the first test images.

    ``emulator`` and ``runtime`` are what the two say of themselves, ``runtime_here`` is the runtime of the machine of
    the report. ``against_reference`` compares with the Keras model the file came from, ``against_here`` with the same
    file on that machine. ``instructions`` are those of one inference, the median over the images, and are no time;
    ``None`` where they could not be counted.
    """

    processor: str
    emulator: str
    runtime: str
    runtime_here: str
    against_reference: Parity
    against_here: Parity
    instructions: int | None = None

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


class Kit(Record, frozen=True):
    """What ``edgecnn embed`` wrote into a folder; it is ``kit.json`` there. ``files`` are the others by SHA-256.

    ``arena_bytes`` is what the code in the kit sets aside for activations; ``arena_measured_bytes`` what TFLM took on
    the machine that made the kit, ``None`` where the code needs no interpreter.
    """

    schema_version: int
    target: str
    name: str
    model: str
    model_sha256: str
    files: dict[str, str]
    versions: dict[str, str]
    arena_bytes: int | None = None
    arena_measured_bytes: int | None = None


class Report(Record, frozen=True):
    """A run in one record: what was made, how it was verified, how fast it is, what failed.

    ``data`` is ``None`` where only latency was measured. ``layers`` are the errors inside int8 .tflite files.
    ``emulated`` is what artifacts cost on processors that are emulated here, whichever machine ``rows`` are from;
    ``processors`` is what they answer on some.
    ``others`` are reports of other machines shown beside this one; none of their rows is ranked against its own.
    ``unfinished`` is that of ``BenchResults``.
    """

    schema_version: int
    title: str
    data: str | None
    data_sha256: str | None
    test_images: int
    environment: Environment
    seed: int
    rows: tuple[Result | Failure, ...]
    parities: tuple[Parity, ...]
    baselines: tuple[Baseline, ...] = ()
    stages: tuple[StageTime, ...] = ()
    layers: tuple[LayerErrors, ...] = ()
    emulated: tuple[Emulated, ...] = ()
    processors: tuple[ProcessorAnswers, ...] = ()
    others: "tuple[Report, ...]" = ()
    unfinished: str | None = None


class BundledFile(Record, frozen=True):
    """A file of a bundle: its path inside, with ``/``, and what it must be."""

    name: str
    sha256: str
    size_bytes: int


class BundledImages(Record, frozen=True):
    """The test images of a bundle: ``images`` of the ``of`` that the data set ``data`` has, as it has them.

    ``shape`` is that of one image (height, width, channels), ``data_sha256`` the whole data set's.
    """

    data: str
    data_sha256: str
    images: int
    of: int
    shape: tuple[int, int, int]
    dtype: Literal["uint8", "float32"]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


class Bundle(Record, frozen=True):
    """The manifest of a bundle: what a device needs to measure the artifacts of a run. ``files`` names all others."""

    schema_version: int
    model: str
    model_sha256: str
    test: BundledImages
    files: tuple[BundledFile, ...]
