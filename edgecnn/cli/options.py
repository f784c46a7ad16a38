"""The options that several commands have, and the types of their values."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgecnn.errors import ConfigError

if TYPE_CHECKING:
    from edgecnn.data import DataSet

F = TypeVar("F", bound=Callable[..., Any])
SCHEMES = ("float32", "float16", "dynamic-int8", "int8", "int16x8", "int8-qat")
FORMATS = ("tflite", "onnx", "c99")
MODELS = ("mnist_cnn", "resnet8", "ds_cnn", "mobilenet_v1_025", "mobilenet_v2")
EMBED_TARGETS = ("c99", "tflm", "arduino", "linux")
PROCESSORS = ("nehalem", "haswell", "cortex-a53", "cortex-a72", "cortex-a76", "arm-max")
BENCH_TARGETS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "riscv32")
FILE = click.Path(path_type=Path)


class Numbers(click.ParamType[Any]):
    """Comma-separated numbers, such as 1,2, or names that the library checks."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A tuple of numbers."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as {self.name}", param, ctx)


class Names(click.ParamType[Any]):
    """Comma-separated names out of a list of choices."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = choices
        self.name = "a,b"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A tuple of names."""
        names = tuple(value.split(",")) if isinstance(value, str) else value
        for name in names:
            if name not in self.choices:
                self.fail(f"{name!r} is not one of {', '.join(self.choices)}", param, ctx)
        return names


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
json_array = click.option("--json", "as_json", is_flag=True, help="Print the records, one per file, as a JSON array.")
input_range = click.option(
    "--input-range",
    type=Numbers(float, "0,1"),
    default="0,1",
    show_default=True,
    help="What 0 and 255 of 8-bit images become at the model's input.",
)
data = _options(
    click.option(
        "--data",
        default="mnist",
        show_default=True,
        help="mnist, fashion-mnist, a .npz file, or a folder of images.",
    ),
    input_range,
)
MODEL_HELP = f"{', '.join(MODELS)}, or your own Keras 3 model as a .keras file."
qat = click.option("--qat", type=FILE, help="Weights that edgecnn quantize wrote; int8-qat needs them.")
SEED = click.IntRange(0, 2**31 - 1)
seed = click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")
threads = click.option(
    "--threads",
    type=Numbers(int, "1,2"),
    default="1",
    show_default=True,
    help="Numbers of threads to measure with.",
)
seconds = click.option(
    "--seconds", type=float, default=2.0, show_default=True, help="How long each candidate is measured."
)
on = click.option(
    "--on",
    type=Numbers(str, "haswell,cortex-a72"),
    default=(),
    help=f"Run files on emulated processors, comma-separated: {', '.join(PROCESSORS)}.",
)
export = _options(
    click.option(
        "--schemes",
        type=Names(SCHEMES),
        default=",".join(SCHEMES),
        show_default=True,
        help="What to export.",
    ),
    click.option("--formats", type=Names(FORMATS), default=",".join(FORMATS), show_default=True, help="File formats."),
    click.option(
        "--io",
        type=click.Choice(["float32", "int8", "uint8"]),
        default="int8",
        show_default=True,
        help="Input and output type of int8 and int8-qat files; the others have float32.",
    ),
    click.option(
        "--batch",
        type=click.Choice(["1", "dynamic"]),
        default="1",
        show_default=True,
        help="Batch of the files.",
    ),
    click.option(
        "--calibration-images",
        type=click.IntRange(1),
        default=500,
        show_default=True,
        help="Training images that post-training quantisation looks at.",
    ),
    click.option(
        "--onnx-cpu",
        type=click.Choice(["any", "vnni"]),
        default="any",
        show_default=True,
        help="Where int8 .onnx is right; vnni: plain int8 weights, wrong on x86 without VNNI.",
    ),
)


def load_data(data: str, input_range: tuple[float, ...]) -> "DataSet":
    """The data set that ``--data`` and ``--input-range`` name."""
    from edgecnn.data import load

    if len(input_range) != 2:
        raise ConfigError(f"--input-range takes two numbers such as 0,1; got {len(input_range)}")
    return load(data, (input_range[0], input_range[1]))


def is_given(parameter: str) -> bool:
    """Whether the option stands on the command line."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def check_target(path: Path, suffix: str) -> None:
    """Fail before the long work, not after it."""
    from edgecnn.files import make_folder

    if path.suffix != suffix:
        raise ConfigError(f"--out {path} must end in {suffix}")
    make_folder(path.parent)
