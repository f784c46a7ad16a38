"""What tests share: real MNIST, a small model trained on it, and its exports."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import source_of, write_tflite

from edgecnn import artifacts, verification
from edgecnn.config import RunConfig
from edgecnn.data import DataSet, load
from edgecnn.files import locked, make_folder, sha256_bytes, sha256_file
from edgecnn.formats import FORMATS, converter, export_file, file_name, pairs, provenance_of
from edgecnn.formats.source import Source
from edgecnn.models import MODELS, build_model, load_model, save_model
from edgecnn.pipeline import run
from edgecnn.quantization.engines import engine_called
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact
from edgecnn.training import train

TRAIN, TEST = 6000, 1000
EXPORTS = [
    (format, scheme)
    for format, scheme in pairs([*FORMATS.values()], [*SCHEMES.values()])
    if (format.name, scheme.name) != ("onnx", "int16x8")
]


SLOW = {"workspace", "finished_run", "untrained_models", "page_path", "rich_path"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what uses one of these fixtures; modules that are slow as a whole say so themselves."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Gives the folder of a name, filled by the first worker of this test run that asks for it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place = make_folder(base / f"once-{name}")
        finished = place / "finished"
        with locked(place):
            if not finished.exists():
                make(make_folder(place / "made"))
                finished.touch()
        return place / "made"

    return made


@dataclass(frozen=True)
class Workspace:
    """A trained reference CNN with everything that is made from it; files in ``folder``, do not change them."""

    folder: Path
    data: DataSet

    @property
    def data_file(self) -> Path:
        return self.folder / "digits.npz"

    @property
    def model_file(self) -> Path:
        return self.folder / "digits.keras"

    @property
    def qat_file(self) -> Path:
        return self.folder / "digits-qat.keras"

    @cached_property
    def model(self) -> Any:
        return load_model(self.model_file)

    @cached_property
    def quantized(self) -> Any:
        return engine_called("keras").load(self.qat_file, self.model, self.data)

    @cached_property
    def artifacts(self) -> dict[tuple[str, str], Artifact]:
        files = {(format.name, scheme.name): file_name("digits", scheme, format) for format, scheme in EXPORTS}
        return {names: artifacts.load(self.folder / file) for names, file in files.items()}

    def path(self, format: str, scheme: str) -> Path:
        return self.folder / self.artifacts[format, scheme].file


@pytest.fixture(scope="session")
def mnist() -> DataSet:
    """The whole of MNIST."""
    return load("mnist")


def save_part(data: DataSet, path: Path | str, train: int, test: int) -> None:
    """Write the first images of ``data`` to ``path`` (.npz)."""
    np.savez(
        path,
        x_train=data.train.images[:train],
        y_train=data.train.labels[:train],
        x_test=data.test.images[:test],
        y_test=data.test.labels[:test],
    )


@pytest.fixture(scope="session")
def workspace(made_once: MadeOnce) -> Workspace:
    """The reference CNN after two epochs on 6,000 real images, fine-tuned quantised, exported in every way."""
    folder = made_once("workspace", _make_workspace)
    return Workspace(folder, load(str(folder / "digits.npz")))


def _make_workspace(folder: Path) -> None:
    save_part(load("mnist"), folder / "digits.npz", TRAIN, TEST)
    made = Workspace(folder, load(str(folder / "digits.npz")))
    data = made.data
    model, _ = train(build_model("mnist_cnn", data, seed=0), data, epochs=2)
    save_model(model, made.model_file)
    qat = engine_called("keras")
    quantized, _ = qat.train_quantized(model, data, epochs=1)
    qat.save(quantized, made.qat_file)
    source = Source(model, quantized, data.inputs(data.train.images[:100]), "int8", 1)
    provenance = provenance_of("digits", sha256_file(made.model_file), data)
    for format, scheme in EXPORTS:
        artifact = export_file(source, format=format, scheme=scheme, provenance=provenance, folder=folder)
        assert artifacts.load(folder / artifact.file) == artifact, "what export says is not what it has written"


@pytest.fixture
def without_converter() -> None:
    """For tests that look for processes left behind: that of the converter is ended before."""
    converter.stop()


@pytest.fixture(scope="session")
def references_once() -> Iterator[None]:
    """Keras models answer the images of a verification once, not in every call of it."""
    known: dict[object, dict[str, Any]] = {}
    ask = verification.references_of

    def answers(found: Sequence[Artifact], data: DataSet, images: Any, **models: Path | None) -> dict[str, Any]:
        schemes = any(artifact.scheme == "int8-qat" for artifact in found)
        key = (schemes, sha256_bytes(images.tobytes()), *models.values())
        if key not in known:
            known[key] = ask(found, data, images, **models)  # type: ignore[arg-type]
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "references_of", answers)
        yield


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a small run on real MNIST, float32 and int8 in both formats, and its data; do not change them."""

    folder: Path
    data_file: Path
    data: DataSet


@pytest.fixture(scope="session")
def finished_run(made_once: MadeOnce) -> FinishedRun:
    folder = made_once("run", _make_run)
    data_file = folder / "digits.npz"
    return FinishedRun(folder / "run", data_file, load(str(data_file)))


def _make_run(folder: Path) -> None:
    data_file = folder / "digits.npz"
    save_part(load("mnist"), data_file, 2000, 500)
    config = RunConfig(data=str(data_file), epochs=1, schemes=("float32", "int8"), tune=False, seconds=0.05, cold=1)
    run(config, folder / "run")


@pytest.fixture(scope="session")
def untrained_models(made_once: MadeOnce) -> dict[str, Path]:
    """The built-in models, PTQ-converted with random weights; do not change them."""
    folder = made_once("untrained", _make_untrained)
    return {name: folder / f"{name}.tflite" for name in MODELS}


def _make_untrained(folder: Path) -> None:
    for name in MODELS:
        source = source_of(name)
        if name.startswith("mobilenet"):
            source.__dict__["calibrated"] = None  # the converter calibrates deep models in a tenth of the time
        write_tflite(source, folder / f"{name}.tflite")
