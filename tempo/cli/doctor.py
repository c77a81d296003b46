"""`tempo doctor`: what this machine and its workers are fit for, and how to mend what is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tempo.cli.output import document, print_json, stderr, stdout
from tempo.cli.tls import Crl, require_certificates, tls_files

if TYPE_CHECKING:
    from tempo.doctor import Finding

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(
    workers: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Measure it too: host:7443, local:2, cuda:0. May be repeated."),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="The master's certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM, unencrypted.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The authority that signs workers, PEM.")] = None,
    crl: Crl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Look at this machine and at the workers named. Exit 1: a problem; 3: a worker is not reached."""
    tls = tls_files(cert, key, ca, crl)
    require_certificates(workers or (), tls)
    from tempo.doctor import Host, Status, examine_host, examine_workers

    findings = examine_host(Host())
    if workers:
        stderr().print("Measuring workers ...", markup=False)
    measured = examine_workers(workers, tls) if workers else []
    every = [*findings, *(each.finding for each in measured)]
    problems = sum(finding.status is Status.PROBLEM for finding in every)
    if as_json:
        rows = [finding.fields() for finding in findings] + [each.fields() for each in measured]
        print_json(document("doctor", rows, problems=problems))
    else:
        stdout().print(_table(every))
    if not all(each.reached for each in measured):
        raise typer.Exit(3)
    if problems:
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table(title="tempo doctor", title_justify="left", title_style="bold")
    for column in ("what", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for each in findings:
        colour = _COLOURS[each.status.value]
        state = f"[{colour}]{each.status.value}[/{colour}]"
        table.add_row(escape(each.name), state, escape(each.found), escape(each.mend))
    return table
