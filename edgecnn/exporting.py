"""Export of a model in every scheme and format asked for, where one that fails leaves the others."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from edgecnn.config import RunConfig
from edgecnn.data import DataSet, as_data_set
from edgecnn.errors import EdgecnnError, UnsupportedError
from edgecnn.files import make_folder, sha256_file
from edgecnn.formats import FORMATS, export_file, file_name, pairs, provenance_of
from edgecnn.formats.source import Source
from edgecnn.models import as_file
from edgecnn.progress import progress
from edgecnn.quantization.engines import saved
from edgecnn.quantization.schemes import SCHEMES
from edgecnn.records import Artifact, Failure, FormatName, Io, OnnxCpu, SchemeName, Tuning
from edgecnn.tuning import tunings

_DEFAULTS = RunConfig()


def export(
    model: Any,
    data: DataSet | str | Path | Sequence[Any],
    folder: Path | str,
    *,
    qat: Any = None,
    schemes: Sequence[str] = get_args(SchemeName),
    formats: Sequence[str] = get_args(FormatName),
    io: Io = _DEFAULTS.io,
    batch: int | None = 1,
    calibration_images: int = _DEFAULTS.calibration_images,
    onnx_cpu: OnnxCpu = _DEFAULTS.onnx_cpu,
    tune: bool = False,
    tuning: Path | None = None,
) -> list[Artifact | Failure]:
    """Write ``model`` to ``folder`` in every scheme and format, each file with its sidecar.

    Args:
        model: a trained Keras model, or the path of its file.
        data: what the model was trained on, for calibration and the labels in the files, as ``load_data`` takes it.
        folder: is made if it is not there; the files are called ``<model>-<scheme>.<ending>``.
        qat: what ``quantize`` returned, or the path of the file that ``edgecnn quantize`` wrote; needed for int8-qat.
        schemes: see ``SCHEMES``.
        formats: see ``FORMATS``.
        io: type of input and output of int8 files.
        batch: 1, or ``None`` for a dynamic batch.
        calibration_images: training images that post-training quantisation looks at.
        onnx_cpu: where int8 .onnx files are right, "any" or "vnni".
        tune: measure which operators of int8 .onnx files are faster in float, 20 s for each.
        tuning: a tuned .onnx file, whose choice is taken over without measuring.

    Returns:
        One record for each file: an ``Artifact``, or a ``Failure`` with the reason.

    Raises:
        ModelError: the model cannot be loaded, or does not fit the data.
        QuantizationError: ``qat`` is not of this model.
        UnknownNameError: there is no such scheme or format.
        OutputError: ``folder`` cannot be written to.
    """
    folder, loaded = make_folder(Path(folder)), as_data_set(data)
    wanted = pairs([FORMATS[name] for name in formats], [SCHEMES[name] for name in schemes])
    found: list[Artifact | Failure] = []
    with as_file(model) as file, saved(qat) as weights:
        source = Source.load(
            file,
            loaded,
            qat_weights=weights,
            io=io,
            batch=1 if batch == 1 else None,
            calibration_images=calibration_images,
            onnx_cpu=onnx_cpu,
        )
        chosen: dict[str, Tuning] = {}
        if tune or tuning is not None:
            chosen = tunings(source, [SCHEMES[name] for name in schemes], tuning, _DEFAULTS.tune_seconds)
        provenance = provenance_of(file.stem, sha256_file(file), loaded)
        with progress("export", len(wanted)) as advance:
            for format, scheme in wanted:
                name = file_name(file.stem, scheme, format)
                advance(note=name)
                make = partial(export_file, source, format=format, scheme=scheme, tuning=chosen.get(scheme.name))
                found.append(_made(name, partial(make, provenance=provenance, folder=folder)))
    return found


def _made(name: str, make: Callable[[], Artifact]) -> Artifact | Failure:
    """What ``make`` returns, or the reason why there is no file ``name``."""
    try:
        return make()
    except EdgecnnError as error:
        return Failure.of(name, "export", error, expected=isinstance(error, UnsupportedError))
