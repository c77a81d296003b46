"""`tempo worker`: lend a device to masters on other hosts; `ca`, `issue`, `revoke`: its certificates."""

from __future__ import annotations

import os
import re
import signal
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from tempo.cli.guide import say_next
from tempo.cli.guides import epilog
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stderr, stdout
from tempo.cli.tls import Crl, tls_files
from tempo.errors import UsageError

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)


class RoleName(StrEnum):
    worker = "worker"
    master = "master"
    vault = "vault"
    peer = "peer"


@app.callback(invoke_without_command=True)
def worker(
    context: typer.Context,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT, [V6]:PORT, unix:/PATH or vsock:CID:PORT (CID any: all).")
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device: cpu, cuda:0.")] = "cpu",
    cert: Annotated[Path | None, typer.Option(help="This worker's certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM, unencrypted.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The authority that signs masters, PEM.")] = None,
    crl: Crl = None,
    memory: Annotated[str, typer.Option(help="Of all operands and results: bytes, or 512M.")] = "4G",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: all cores].")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder for all that arrives and leaves.")] = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Each has an even share of memory.")] = 4,
    unsafe_plaintext: Annotated[
        bool, typer.Option("--unsafe-plaintext", help="No TLS: anyone may connect, anyone may listen in.")
    ] = False,
    unsafe_lie: Annotated[
        str | None, typer.Option(metavar="KIND:FIRST:COUNT", help="Answer some jobs falsely, for tests.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print where it listens as one JSON object.")
    ] = False,
) -> None:
    """Lend a device to masters on other hosts, until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    if listen is None:
        raise UsageError("say where: tempo worker --listen HOST:PORT (tempo worker --help)")
    files = tls_files(cert, key, ca, crl)
    if files is not None and unsafe_plaintext:
        raise UsageError("--unsafe-plaintext and certificates exclude each other: leave one out")
    import torch

    from tempo.wire import Endpoint
    from tempo.worker import Lie
    from tempo.worker.listener import Listener, ListenSettings

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("highest")
    settings = ListenSettings(
        endpoint=Endpoint.parse(listen),
        device=device,
        memory=_nbytes(memory),
        max_connections=max_connections,
        tls=files,
        unsafe_plaintext=unsafe_plaintext,
        record=record,
        unsafe_lie=Lie.parse(unsafe_lie) if unsafe_lie is not None else None,
    )
    listener = Listener(settings, lambda line: stderr().print(line, markup=False, soft_wrap=True))

    def stop(number: int, frame: FrameType | None) -> None:
        listener.stop()
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for frames under way

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    row = {
        "listening": str(listener.endpoint),
        "device": device,
        "tls": files is not None,
        "memory_bytes": settings.memory,
        "max_connections": max_connections,
    }
    if as_json:
        print_json(document("worker", [row]))
    else:
        plain = "" if files else ", without TLS"
        stdout().print(
            f"Listening on {listener.endpoint}, device {device}{plain}.", markup=False, soft_wrap=True
        )
    listener.serve()


@app.command("ca", epilog=epilog("worker ca"))
def make_ca(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for ca.pem and ca.key.")],
    days: Annotated[int, typer.Option(min=1, max=36500, help="Until it expires.")] = 3650,
    force: Annotated[bool, typer.Option("--force", help="Replace the one that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Make a development authority."""
    from tempo.wire.authority import make_authority

    path = make_authority(folder, days=days, force=force)
    if as_json:
        print_json(document("worker ca", [{"out": str(path), "days": days}]))
        return
    stdout().print(f"Written: {path}, and ca.key, which stays with you alone.", markup=False, soft_wrap=True)
    say_next(
        "tempo", "worker", "issue", folder, "--name", "gpu-a", "--role", "worker", "--host", "gpu-a.example"
    )


@app.command("issue", epilog=epilog("worker issue"))
def issue_certificate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the authority.")],
    name: Annotated[str, typer.Option(help="Of the worker or master, for logs.")],
    role: Annotated[RoleName, typer.Option(help="A certificate serves one side only.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that masters dial; vsock-CID for a vsock. [default: NAME]"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Until it expires.")] = 90,
    force: Annotated[bool, typer.Option("--force", help="Replace the one that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Issue a certificate and its key."""
    from tempo.wire.authority import issue

    files = issue(folder, name, role.value, host or (), days=days, force=force)
    if as_json:
        row = {"cert": str(files.cert), "key": str(files.key), "name": name, "role": role.value, "days": days}
        print_json(document("worker issue", [row]))
        return
    stdout().print(f"Written: {files.cert}, {files.key}", markup=False, soft_wrap=True)
    if role is RoleName.worker:
        given = ("--cert", files.cert, "--key", files.key, "--ca", files.ca)
        say_next("tempo", "worker", "--listen", "0.0.0.0:7443", *given)


@app.command("revoke", epilog=epilog("worker revoke"))
def revoke_certificates(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the authority.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="All their certificates. [default: sign the list anew]"),
    ] = None,
    serial: Annotated[
        list[str] | None, typer.Option(metavar="HEX", help="One certificate. May be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="Until the list must be signed anew.")] = 30,
    as_json: Json = False,
) -> None:
    """Put certificates on the list of revoked ones, DIR/ca.crl: give it to all sides with --crl.

    A side that reads the list refuses everybody once it is out of date: sign it anew in time.
    """
    from tempo.wire.revocation import revoke

    made = revoke(folder, names or (), serials=serial or (), days=days)
    until = made.until.strftime("%Y-%m-%dT%H:%M:%SZ")
    if as_json:
        rows = [{"serial": serial, "added": serial in made.added} for serial in made.serials]
        print_json(document("worker revoke", rows, out=str(made.path), until=until))
        return
    added = f"Revoked now: {len(made.added)}. " if names or serial else ""
    stdout().print(
        f"{added}Written: {made.path}, {len(made.serials)} certificates, good until {until}. "
        "Copy it to every side.",
        markup=False,
        soft_wrap=True,
    )


def _nbytes(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,15})([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(f"--memory {text!r}: expected bytes, or 512M, 16G")
    return int(found[1]) << _UNITS[found[2].upper()]
