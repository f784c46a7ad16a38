"""Readers of data: arrays, images, and paths that name something odd."""

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import cli
from edgecnn.data import load
from edgecnn.data.idx import IdxSet, load_idx
from edgecnn.data.sources import Folder, RawFile
from edgecnn.errors import DataError
from edgecnn.files import sha256_bytes
from edgecnn.optional import require
from edgecnn.quantization import tfmot
from fuzzing.damage import INTEGERS, TEXTS, damage_bytes, damaged_bytes
from fuzzing.harness import Reader

Arrays = dict[str, "np.ndarray[Any, Any]"]

# Arrays in a zip


def _digits(dtype: Any) -> Arrays:
    images = np.arange(12 * 6 * 5).reshape(12, 6, 5) % 256
    labels = np.arange(12) % 3
    return {
        "x_train": images.astype(dtype), "y_train": labels, "x_test": images[:3].astype(dtype), "y_test": labels[:3],
    }  # fmt: skip


def _make_npz(folder: Path) -> None:
    np.savez(folder / "whole.npz", **_digits(np.uint8))
    np.savez_compressed(folder / "packed.npz", **_digits(np.float32), class_names=np.array(["a", "b", "c"]))


HEADERS = (
    "{", "'", "((((", "{'descr': '|u1'}", "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3)}", "[" * 3000, "{'descr': [('a', '<i4')], "
    "'fortran_order': False, 'shape': (3,)}", "{'descr': '<U0', 'fortran_order': False, 'shape': (999999999,)}",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (0, 99999999999999999999999)}", "0" * 20_000, "\t\n  x\n y",
    "{'descr': ('|u1', (3,)), 'fortran_order': 1, 'shape': (1.5,)}", f"{{'descr': '|u1', 'shape': ({'1,' * 99}), "
    "'fortran_order': False}", "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': ()}",
    "{'descr': '|V99999999999', 'fortran_order': False, 'shape': (1,)}", "1e999", "lambda: 0", "{1: 2, 3: 4, 5: 6}",
)  # fmt: skip


def _odd_array(array: Any, draw: random.Random) -> Any:
    """Something else in the place of ``array``."""
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: np.asfortranarray(array),
        lambda: array.astype(array.dtype.newbyteorder(">")),
        lambda: array.astype(draw.choice(["i1", "u8", "f2", "f8", "c8", "S3", "U9", "?", "m8[s]", "g", "O"])),
        lambda: array.reshape(-1),
        lambda: array[:0],
        lambda: array[..., np.newaxis][..., :0],
        lambda: np.array(draw.choice(INTEGERS[:-2])),
        lambda: np.full(array.shape, draw.choice((np.nan, np.inf, -1.0, 1e300))),
        lambda: np.full(array.shape, draw.choice((2**40, -1, 2**63 - 1))),
        lambda: np.array([draw.choice(TEXTS)[:9000] for _ in range(3)]),
        lambda: np.array([(1, 2.0)] * 3, [("a", "i4"), ("b" * 300, "f8")]),
        lambda: np.array([0x7FFFFFFF] * 9, np.uint32).view("U3"),
        lambda: np.array([str(index) for index in range(len(array))]) if array.ndim else array,
    )
    return draw.choice(kinds)()


def _damage_zip(path: Path, draw: random.Random) -> None:
    kind = draw.randrange(4)
    if kind == 0:
        damage_bytes(path, draw)
        return
    with np.load(path) as stored:
        arrays: dict[str, Any] = dict(stored)
    key = draw.choice(sorted(arrays))
    if kind == 1:
        with contextlib.suppress(ValueError, TypeError):  # what numpy does not convert stays as it is
            arrays[key] = _odd_array(arrays[key], draw)
        np.savez(path, **arrays)
        return
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            content = buffer.getvalue()
            if name == key and kind == 2:
                header = draw.choice(HEADERS).encode()
                magic = b"\x93NUMPY" + bytes([draw.choice((1, 2, 3, 9)), 0])
                content = magic + struct.pack("<H" if magic[6] == 1 else "<I", len(header)) + header + content[128:]
            elif name == key:
                content = draw.choice(
                    (
                        damaged_bytes(content, draw),
                        bytes(70_000_000 if method == zipfile.ZIP_DEFLATED else 700),
                        content * 2,
                        b"",
                    )
                )
            archive.writestr(f"{name}.npy", content)
        if draw.randrange(8) == 0:
            for number in range(draw.choice((1, 300, 12_000))):
                archive.writestr(
                    draw.choice((f"x{number}", f"{TEXTS[3]}{number}", "y" * 500 + str(number))), b"", zipfile.ZIP_STORED
                )


