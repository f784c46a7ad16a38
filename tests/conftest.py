"""What tests share: real MNIST, a small model trained on it, and its exports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.config import RunConfig
from edgecnn.data import DataSet, load
from edgecnn.files import sha256_file
from edgecnn.formats import FORMATS, export, pairs, provenance_of
from edgecnn.formats.source import Source
from edgecnn.models import build_model, save_model
from edgecnn.pipeline import run
from edgecnn.quantization import qat
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact
from edgecnn.training import train

TRAIN, TEST = 6000, 1000


@dataclass(frozen=True)
class Workspace:
    """A trained reference CNN with everything that is made from it; files in ``folder``, do not change them."""

    folder: Path
    data_file: Path
    data: DataSet
    model: Any
    model_file: Path
    quantized: Any
    qat_file: Path
    artifacts: dict[tuple[str, str], Artifact]

    def path(self, format: str, scheme: str) -> Path:
        return self.folder / self.artifacts[format, scheme].file


@pytest.fixture(scope="session")
def mnist() -> DataSet:
    """The whole of MNIST."""
    return load("mnist")


@pytest.fixture(scope="session")
def workspace(mnist: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The reference CNN after two epochs on 6,000 real images, fine-tuned quantised, exported in every way."""
    folder = tmp_path_factory.mktemp("workspace")
    data_file = folder / "digits.npz"
    np.savez(
        data_file,
        x_train=mnist.train.images[:TRAIN],
        y_train=mnist.train.labels[:TRAIN],
        x_test=mnist.test.images[:TEST],
        y_test=mnist.test.labels[:TEST],
    )
    data = load(str(data_file))
    model, _ = train(build_model("mnist_cnn", data, seed=0), data, epochs=2)
    model_file, qat_file = folder / "digits.keras", folder / "digits.npz-qat.npz"
    save_model(model, model_file)
    quantized, _ = qat.train_quantized(model, data, epochs=1)
    qat.save_weights(quantized, qat_file)
    source = Source(model, quantized, data.inputs(data.train.images[:100]), "int8", 1)
    provenance = provenance_of("digits", sha256_file(model_file), data)
    artifacts = {
        (format.name, scheme.name): export(source, format=format, scheme=scheme, provenance=provenance, folder=folder)
        for format, scheme in pairs([*FORMATS.values()], [*SCHEMES.values()])
        if (format.name, scheme.name) != ("onnx", "int16x8")
    }
    return Workspace(folder, data_file, data, model, model_file, quantized, qat_file, artifacts)


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a small run on real MNIST, float32 and int8 in both formats, and its data; do not change them."""

    folder: Path
    data_file: Path
    data: DataSet


@pytest.fixture(scope="session")
def finished_run(mnist: DataSet, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("finished")
    data_file = folder / "digits.npz"
    np.savez(
        data_file,
        x_train=mnist.train.images[:2000],
        y_train=mnist.train.labels[:2000],
        x_test=mnist.test.images[:500],
        y_test=mnist.test.labels[:500],
    )
    config = RunConfig(data=str(data_file), epochs=1, schemes=("float32", "int8"), tune=False, seconds=0.05)
    run(config, folder / "run")
    return FinishedRun(folder / "run", data_file, load(str(data_file)))
