"""`tempo vault`: data keys that stay in-house and are released to attested masters alone."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from tempo.cli import vault_upkeep
from tempo.cli.failures import ended_in_json
from tempo.cli.guide import say_next
from tempo.cli.guides import epilog
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stderr, stdout, table
from tempo.cli.tls import Crl
from tempo.cli.vault_options import (
    Expires,
    Folder,
    From,
    KmsKey,
    Module,
    Name,
    Passphrase,
    data_key,
    grant_rows,
    key_rows,
    moment,
    open_store,
    secret,
)
from tempo.errors import OutsideError, TempoError, UsageError

app = typer.Typer(
    help="Keep data keys in-house; release them to attested masters alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("passphrase", epilog=epilog("vault passphrase"))(vault_upkeep.passphrase)
app.command("reseal", epilog=epilog("vault reseal"))(vault_upkeep.reseal)
app.command("sealed", epilog=epilog("vault sealed"))(vault_upkeep.sealed)


@app.command("init", epilog=epilog("vault init"))
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Of the vault and its audit log, such as example.org/vault.")],
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    pkcs11_token: Annotated[str | None, typer.Option(help="Label of the token.")] = None,
    pkcs11_key: Annotated[str, typer.Option(help="Label of the root key to make there.")] = "tempo-vault",
    as_json: Json = False,
) -> None:
    """Make an empty vault. Its root key lies in a file under a passphrase or a cloud's key, or in a token."""
    from tempo.trust.vault import PassphraseRoot, RootKey, Store
    from tempo.trust.vault.kms import KmsRoot
    from tempo.trust.vault.pkcs11 import Pkcs11Root
    from tempo.trust.vault.root import ROOT_FILE
    from tempo.trust.vault.store import LOG_PUBLIC

    if (pkcs11_module is None) != (pkcs11_token is None):
        raise UsageError("--pkcs11-module and --pkcs11-token are given together")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty: a vault is made in a new folder")
    if kms_key is not None and (passphrase_file is not None or pkcs11_module is not None):
        raise UsageError("--kms-key needs neither a token nor a passphrase: the service knows who asks")
    words = "" if kms_key is not None else secret(passphrase_file, new=True)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise OutsideError(f"{folder} cannot be made ({error.strerror})") from error
    root: RootKey
    if kms_key is not None:
        root = KmsRoot.create(folder / ROOT_FILE, kms_key)
    elif pkcs11_module is not None and pkcs11_token is not None:
        root = Pkcs11Root.create(folder / ROOT_FILE, pkcs11_module, pkcs11_token, pkcs11_key, words)
    else:
        root = PassphraseRoot.create(folder / ROOT_FILE, words.encode())
    Store.create(folder, name, root).close()
    public = (folder / LOG_PUBLIC).read_text().strip()
    if as_json:
        print_json(document("vault init", [{"folder": str(folder), "name": name, "log_key": public}]))
        return
    _say(f"A vault in {folder}. Its audit log's public key, for auditors: {public}")
    _say("Back the folder up, and keep the passphrase or token apart: without it every key is lost.")
    say_next("tempo", "vault", "add", folder, "photos", *_same_root(passphrase_file, pkcs11_module, kms_key))


