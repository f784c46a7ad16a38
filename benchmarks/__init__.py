"""Suites, their recorded results and the tables generated from them. Run with ``python -m benchmarks``."""
