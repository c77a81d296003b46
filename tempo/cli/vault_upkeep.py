"""`tempo vault passphrase`, `sealed` and `reseal`: what is done with a vault over the years."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stderr, stdout, table
from tempo.cli.vault_options import Folder, KmsKey, Module, Passphrase, open_store, secret
from tempo.errors import OutsideError, UsageError


def passphrase(
    folder: Folder,
    passphrase_file: Passphrase = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option(help="The new one, one line. [default: asked on the terminal]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the passphrase. Copies of the old root.json still open with the old one: destroy them.

    The root key stays what it is. If somebody may have had both file and passphrase, make a new vault.
    """
    from tempo.trust.vault import PassphraseRoot, Store
    from tempo.trust.vault.root import ROOT_FILE

    path = folder / ROOT_FILE
    if not path.is_file():
        raise UsageError(f"there is no vault in {folder}: tempo vault init {folder}")
    old = secret(passphrase_file).encode()
    new = secret(new_passphrase_file, new=True).encode()
    with Store.open(folder, PassphraseRoot.open(path, old)) as store:
        PassphraseRoot.change(path, old, new)
        store.note("passphrase_changed")
    if as_json:
        print_json(document("vault passphrase", [{"folder": str(folder)}]))
    else:
        _say(f"The passphrase of {folder} is changed. Destroy old copies of {path.name}, and make a backup.")


def sealed(
    folder: Folder,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Sealed files, or folders of them.")],
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Show which sealed files stand under which key, and what became of that key. Reads no data."""
    from tempo.trust.vault.upkeep import sealed_under

    with open_store(folder, passphrase_file, pkcs11_module, kms_key) as store:
        now = store.now()
        found = sealed_under(store.state(), paths)
    rows: list[dict[str, Any]] = []
    for each in found:
        fields: dict[str, Any] = {"key": None, "version": None, "state": "unknown"}
        if each.wrapped:
            fields["state"] = "a recipient's"
        if each.key is not None:
            state = each.key.fault(now) or "active"
            fields = {"key": each.key.name, "version": each.key.version, "state": state}
        rows.append({"file": str(each.path), **fields, "key_id": each.key_id})
    if as_json:
        print_json(document("vault sealed", rows))
        return
    columns = ("file", "key", "version", "state", "key_id")
    shown = [["-" if row[c] is None else row[c] for c in columns] for row in rows]
    stdout().print(table("Sealed files", columns, shown))


def reseal(
    folder: Folder,
    sealed: Annotated[Path, typer.Argument(help="The sealed file, under a key of this vault.")],
    out: Annotated[Path, typer.Argument(help="The new file.")],
    to: Annotated[
        Path | None, typer.Option(help="A recipient's public key instead of the newest version.")
    ] = None,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Seal a file anew, under the newest version of its key. The old file stays, for you to remove."""
    from tempo.trust.sealed import Recipient
    from tempo.trust.vault.upkeep import reseal_in

    recipient = None if to is None else Recipient.load(to)
    with (
        open_store(folder, passphrase_file, pkcs11_module, kms_key) as store,
        Progress(console=stderr(), transient=True) as bar,
    ):
        task = bar.add_task("Sealing anew", total=None)
        old, new = reseal_in(store, sealed, out, recipient, lambda done: bar.update(task, completed=done))
    size = _size(out)
    row = {"out": str(out), "key": old.name, "version": old.version, "key_id": old.id, "to_key_id": new}
    if as_json:
        print_json(document("vault reseal", [row | {"bytes": size}]))
    else:
        _say(f"{out}: as {sealed}, under the key {new} instead of {old.name} version {old.version}.")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise OutsideError(f"{path} cannot be read ({error.strerror})") from error


def _say(text: str) -> None:
    stdout().print(text, markup=False, soft_wrap=True)
