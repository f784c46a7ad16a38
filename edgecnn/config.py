"""The settings of a run, each said once: type and range, default, and what it does.

The options of the commands are made from these fields (``edgecnn.cli.options.setting``).
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from edgecnn.errors import ConfigError, UnknownNameError
from edgecnn.files import read_bytes
from edgecnn.records import (
    BareTarget,
    FormatName,
    Io,
    ModelName,
    OnnxCpu,
    ProcessorName,
    QatEngine,
    Record,
    SchemeName,
    TaskName,
)

EPOCHS = 5
"""Of training, for a built-in model."""

_MOST_CONFIG_BYTES = 64 * 1024
_MOST_LINE_BYTES = 4096

# The title of a type is the end of "… must be …".
_LARGE = 2**31
_Whole = Annotated[int, Meta(ge=0, lt=_LARGE, title="0 or more and below 2³¹")]
_Positive = Annotated[int, Meta(gt=0, lt=_LARGE, title="positive and below 2³¹")]
_Amount = Annotated[float, Meta(gt=0, lt=_LARGE, title="positive and below 2³¹")]
_Share = Annotated[float, Meta(ge=0, lt=1, title="at least 0 and below 1")]


class RunConfig(Record, frozen=True):
    """What a run does; the fields are the keys of the TOML file and, with dashes, the options of ``edgecnn run``.

    Raises:
        ConfigError: a value is of the wrong type, out of range or unknown.
    """

    model: Annotated[
        str,
        Meta(
            description=f"{', '.join(get_args(ModelName))}, or your own: a .keras or .h5 file, or a SavedModel folder."
        ),
    ] = "mnist_cnn"
    data: Annotated[
        str,
        Meta(description="mnist, fashion-mnist, a .npz file, a folder of images, or demo: generated for the model."),
    ] = "mnist"
    input_range: Annotated[
        tuple[float, float],
        Meta(
            title="two numbers such as 0,1", description="What 0 and 255 of 8-bit images become at the model's input."
        ),
    ] = (0.0, 1.0)
    resize: Annotated[
        tuple[_Positive, _Positive] | None,
        Meta(
            title="two positive numbers such as 96,96",
            description="Height and width that the images of a folder are resized to.",
        ),
    ] = None
    task: Annotated[
        Literal["auto", TaskName],
        Meta(description="What the labels mean; auto guesses it from them."),
    ] = "auto"
    metric: Annotated[
        str | None,
        Meta(description="Your function module:function of labels and outputs, whose result replaces the score."),
    ] = None
    custom: Annotated[
        tuple[str, ...],
        Meta(
            description="Python module with classes of your model, such as my_layers for my_layers.py; may be repeated."
        ),
    ] = ()
    epochs: Annotated[
        _Whole | None, Meta(description=f"Of training; default {EPOCHS}, and 0 for your own model (no training).")
    ] = None
    qat_engine: Annotated[
        QatEngine, Meta(description="keras trains the Keras 3 model itself, tfmot rebuilds it in legacy Keras.")
    ] = "keras"
    qat_epochs: Annotated[_Positive, Meta(description="Of quantisation-aware training.")] = 2
    seed: Annotated[_Whole, Meta(description="Seed of weights, order of images, and order of measurements.")] = 0
    batch_size: Annotated[_Positive, Meta(description="Images per training step.")] = 64
    validation_split: Annotated[_Share, Meta(description="Share of the training images held out, 0 to 1.")] = 0.1
    learning_rate: Annotated[_Amount, Meta(description="Of Adam in training.")] = 1e-3
    qat_learning_rate: Annotated[_Amount, Meta(description="Of Adam in quantisation-aware training.")] = 1e-4
    schemes: Annotated[
        tuple[SchemeName, ...],
        Meta(min_length=1, title="one scheme or more", description="Schemes to export, comma-separated."),
    ] = get_args(SchemeName)
    formats: Annotated[
        tuple[FormatName, ...],
        Meta(min_length=1, title="one format or more", description="File formats to export to, comma-separated."),
    ] = get_args(FormatName)
    io: Annotated[
        Io, Meta(description="Input and output type of int8 and int8-qat files; the others have float32.")
    ] = "int8"
    batch: Annotated[Literal["1", "dynamic"], Meta(description="Batch of the files.")] = "1"
    calibration_images: Annotated[
        _Positive, Meta(description="Training images that post-training quantisation looks at.")
    ] = 500
    onnx_cpu: Annotated[
        OnnxCpu,
        Meta(description="Where int8 .onnx is right; vnni: plain int8 weights, wrong on x86 without VNNI."),
    ] = "any"
    tune: Annotated[bool, Meta(description="Leave operators of int8 .onnx in float where that is faster.")] = True
    tune_seconds: Annotated[_Amount, Meta(description="How long to measure that, for each int8 .onnx.")] = 20.0
    threads: Annotated[
        tuple[_Positive, ...],
        Meta(
            min_length=1,
            title="one or more positive numbers below 2³¹",
            description="Numbers of threads to measure with, comma-separated.",
        ),
    ] = (1,)
    seconds: Annotated[_Amount, Meta(description="How long each candidate is measured.")] = 2.0
    cold: Annotated[
        _Positive,
        Meta(description="Fresh processes that each is measured in, one after the other: as many cold starts."),
    ] = 5
    baselines: Annotated[
        tuple[str, ...],
        Meta(
            description="JSON from edgecnn baseline, for the same layers and shapes, may be repeated; or none.  "
            "[default: what comes with edgecnn]"
        ),
    ] = ()
    target: Annotated[
        tuple[BareTarget, ...],
        Meta(
            description="Count instructions, flash and RAM of C on emulated microcontrollers, such as "
            "cortex-m4,cortex-m55."
        ),
    ] = ()
    on: Annotated[
        tuple[ProcessorName, ...],
        Meta(
            description=f"Run files on emulated processors too, comma-separated: {','.join(get_args(ProcessorName))}."
        ),
    ] = ()

    demo: Annotated[
        bool, Meta(description="Let the int8 model run in report.html, to try it; needs clang and lld.")
    ] = True

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            msgspec.structs.force_setattr(self, name, checked(name, getattr(self, name)))
        if self.data == "demo":
            msgspec.structs.force_setattr(self, "data", f"demo-{self.model}")
        if "none" in self.baselines and len(self.baselines) > 1:
            raise ConfigError("baselines are files, or none; give one or the other")


def checked(name: str, value: Any) -> Any:
    """``value`` as the setting ``name`` has it: numbers and sequences in its own types.

    Raises:
        UnknownNameError: it is, or holds, a name that is not one of the choices; the message lists them.
        ConfigError: it is of the wrong type or out of range.
    """
    kind = _kinds()[name]
    try:
        value = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        for one in value if isinstance(value, list | tuple) else [value]:
            if (choices := choices_of(name)) and one not in choices:
                raise UnknownNameError(kind_of(name), one, choices) from error
        allowed = _meta(kind, "title")
        if ", got `" in str(error) or allowed is None:  # another type
            raise ConfigError(f"{name}: {error}") from error
        raise ConfigError(f"{name} must be {allowed}, got {value}") from error
    is_word = name == "model" and Path(value).name == Path(value).stem == value  # no ending and no separator: no file
    if is_word and value not in get_args(ModelName) and not Path(value).is_dir():
        raise UnknownNameError(name, value, get_args(ModelName))
    return value


def type_of(name: str) -> Any:
    """The type of a setting without its range, and without None where that stands for a default."""
    kind = _plain_kinds()[name]
    return get_args(kind)[0] if type(None) in get_args(kind) else kind


def choices_of(name: str) -> tuple[str, ...]:
    """The names that a setting takes; none where it takes any."""
    kind = type_of(name)
    one = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return get_args(one) if get_origin(one) is Literal else ()


def kind_of(name: str) -> str:
    """What the names of a setting are called in a message."""
    return {"on": "processor"}.get(name, name.removesuffix("s"))


def description_of(name: str) -> str:
    """What a setting does."""
    return _meta(_kinds()[name], "description") or ""


# every option of every command is made from these when the command line starts
@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(RunConfig, include_extras=True)


@cache
def _plain_kinds() -> dict[str, Any]:
    return get_type_hints(RunConfig)


def _meta(kind: Any, key: str) -> str | None:
    """The ``title`` or ``description`` of a type or, where it has none, of the types it is made of."""
    for part in (*reversed(getattr(kind, "__metadata__", ())), *get_args(kind)):
        found = getattr(part, key, None) if isinstance(part, Meta) else _meta(part, key)
        if found is not None:
            return found
    return None


def read_config(path: Path) -> RunConfig:
    """Read a TOML file of ``RunConfig`` fields.

    Raises:
        ConfigError: no such file, one that is too large, no TOML, an unknown key, or a value that cannot be.
    """
    try:
        content = read_bytes(path, _MOST_CONFIG_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    # the parser's time and memory grow with the square of a dotted key, its calls with the depth of arrays
    if max(map(len, content.splitlines()), default=0) > _MOST_LINE_BYTES:
        raise ConfigError(f"{path} is not a valid configuration: a line may have {_MOST_LINE_BYTES:,} bytes at most")
    try:
        settings = msgspec.toml.decode(content)
        for key in settings:
            if key not in _kinds():
                raise ConfigError(
                    f"{path} is not a valid configuration: unknown field `{key}`; the keys are: {', '.join(_kinds())}"
                )
        return RunConfig(**settings)
    except RecursionError as error:
        raise ConfigError(f"{path} is not a valid configuration: it is nested too deeply") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{path} is not a valid configuration: {error}") from error
