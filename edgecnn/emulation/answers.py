"""What model files answer on emulated processors, beside their reference and beside this machine."""

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn import artifacts, verify
from edgecnn.arrays import read_npy
from edgecnn.data import DataSet
from edgecnn.emulation.install import ENVIRONMENT, Interpreter, gist, interpreter_for, system_for, versions_here
from edgecnn.emulation.processors import PROCESSORS, Emulator, Processor, emulator_for
from edgecnn.emulation.runner import EMPTY
from edgecnn.environment import usable_cores
from edgecnn.errors import EdgecnnError, EmulationError, UnsupportedError
from edgecnn.inference import outputs_of, task_of
from edgecnn.progress import progress
from edgecnn.quantization.schemes import SCHEMES, is_static_int8
from edgecnn.records import Artifact, Failure, Parity, ProcessorAnswers, ProcessorState, Tolerance
from edgecnn.runtimes import Float
from edgecnn.runtimes.quantized_io import from_output, to_input

IMAGES = 100
"""How many test images files are run on, unless told otherwise."""

FORMATS = ("tflite", "onnx")
"""Of the files that are run there; C code is, by ``machine``."""

HERE = "this machine"
"""What a ``Parity`` calls the same file on the machine that emulates, where that answers like the file's reference."""

WRONG_HERE = "this machine, which is wrong itself"
"""What it calls it where it does not."""

_RUNNER = Path(__file__).with_name("runner.py")
_LIMIT_S = 600.0


class Ready(msgspec.Struct, frozen=True):
    """A processor with what it takes to run model files on it."""

    processor: Processor
    emulator: Emulator
    interpreter: Interpreter

    @property
    def key(self) -> tuple[str, str, dict[str, str]]:
        """What answers may depend on, but for the file and the images."""
        return self.processor.name, self.emulator.version, dict(self.interpreter.versions)


def ready(names: Sequence[str]) -> list[Ready]:
    """The processors called ``names``.

    Raises:
        UnknownNameError: there is no such processor.
        EmulationError: QEMU or the Python for one of them is missing; says how to get it.
    """
    processors = [PROCESSORS[name] for name in dict.fromkeys(names)]
    return [Ready(each, emulator_for(each.machine), interpreter_for(each)) for each in processors]


def state(processor: Processor) -> ProcessorState:
    """What is here to run model files on ``processor``, and what is missing."""
    missing: list[str] = []
    emulator = interpreter = None
    try:
        emulator = emulator_for(processor.machine)
    except EmulationError as error:
        missing.append(str(error))
    try:
        interpreter = interpreter_for(processor)
    except EmulationError as error:
        missing.append(str(error))
    else:
        if interpreter.versions != versions_here():
            wanted = ", ".join(f"{name} {version}" for name, version in versions_here().items())
            missing.append(f"its Python has not {wanted}; run: edgecnn emulate --install {processor.name}")
    return ProcessorState(
        processor=processor.name,
        stands_for=processor.stands_for,
        emulator=None if emulator is None else emulator.version,
        python=None if interpreter is None else str(interpreter.program),
        versions={} if interpreter is None else dict(interpreter.versions),
        missing=tuple(missing),
    )


def verify_on(
    paths: Sequence[Path],
    on: Sequence[str],
    data: DataSet,
    *,
    model: Path,
    qat_weights: Path | None = None,
    images: int = IMAGES,
) -> list[ProcessorAnswers | Failure]:
    """Run the files at ``paths`` on the processors ``on`` for the first ``images`` test images of ``data``.

    The reference is the one that ``verify.verify`` compares with. A file that this machine does not run is a failure of
    the stage "emulate" too.

    Raises:
        ArtifactError, ConfigError: as ``verify.verify``, before anything runs.
        EmulationError: QEMU or the Python for a processor is missing.
    """
    processors = ready(on)
    found = [artifacts.load(path) for path in paths]
    inputs, labels = data.inputs(data.test.images[:images]), data.test.labels[:images]
    kinds = [verify.reference_for(artifact) for artifact in found]
    references = verify.references_of(found, data, inputs, model=model, qat_weights=qat_weights)
    rows: list[ProcessorAnswers | Failure] = []
    for path, artifact, kind in zip(paths, found, kinds, strict=True):
        try:
            here = outputs_of(task_of(path), inputs)
        except EdgecnnError as error:
            rows.append(_failure(artifact.file, error))
        else:
            rows += run_on(path, artifact, processors, inputs, labels, references[kind], here)
    return rows


