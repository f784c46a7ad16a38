"""This machine's processor: the features by which runtimes choose int8 kernels."""

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

# Features by which runtimes choose int8 and float kernels: x86 first, then Arm.
_FEATURES = (
    "sse4_1",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)
# best first
_KINDS = {
    "avx512_vnni": "AVX-512 with VNNI",
    "avx_vnni": "AVX2 with VNNI",
    "avx512f": "AVX-512 without VNNI",
    "avx2": "AVX2",
    "sse4_1": "SSE4.1",
    "i8mm": "NEON with i8mm",
    "asimddp": "NEON with dot products",
    "asimd": "NEON",
    "neon": "NEON",
}


def parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...]]:
    """Model (``None`` if not listed) and known features, from the text of ``/proc/cpuinfo`` on x86 or Arm."""
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    part = re.search(r"^CPU part\s*:\s*(\S+)", text, re.MULTILINE)
    implementer = re.search(r"^CPU implementer\s*:\s*(\S+)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    if model:
        name = model[1]
    elif part and implementer:
        name = f"Arm implementer {implementer[1]} part {part[1]}"
    else:
        name = None
    return name, tuple(feature for feature in _FEATURES if feature in present)


@cache
def this_processor() -> tuple[str | None, tuple[str, ...]]:
    """Model and known features of this machine's processor; ``None`` and empty without ``/proc/cpuinfo``."""
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None, ()


def kind_of(features: Collection[str]) -> str | None:
    """The name of the instruction set that int8 kernels use; ``None`` if no feature is known."""
    return next((name for feature, name in _KINDS.items() if feature in features), None)


def has_vnni(features: Collection[str]) -> bool:
    """Whether the processor has instructions that add four 8-bit products to a 32-bit sum."""
    return "avx512_vnni" in features or "avx_vnni" in features


def sums_saturate(features: Collection[str]) -> bool:
    """Whether ONNX Runtime's sums of uint8 x int8 products can saturate on it (``formats/onnx/saturation.py``)."""
    return "avx2" in features and not has_vnni(features)
