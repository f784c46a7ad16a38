"""Self-test: exit status 0 if every output byte is as in the reference."""

import sys
from pathlib import Path

import numpy as np

from . import about, reset, run


def main():
    """Run the golden inputs, one after the other, from the model's initial state."""
    with np.load(Path(__file__).with_name("golden.npz")) as golden:
        reset()
        right = (run(golden["inputs"]) == golden["outputs"]).all(axis=1)
    counted = f"{right.sum()} of {len(right)} golden inputs"
    if not right.all():
        sys.exit(f"wrong: only {counted} give the bytes of {about['reference']}; install the package again")
    print(f"ok: {counted}, every output byte as in {about['reference']}")


if __name__ == "__main__":
    main()
