"""Suites that measure Tempo against its roofline, and the report they share. `tempo bench SUITE` runs one."""

from tempo.bench.result import Result

__all__ = ["Result"]
