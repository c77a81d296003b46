"""docs/coverage.md from the verdicts: a summary by library, what fails, is refused or stays, and every
family."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.coverage.judge import FAIL, NOT_RUN, PASS, REFUSED, WANTED

Row = dict[str, Any]

GOAL = 0.95

_HEAD = """# Coverage: real models, protected and plain

Generated: `make coverage` judges every family and writes this page (`python -m benchmarks.coverage page`).
Do not edit it.

Each family of `timm` (a module, by its smallest member) and each architecture of `transformers` (a model
type, in a small configuration: narrower, fewer layers, a vocabulary of 128) is built twice with the same
random weights; those that start at zero are drawn too, since they are zero in the first step alone, and so
are codebooks. One step runs in plain PyTorch, one under `tempo.Session("cpu", placement="always",
min_size=0, unsafe_small=True)`. Compared are the loss, the gradient of every parameter, and every buffer
afterwards.

- **passes**: all of them agree. *float64*: within 1e-9 of each tensor's norm. *rounding bound*: the model
  itself rounds to float32 on the way (a softmax, a norm), or refuses float64; then protection may change a
  tensor by `GROWTH` = 100 times ([numerics](numerics.md)) what moving each weight by a rounding (2^-36 of
  itself in float64, 2^-24 in float32, which is also for models that multiply in float32 whatever their
  weights are in) does. *As in evaluation*: in training mode the model wants labels, or
  lengths of its own.
- **offloaded**: share of the step's linear flops that workers computed, by PyTorch's flop counter (less a
  fault of it: it takes the weight gradient of a grouped convolution for that of a full one). The rest
  stayed in the TEE for the reason named; `session.report()` lists each.
- **refused**: Tempo says before or at the first step that it cannot, and what to do.
- **not run**: plain PyTorch does not build or run it here (generic inputs do not fit, an optional package
  is missing, it is too large, or it differs from itself). It says nothing about Tempo and is in no share
  below. Too large are more than 60 M parameters (`timm`: 100 M): protection keeps encoded operands beside
  the plain ones, and three members of `timm` with 133 M to 305 M took a plain step in 8 GB, in float64, and
  no protected one.

Small models are the harder case for the share: first layers and heads, which stay for secrecy's sake, weigh
more.
"""


#: By what a reason contains, what a user can do.
_ACTIONS = {
    "last weighted layer": "`protect(unsafe_offload=[...])`, if labels may be known",
    "weight of an embedding": "`protect(unsafe_offload=[...])`, if tokens may be known",
    "product of two activations": "`offload_attention=True`; rarely pays",
    "a softmax stands between": "`offload_attention=True`; rarely pays",
    "input channels": "nothing: it works on raw input",
    "depthwise": "nothing: each channel by itself is no matrix product",
    "three-dimensional": "patches without overlap: write it as a linear layer on them",
    "all weights are zero": "nothing: it goes from the step on in which they are not",
    "rows repeat": "`repeats=1.0`, if row bases may be found (docs/secrecy.md)",
    "not lowered": "write it with `torch.matmul` or `F.linear`",
}


def page(rows: Sequence[Row], known: Mapping[str, int], environment: str = "") -> str:
    """rows: verdicts as the pool writes them. known: families that each library has."""
    parts = [_HEAD, environment, _summary(rows, known)]
    parts += [_failures(rows), _refusals(rows), _low(rows), _kept(rows), _table(rows), _not_run(rows)]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def share(row: Row) -> float | None:
    """Of the linear flops, offloaded; None where there were none. What nobody listed counts as kept."""
    flops = total(row)
    return row["offloaded_flops"] / flops if flops else None


def total(row: Row) -> int:
    return int(row["offloaded_flops"] + sum(row["kept"].values()) + max(0, row["unlisted_flops"]))


def well(row: Row) -> bool:
    """Passes, with the share of its flops offloaded that is wanted."""
    part = share(row)
    return row["status"] == PASS and (part is None or part >= WANTED)


def well_with_attention(row: Row) -> bool:
    """The same where products of two activations are sent as well."""
    sent = row["with_attention_flops"]
    return well(row) or (row["status"] == PASS and sent is not None and sent >= WANTED * total(row))


def _summary(rows: Sequence[Row], known: Mapping[str, int]) -> str:
    lines = ["## Summary", ""]
    table = []
    for library in dict.fromkeys(row["library"] for row in rows):
        mine = [row for row in rows if row["library"] == library]
        table.append(_counts(library, mine, known.get(library, len(mine))))
    table.append(_counts("all", rows, sum(known.values()) or len(rows)))
    names = ("library", "families", "judged", "run", "pass", "fail", "refused", "pass, of those run")
    lines += _markdown(
        (*names, f"pass with {WANTED:.0%} offloaded", "and with attention", "median offloaded"), table
    )
    missing = sum(known.values()) - len(rows)
    if missing > 0:
        lines += [
            "",
            f"**The run that this page is from was cut short**: {missing} families were not judged, and "
            "nothing is said of them. `make coverage` goes on from there.",
        ]
    lines += [
        "",
        f"The goal is that {GOAL:.0%} of those run pass with at least {WANTED:.0%} of their linear flops "
        "offloaded. *And with attention*: models below that run again with `offload_attention=True`, "
        "which sends products of two activations as well; they must pass then too.",
        "",
    ]
    return "\n".join(lines)


def _counts(name: str, rows: Sequence[Row], known: int) -> tuple[str, ...]:
    run = [row for row in rows if row["status"] != NOT_RUN]
    by = Counter(row["status"] for row in rows)
    shares = [part for row in run if row["status"] == PASS and (part := share(row)) is not None]
    return (
        name,
        str(known),
        str(len(rows)),
        str(len(run)),
        str(by[PASS]),
        str(by[FAIL]),
        str(by[REFUSED]),
        _percent(by[PASS], len(run)),
        _percent(sum(map(well, run)), len(run)),
        _percent(sum(map(well_with_attention, run)), len(run)),
        f"{100 * median(shares):.1f} %" if shares else "-",
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _failures(rows: Iterable[Row]) -> str:
    table = [(*_name(row), _text(row["reason"])) for row in rows if row["status"] == FAIL]
    return _section("Fails", ("library", "family", "what"), table)


def _refusals(rows: Iterable[Row]) -> str:
    """Reason and remedy are the error's own text."""
    table = [(*_name(row), _text(row["reason"])) for row in rows if row["status"] == REFUSED]
    return _section("Refused, and what to do instead", ("library", "family", "what Tempo says"), table)


