"""Suites, their recorded results and the tables made from them; run it with ``python -m benchmarks``."""
