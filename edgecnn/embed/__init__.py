"""``edgecnn embed``: kits, folders to copy to a device; one module per kind."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from edgecnn.embed import android, arduino, c99, cortex_m, ios, linux, tflm, web, wheel
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

    ``takes_arena``: the function also takes a ``c99.Arena``, because a program of the user's calls the kit's C code.
    ``make_several`` makes one kit of several files.
    """

    name: KitTarget
    formats: tuple[str, ...]
    make: Callable[..., Content]
    takes_arena: bool = False
    make_several: Callable[..., Content] | None = None


_TARGETS = (
    Target("c99", ("tflite",), c99.make, takes_arena=True, make_several=c99.make_several),
    Target("arduino", ("tflite",), arduino.make, takes_arena=True),
    Target("web", ("tflite",), web.make),
    Target("wheel", ("tflite",), wheel.make),
    Target("android", ("tflite",), android.make),
    Target("ios", ("tflite",), ios.make),
    Target("tflm", ("tflite",), tflm.make),
    Target("linux", ("tflite", "onnx"), linux.make),
    *(Target(core, ("tflite",), partial(cortex_m.make, core), takes_arena=True) for core in CORES),
)

TARGETS: Registry[KitTarget, Target] = Registry("target", {target.name: target for target in _TARGETS})


def embed(
    model: Path | Sequence[Path], target: str, out: Path, data: str | None = None, *,
    caller_arena: bool = False, ram: int | None = None, reads: bool = False,
) -> Kit:  # fmt: skip
    """Write the kit of the model file ``model`` for ``target`` into the folder ``out``, completely or not at all.

    Several models become one kit, only for c99: one C source in which they share the kernels.

    ``data`` is a data set as for ``edgecnn.data.load``; its test images become golden inputs. Without it, linux uses
    the model's own data set, and the other targets use noise. With ``caller_arena``, the C code expects its arena as a
    third argument instead of having a static one. A folder that contains only an earlier kit is replaced. The same
    model and data produce the same bytes.

    ``ram`` limits the bytes of the arena of generated C, in which input and output are not included. If needed, the
    first layers run in bands of rows: the plan with the fewest instructions that fits is used. With ``reads``, which
    needs ``ram``, the code has a function that reads the input row by row, so that it need not be in memory.

    Raises:
        ConfigError: an option of the arena, or several models, for a target without them; ``reads`` without ``ram``;
            models of the same name.
        FitError: no arena is as small as ``ram``; the message has the smallest.
        UnknownNameError: unknown target; the message lists the choices.
        ArtifactError: the model is missing, damaged, changed, or of an unsupported kind.
        UnsupportedError: the C generator or TFLM does not support an operator.
        MissingExtraError: ``tflite-micro``, which computes the golden outputs, is not installed.
        SessionError: a runtime refuses the model.
        OutputError: ``out`` contains anything but an earlier kit, or cannot be written.
    """
    chosen = TARGETS[target]
    models = [model] if isinstance(model, Path) else [*model]
    for one in models:
        need_model(one)
        if one.suffix[1:] not in chosen.formats:
            endings = " or ".join(f".{format}" for format in chosen.formats)
            raise ArtifactError(f"{one} is not a model file for {target}; give a file ending in {endings}")
    arena = c99.Arena(caller_arena, ram, reads)
    if arena != c99.STATIC and not chosen.takes_arena:
        takers = ", ".join(one.name for one in _TARGETS if one.takes_arena)
        raise ConfigError(f"the kit {target} has no options for the arena of C code; choose from: {takers}")
    if reads and ram is None:
        raise ConfigError("to read the input row by row, give a limit of the arena too, as in --ram 32k")
    _check_former(out)
    given = (data, arena) if chosen.takes_arena else (data,)
    if len(models) == 1:
        content = chosen.make(models[0], *given)
    elif models and chosen.make_several is not None:
        content = chosen.make_several(models, *given)
    else:
        raise ConfigError(
            f"a kit {target} holds one model, got {len(models)}; several share the code in a kit c99 only"
        )
    kit = Kit(
        schema_version=SCHEMA_VERSION,
        target=target,
        name=content.name,
        model=models[0].name,
        model_sha256=sha256_file(models[0]),
        more_models={one.name: sha256_file(one) for one in models[1:]},
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