def _low(rows: Iterable[Row]) -> str:
    table = []
    for row in rows:
        part = share(row)
        if row["status"] == PASS and part is not None and part < WANTED:
            most = sorted(row["kept"].items(), key=lambda item: -item[1])[:2]
            why = ", ".join(f"{reason} ({_percent(flops, total(row))})" for reason, flops in most)
            sent = row["with_attention_flops"]
            with_attention = "-" if sent is None else _percent(sent, total(row))
            table.append((*_name(row), f"{100 * part:.1f} %", with_attention, why))
    return _section(
        f"Passes, with less than {WANTED:.0%} offloaded",
        ("library", "family", "offloaded", "with attention", "most of the rest"),
        table,
    )


def _kept(rows: Iterable[Row]) -> str:
    """By reason: in how many families, and the median share of their flops."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for reason, flops in row["kept"].items():
            found[reason].append(flops / total(row))
    ordered = sorted(found.items(), key=lambda item: -sum(item[1]))
    table = [
        (why, str(len(s)), f"{100 * median(s):.1f} %", f"{100 * max(s):.1f} %", _action(why))
        for why, s in ordered
    ]
    head = ("reason", "families", "median share", "largest", "what to do")
    return _section("Why the rest stays in the TEE", head, table)


def _action(reason: str) -> str:
    return next((action for text, action in _ACTIONS.items() if text in reason), "-")


def _table(rows: Iterable[Row]) -> str:
    table = []
    for row in sorted(rows, key=lambda row: (row["library"], row["family"])):
        if row["status"] == NOT_RUN:
            continue
        part = share(row)
        offloaded = "-" if part is None or row["status"] != PASS else f"{100 * part:.1f} %"
        size = f"{row['parameters'] / 1e6:.2f} M"
        table.append((*_name(row), row["member"], size, row["status"], row["compared"] or "-", offloaded))
    head = ("library", "family", "member or class", "parameters", "verdict", "compared in", "offloaded")
    return _section("Every family that was run", head, table)


def _not_run(rows: Iterable[Row]) -> str:
    table = [(*_name(row), _text(row["reason"], 160)) for row in rows if row["status"] == NOT_RUN]
    return _section("Not run in plain PyTorch here", ("library", "family", "why"), table)


def _name(row: Row) -> tuple[str, str]:
    return row["library"], f"`{row['family']}`"


def _text(reason: str, most: int = 400) -> str:
    return " ".join(reason.replace("|", "/").replace("<", "&lt;").split())[:most]


def _section(title: str, head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    if not table:
        return ""
    return "\n".join([f"## {title}", "", *_markdown(head, table), ""])


def _markdown(head: Sequence[str], table: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in table]
