"""``python -m edgecnn`` runs the command ``edgecnn``."""

from edgecnn.cli import main

main()
