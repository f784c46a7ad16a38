"""Tables generated from the results, inserted between markers in Markdown files.

<!-- table:mnist -->
…
<!-- /table:mnist -->
"""

import re

from benchmarks.registry import TABLES
from edgecnn.errors import ConfigError
from edgecnn.records import read_record

_BLOCK = re.compile(r"^(<!-- table:(\S+) -->\n).*?^(<!-- /table:\2 -->)$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^<!-- /?table:\S+ -->$", re.MULTILINE)


def up_to_date(text: str, where: object) -> str:
    """``text`` with every marked block regenerated; ``where`` names it in errors.

    Raises:
        ConfigError: a marker has no counterpart, or its suite has no result.
        RecordError: a result cannot be read.
    """
    whole = {marker for block in _BLOCK.finditer(text) for marker in _MARKER.findall(block[0])}
    for marker in _MARKER.findall(text):
        if marker not in whole:
            raise ConfigError(f"{where} has {marker} without its counterpart; write both, each on its own line")
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_table(block[2], where)}\n\n{block[3]}", text)


def _table(name: str, where: object) -> str:
    found = TABLES.get(name)
    if found is None:
        raise ConfigError(f"{where} refers to an unknown table {name}; choose from: {', '.join(TABLES)}")
    suite, render = found
    if not suite.file.is_file():
        raise ConfigError(f"{where} refers to a table of {suite.name}, which has no result; run: {suite.command}")
    return render(read_record(suite.file, suite.result), suite.source)
