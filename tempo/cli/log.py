"""`tempo log`: read an audit log, check it offline, take a proof from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from tempo.cli.guide import say_next
from tempo.cli.guides import epilog
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stdout
from tempo.errors import DataError, TamperedError, UsageError

if TYPE_CHECKING:
    from tempo.trust.ledger import Checkpoint, Entry, VerifierKey

app = typer.Typer(
    help="Read an audit log, check it offline, take a proof from it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(metavar="LOG", help="The folder of the log.")]
Key = Annotated[
    str, typer.Option(metavar="KEY", help="The log's public key, name+id+key, or a file that holds it.")
]


@app.command("show", epilog=epilog("log show"))
def show(
    log: Folder,
    key: Key,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Entries of this kind alone. May be repeated.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Print the entries, once they are verified."""
    from tempo.trust.ledger import Kind, read_verified

    wanted = set(kind or [])
    if unknown := wanted - {each.value for each in Kind}:
        known = ", ".join(each.value for each in Kind)
        raise UsageError(f"no entry is of kind {', '.join(sorted(unknown))}. There are: {known}")
    found = read_verified(log, verifier_key(key))
    entries = [(n, e) for n, e in enumerate(found.entries) if not wanted or e.kind.value in wanted]
    entries = entries[-last:] if last else entries
    if as_json:
        rows = [{"index": n, "at": e.at, "kind": e.kind.value, "fields": e.fields} for n, e in entries]
        print_json(document("log show", rows, size=found.checkpoint.size))
    else:
        stdout().print(_table(entries))


@app.command("verify", epilog=epilog("log verify"))
def verify(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The folder of a log, or a proof by `export`.")],
    key: Key,
    since: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A checkpoint seen earlier, to be extended."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check signature, every entry and the order of all of them. Exit 1: something was altered.

    Needs no network and no secret. Without --since a log that was taken back to an older state passes: keep a
    copy of its file `checkpoint` elsewhere.
    """
    from tempo.trust.ledger import read_verified

    public = verifier_key(key)
    if log.is_file():
        if since is not None:
            raise UsageError("a proof names the earlier checkpoint itself: leave --since out")
        return _verify_proof(log, public, as_json=as_json)
    earlier = None if since is None else earlier_checkpoint(since, public)[1]
    found = read_verified(log, public, since=earlier)
    row: dict[str, Any] = {
        "origin": found.checkpoint.origin,
        "entries": found.checkpoint.size,
        "first": found.entries[0].at if found.entries else None,
        "last": found.entries[-1].at if found.entries else None,
        "root": found.checkpoint.root.hex(),
        "extends_entries": None if earlier is None else earlier.size,
        "unsigned_bytes": len(found.beyond),
    }
    if as_json:
        print_json(document("log verify", [row]))
        return
    say = stdout().print
    say(
        f"{found.checkpoint.size} entries of {found.checkpoint.origin}, all as they were signed.",
        markup=False,
    )
    if row["last"]:
        say(f"From {row['first']} to {row['last']}, root {row['root']}.", markup=False)
    if earlier is not None:
        say(f"It extends the log of {earlier.size} entries that was seen before.", markup=False)
    else:
        say(
            "Whether it was taken back to an older state cannot be told: --since FILE checks that.",
            markup=False,
        )
    if found.beyond:
        say(f"{len(found.beyond)} bytes beyond were never acknowledged (a crash).", markup=False)


@app.command("export", epilog=epilog("log export"))
def export(
    log: Folder,
    key: Key,
    entry: Annotated[int, typer.Option(min=0, help="Number of the entry, as `show` prints it.")],
    out: Annotated[Path, typer.Option(help="File for the proof, JSON.")],
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prove too that the log extends this checkpoint.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a proof that an entry is in the log: `tempo log verify` checks it without the log."""
    from tempo.trust.ledger import read_verified
    from tempo.trust.ledger.ledger import replace
    from tempo.trust.ledger.proof import prove, to_json

    public = verifier_key(key)
    earlier = None if since is None else earlier_checkpoint(since, public)
    found = read_verified(log, public, since=None if earlier is None else earlier[1])
    proof = prove(found, entry, earlier)
    try:
        replace(out, to_json(proof))
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror})") from error
    row = {"index": entry, "of": found.checkpoint.size, "out": str(out), "hashes": len(proof.inclusion)}
    if as_json:
        print_json(document("log export", [row]))
    else:
        stdout().print(f"Proof of entry {entry} of {found.checkpoint.size} written to {out}.", markup=False)
        say_next("tempo", "log", "verify", out, "--key", key)


def _verify_proof(path: Path, key: VerifierKey, *, as_json: bool) -> None:
    from tempo.trust.ledger.proof import MAX_PROOF_BYTES, check

    with path.open("rb") as file:
        entry, proof, checkpoint = check(file.read(MAX_PROOF_BYTES + 1), key)
    row = {
        "origin": checkpoint.origin,
        "index": proof.index,
        "entries": checkpoint.size,
        "at": entry.at,
        "kind": entry.kind.value,
        "fields": entry.fields,
        "extends_an_earlier": proof.earlier is not None,
    }
    if as_json:
        print_json(document("log verify", [row]))
        return
    stdout().print(_table([(proof.index, entry)]))
    more = " which extends the earlier one" if proof.earlier is not None else ""
    stdout().print(f"It is in the log {checkpoint.origin} of {checkpoint.size} entries{more}.", markup=False)


def verifier_key(text: str) -> VerifierKey:
    from tempo.trust.ledger import VerifierKey

    if "+" not in text:
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--key {text}: neither name+id+key nor a file that can be read") from error
    return VerifierKey.parse(text)


def earlier_checkpoint(path: Path, key: VerifierKey) -> tuple[str, Checkpoint]:
    try:
        note = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--since {path}: no checkpoint can be read there") from error
    try:
        return note, key.open(note)
    except TamperedError as error:
        raise TamperedError(f"--since {path}: {error}") from error


def _table(entries: list[tuple[int, Entry]]) -> Table:
    table = Table(title="Audit log", title_justify="left", title_style="bold")
    table.add_column("entry", justify="right")
    for column in ("at", "kind", "what"):
        table.add_column(column, overflow="fold")
    for number, entry in entries:
        what = ", ".join(f"{name}={value}" for name, value in entry.fields.items())
        table.add_row(str(number), entry.at, entry.kind.value, escape(what))
    return table
