"""``python -m edgecnn`` is the command ``edgecnn``."""

from edgecnn.cli import main

main()
