"""`tempo doctor`: what this machine and its workers are fit for, and how to mend what is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stderr, stdout
from tempo.cli.tls import Crl, require_certificates, tls_files

if TYPE_CHECKING:
    from tempo.doctor import Finding
    from tempo.fleet import Worker
    from tempo.wire import TlsFiles

_TOML = Path("tempo.toml")

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
    config: Annotated[
        Path | None, typer.Option(help="Settings to judge, whose workers are measured [default: tempo.toml].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at this machine, at tempo.toml, and at the workers that either names.

    Exit 1: a problem; 3: a worker is not reached."""
    tls = tls_files(cert, key, ca, crl)
    from tempo.doctor import Host, Status, described, examine_host, examine_workers, own

    findings = examine_host(Host())
    every_worker: Sequence[str | Worker] = workers or ()
    if config is not None or _TOML.is_file():
        file = described(config or _TOML)
        findings.append(file.finding)
        every_worker, tls = workers or file.workers or (), tls or file.tls
    require_certificates([each for each in every_worker if isinstance(each, str)], tls)
    if tls is not None:
        findings.append(own(tls))
    if every_worker:
        stderr().print("Measuring workers ...", markup=False)
    measured = examine_workers(every_worker, tls) if every_worker else []
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
    if not as_json:
        _next(workers or (), tls)


def _next(workers: Sequence[str], tls: TlsFiles | None) -> None:
    """A plan for these workers, with the certificates that they were reached with."""
    words: list[object] = ["--workers", ",".join(workers)] if workers else []
    if workers and tls is not None:
        words += ["--cert", tls.cert, "--key", tls.key, "--ca", tls.ca]
        words += ["--crl", tls.crl] if tls.crl is not None else []
    say_next("tempo", "plan", "mlp:4096x4", *words)


def _table(findings: list[Finding]) -> Table:
    table = Table(title="tempo doctor", title_justify="left", title_style="bold")
    for column in ("what", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for each in findings:
        colour = _COLOURS[each.status.value]
        state = f"[{colour}]{each.status.value}[/{colour}]"
        table.add_row(escape(each.name), state, escape(each.found), escape(each.mend))
    return table
