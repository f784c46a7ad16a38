"""Records in a notebook: every number of the tables, nothing of a name is markup, and pictures that a browser draws."""

import html
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_report import a_full_report, a_parity, an_artifact, chromium, merged

import edgecnn
from edgecnn.errors import MissingExtraError
from edgecnn.inspection import inspect
from edgecnn.records import Measurement, Parity, Record, Report, Result
from edgecnn.report import tables, units
from edgecnn.report.page import page

TINY = Path(__file__).parent / "files" / "tiny-int8.tflite"
HOSTILE = '<script>document.title="evil"</script><b>&amp;"'


@pytest.fixture(autouse=True)
def public() -> None:
    """A public name was used, as in any notebook."""
    assert edgecnn.verify


def shown(record: Record) -> str:
    found = record._repr_html_()
    assert found is not None
    return found


class Reader(HTMLParser):
    """The tags, ids and cells of a fragment, and whether all tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & {*self.open} and "sup" not in self.open:
            self.cells[-1] = " ".join(f"{self.cells[-1]} {data}".split())


def records() -> list[Record]:
    report = a_full_report()
    measurement = next(row for row in report.rows if isinstance(row, Result)).measurement
    return [report, a_parity(an_artifact("m-int8.tflite", "int8", 1000), 9000, lsb=1), measurement, inspect(TINY)]


@pytest.mark.parametrize("number", range(4))
def test_a_record_is_a_table_and_a_picture(number: int) -> None:
    record = records()[number]
    found = Reader(shown(record))
    assert found.tags.count("table") == 1
    assert found.tags.count("svg") == 1
    assert len({*found.ids}) == len(found.ids)
    assert "script" not in found.tags
    assert shown(record) == shown(record)


def test_the_table_of_a_report_is_that_of_the_page() -> None:
    report = a_full_report()
    grid = page(report).results
    titles = [column.title for column in grid.columns]
    cells = [cell.text for row in grid.rows for cell in row]
    assert Reader(shown(report)).cells == titles + cells
    verdict = page(report).verdict
    assert all(html.escape(line, quote=False).partition("`")[0] in html.unescape(shown(report)) for line in verdict)


def test_several_reports_are_side_by_side() -> None:
    found = Reader(shown(merged()))
    assert found.tags.count("svg") == len(page(merged()).parts)
    assert len({*found.ids}) == len(found.ids)


def test_a_measurement_has_the_times_of_the_report() -> None:
    measurement = records()[2]
    assert isinstance(measurement, Measurement)
    grid = tables.measurement(measurement, units.unit_for([tables.summary(measurement).median]))
    assert Reader(shown(measurement)).cells[len(grid.columns) :] == [cell.text for cell in grid.rows[0]]


def test_what_is_violated_is_said() -> None:
    artifact = an_artifact("m-int8.tflite", "int8", 1000)
    bad = a_parity(artifact, 9000, violations=("the mean difference is 3, at most 1 is allowed",))
    assert "m-int8.tflite is not within the tolerance" in shown(bad)
    assert "the mean difference is 3, at most 1 is allowed" in shown(bad)
    assert "m-int8.tflite is within the tolerance" in shown(a_parity(artifact, 9000))


def hostile() -> list[Record]:
    report, parity, measurement, inspection = records()
    assert isinstance(report, Report)
    assert isinstance(parity, Parity)
    return [
        report.replace(title=HOSTILE),
        parity.replace(artifact=HOSTILE, violations=(HOSTILE,)),
        measurement.replace(artifact=HOSTILE),
        inspection.replace(file=HOSTILE, notes=(HOSTILE,)),
    ]


def test_names_are_text(tmp_path: Path) -> None:
    """In a browser too, which also draws the pictures."""
    parts = [shown(record) for record in hostile()]
    for part in parts:
        assert "<script" not in part
        assert "&lt;script&gt;" in part
    place = tmp_path / "page.html"
    place.write_text(f"<!doctype html><meta charset=utf-8><title>good</title>{''.join(parts)}", encoding="utf-8")
    size = "document.body.append([...document.querySelectorAll('svg')].map((svg) => svg.clientHeight > 50))"
    place.write_text(f"{place.read_text()}<script>{size}</script>", encoding="utf-8")
    dom = chromium("--dump-dom", place.as_uri(), profile=tmp_path / "profile")
    assert "<title>good</title>" in dom
    assert "true,true,true,true" in dom


def missing(name: str) -> None:
    raise MissingExtraError(f"{name} is not installed")


def test_other_records_and_other_places_show_their_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    assert a_full_report().environment._repr_html_() is None
    monkeypatch.setattr("edgecnn.report.html.require", missing)
    assert a_full_report()._repr_html_() is None


def test_a_public_name_is_enough() -> None:
    """Nothing else is imported for it before a record is shown."""
    code = f"""
import json, pathlib, sys
import edgecnn
found = edgecnn.inspect(pathlib.Path({str(TINY)!r}))
before = "jinja2" in sys.modules
print(json.dumps([before, "<table" in found._repr_html_()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [False, True]
