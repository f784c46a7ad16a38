"""From an exported model to a running device: one kit per target, made with ``python -m export TARGET``."""
