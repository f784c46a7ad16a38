"""Options that several commands share, and the types of their values."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_args, get_origin

import click

from edgecnn import config
from edgecnn.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from edgecnn.data import DataSet

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)
_DEFAULTS = config.RunConfig()


class Numbers(click.ParamType[Any]):
    """Comma-separated numbers, such as 1,2."""

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


class Bytes(click.ParamType[Any]):
    """A number of bytes, such as 32k."""

    name = "32k"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number."""
        from edgecnn.check import byte_count

        count = byte_count(value) if isinstance(value, str) else value
        return (
            self.fail(f"{value!r} is not a number of bytes such as 32k or 1m", param, ctx) if count is None else count
        )


class Names(click.ParamType[Any]):
    """Comma-separated names of a ``kind``, out of ``choices``."""

    name = "a,b"

    def __init__(self, kind: str, choices: Sequence[str]) -> None:
        self.kind = kind
        self.choices = choices

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A tuple of names.

        Raises:
            UnknownNameError: a name is not one of the choices.
        """
        names = tuple(value.split(",")) if isinstance(value, str) else value
        for name in names:
            if name not in self.choices:
                raise UnknownNameError(self.kind, name, self.choices)
        return names


def setting(name: str, *declarations: str, **attributes: Any) -> Callable[[F], F]:
    """The option for a field of ``RunConfig``, with the field's type, range, choices, default and help.

    ``declarations`` replace the option's name; ``attributes`` override the attributes taken from the field.
    """
    kind, choices, default = config.type_of(name), config.choices_of(name), getattr(_DEFAULTS, name)
    option = f"--{name.replace('_', '-')}"
    attributes = {
        "default": default,
        "help": config.description_of(name) + _default(option, default),
        "callback": lambda context, option, value: value if value is None else config.checked(name, value),
        **attributes,
    }
    if kind is bool:
        option = f"{option}/--no-{option[2:]}"
    elif get_origin(kind) is not tuple:
        attributes["type"] = click.Choice(choices) if choices else kind
    elif choices:
        attributes["type"] = Names(config.kind_of(name), choices)
    elif str in get_args(kind):  # free text may contain commas
        return click.option(option.removesuffix("s"), name, multiple=True, **attributes)
    else:
        attributes["type"] = Numbers(int, "1,2") if int in get_args(kind) else Numbers(float, "0,1")
    return click.option(*(declarations or [option]), **attributes)


def _default(option: str, default: Any) -> str:
    if default in (None, ()):  # the description states the default
        return ""
    if isinstance(default, bool):
        return f"  [default: {'' if default else 'no-'}{option[2:]}]"
    parts = default if isinstance(default, tuple) else [default]
    return f"  [default: {','.join(f'{part:g}' if isinstance(part, float) else str(part) for part in parts)}]"


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorate(command: F) -> F:
        for option in reversed(decorators):
            command = option(command)
        return command

    return decorate


json = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
json_array = click.option("--json", "as_json", is_flag=True, help="Print the records, one per file, as a JSON array.")
model = click.option("--model", type=FILE, required=True, help="The model that the files were exported from.")
qat = click.option("--qat", type=FILE, help="File written by edgecnn quantize; required for int8-qat.")
custom = setting("custom", expose_value=False, callback=lambda context, option, value: _use_custom(value))


class Data(NamedTuple):
    """What ``--data``, ``--input-range``, ``--resize``, ``--task`` and ``--metric`` say."""

    source: str | None
    input_range: tuple[float, float]
    resize: tuple[int, int] | None
    task: Any
    metric: str | None

    def of(self, model: str) -> "Data":
        """The same, where "demo" is what is generated for ``model``."""
        assert self.source is not None
        return self._replace(source=config.RunConfig(model=model, data=self.source).data)

    def load(self) -> "DataSet":
        """The data set."""
        from edgecnn.data import load

        assert self.source is not None
        return load(self.source, self.input_range, self.task, self.metric, resize=self.resize)


def _data(**attributes: Any) -> Callable[[F], F]:
    """The options that name a data set, as the one parameter ``data`` of the command."""

    def decorate(command: F) -> F:
        @wraps(command)
        def with_data(
            data: str | None, input_range: Any, resize: Any, task: Any, metric: str | None, **others: Any
        ) -> Any:
            return command(data=Data(data, input_range, resize, task, metric), **others)

        of_data = options(setting("data", **attributes), *map(setting, ("input_range", "resize", "task", "metric")))
        return cast("F", of_data(with_data))

    return decorate


data = _data()
data_if_any = _data(
    default=None, help="Also count accuracy on these test images (a data set as for edgecnn run).", callback=None
)
data_of_model = _data(  # no default: ranges and labels of other data would look right
    required=True, default=None, help=f"What the model was trained on: {config.description_of('data')}"
)
data_or_none = _data(
    required=True,
    default=None,
    help="What the model was trained on: a data set as for edgecnn run, or none: times alone.",
)
files = click.argument("files", type=FILE, nargs=-1, required=True)
data_of_files = _data(
    default=None, help=f"What the model was trained on, or other test samples: {config.description_of('data')}"
)
exported = options(files, model, data_of_model, custom, qat)  # files, and the model that they were exported from


def _use_custom(modules: tuple[str, ...]) -> None:
    if modules:
        from edgecnn.models import use_custom

        use_custom(modules)


def is_given(parameter: str) -> bool:
    """Whether the option was given on the command line."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def check_target(path: Path, suffix: str) -> None:
    """Fail before the long work if ``path`` has another suffix, or if its folder cannot be written to.

    Raises:
        ConfigError: the suffix differs.
        OutputError: the folder cannot be created or written to.
    """
    from edgecnn.files import make_folder

    if path.suffix != suffix:
        raise ConfigError(f"--out must end in {suffix}, got {path}")
    make_folder(path.parent)