@app.command("add", epilog=epilog("vault add"))
def add(
    folder: Folder,
    name: Name,
    key_file: From = None,
    expires: Expires = None,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Add a key, as version 1 of its name."""
    key = data_key(key_file)
    with open_store(folder, passphrase_file, pkcs11_module, kms_key) as store:
        store.add(name, key, moment(expires))
        _show_key("add", [r for r in key_rows(store.state(), store.now()) if r["key"] == name], as_json)
    if key_file is not None and not as_json:
        _say(f"{key_file} still holds the key in the clear: remove it, or keep it as a backup, locked away.")


@app.command("rotate", epilog=epilog("vault rotate"))
def rotate(
    folder: Folder,
    name: Name,
    key_file: From = None,
    expires: Expires = None,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Give a key a new version. Older ones stay, for what was sealed with them: revoke them once none is."""
    key = data_key(key_file)
    with open_store(folder, passphrase_file, pkcs11_module, kms_key) as store:
        store.rotate(name, key, moment(expires))
        _show_key("rotate", [r for r in key_rows(store.state(), store.now()) if r["key"] == name], as_json)


@app.command("grant", epilog=epilog("vault grant"))
def grant(
    folder: Folder,
    name: Name,
    policy: Annotated[Path, typer.Option(help="What is demanded of a machine; its signature in POLICY.sig.")],
    signer: Annotated[Path, typer.Option(help="Public key of whoever signs policies.")],
    client: Annotated[str | None, typer.Option(help="Only under this master's certificate.")] = None,
    expires: Expires = None,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Let machines that satisfy a signed policy have a key, all its versions."""
    from tempo.trust.policy_key import PolicyKey, signature_path
    from tempo.trust.vault.state import MAX_POLICY_BYTES

    try:
        with policy.open("rb") as file:
            text = file.read(MAX_POLICY_BYTES + 1)
        with signature_path(policy).open() as signed:
            signature = signed.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{policy} and {signature_path(policy).name} beside it cannot be read") from error
    by = PolicyKey.load(signer)
    by.open(text, signature)
    with open_store(folder, passphrase_file, pkcs11_module, kms_key) as store:
        made = store.grant(name, text, client, moment(expires), by.name)
        rows = [r for r in grant_rows(store.state(), store.now()) if r["grant"] == made.number]
    if as_json:
        print_json(document("vault grant", rows))
    else:
        whom = f"the master {client}" if client else "any master"
        _say(f"Grant {made.number}: {whom} may have {name} on a machine that satisfies {policy}.")


@app.command("revoke", epilog=epilog("vault revoke"))
def revoke(
    folder: Folder,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The key's name.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Only this version. [default: all]")] = None,
    grant_number: Annotated[int | None, typer.Option("--grant", min=1, help="A grant instead.")] = None,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Never release a key again, or end a grant. A server that runs obeys before this command is done."""
    if (name is None) == (grant_number is None) or (name is None and version is not None):
        raise UsageError("name a key (and --version, if not all), or a --grant")
    with open_store(folder, passphrase_file, pkcs11_module, kms_key) as store:
        if grant_number is not None:
            store.revoke_grant(grant_number)
            rows = [r for r in grant_rows(store.state(), store.now()) if r["grant"] == grant_number]
        else:
            gone = {k.version for k in store.revoke(name or "", version)}
            rows = key_rows(store.state(), store.now())
            rows = [r for r in rows if r["key"] == name and r["version"] in gone]
    if as_json:
        print_json(document("vault revoke", rows))
    elif grant_number is not None:
        _say(f"Grant {grant_number} is revoked.")
    else:
        _say(f"Revoked: {name}, version {', '.join(str(r['version']) for r in rows)}.")


@app.command("list", epilog=epilog("vault list"))
def show(
    folder: Folder,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Show keys and grants; never a key itself."""
    with open_store(folder, passphrase_file, pkcs11_module, kms_key) as store:
        state, now = store.state(), store.now()
    keys, grants = key_rows(state, now), grant_rows(state, now)
    if as_json:
        print_json(document("vault list", keys, grants=grants, change=state.change))
        return
    _table("Keys", keys, ("key", "version", "key_id", "state", "created", "expires"))
    shown = [{**g, "policy": g["policy"][:16]} for g in grants]
    _table("Grants", shown, ("grant", "key", "policy", "client", "state", "expires"))


@app.command("serve", epilog=epilog("vault serve"))
def serve(
    folder: Folder,
    listen: Annotated[str, typer.Option(help="HOST:PORT, [V6]:PORT, unix:/PATH or vsock:CID:PORT.")],
    cert: Annotated[Path, typer.Option(help="This vault's certificate, PEM.")],
    key: Annotated[Path, typer.Option(help="Its key, PEM, unencrypted.")],
    ca: Annotated[Path, typer.Option(help="The authority that signs masters, PEM.")],
    crl: Crl = None,
    collateral: Annotated[
        Path | None, typer.Option(help="Folder of certificates, revocation lists and DCAP collateral.")
    ] = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Exchanges at once.")] = 64,
    client_rate: Annotated[int, typer.Option(min=1, help="Exchanges a minute of one master.")] = 30,
    rate: Annotated[int, typer.Option(min=1, help="Exchanges a minute of all.")] = 600,
    nonce_seconds: Annotated[int, typer.Option(min=1, max=600, help="For a master's evidence.")] = 60,
    passphrase_file: Passphrase = None,
    pkcs11_module: Module = None,
    kms_key: KmsKey = None,
    as_json: Json = False,
) -> None:
    """Release keys to attested masters, until SIGTERM or Ctrl-C."""
    from tempo.trust.evidence import Collateral
    from tempo.trust.vault import Machines, Rate, Server, ServeSettings
    from tempo.wire import Endpoint, TlsFiles

    settings = ServeSettings(
        endpoint=Endpoint.parse(listen),
        tls=TlsFiles(cert, key, ca, crl),
        max_connections=max_connections,
        client_rate=Rate(client_rate, max(1, client_rate // 3)),
        rate=Rate(rate, max(1, rate // 6)),
        nonce_s=nonce_seconds,
    )
    machines = Machines(Collateral.load(collateral) if collateral else None)

    def log(line: str) -> None:
        stderr().print(line, markup=False, soft_wrap=True)

    with (
        open_store(folder, passphrase_file, pkcs11_module, kms_key) as store,
        Server(store, machines, settings, log) as server,
    ):

        def stop(number: int, frame: FrameType | None) -> None:
            server.stop()
            signal.signal(number, signal.SIG_DFL)  # a second one does not wait for exchanges under way

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        row = {"listening": str(server.endpoint), "name": store.name, "keys": len(store.state().keys)}
        if as_json:
            print_json(document("vault serve", [row]))
        else:
            _say(f"The vault {store.name} listens on {server.endpoint}.")
        try:
            server.serve()
        except TempoError as error:
            if not as_json:
                raise
            ended_in_json(error)


def _same_root(passphrase_file: Path | None, module: Path | None, kms_key: str | None) -> list[str]:
    """The options that open this vault again."""
    given = {"--passphrase-file": passphrase_file, "--pkcs11-module": module, "--kms-key": kms_key}
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def _show_key(verb: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(document(f"vault {verb}", rows))
    else:
        last = rows[-1]
        _say(f"{last['key']}: version {last['version']}, id {last['key_id']}.")


def _table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    shown = [["-" if row[c] is None else row[c] for c in columns] for row in rows]
    stdout().print(table(title, columns, shown))


def _say(text: str) -> None:
    stdout().print(text, markup=False, soft_wrap=True)
