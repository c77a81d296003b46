"""A policy from the evidence of one machine, as a text for the security engineer to read, correct and sign.

The machine is one that was started from known images by whoever asks: evidence of any other drafts a policy
that admits any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tempo.errors import UsageError
from tempo.trust.evidence.claims import Claims, Kind, NotProvided
from tempo.trust.policy import UP_TO_DATE
from tempo.trust.policy_file import parse_policy

#: What says which code was loaded. The second ones are left out where they are zeros: nothing was put there.
_ALWAYS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.SEV_SNP: ("measurement",),
    Kind.TDX: ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"),
    Kind.SGX_DCAP: ("mr_enclave", "isv_prod_id"),
    Kind.NITRO: ("pcr0", "pcr1", "pcr2"),
    Kind.SIMULATED: ("measurement",),
}
_WHERE_SET: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.SEV_SNP: ("host_data",),
    Kind.TDX: ("rt_mr3", "mr_config_id", "mr_owner"),
    Kind.NITRO: ("pcr8",),
}
_DETAILS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.SEV_SNP: ("vmpl",),
    Kind.TDX: ("sept_ve_disable", "migratable"),
}


def draft_policy(claims: Claims, name: str) -> str:
    """A policy (policy_file.py) that admits a machine with these claims, and no older TCB.

    Raises UsageError for a name that cannot stand in it.
    """
    if not name.strip() or not name.isprintable() or '"' in name or "\\" in name:
        raise UsageError(f"{name!r}: a policy's name can be printed, without quotation marks and backslashes")
    lines = ["tempo-policy = 1", f'name = "{name}"']
    if claims.kind is Kind.SIMULATED:
        lines.append("allow-unsafe = true")
    loaded = ", ".join(f'{key} = "{value}"' for key, value in _loaded(claims).items())
    lines += ["", f"[{claims.kind}]", f"measurements = [{{ {loaded} }}]"]
    if claims.kind is Kind.TPM:
        lines.append(f'keys = ["{claims.root}"]')
    if claims.tcb:
        versions = ", ".join(f"{key} = {value}" for key, value in sorted(claims.tcb.items()))
        lines.append(f"minimum-tcb = {{ {versions} }}")
    if not isinstance(claims.status, NotProvided) and claims.status != UP_TO_DATE:
        advisories = ", ".join(f'"{each}"' for each in claims.advisories)
        lines.append("# The vendor does not call this platform up to date. Sign it only if that is meant.")
        lines += [f'statuses = ["{claims.status}"]', f"advisories = [{advisories}]"]
    found = {key: claims.details[key] for key in _DETAILS.get(claims.kind, ()) if key in claims.details}
    if found:
        details = ", ".join(f"{key} = {_toml(value)}" for key, value in found.items())
        lines.append(f"details = {{ {details} }}")
    text = "\n".join(lines) + "\n"
    parse_policy(text.encode())
    return text


def _loaded(claims: Claims) -> dict[str, str]:
    always = _ALWAYS.get(claims.kind) or tuple(sorted(claims.measurements))
    where_set = _WHERE_SET.get(claims.kind, ())
    return {
        name: value
        for name, value in claims.measurements.items()
        if name in always or (name in where_set and value.strip("0"))
    }


def _toml(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f'"{value}"'