def run_on(
    path: Path,
    artifact: Artifact,
    processors: Sequence[Ready],
    images: Float,
    labels: NDArray[np.int64],
    reference: Float,
    here: Float,
) -> list[ProcessorAnswers | Failure]:
    """Run the file at ``path`` on each of ``processors``, in a process each, one for each usable core at a time.

    ``images`` are ``(n, height, width, channels)``; ``reference`` and ``here`` are the outputs ``(n, classes)`` of the
    reference and of this machine for them. A file that a processor does not run is a failure of the stage "emulate".
    """

    def one(on: Ready) -> ProcessorAnswers | Failure:
        try:
            if artifact.format not in FORMATS:
                raise UnsupportedError(f"only .tflite and .onnx files are run there, {path.name} is none")
            ran = _run(path, artifact, on, to_input(images, artifact.input), plugin)
            package = ran.runtime.partition(" ")[0]
            return ProcessorAnswers(
                processor=on.processor.name,
                emulator=on.emulator.version,
                runtime=ran.runtime,
                runtime_here=f"{package} {versions_here()[package]}",
                against_reference=to_reference(ran.outputs),
                against_here=verify.compare(
                    artifact,
                    ran.outputs,
                    here,
                    labels,
                    against=WRONG_HERE if to_reference(here).violations else HERE,
                    tolerance=_same_file(artifact),
                ),
                instructions=ran.instructions,
            )
        except EdgecnnError as error:
            return _failure(f"{artifact.file} on {on.processor.name}", error)

    def to_reference(outputs: Float) -> Parity:
        against, tolerance = verify.reference_for(artifact), verify.TOLERANCES[artifact.scheme]
        return verify.compare(artifact, outputs, reference, labels, against=against, tolerance=tolerance)

    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(usable_cores()) as pool,
        progress(f"emulate {artifact.file}", len(processors)) as advance,
    ):
        plugin = _plugin(Path(folder))
        rows = []
        for row in pool.map(one, processors):
            rows.append(row)
            advance()
    return rows


def _failure(subject: str, error: EdgecnnError) -> Failure:
    expected = isinstance(error, UnsupportedError)
    return Failure(subject=subject, stage="emulate", error=type(error).__name__, reason=str(error), expected=expected)


class _Ran(msgspec.Struct, frozen=True):
    outputs: Float
    runtime: str
    instructions: int | None


def _run(path: Path, artifact: Artifact, on: Ready, inputs: NDArray[np.generic], plugin: Path | None) -> _Ran:
    """Run the file at ``path`` on ``inputs``, as it takes them, in a process of its own.

    Raises:
        EmulationError: the process ended early, hung, or gave something else than the file's output.
    """
    what = f"{path.name} on {on.processor.name}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copyfile(_RUNNER, folder / "runner.py")
        shutil.copyfile(path, folder / f"model{path.suffix}")
        np.save(folder / "inputs.npy", inputs, allow_pickle=False)
        system = system_for(on.processor, on.interpreter, folder / "system")
        counting = [] if plugin is None else ["-plugin", f"{plugin},out={folder / 'marks.txt'}"]
        command = [on.emulator.program, "-cpu", on.processor.cpu, *counting, "-L", str(system)]
        command += [str(on.interpreter.program), "-I", "runner.py", f"model{path.suffix}"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                timeout=_LIMIT_S, env=ENVIRONMENT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise EmulationError(
                f"{what} did not answer {len(inputs)} images within {_LIMIT_S:g} s; give it fewer"
            ) from error
        if done.returncode:
            raise EmulationError(f"{what} ended with status {done.returncode}: {gist(done.stderr) or 'without a word'}")
        if not (folder / "outputs.npy").is_file():
            raise EmulationError(f"{what} ended without an answer")
        raw = read_npy(folder / "outputs.npy")
        if raw.shape[:1] != inputs.shape[:1] or raw.dtype.name != artifact.output.dtype:
            raise EmulationError(
                f"{what} answered {raw.dtype} {raw.shape}, not {artifact.output.dtype} for {len(inputs)} images"
            )
        return _Ran(
            outputs=from_output(raw, artifact.output),
            runtime=(folder / "runtime.txt").read_text(encoding="utf-8"),
            instructions=None if plugin is None else _instructions(folder / "marks.txt"),
        )


def _instructions(marks: Path) -> int | None:
    """The median of the instructions between two marks, without those of the marks; None where QEMU has no plugins."""
    counts = [int(line) for line in marks.read_text(encoding="utf-8").split()] if marks.is_file() else []
    between = [end - start for start, end in zip(counts[::2], counts[1::2], strict=True)]
    return round(statistics.median(between[EMPTY:]) - min(between[:EMPTY])) if between else None


def _plugin(folder: Path) -> Path | None:
    """The plugin that counts instructions, compiled into ``folder``; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    plugin = folder / "marks.so"
    source = Path(__file__).with_name("marks.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(plugin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise EmulationError(f"what counts instructions does not compile: {gist(done.stderr) or 'without a word'}")
    return plugin


def _same_file(artifact: Artifact) -> Tolerance:
    """What a file on another processor is held to against itself here: the kernels may round differently."""
    if is_static_int8(SCHEMES[artifact.scheme]):
        return verify.SAME_WEIGHTS if verify.has_float_operators(artifact) else verify.SAME_INTEGERS
    return verify.TOLERANCES[artifact.scheme]
