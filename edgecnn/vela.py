"""Arm's compiler for Ethos-U processors, ``ethos-u-vela``, and what it estimates."""

import csv
import re
import sys
import tempfile
from pathlib import Path

import msgspec

from edgecnn.errors import SessionError
from edgecnn.optional import require
from edgecnn.worker import confine, isolated, more_time, printed, printed_bytes

# Of Vela's own configurations the one in which weights are in flash and activations in SRAM, as beside a Cortex-M.
_SYSTEMS = {
    "ethos-u55": "Ethos_U55_High_End_Embedded",
    "ethos-u65": "Ethos_U65_Embedded",
    "ethos-u85": "Ethos_U85_SYS_Flash_High",
}
_MEMORY = "Shared_Sram"
_SIZES = {"ethos-u55": (32, 64, 128, 256), "ethos-u65": (256, 512), "ethos-u85": (128, 256, 512, 1024, 2048)}

ACCELERATORS = tuple(f"{family}-{macs}" for family, sizes in _SIZES.items() for macs in sizes)
"""Vela's names of the processors; the number is that of multiply-accumulates in a cycle."""

_LIMIT_S = 120.0
_NPU = b"ethos-u"  # the operator that starts the Ethos-U on a stream of commands
_REFUSED = r"^Warning \(supported operators\) operator: \w+, ofm: '(.*)'\nReason: (.*)$"


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """What Vela says of a model that it has compiled.

    ``on_npu`` is the number of command streams for the Ethos-U; 0 if it runs nothing. ``on_cpu`` has the operators that
    are left to the CPU: the full name of their first output, and Vela's reason, "" if it gives none. The rest are
    estimates for the part on the Ethos-U: ``cycles`` at ``clock`` Hz, and bytes of ``sram`` and ``flash``, in Vela's
    configuration ``system``.
    """

    on_npu: int
    on_cpu: dict[str, str]
    cycles: int
    clock: float
    sram: int
    flash: int
    system: str


def compiled(model: bytes, accelerator: str) -> Compiled:
    """Compile the .tflite ``model`` for ``accelerator``, one of ``ACCELERATORS``, in a process of its own.

    Raises:
        MissingExtraError: ``ethos-u-vela`` is not installed.
        SessionError: Vela refuses the model, crashed, took longer than two minutes, or needed too much memory.
    """
    require("ethosu.vela")
    return isolated(_compiled, model, accelerator, doing=f"compiling the model for {accelerator} with Vela")


def _compiled(model: bytes, accelerator: str) -> Compiled:
    confine(len(model))
    more_time(_LIMIT_S)
    folder = Path(tempfile.mkdtemp())
    path = folder / "model.tflite"
    path.write_bytes(model)
    system = _SYSTEMS[accelerator.rpartition("-")[0]]
    options = {
        "accelerator-config": accelerator,
        "config": "Arm/vela.ini",
        "system-config": system,
        "memory-mode": _MEMORY,
        "output-dir": str(folder),
    }
    before = printed_bytes()
    try:
        failed = require("ethosu.vela.vela").main(
            [*(f"--{name}={value}" for name, value in options.items()), str(path)]
        )
    except RuntimeError as error:
        raise SessionError(f"Vela cannot compile it: {error}") from error
    sys.stdout.flush()
    if failed:
        raise SessionError(f"Vela cannot compile it: {printed(before).strip().splitlines()[-1:]}")
    refused = dict(re.findall(_REFUSED, printed(before), re.MULTILINE))
    kinds = _operators((folder / "model_vela.tflite").read_bytes())
    (summary,) = csv.DictReader((folder / f"model_summary_{system}.csv").read_text().splitlines())
    return Compiled(
        on_npu=sum(custom == _NPU for _, custom in kinds),
        on_cpu={name: refused.get(name, "") for name, custom in kinds if custom != _NPU},
        cycles=round(float(summary["cycles_total"])),
        clock=float(summary["core_clock"]),
        sram=round(float(summary["sram_memory_used"]) * 1024),
        flash=round(float(summary["off_chip_flash_memory_used"]) * 1024),
        system=f"{system}, {_MEMORY}",
    )


def _operators(model: bytes) -> list[tuple[str, bytes | None]]:
    """The operators of the .tflite ``model``: the name of the first output, and the custom code."""
    root = require("ai_edge_litert.schema_py_generated").Model.GetRootAs(model, 0)
    graph = root.Subgraphs(0)
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    return [
        (
            graph.Tensors(operator.Outputs(0)).Name().decode(errors="replace") if operator.OutputsLength() else "",
            root.OperatorCodes(operator.OpcodeIndex()).CustomCode(),
        )
        for operator in operators
    ]
