"""Stages of a run: each is finished completely or not at all, and repeated only if something it depends on changed."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from edgecnn.errors import RecordError
from edgecnn.files import sha256_bytes, sha256_file, write_atomic
from edgecnn.progress import working
from edgecnn.records import Record, Seconds, StageTime, read_record, to_json

T = TypeVar("T")

log = logging.getLogger("edgecnn")


class Stamp(Record, frozen=True):
    """A finished stage: the hash of its inputs, the hashes of its outputs, and its duration in seconds."""

    key: str
    outputs: dict[str, str]
    seconds: Seconds


class Stages:
    """The shared state of the stages of one run.

    Attributes:
        out: the folder of the run; the stamps are in its subfolder ``work``.
        tools: versions that every stage depends on.
        times: the durations of the stages, in order.
    """

    def __init__(self, out: Path, tools: Mapping[str, str]) -> None:
        self.out = out
        self.tools = tools
        self.times: list[StageTime] = []


class Stage(Generic[T]):
    """A stage that makes ``outputs``, files of the run, from ``inputs``; ``read`` reads the outputs.

    If it is ``due``, a ``with`` block makes the outputs, and the end of the block writes the stamp.
    Files that cannot be read are rebuilt.
    """

    def __init__(
        self,
        stages: Stages,
        name: str,
        inputs: Mapping[str, object],
        outputs: Sequence[Path],
        read: Callable[[], T],
    ) -> None:
        self._stages = stages
        self._name = name
        self._key = sha256_bytes(msgspec.json.encode([inputs, stages.tools], order="sorted"))
        self.outputs = outputs
        self._read = read
        self._stamp = stages.out / "work" / f"{name}.stage.json"
        self._kept = self._reused()

    @property
    def due(self) -> bool:
        """Whether the outputs have to be made."""
        return self._kept is None

    def result(self) -> T:
        """The result of ``read``; call it after the outputs are made."""
        return self._read() if self._kept is None else self._kept

    def finish(self, seconds: float) -> None:
        """Write the stamp: the outputs were made in ``seconds``."""
        write_atomic(self._stamp, to_json(Stamp(key=self._key, outputs=self._hashes(), seconds=seconds)))
        self._stages.times.append(StageTime(name=self._name, seconds=seconds, reused=False))

    def forget(self) -> None:
        """Remove the stamp, so that the next run repeats the stage."""
        self._stamp.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        self._working: AbstractContextManager[Any] = working(self._name) if self.due else nullcontext()
        self._working.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._working.__exit__(kind, error, trace)
        if self.due and kind is None:
            self.finish(time.perf_counter() - self._start)

    def _reused(self) -> T | None:
        """The result of ``read`` if outputs from the same inputs exist; else remove what is in the way of new ones."""
        try:
            if self._stamp.exists():
                stamp = read_record(self._stamp, Stamp)
                if stamp.key == self._key and stamp.outputs == self._hashes():
                    kept = self._read()
                    self._stages.times.append(StageTime(name=self._name, seconds=stamp.seconds, reused=True))
                    return kept
        except RecordError as error:
            log.warning("%s is repeated: %s", self._name, error)
        for path in (self._stamp, *(path for path in self.outputs if path.is_dir())):
            if path.parent != self._stages.out:  # files in the run folder itself may be the user's
                _discard(path)
        return None

    def _hashes(self) -> dict[str, str]:
        """Hashes of the existing outputs."""
        return {str(path.relative_to(self._stages.out)): sha256_file(path) for path in self.outputs if path.is_file()}


def _discard(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
