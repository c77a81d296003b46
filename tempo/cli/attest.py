"""`tempo attest`: evidence of this machine, verifying another's, and signing what is demanded of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from tempo.cli.failures import ended_in_json
from tempo.cli.guide import say_next
from tempo.cli.guides import epilog
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stdout
from tempo.errors import DataError, RefusedError, UsageError

if TYPE_CHECKING:
    from tempo.trust.evidence import Claims, Evidence, Expected, Kind

app = typer.Typer(
    help="Produce a machine's evidence, verify it, sign a policy for it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_AUTO = "auto"
Nonce = Annotated[str, typer.Option(metavar="HEX", help="The verifier's question: 32 bytes, fresh.")]
Key = Annotated[
    Path | None, typer.Option("--public-key", help="File of the key that the evidence speaks for. [none]")
]
Context = Annotated[str, typer.Option(metavar="TEXT", help="What it is for; both sides say the same.")]


@app.command("produce", epilog=epilog("attest produce"))
def produce(
    nonce: Nonce,
    out: Annotated[Path, typer.Option(help="File for the evidence, JSON.")],
    kind: Annotated[str, typer.Option(help="sev-snp, tdx, sgx-dcap, tpm, unsafe-simulated.")] = _AUTO,
    public_key: Key = None,
    context: Context = "",
    tcti: Annotated[str | None, typer.Option(help="How to reach the TPM. [device:/dev/tpmrm0]")] = None,
    unsafe_measurement: Annotated[
        str | None, typer.Option(metavar="HEX", help="What the simulator claims to run: 48 bytes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the evidence that this machine can produce, bound to nonce, key and context."""
    from tempo.trust.evidence import Kind

    expected = _expected(nonce, public_key, context)
    made = _produced(kind, expected, tcti, unsafe_measurement)
    try:
        out.write_bytes(made.to_json())
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror})") from error
    row: dict[str, Any] = {"kind": made.kind.value, "out": str(out)}
    row["bytes"] = {name: len(part) for name, part in sorted(made.parts.items())}
    row["report_data"] = expected.report_data.hex()
    if made.kind is Kind.TPM:
        from tempo.trust.evidence.tpm import key_name

        row["attestation_key"] = key_name(made.parts["key"])
    if as_json:
        print_json(document("attest produce", [row]))
        return
    stdout().print(f"Evidence of kind {made.kind} written to {out}.", markup=False)
    if "attestation_key" in row:
        stdout().print(f"Attestation key, for a policy's `keys`: {row['attestation_key']}", markup=False)


