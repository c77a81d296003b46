"""The rule that a skipped test that is marked "security" fails the run, in one process or in several.

Under pytest-xdist tests are collected and run in processes of their own, and one more writes the summary. It
sees none of their items, but each report of theirs, with what was noted on it: so the processes that have the
items note whether a report is about security tests, and the one that has the summary asks the reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import pytest


@final
class SecuritySkips:
    """A plugin of pytest, for tests/conftest.py to register."""

    def __init__(self) -> None:
        self._names: list[str] = []

    # ---- where the items are ----

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        report.security = item.get_closest_marker("security") is not None
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        report = yield
        # A file that skips itself has no tests to ask: its text says whether it holds security tests.
        report.security = report.skipped and "mark.security" in collector.path.read_text()
        if report.security:
            # Of reports that say the same, xdist hands on the first: a helper may skip all who need it.
            path, line, reason = report.longrepr
            report.longrepr = (path, line, f"{reason} [{collector.nodeid}]")
        return report

    # ---- where the summary is ----

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        # An expected failure counts as skipped too. A report without a note is taken for one of ours.
        if report.skipped and getattr(report, "security", True):
            self._names.append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self._names:
            terminalreporter.write_line(f"FAILED: security test skipped: {name}", red=True)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._names and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
