"""Makes the folder that goes to a Cortex-M project: the model as C, a test program, and what it answers here."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgecnn import emulation
from edgecnn.data import load
from edgecnn.emulation.machine import Int8
from edgecnn.errors import ArtifactError, OutputError
from edgecnn.files import make_folder, read_bytes, write_atomic
from edgecnn.formats import c99
from edgecnn.records import TensorSpec
from edgecnn.runtimes.c99 import read_generated
from edgecnn.runtimes.quantized_io import to_input
from edgecnn.tflite.graph import read_graph

CORES = tuple(target.removeprefix("cortex-") for target in emulation.TARGETS if target.startswith("cortex-"))

_HERE = Path(__file__).parent
_MARK = "board.ld"
_IMAGES = 16


def build(model: Path, core: str, data: str | None, out: Path) -> tuple[Path, ...]:
    """Write the kit for the int8 .tflite file at ``model`` into the folder ``out`` and return its files.

    ``core`` is one of ``CORES``; make builds for it unless told otherwise. The kit's inputs are test images of the
    data set ``data`` (see ``edgecnn.data.load``), or else random bytes with all -128 and all 127 among them; the
    outputs are what the same code answers, compiled for this machine. The same model and data give the same bytes.

    Raises:
        ArtifactError: the model is missing, damaged, or takes other images than ``data`` holds.
        UnsupportedError: an operator or type that is not written as C.
        EmulationError: there is no C compiler here.
        OutputError: ``out`` cannot be written, or holds something else.
    """
    if model.suffix != ".tflite" or not model.is_file():
        raise ArtifactError(f"{model} is no .tflite file; export an int8 one with: edgecnn export")
    sources = emulation.generate(read_graph(read_bytes(model), model.name), c99.identifier(model.stem))
    with TemporaryDirectory() as folder:
        firmware = emulation.build(sources, "host", Path(folder))
        inputs = _inputs(read_generated(Path(folder, f"{sources.name}.c")).input, data, model)
        outputs = emulation.run(firmware, inputs)
    content = {
        **emulation.kit_files(sources, inputs, outputs, f"cortex-{core}"),
        "README.md": (_HERE / "README.md").read_bytes(),
    }
    _check_own(out, set(content))
    for name, data_bytes in content.items():
        make_folder((out / name).parent)
        write_atomic(out / name, data_bytes)
    return tuple(out / name for name in content)


def _inputs(said: TensorSpec, data: str | None, model: Path) -> Int8:
    if data is None:
        inputs = np.random.default_rng(0).integers(-128, 128, (_IMAGES, *(said.shape[1:])), np.int8)
        inputs[0], inputs[1] = -128, 127
    else:
        loaded = load(data)
        images = loaded.inputs(loaded.test.images[:_IMAGES])
        if images.shape[1:] != said.shape[1:]:
            wanted, found = said.shape[1:], images.shape[1:]
            raise ArtifactError(f"{model} takes {wanted}, the images of {data} are {found}; see --data")
        inputs = to_input(images, said).view(np.int8)
    return inputs.reshape(len(inputs), -1)


def _check_own(out: Path, names: set[str]) -> None:
    """Refuse a folder with anything in it that is not this kit, or was built in it."""
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} if out.is_dir() else set()
    found = {name for name in found if not name.startswith("build/")}
    if found and not {_MARK} <= found <= names:
        other = min(found - names, default=min(found))
        raise OutputError(f"{out} is not a kit of this model: it holds {other}; name a new or empty folder")
