"""One trained CNN, every edge runtime, one verdict.

The public names are imported lazily, so that ``import edgecnn`` is fast and works on devices without TensorFlow. Two
functions have the name of their module and are not listed here: ``edgecnn.bench.bench`` and ``edgecnn.verify.verify``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecnn.artifacts import load as load_artifact
    from edgecnn.bench import Candidate
    from edgecnn.bench.baseline import load_baseline, record_baseline
    from edgecnn.config import RunConfig
    from edgecnn.data import DataSet
    from edgecnn.data import load as load_data
    from edgecnn.errors import EdgecnnError
    from edgecnn.formats import FORMATS, export
    from edgecnn.formats.source import Source
    from edgecnn.models import MODELS, build_model, load_model, save_model
    from edgecnn.pipeline import run
    from edgecnn.quantization.qat import train_quantized
    from edgecnn.quantization.schemes import SCHEMES
    from edgecnn.report import write as write_report
    from edgecnn.runtimes import RUNTIMES, open_session, predict
    from edgecnn.training import train

# public name -> module and attribute; type checkers use the imports above
_PUBLIC = {
    "FORMATS": "edgecnn.formats:FORMATS",
    "MODELS": "edgecnn.models:MODELS",
    "RUNTIMES": "edgecnn.runtimes:RUNTIMES",
    "SCHEMES": "edgecnn.quantization.schemes:SCHEMES",
    "Candidate": "edgecnn.bench:Candidate",
    "DataSet": "edgecnn.data:DataSet",
    "EdgecnnError": "edgecnn.errors:EdgecnnError",
    "RunConfig": "edgecnn.config:RunConfig",
    "Source": "edgecnn.formats.source:Source",
    "build_model": "edgecnn.models:build_model",
    "export": "edgecnn.formats:export",
    "load_artifact": "edgecnn.artifacts:load",
    "load_baseline": "edgecnn.bench.baseline:load_baseline",
    "load_data": "edgecnn.data:load",
    "load_model": "edgecnn.models:load_model",
    "open_session": "edgecnn.runtimes:open_session",
    "predict": "edgecnn.runtimes:predict",
    "record_baseline": "edgecnn.bench.baseline:record_baseline",
    "run": "edgecnn.pipeline:run",
    "save_model": "edgecnn.models:save_model",
    "train": "edgecnn.training:train",
    "train_quantized": "edgecnn.quantization.qat:train_quantized",
    "write_report": "edgecnn.report:write",
}

__all__ = [
    "FORMATS",
    "MODELS",
    "RUNTIMES",
    "SCHEMES",
    "Candidate",
    "DataSet",
    "EdgecnnError",
    "RunConfig",
    "Source",
    "build_model",
    "export",
    "load_artifact",
    "load_baseline",
    "load_data",
    "load_model",
    "open_session",
    "predict",
    "record_baseline",
    "run",
    "save_model",
    "train",
    "train_quantized",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgecnn' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
