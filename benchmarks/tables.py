"""Tables made from the results, put between the markers of Markdown files: no number in them is typed by hand.

<!-- table:mnist -->
…
<!-- /table:mnist -->
"""

import re
from pathlib import Path

from benchmarks.registry import TABLES
from edgecnn.bench.baseline import condensed, load_baseline
from edgecnn.errors import ConfigError
from edgecnn.records import read_record, to_json

BASELINES = Path(__file__).parent / "baselines"
_BLOCK = re.compile(r"^(<!-- table:(\S+) -->\n).*?^(<!-- /table:\2 -->)$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^<!-- /?table:\S+ -->$", re.MULTILINE)


def shipped_form(path: Path) -> bytes:
    """The recorded baseline at ``path`` as it comes with edgecnn."""
    baseline = load_baseline(path)
    note = (
        f"Comes with edgecnn, measured elsewhere, on {baseline.environment.gpu}; every sample is in "
        f"benchmarks/baselines/{path.name}."
    )
    return to_json(condensed(baseline, note))


def up_to_date(text: str, where: object) -> str:
    """``text`` with every marked block made anew; ``where`` names it in errors.

    Raises:
        ConfigError: a marker without its counterpart, or of a suite without a result.
        RecordError: a result that cannot be read.
    """
    whole = {marker for block in _BLOCK.finditer(text) for marker in _MARKER.findall(block[0])}
    for marker in _MARKER.findall(text):
        if marker not in whole:
            raise ConfigError(f"{where} has {marker} without its counterpart; write both, each on a line of its own")
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_table(block[2], where)}\n\n{block[3]}", text)


def _table(name: str, where: object) -> str:
    found = TABLES.get(name)
    if found is None:
        raise ConfigError(f"{where} wants a table {name}; known are: {', '.join(TABLES)}")
    suite, render = found
    if not suite.file.is_file():
        raise ConfigError(f"{where} wants a table of {suite.name}, which has no result; run: {suite.command}")
    return render(read_record(suite.file, suite.result), suite.source)
