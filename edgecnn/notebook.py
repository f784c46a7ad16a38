"""Records in a notebook: a table and a picture."""

from functools import singledispatch

import msgspec

from edgecnn.errors import MissingExtraError
from edgecnn.files import sha256_bytes
from edgecnn.inspection.table import table
from edgecnn.inspection.terminal import totals
from edgecnn.measure.statistics import summary, warnings
from edgecnn.records import Inspection, Measurement, Parity, Record, Report, to_json
from edgecnn.report import charts, tables, units
from edgecnn.report.html import fragment
from edgecnn.report.page import heading, page, titled

_MOST_BARS = 12


def html(record: Record) -> str | None:
    """``record`` as HTML to be shown inside a page.

    None, so that a notebook shows ``repr``, for other records, and without the extra "report".
    """
    try:
        return _html(record)
    except MissingExtraError:
        return None


def _name(record: Record) -> str:
    """Ids of two outputs of a notebook must differ."""
    return f"edgecnn-{sha256_bytes(to_json(record))[:12]}"


@singledispatch
def _html(record: Record) -> str | None:
    return None


@_html.register
def _report(record: Report) -> str:
    content, name = page(record), _name(record)
    figures = [
        msgspec.structs.replace(figure, title=titled(part)) if content.others else figure
        for number, part in enumerate(content.parts)
        for figure in charts.draw(msgspec.structs.replace(part, letter=f"{name}-{number}"), most=1).figures
    ]
    grid = content.results if content.side_by_side is None else content.side_by_side
    return fragment(name, heading(content), [line for part in content.parts for line in part.verdict], grid, figures)


@_html.register
def _parity(record: Parity) -> str:
    found, allowed = record.difference, record.tolerance
    limits = [("mean difference", found.mean_abs, allowed.mean_abs * (found.span or 1.0))]
    if allowed.max_abs is not None:
        limits.append(("largest difference", found.max_abs, allowed.max_abs * (found.span or 1.0)))
    if allowed.mean_lsb is not None and found.mean_lsb is not None:
        limits.append(("mean difference, LSB", found.mean_lsb, allowed.mean_lsb))
    values = [(what, got / most, units.ratio(got / most)) for what, got, most in limits if most > 0]
    name, caption = _name(record), "Above 1, the tolerance is violated."
    figures = [charts.bars(name, "Difference ÷ tolerance", caption, "difference ÷ tolerance", values)] if values else []
    title = f"{record.artifact} is {'not ' if record.violations else ''}within the tolerance"
    return fragment(name, title, record.violations, tables.verification((record,)), figures)


@_html.register
def _measurement(record: Measurement) -> str:
    name, unit = _name(record), units.unit_for([summary(record).median])
    caption = "Every sample in the order of time, without the warm-up."
    figures = [charts.samples(name, "Latency", caption, record, unit)] if record.blocks_ns else []
    return fragment(name, record.artifact, warnings(record), tables.measurement(record, unit), figures)


@_html.register
def _inspection(record: Inspection) -> str:
    timed = bool(record.time_shares)
    what = "time" if timed else "multiply-accumulates"
    shares: dict[str, float] = {}
    for node in record.nodes:
        kind = f"{node.kind or node.kernel} ({node.precision})"
        share = (node.time_share or 0.0) if timed else node.macs / (record.macs or 1)
        shares[kind] = shares.get(kind, 0.0) + share
    largest = sorted(shares.items(), key=lambda item: -item[1])[:_MOST_BARS]
    values = [(kind, share, f"{units.percent(share)} %") for kind, share in largest if share > 0]
    name, caption = _name(record), "By operator, and the type in which it computes."
    figures = [charts.bars(name, f"Share of the {what}", caption, f"share of the {what}", values)] if values else []
    title = f"{record.file} on {record.runtime}"
    return fragment(name, title, (*totals(record), *record.notes), table(record), figures)