def _read_npz(path: Path) -> object:
    return load(str(path))


def _make_weights(folder: Path) -> None:
    tfmot.save(_dense(), folder / "qat.npz")


def _dense() -> Any:
    layers = require("tf_keras").layers
    return require("tf_keras").Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(2)])


def _read_weights(path: Path) -> None:
    tfmot.read_weights(_dense(), path)


# idx files, in a cache and beside it


def _idx_set(path: Path) -> IdxSet:
    pixels = bytes(index % 251 for index in range(20 * 28 * 28))
    contents = {
        "train-images": bytes(16) + pixels, "train-labels": bytes(8) + bytes([0, 1] * 10),
        "test-images": bytes(16) + pixels[: 4 * 28 * 28], "test-labels": bytes(8) + bytes([0, 1] * 2),
    }  # fmt: skip
    files = tuple(RawFile(name, len(content), sha256_bytes(content)) for name, content in contents.items())
    for name, content in contents.items() if not path.exists() else ():
        for place, data in ((path / "cache" / "tiny" / name, content), (path / "source" / f"{name}.gz", content)):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(gzip.compress(data, mtime=0) if place.suffix else data)
        (path / "cache" / "tiny" / ".edgecnn.lock").touch()
    return IdxSet("tiny", files, (Folder(path / "source"),), ("a", "b"))


def _make_idx(folder: Path) -> None:
    _idx_set(folder / "idx")


def _damage_idx(path: Path, draw: random.Random) -> None:
    damage_bytes(path / "cache", draw)
    for name in ("cache/tiny", "source") if draw.randrange(2) else ():
        chosen = draw.choice(sorted(one for one in (path / name).iterdir() if one.name[0] != "."))
        content = chosen.read_bytes()
        chosen.unlink()
        _odd_thing(chosen, draw, content)
        if not os.path.lexists(chosen):  # what is missing in the cache is put there, which is no file left over
            chosen.touch()


def _read_idx(path: Path) -> object:
    before = os.environ["EDGECNN_CACHE"]
    os.environ["EDGECNN_CACHE"] = str(path / "cache")
    try:
        return load_idx(_idx_set(path), (0.0, 1.0))
    finally:
        os.environ["EDGECNN_CACHE"] = before


# Folders of images


def _make_images(folder: Path) -> None:
    pillow = require("PIL.Image")
    for part, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            place = folder / "images" / part / name
            place.mkdir(parents=True)
            for number in range(count):
                image = pillow.fromarray(np.full((6, 5, 3), 40 * number, np.uint8))
                image.convert("P" if number else "RGB").save(place / f"{number}.png")
                image.save(place / f"{number}.jpg")


def _damage_images(path: Path, draw: random.Random) -> None:
    chosen = draw.choice(sorted(path.rglob("*")))
    kind = draw.randrange(4)
    if kind < 2 or chosen.is_dir():
        damage_bytes(path, draw)
    if kind == 1:
        with contextlib.suppress(OSError, ValueError):
            name = draw.choice([*TEXTS, "z" * 255, "\udcff", "-x", ".hidden"])
            chosen.rename(chosen.with_name(f"{name}{chosen.suffix}"[:255]))
    elif kind > 1 and chosen.is_file():
        content = chosen.read_bytes()
        chosen.unlink()
        _odd_thing(chosen, draw, content)


def _read_images(path: Path) -> object:
    return load(str(path))


# Paths


def _odd_thing(path: Path, draw: random.Random, content: bytes = b"") -> None:
    """Put something at ``path`` that is no sound file."""
    kind = draw.randrange(8)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem", "nowhere", "/")))
    elif kind == 4:
        path.touch()
        os.truncate(path, 2 ** draw.randrange(20, 42, 7))
    elif kind == 5:
        path.write_bytes(damaged_bytes(content, draw))
    elif kind == 6:
        path.write_bytes(b"")


