"""Text of others, as it is shown."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import cli
from edgecnn.errors import ConfigError, EdgecnnError, RecordError, UnknownNameError
from edgecnn.records import Accuracy, Failure, Provenance, from_json, to_json
from edgecnn.text import MESSAGE, NAME, shown

HOSTILE = "a\x1b[31m\r\n=1+1\u202e\udcff\x07"


@given(st.text(st.characters(), max_size=40) | st.text(st.characters(), min_size=900, max_size=1100))
def test_whatever_the_text_it_is_one_short_line_and_stays_it(text: str) -> None:
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= MESSAGE
    assert shown(line) == line
    line.encode()


def test_what_does_not_print_is_escaped_and_what_is_long_is_cut_in_the_middle() -> None:
    assert shown(HOSTILE) == r"a\x1b[31m\r\n=1+1\u202e\udcff\x07"
    assert shown("ß µs 中 ‘x’") == "ß µs 中 ‘x’"
    assert shown("a" * 300 + ".tflite", NAME) == "a" * 169 + "…" + "a" * 78 + ".tflite"


@pytest.mark.parametrize(
    "error", [EdgecnnError(HOSTILE), ConfigError("x" * 10_000), UnknownNameError("x", "\n", ["\n"])]
)
def test_every_message_is_one_short_line(error: EdgecnnError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) <= MESSAGE


def test_records_hold_texts_as_they_are_shown() -> None:
    made = Failure(subject=HOSTILE, stage="s", error=HOSTILE * 100, reason=HOSTILE * 1000)
    assert made.subject == shown(HOSTILE)
    assert len(made.error) == NAME
    assert len(made.reason) == MESSAGE
    assert from_json(to_json(made), Failure, "memory") == made
    read = from_json(to_json(made).replace(b'"s"', b'"\\u001b[2J"'), Failure, "memory")
    assert read.stage == r"\x1b[2J"
    assert made.replace(stage="\t").stage == r"\t"


def test_texts_in_lists_and_tables_are_cleaned_too() -> None:
    fields = {"labels": ("a", "\x1b"), "versions": {"\x1b": "\n"}, "tuning": None, "calibration_images": None}
    preprocessing = {"scale": 1.0, "offset": 0.0, "input_range": (0.0, 1.0)}
    texts = dict.fromkeys(("model", "model_sha256", "scheme", "data", "data_sha256"), "x")
    made = msgspec.convert({**fields, **texts, "preprocessing": preprocessing}, Provenance)
    assert made.labels == ("a", r"\x1b")
    assert made.versions == {r"\x1b": r"\n"}


def test_a_log_message_is_one_line() -> None:
    record = logging.LogRecord("edgecnn", logging.WARNING, "", 0, "%s", (HOSTILE,), None)
    assert cli._Lines("%(name)s: %(message)s").format(record) == f"edgecnn: {shown(HOSTILE)}"


@pytest.mark.parametrize("command", ["report", "inspect", "bench", "embed"])
def test_a_file_name_that_is_no_text_is_shown_escaped(tmp_path: Path, command: str) -> None:
    name = b"\x1b[31m\xff\n.tflite" if command != "report" else b"\x1b[31m\xff\n.json"
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"{}")
    more = {
        "report": ["--out", "out"],
        "bench": ["--out", "r.json"],
        "embed": ["--target", "c99", "--out", "k"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", command, path, *more.get(command, [])],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2)
    assert "Traceback" not in said
    assert r"\x1b[31m\udcff\n" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_a_record_that_cannot_be_is_an_error_of_ours_wherever_it_is_made() -> None:
    with pytest.raises(RecordError, match="3 right answers are more than 2 images"):
        Accuracy(correct=3, total=2)
