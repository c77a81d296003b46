"""`tempo seal` and `tempo unseal`: data and models into files that only the owner's key opens, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stderr, stdout
from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.trust.sealed import DataKey, OwnerKey, Recipient


def seal(
    source: Annotated[
        Path, typer.Argument(help="Folder of images or files, .npy, .npz, .csv, .parquet, ...")
    ],
    out: Annotated[Path, typer.Argument(help="The sealed file.")],
    key: Annotated[Path, typer.Option(help="A data key, or a recipient's public key.")],
    create_key: Annotated[
        bool, typer.Option("--create-key", help="Make a data key in the file that --key names.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What it is called. [default: the source's name]")] = None,
    sequence: Annotated[int, typer.Option(min=0, help="Version, where one name has several.")] = 0,
    as_json: Json = False,
) -> None:
    """Seal data or a model. Read it with tempo.data.SealedDataset inside the TEE, or `tempo unseal` it."""
    from tempo.trust.sealed import DataKey, SealedWriter
    from tempo.trust.sealed.sources import source as recognised

    if out.exists():
        raise UsageError(f"{out} exists already: name another file")
    found = recognised(source)
    if create_key:
        made = DataKey.generate()
        made.save(key)
        sealing: DataKey | Recipient = made
    else:
        sealing = _sealing_key(key)
    called = name or source.name
    with (
        _bar() as bar,
        SealedWriter(
            out, sealing, kind=found.kind, name=called, fields=found.fields, sequence=sequence
        ) as writer,
    ):
        task = bar.add_task(f"Sealing {found.count} records", total=found.count)
        found.fill(writer, lambda done: bar.update(task, completed=done))
    row = {"out": str(out), "kind": found.kind, "records": found.count, "bytes": out.stat().st_size}
    row |= {"key": sealing.name, "sequence": sequence}
    if as_json:
        print_json(document("seal", [row]))
    else:
        text = f"{found.count} records ({found.kind}) sealed in {out}, under the key {sealing.name}."
        stdout().print(text, markup=False)
        if create_key:
            stdout().print(f"Keep {key} in-house: without it the file is lost.", markup=False)
            say_next("tempo", "unseal", out, f"{out}.check", "--key", key)


def unseal(
    sealed: Annotated[Path, typer.Argument(help="The sealed file.")],
    out: Annotated[Path, typer.Argument(help="File or folder for what was sealed.")],
    key: Annotated[Path, typer.Option(help="The data key, or the owner's private key.")],
    name: Annotated[str | None, typer.Option(help="Refuse a file that is called otherwise.")] = None,
    at_least: Annotated[int, typer.Option(min=0, help="Refuse an older version than this.")] = 0,
    as_json: Json = False,
) -> None:
    """Write what was sealed, in the form it had. Exit 1: the file was altered, cut or exchanged."""
    from tempo.trust.sealed import Expected, SealedFile
    from tempo.trust.sealed.restore import restore

    opening, expected = _opening_key(key), Expected(name, at_least)
    with SealedFile(sealed, opening, expected) as file:
        count = len(file)
    with _bar() as bar:
        task = bar.add_task(f"Unsealing {count} records", total=count)
        kind = restore(sealed, opening, out, expected, lambda done: bar.update(task, completed=done))
    if as_json:
        print_json(document("unseal", [{"out": str(out), "kind": kind, "records": count}]))
    else:
        stdout().print(f"{count} records ({kind}) written to {out}.", markup=False)


def _bar() -> Progress:
    return Progress(console=stderr(), transient=True)


def _first_word(path: Path) -> str:
    try:
        with path.open() as file:
            return file.read(64).partition(" ")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key {path} cannot be read") from error


def _sealing_key(path: Path) -> DataKey | Recipient:
    from tempo.trust.sealed import DataKey, Recipient

    if not path.exists():
        raise UsageError(f"there is no key {path}: name one, or make one with --create-key")
    return Recipient.load(path) if _first_word(path) == Recipient.KIND else DataKey.load(path)


def _opening_key(path: Path) -> DataKey | OwnerKey:
    from tempo.trust.sealed import DataKey, OwnerKey

    if not path.exists():
        raise UsageError(f"there is no key {path}")
    return OwnerKey.load(path) if _first_word(path) == OwnerKey.KIND else DataKey.load(path)
