"""Outputs of model files on emulated processors, compared with their reference and with this machine."""

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from edgecnn import artifacts, verification
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
from edgecnn.runtimes.quantized_io import from_outputs, raw_of, to_inputs
from edgecnn.samples import Samples, parts
from edgecnn.tasks import Scoring

IMAGES = 100
"""Default number of test images."""

FORMATS = ("tflite", "onnx")
"""Formats of the files that run on emulated processors; for C code see ``machine``."""

HERE = "this machine"
"""The reference of a ``Parity`` with the same file on this machine, if its outputs match the file's reference."""

WRONG_HERE = "this machine, which is wrong itself"
"""The same, if the outputs on this machine do not match the file's reference."""

_RUNNER = Path(__file__).with_name("runner.py")
_LIMIT_S = 600.0


class Ready(msgspec.Struct, frozen=True):
    """A processor with its emulator and interpreter."""

    processor: Processor
    emulator: Emulator
    interpreter: Interpreter

    @property
    def key(self) -> tuple[str, str, dict[str, str]]:
        """Everything that outputs depend on, except the file and the images."""
        return self.processor.name, self.emulator.version, dict(self.interpreter.versions)


def ready(names: Sequence[str]) -> list[Ready]:
    """The processors called ``names``.

    Raises:
        UnknownNameError: there is no such processor.
        EmulationError: QEMU or the Python for one of them is missing; the message tells how to install it.
    """
    processors = [PROCESSORS[name] for name in dict.fromkeys(names)]
    return [Ready(each, emulator_for(each.machine), interpreter_for(each)) for each in processors]


def state(processor: Processor) -> ProcessorState:
    """The installed requirements for ``processor``, and the missing ones."""
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
            missing.append(f"its Python lacks {wanted}; run: edgecnn emulate --install {processor.name}")
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

    The reference is the one of ``verification.verify``. A file that does not run on this machine is a ``Failure`` of
    the stage "emulate" too.

    Raises:
        ArtifactError, ConfigError: as ``verification.verify``, before anything runs.
        EmulationError: QEMU or the Python for a processor is missing.
    """
    processors = ready(on)
    found = [artifacts.load(path) for path in paths]
    data = data.shaped(*found[0].ends)
    inputs, scoring = data.test_inputs(images), data.scoring(images)
    kinds = [verification.reference_for(artifact) for artifact in found]
    references = verification.references_of(found, data, inputs, model=model, qat_weights=qat_weights)
    rows: list[ProcessorAnswers | Failure] = []
    for path, artifact, kind in zip(paths, found, kinds, strict=True):
        try:
            here = outputs_of(task_of(path), inputs)
        except EdgecnnError as error:
            rows.append(_failure(artifact.file, error))
        else:
            rows += run_on(path, artifact, processors, inputs, scoring, references[kind], here)
    return rows


def run_on(
    path: Path,
    artifact: Artifact,
    processors: Sequence[Ready],
    images: Float,
    scoring: Scoring,
    reference: Float,
    here: Float,
) -> list[ProcessorAnswers | Failure]:
    """Run the file at ``path`` on each of ``processors``, in separate processes, at most one per usable core.

    ``images`` are ``(n, …)``; ``reference`` and ``here`` are the outputs ``(n, values)`` of the
    reference and of this machine. A file that does not run on a processor is a ``Failure`` of the stage "emulate".
    """

    def one(on: Ready) -> ProcessorAnswers | Failure:
        try:
            if artifact.format not in FORMATS:
                raise UnsupportedError(f"only .tflite and .onnx files run on emulated processors, not {path.name}")
            ran = _run(path, artifact, on, to_inputs(images, artifact.inputs), plugin)
            package = ran.runtime.partition(" ")[0]
            return ProcessorAnswers(
                processor=on.processor.name,
                emulator=on.emulator.version,
                runtime=ran.runtime,
                runtime_here=f"{package} {versions_here()[package]}",
                against_reference=to_reference(ran.outputs),
                against_here=verification.compare(
                    artifact,
                    ran.outputs,
                    here,
                    scoring,
                    against=WRONG_HERE if to_reference(here).violations else HERE,
                    tolerance=_same_file(artifact),
                ),
                instructions=ran.instructions,
            )
        except EdgecnnError as error:
            return _failure(f"{artifact.file} on {on.processor.name}", error)

    def to_reference(outputs: Float) -> Parity:
        against, tolerance = verification.reference_for(artifact), verification.TOLERANCES[artifact.scheme]
        return verification.compare(artifact, outputs, reference, scoring, against=against, tolerance=tolerance)

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
    return Failure.of(subject, "emulate", error, expected=isinstance(error, UnsupportedError))


class _Ran(msgspec.Struct, frozen=True):
    outputs: Float
    runtime: str
    instructions: int | None


def _run(path: Path, artifact: Artifact, on: Ready, inputs: Samples, plugin: Path | None) -> _Ran:
    """Run the file at ``path`` on raw ``inputs`` in a separate process.

    Raises:
        EmulationError: the process failed, hung, or wrote an output of another type or shape.
    """
    what = f"{path.name} on {on.processor.name}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copyfile(_RUNNER, folder / "runner.py")
        shutil.copyfile(path, folder / f"model{path.suffix}")
        for number, part in enumerate(parts(inputs)):
            np.save(folder / f"inputs-{number}.npy", part, allow_pickle=False)
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
                f"{what} did not finish {len(inputs)} images within {_LIMIT_S:g} s; use fewer images"
            ) from error
        if done.returncode:
            raise EmulationError(f"{what} ended with status {done.returncode}: {gist(done.stderr) or 'no message'}")
        raw = []
        for number, spec in enumerate(artifact.outputs):
            path_there = folder / f"outputs-{number}.npy"
            if not path_there.is_file():
                raise EmulationError(f"{what} ended without an output")
            raw.append(read_npy(path_there))
            if raw[-1].shape[:1] != inputs.shape[:1] or raw[-1].dtype.name != spec.dtype:
                raise EmulationError(
                    f"{what} returned {raw[-1].dtype} {raw[-1].shape}, not {spec.dtype} for {len(inputs)} images"
                )
        return _Ran(
            outputs=from_outputs(raw_of(raw, artifact.outputs), artifact.outputs),
            runtime=(folder / "runtime.txt").read_text(encoding="utf-8"),
            instructions=None if plugin is None else _instructions(folder / "marks.txt"),
        )


def _instructions(marks: Path) -> int | None:
    """The median of the instructions between two marks, without those of a mark; ``None`` if QEMU has no plugins."""
    counts = [int(line) for line in marks.read_text(encoding="utf-8").split()] if marks.is_file() else []
    between = [end - start for start, end in zip(counts[::2], counts[1::2], strict=True)]
    return round(statistics.median(between[EMPTY:]) - min(between[:EMPTY])) if between else None


def _plugin(folder: Path) -> Path | None:
    """Compile the plugin that counts instructions into ``folder``; ``None`` without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    plugin = folder / "marks.so"
    source = Path(__file__).with_name("marks.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(plugin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise EmulationError(f"the counting plugin does not compile: {gist(done.stderr) or 'no message'}")
    return plugin


def _same_file(artifact: Artifact) -> Tolerance:
    """The tolerance of a file on another processor against itself on this one, whose kernels may round differently."""
    if is_static_int8(SCHEMES[artifact.scheme]):
        return verification.SAME_WEIGHTS if verification.has_float_operators(artifact) else verification.SAME_INTEGERS
    return verification.TOLERANCES[artifact.scheme]
