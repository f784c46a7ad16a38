"""The recorded baselines in the form that comes with edgecnn."""

from pathlib import Path

from edgecnn.measure.baseline import condensed, load_baseline
from edgecnn.records import to_json

RECORDED = Path(__file__).parent / "baselines"


def shipped_form(path: Path) -> bytes:
    """Condense the recorded baseline at ``path`` to the JSON that comes with edgecnn."""
    baseline = load_baseline(path)
    note = (
        f"Comes with edgecnn, measured elsewhere, on {baseline.environment.gpu}; every sample is in "
        f"benchmarks/baselines/{path.name}."
    )
    return to_json(condensed(baseline, note))