@app.command("verify", epilog=epilog("attest verify"))
def verify(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="The file that `produce` wrote.")],
    policy: Annotated[Path, typer.Option(help="What is demanded; its signature lies beside it, .sig.")],
    signer: Annotated[Path, typer.Option(help="Public key of who may set policies.")],
    nonce: Nonce,
    public_key: Key = None,
    context: Context = "",
    collateral: Annotated[
        Path | None, typer.Option(help="Folder of certificates, revocation lists, DCAP collateral.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Verify as of then, 2026-01-31T12:00:00Z. [now]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify evidence and hold it against a signed policy. Exit 1: refused, and at which step.

    Needs no network: what the vendor signed comes with the evidence or lies in --collateral.
    """
    from tempo.trust.evidence import Collateral, Evidence
    from tempo.trust.evidence.envelope import MAX_BYTES
    from tempo.trust.policy_key import PolicyKey
    from tempo.trust.verifier import Verifier

    demanded = PolicyKey.load(signer).open_file(policy)
    expected = _expected(nonce, public_key, context)
    papers = Collateral() if collateral is None else Collateral.load(collateral)
    now = _time(at)
    try:
        with evidence.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the evidence {evidence} cannot be read ({error.strerror})") from error
    try:
        claims = Verifier(demanded.anchors, papers).verify(Evidence.from_json(raw), expected, now)
        demanded.check(claims, now)
    except RefusedError as error:
        if not as_json:
            raise
        row = {"admitted": False, "step": error.step, "found": error.found, "expected": error.expected}
        print_json(document("attest verify", [row], policy=demanded.name))
        ended_in_json(error)
    if as_json:
        row = {"admitted": True, **_row(claims)}
        print_json(document("attest verify", [row], policy=demanded.name))
        return
    stdout().print(_table(claims))
    stdout().print(f"Genuine, bound to this question, admitted by the policy {demanded.name}.", markup=False)


@app.command("draft", epilog=epilog("attest draft"))
def draft(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="Of a machine that you started.")],
    nonce: Nonce,
    name: Annotated[str, typer.Option(help="Of the policy.")],
    out: Annotated[Path, typer.Option(help="File for the policy, TOML.")],
    public_key: Key = None,
    context: Context = "",
    collateral: Annotated[
        Path | None, typer.Option(help="Folder of certificates, revocation lists, DCAP collateral.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Verify as of then, 2026-01-31T12:00:00Z. [now]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a policy that admits what this machine runs, for you to read, correct and sign.

    The evidence must be genuine. That the machine runs what you meant it to is your word: start it yourself.
    """
    from tempo.cli.attest_draft import verified_by_vendor, write_new
    from tempo.trust.evidence import Collateral
    from tempo.trust.policy_draft import draft_policy

    papers = Collateral() if collateral is None else Collateral.load(collateral)
    claims = verified_by_vendor(evidence, papers, _expected(nonce, public_key, context), _time(at))
    text = draft_policy(claims, name)
    write_new(out, text)
    if as_json:
        print_json(document("attest draft", [{"out": str(out), **_row(claims)}]))
        return
    stdout().print(f"A draft for {claims.kind} in {out}: read it and correct it first.", markup=False)
    say_next("tempo", "attest", "sign", out, "--key", "engineer.key", "--create-key")


@app.command("sign", epilog=epilog("attest sign"))
def sign(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="The policy, TOML.")],
    key: Annotated[Path, typer.Option(help="The security engineer's private key.")],
    create_key: Annotated[
        bool, typer.Option("--create-key", help="Make the key, and its public half in KEY.pub.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read a policy, refuse what is none, and sign it: POLICY.sig."""
    from tempo.trust.policy_file import MAX_BYTES, parse_policy
    from tempo.trust.policy_key import PolicySigner, signature_path

    try:
        with policy.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the policy {policy} cannot be read ({error.strerror})") from error
    read = parse_policy(raw)  # before a key is made for nothing
    if create_key:
        made = PolicySigner.generate()
        made.save(key)
        made.public.save(key.with_name(key.name + ".pub"))
    else:
        made = PolicySigner.load(key)
    target = signature_path(policy)
    try:
        target.write_text(made.sign(raw))
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error.strerror})") from error
    row = {"policy": read.name, "kinds": [kind.value for kind in read.kinds], "key": made.public.name}
    if as_json:
        print_json(document("attest sign", [row | {"out": str(target)}]))
        return
    kinds = ", ".join(row["kinds"])
    stdout().print(
        f"The policy {read.name} ({kinds}) is signed, key {made.public.name}: {target}.", markup=False
    )


def _hex(option: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{option} is hexadecimal, not {text[:80]!r}") from None


def _expected(nonce: str, public_key: Path | None, context: str) -> Expected:
    from tempo.trust.evidence import Expected
    from tempo.trust.evidence.binding import MAX_KEY_BYTES

    key = b""
    if public_key is not None:
        try:
            with public_key.open("rb") as file:
                key = file.read(MAX_KEY_BYTES + 1)
        except OSError as error:
            raise UsageError(f"the key {public_key} cannot be read ({error.strerror})") from error
    return Expected.answer(_hex("--nonce", nonce), key, context.encode())


def _produced(kind: str, expected: Expected, tcti: str | None, measurement: str | None) -> Evidence:
    from tempo.trust.evidence import Kind, machine, simulated, tpm_device

    chosen = machine.best() if kind == _AUTO else _kind(kind)
    if chosen is not Kind.SIMULATED:
        if measurement is not None:
            raise UsageError(f"--unsafe-measurement is for --kind {Kind.SIMULATED} alone")
        return machine.produce(chosen, expected.report_data, tcti=tcti or tpm_device.TCTI)
    if measurement is None:
        raise UsageError(f"--kind {Kind.SIMULATED} needs --unsafe-measurement: it measures nothing by itself")
    return simulated.produce(expected.report_data, _hex("--unsafe-measurement", measurement))


def _kind(name: str) -> Kind:
    from tempo.trust.evidence import Kind

    try:
        return Kind(name)
    except ValueError:
        raise UsageError(f"--kind {name}: there are {_AUTO}, {', '.join(Kind)}") from None


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.min
    if at.tzinfo is None:
        raise UsageError(f"--at {text}: expected date, time and zone, such as 2026-01-31T12:00:00Z")
    return at


def _row(claims: Claims) -> dict[str, Any]:
    from tempo.trust.evidence import NotProvided

    return {
        "kind": claims.kind.value,
        "measurements": dict(claims.measurements),
        "signers": dict(claims.signers),
        "tcb": dict(claims.tcb),
        "status": None if isinstance(claims.status, NotProvided) else claims.status,
        "advisories": list(claims.advisories),
        "debug": None if isinstance(claims.debug, NotProvided) else claims.debug,
        "platform": None if isinstance(claims.platform, NotProvided) else claims.platform,
        "root": claims.root,
        "revocation": claims.revocation,
        "details": dict(claims.details),
    }


def _table(claims: Claims) -> Table:
    made = Table(title=f"Claims of {claims.kind}", title_justify="left", title_style="bold")
    made.add_column("claim")
    made.add_column("value", overflow="fold")
    for name, value in _row(claims).items():
        if isinstance(value, dict):
            for part, one in value.items():
                made.add_row(escape(f"{name}.{part}"), escape(str(one)))
        elif value not in (None, []):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            made.add_row(name, escape(shown))
    return made