# Every command with a path that is odd, {} with its ending; what else it needs is missing or small.
COMMANDS = (
    "run {toml} --out out", "run --data {npz} --out out", "run --data {} --out out", "run --data small.npz --out {}",
    "run --data small.npz --model {keras} --out out", "run --data small.npz --baseline {json} --out out",
    "train --data {npz} --out out.keras", "train --data none.npz --out {keras}",
    "train --model {keras} --data small.npz --out out.keras", "quantize {keras} --data small.npz --out out.npz",
    "quantize none.keras --data small.npz --out {npz}", "export {keras} --data small.npz --out out",
    "export none.keras --data small.npz --out {}", "export none.keras --qat {npz} --data small.npz --out out",
    "verify {tflite} --model none.keras --data small.npz",
    "diagnose layers {tflite} --model none.keras --data small.npz", "verify {onnx} --model none.keras --data small.npz",
    "bench {tflite} --seconds 0.01", "bench {onnx} --seconds 0.01", "bench {c} --seconds 0.01",
    "bench {keras} --seconds 0.01", "bench {zip} --seconds 0.01", "bench none.onnx --baseline {json}",
    "bench none.tflite --out {json}", "bench none.zip --ssh {}", "bundle {} --out out.zip", "bundle none --out {zip}",
    "baseline {keras} --data none --out out.json", "baseline none.txt --out {}", "baseline none.txt --out {json}",
    "inspect {tflite}", "inspect {onnx}", "check {tflite} --target cortex-m4", "check {tflite} --target tflm",
    "check none.tflite --target {}", "emulate {}", "embed {tflite} --target c99 --out out",
    "embed {onnx} --target linux --out out", "embed none.tflite --target c99 --out {}", "report {json} --out out",
    "report report.json --out {}", "compare {json} {json}", "{}", "--{}",
)  # fmt: skip
NAMES = (
    "odd", "", "-", "--", "-x", ".", "..", "/", "/dev/null", "/dev/zero", "~", "x" * 240, "x" * 300, "y/" * 2500,
    "\udcff", "a\nb", "\x1b[31m", "\u202eb", "a b", "'", "$(true)", "*", "[x]", "a:b", "none/below", "small.npz/below",
)  # fmt: skip


def _make_paths(folder: Path) -> None:
    place = folder / "paths"
    place.mkdir()
    np.savez(place / "small.npz", **_digits(np.uint8))
    (place / "call.json").write_text(json.dumps(["--version"]))


def _damage_paths(path: Path, draw: random.Random) -> None:
    words = []
    for word in draw.choice(COMMANDS).split():
        if word.startswith("{") or word == "--{}":
            ending = word.strip("-{}")
            name = draw.choice(NAMES) + (f".{ending}" if ending else "")
            word = ("--" if word.startswith("--") else "") + name
            with contextlib.suppress(OSError, ValueError):
                if "/" not in name and not (path / name).exists():
                    _odd_thing(path / name, draw, b"nonsense")
        words.append(word)
    (path / "call.json").write_text(json.dumps(words))


def _read_paths(path: Path) -> None:
    """Run the command line in ``call.json``, in its folder. What it writes under the names it was given is removed.

    Raises:
        DataError: with the last line that it wrote to stderr, if it failed.
    """
    there, before, said, status = {*path.iterdir()}, (sys.argv, Path.cwd()), io.StringIO(), None
    sys.argv = ["edgecnn", *json.loads((path / "call.json").read_text())]
    os.chdir(path)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            cli.main()
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        for made in {*path.iterdir()} - there:
            if not made.name.startswith(".edgecnn-"):
                shutil.rmtree(made) if made.is_dir() else made.unlink()
    assert "Traceback" not in said.getvalue(), said.getvalue()[-400:]
    if status:
        lines = said.getvalue().splitlines()
        assert any(line.startswith(("edgecnn: ", "Error: ")) for line in lines), (status, lines[-3:])
        raise DataError(lines[-1])


READERS = (
    Reader("npz", _make_npz, _damage_zip, _read_npz),
    Reader("qat-weights", _make_weights, _damage_zip, _read_weights),
    Reader("idx", _make_idx, _damage_idx, _read_idx),
    Reader("images", _make_images, _damage_images, _read_images),
    Reader("paths", _make_paths, _damage_paths, _read_paths),
)
