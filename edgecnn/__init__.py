"""One trained CNN, every edge runtime, one verdict.

The public names are imported lazily, so that ``import edgecnn`` is fast and works on devices without TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecnn.artifacts import load as load_artifact
    from edgecnn.config import RunConfig
    from edgecnn.data import DataSet
    from edgecnn.data import load as load_data
    from edgecnn.errors import EdgecnnError
    from edgecnn.exporting import export
    from edgecnn.formats import FORMATS
    from edgecnn.inspection import inspect
    from edgecnn.measure.baseline import load_baseline, record_baseline
    from edgecnn.measure.files import bench_files as bench
    from edgecnn.models import MODELS, build_model, load_model, save_model, use_custom
    from edgecnn.pipeline import run
    from edgecnn.quantization.engines import quantize
    from edgecnn.quantization.schemes import SCHEMES
    from edgecnn.report import write as write_report
    from edgecnn.runtimes import RUNTIMES, open_session, predict
    from edgecnn.training import train
    from edgecnn.verification import verify, verify_against

# public name -> module and attribute; type checkers use the imports above
_PUBLIC = {
    "FORMATS": "edgecnn.formats:FORMATS",
    "MODELS": "edgecnn.models:MODELS",
    "RUNTIMES": "edgecnn.runtimes:RUNTIMES",
    "SCHEMES": "edgecnn.quantization.schemes:SCHEMES",
    "DataSet": "edgecnn.data:DataSet",
    "EdgecnnError": "edgecnn.errors:EdgecnnError",
    "RunConfig": "edgecnn.config:RunConfig",
    "bench": "edgecnn.measure.files:bench_files",
    "build_model": "edgecnn.models:build_model",
    "export": "edgecnn.exporting:export",
    "inspect": "edgecnn.inspection:inspect",
    "load_artifact": "edgecnn.artifacts:load",
    "load_baseline": "edgecnn.measure.baseline:load_baseline",
    "load_data": "edgecnn.data:load",
    "load_model": "edgecnn.models:load_model",
    "open_session": "edgecnn.runtimes:open_session",
    "predict": "edgecnn.runtimes:predict",
    "quantize": "edgecnn.quantization.engines:quantize",
    "record_baseline": "edgecnn.measure.baseline:record_baseline",
    "run": "edgecnn.pipeline:run",
    "save_model": "edgecnn.models:save_model",
    "train": "edgecnn.training:train",
    "use_custom": "edgecnn.models:use_custom",
    "verify": "edgecnn.verification:verify",
    "verify_against": "edgecnn.verification:verify_against",
    "write_report": "edgecnn.report:write",
}

__all__ = [
    "FORMATS",
    "MODELS",
    "RUNTIMES",
    "SCHEMES",
    "DataSet",
    "EdgecnnError",
    "RunConfig",
    "bench",
    "build_model",
    "export",
    "inspect",
    "load_artifact",
    "load_baseline",
    "load_data",
    "load_model",
    "open_session",
    "predict",
    "quantize",
    "record_baseline",
    "run",
    "save_model",
    "train",
    "use_custom",
    "verify",
    "verify_against",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgecnn' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    vars(importlib.import_module("edgecnn.records"))["in_notebook"] = _in_notebook
    return getattr(importlib.import_module(module), attribute)


def _in_notebook(record: Any) -> str | None:
    html: str | None = importlib.import_module("edgecnn.notebook").html(record)
    return html


def __dir__() -> list[str]:
    return sorted(__all__)
