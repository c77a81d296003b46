"""Quotes of Intel's DCAP, for TDX and SGX (Intel TDX DCAP Quoting Library API; SGX ECDSA Quote Library API).

    1 format      a quote of this TEE, of exactly the length it states
    2 collateral  Intel's, for this platform, with a trusted root
    3 debug       the host may not look in: TD attribute bits 0 to 7, SGX attribute bit 1
    4 quote       certificates, revocation lists, TCB info, quoting enclave's identity and every signature, at
                  `now`: the library dcap-qvl does this
    5 tcb         a level of Intel's TCB info that the platform reaches

The library is told to make no policy of its own: status and advisories become claims. Measurements and report
data it does not compare.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from tempo.errors import RefusedError, UnsupportedError
from tempo.trust.evidence.anchors import Anchors, Collateral, parse_certificates
from tempo.trust.evidence.chain import fingerprint
from tempo.trust.evidence.claims import Kind

HEADER_BYTES: Final = 48
SGX, TDX = 0x00, 0x81
_BODY_BYTES: Final = {SGX: 384, TDX: 584}
#: Of quote version 5: SGX, TD 1.0, TD 1.5.
_BODY_BYTES_5: Final = {1: 384, 2: 584, 3: 648}


def dcap_qvl() -> Any:
    """The library. Raises UnsupportedError where it is not installed."""
    try:
        import dcap_qvl as library
    except ImportError as error:
        raise UnsupportedError(
            "quotes of TDX and SGX are verified by dcap-qvl, which is not installed",
            "pip install tempo-confidential[trust]",
        ) from error
    return library


def quote_bytes(raw: bytes) -> int | None:
    """The length that a quote states of itself; None where it is no quote."""
    if len(raw) < HEADER_BYTES + 6:
        return None
    version, tee = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[4:8], "little")
    if version in (3, 4):
        start = HEADER_BYTES + _BODY_BYTES[tee] if tee in _BODY_BYTES else 0
    elif version == 5:
        body, length = int.from_bytes(raw[48:50], "little"), int.from_bytes(raw[50:54], "little")
        start = HEADER_BYTES + 6 + length if _BODY_BYTES_5.get(body) == length else 0
    else:
        return None
    if not start or len(raw) < start + 4:
        return None
    return start + 4 + int.from_bytes(raw[start : start + 4], "little")


def trimmed(raw: bytes) -> bytes:
    """Without the zeros that a host's buffer may have behind a quote."""
    length = quote_bytes(raw)
    if length is not None and length < len(raw) and not any(raw[length:]):
        return raw[:length]
    return raw


def verify_quote(
    raw: bytes,
    kind: Kind,
    steps: type[enum.StrEnum],
    check_debug: Callable[[Any], None],
    anchors: Anchors,
    collateral: Collateral,
    now: datetime,
) -> tuple[dict[str, Any], str]:
    """The library's claims, as its JSON, and the SHA-256 of the root. Raises RefusedError.

    steps: FORMAT, COLLATERAL, DEBUG, QUOTE, TCB. check_debug: raises for the parsed report of a debugged one.
    """
    step: Mapping[str, str] = {member.name: member.value for member in steps}
    library = dcap_qvl()
    quote = _parsed(library, raw, kind, step["FORMAT"])
    papers, root, root_der = _papers(library, quote, kind, anchors, collateral, step["COLLATERAL"])
    check_debug(quote.report)
    at = int(now.timestamp())
    verifier = library.QuoteVerifier(root_der)
    try:
        claims = verifier.verify_with_policy(raw, papers, at, library.QuotePolicy.claims_only(at))
        return json.loads(claims.to_json()), root
    except BaseException as error:
        text = _refusal(error)
        if "No matching TCB level" in text:
            raise RefusedError(step["TCB"], text, "a platform that reaches one of its levels") from error
        raise RefusedError(
            step["QUOTE"], text, f"a chain and signatures that hold at {now:%Y-%m-%d %H:%M:%S} UTC"
        ) from error


def _refusal(error: BaseException) -> str:
    """What the library says. A panic of its Rust code is a refusal too; other errors go on."""
    if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
        raise error
    return " ".join(str(error).split())[:300] or type(error).__name__


def _parsed(library: Any, raw: bytes, kind: Kind, step: str) -> Any:
    tee = TDX if kind is Kind.TDX else SGX
    length = quote_bytes(raw)
    if length is None or int.from_bytes(raw[4:8], "little") != tee:
        raise RefusedError(step, f"{len(raw)} bytes that are no quote of {kind}", "a quote of version 3 to 5")
    if length != len(raw):
        raise RefusedError(step, f"{len(raw)} bytes", f"{length}, as the quote states")
    try:
        return library.parse_quote(raw)
    except BaseException as error:
        raise RefusedError(step, _refusal(error), f"a quote of {kind}") from error


def _papers(
    library: Any, quote: Any, kind: Kind, anchors: Anchors, collateral: Collateral, step: str
) -> tuple[Any, str, bytes]:
    """Collateral for this platform, and its root: SHA-256 and DER."""
    try:
        fmspc = quote.fmspc().upper()
    except BaseException as error:
        raise RefusedError(step, _refusal(error), "a quote that holds its PCK certificate") from error
    wanted = "TDX" if kind is Kind.TDX else "SGX"
    for text in collateral.dcap:
        try:
            papers = library.QuoteCollateralV3.from_json(text)
            info = json.loads(papers.tcb_info)
            fits = (str(info["fmspc"]).upper(), info["id"]) == (fmspc, wanted)
            roots = parse_certificates(papers.pck_crl_issuer_chain.encode()) if fits else []
        except BaseException as error:
            raise RefusedError(step, f"no collateral ({_why(error)})", "QuoteCollateralV3") from error
        if roots:
            root = fingerprint(roots[-1])
            if root not in anchors.of(kind):
                raise RefusedError(step, f"collateral under the root {root}", "a root that the policy trusts")
            return papers, root, _der(roots[-1])
    raise RefusedError(
        step, f"{len(collateral.dcap)} sets of collateral", f"one for {wanted} on the platform {fmspc}"
    )


def _why(error: BaseException) -> str:
    if isinstance(error, KeyError | TypeError | RecursionError):
        return "fields are missing"
    return _refusal(error)


def _der(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    der: bytes = certificate.public_bytes(Encoding.DER)
    return der


def tcb_date(claims: Mapping[str, Any]) -> dict[str, int]:
    """When Intel published the platform's TCB level, as the number YYYYMMDD, and the collateral's number."""
    date = str(claims["platform"]["tcb_level"]["tcbDate"])[:10].replace("-", "")
    return {"tcb_date": int(date), "evaluation": int(claims["tcb"]["eval_data_number"])}


def platform_details(claims: Mapping[str, Any]) -> dict[str, str]:
    """What the PCK certificate says of the platform: "True", "False" or "Undefined"."""
    pck = claims["platform"]["pck"]
    names = {"smt": "smt_enabled", "dynamic_platform": "dynamic_platform", "cached_keys": "cached_keys"}
    return {name: str(pck[field]) for name, field in names.items()}
