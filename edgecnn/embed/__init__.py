"""``edgecnn embed``: kits, folders to copy to a device; one module per kind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from edgecnn.embed import arduino, c99, cortex_m, linux, tflm, web
from edgecnn.embed.content import Content
from edgecnn.errors import ArtifactError, ConfigError, OutputError, RecordError
from edgecnn.files import need_model, sha256_bytes, sha256_file, write_folder
from edgecnn.optional import installed
from edgecnn.records import CORES, SCHEMA_VERSION, Kit, KitTarget, read_record, to_json
from edgecnn.registry import Registry

KIT_FILE = "kit.json"
_BUILD = "build"
_TOOLS = ("edgecnn", "ai-edge-litert", "onnxruntime", "tflite-micro")


class Target(msgspec.Struct, frozen=True):
    """A target: accepted file extensions, and the function that makes a kit from a file and a data set (or None).

    If ``ram``, the function also accepts a limit of the arena.
    """

    name: KitTarget
    formats: tuple[str, ...]
    make: Callable[..., Content]
    ram: bool = False


_TARGETS = (
    Target("c99", ("tflite",), c99.make, ram=True),
    Target("tflm", ("tflite",), tflm.make),
    Target("arduino", ("tflite",), arduino.make, ram=True),
    Target("linux", ("tflite", "onnx"), linux.make),
    Target("web", ("tflite",), web.make),
    *(Target(core, ("tflite",), partial(cortex_m.make, core), ram=True) for core in CORES),
)

TARGETS: Registry[KitTarget, Target] = Registry("target", {target.name: target for target in _TARGETS})


def embed(
    model: Path, target: str, out: Path, data: str | None = None, ram: int | None = None, reads: bool = False
) -> Kit:
    """Write the kit of the model file ``model`` for ``target`` into the folder ``out``, completely or not at all.

    ``data`` is a data set as for ``edgecnn.data.load``; its test images become golden inputs. Without it, linux uses
    the model's own data set, and the other targets use noise. A folder that contains only an earlier kit is replaced.
    The same model and data produce the same bytes.

    ``ram`` limits the bytes of the arena of generated C, in which input and output are not included. If needed, the
    first layers run in bands of rows: the plan with the fewest instructions that fits is used. With ``reads``, which
    needs ``ram``, the code has a function that reads the input row by row, so that it need not be in memory.

    Raises:
        UnknownNameError: unknown target; the message lists the choices.
        ConfigError: ``ram`` for a target without generated C, or ``reads`` without ``ram``.
        FitError: no arena is as small as ``ram``; the message has the smallest.
        ArtifactError: the model is missing, damaged, changed, or of an unsupported kind.
        UnsupportedError: the C generator or TFLM does not support an operator.
        MissingExtraError: ``tflite-micro``, which computes the golden outputs, is not installed.
        SessionError: a runtime refuses the model.
        OutputError: ``out`` contains anything but an earlier kit, or cannot be written.
    """
    chosen = TARGETS[target]
    need_model(model)
    if model.suffix[1:] not in chosen.formats:
        endings = " or ".join(f".{format}" for format in chosen.formats)
        raise ArtifactError(f"{model} is not a model file for {target}; give a file ending in {endings}")
    if ram is not None and not chosen.ram:
        limited = ", ".join(sorted(one.name for one in _TARGETS if one.ram))
        raise ConfigError(f"a kit for {target} has no limit of RAM; targets with one are {limited}")
    _check_former(out)
    if reads and ram is None:
        raise ConfigError("to read the input row by row, give a limit of the arena too, as in --ram 32k")
    content = chosen.make(model, data) if ram is None else chosen.make(model, data, ram, reads)
    kit = Kit(
        schema_version=SCHEMA_VERSION,
        target=target,
        name=content.name,
        model=model.name,
        model_sha256=sha256_file(model),
        files={name: sha256_bytes(data_bytes) for name, data_bytes in sorted(content.files.items())},
        versions={tool: version for tool in _TOOLS if (version := installed(tool)) is not None},
        arena_bytes=content.arena_bytes,
        arena_measured_bytes=content.arena_measured_bytes,
    )
    write_folder(out, {**content.files, KIT_FILE: to_json(kit)})
    return kit


def _check_former(out: Path) -> None:
    """Refuse to replace a folder that contains anything but an unchanged earlier kit and its build output."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"output folder {out} is a file; name a folder, or remove the file")
    there = sorted(path.name for path in out.iterdir() if path.name != _BUILD)
    if not there:
        return
    advice = "name a new or empty folder"
    try:
        kit = read_record(out / KIT_FILE, Kit)
    except RecordError as error:
        raise OutputError(f"{out} is not a kit: it contains {there[0]}; {advice}") from error
    found = {
        path.relative_to(out).as_posix(): path
        for path in out.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(out).parts[0] not in (_BUILD, KIT_FILE)
    }
    for name, path in sorted(found.items()):
        if name not in kit.files:
            raise OutputError(f"{out} is a kit with another file in it: {name}; {advice}, or move that file")
        if path.is_symlink() or sha256_file(path) != kit.files[name]:
            raise OutputError(f"{out} is a kit in which {name} was changed; {advice}, or move that file")
