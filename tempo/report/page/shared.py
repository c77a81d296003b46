"""Sections that both pages have: what is visible, where the figures come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tempo.report.page.text import NOTHING, Text
from tempo.report.page.view import Block, Cell, Code, Fold, Para, Section, Table
from tempo.report.page.words import codes, common, sections
from tempo.report.sections import Source
from tempo.secrecy.visible import CODES, meaning, remedy, worst

#: Rows of a table before it is folded: on a phone each row is a card, and half a dozen of them a screen.
LONG: Final = 5
#: The same of a slim table, whose rows are lines.
LONG_SLIM: Final = 12


def visible_table(layers: Mapping[str, int]) -> Block:
    """layers: how many show each code. Folded: what is seen takes sentences, and the line says the worst."""
    rows: list[list[Cell]] = []
    for code in (c for c in CODES if layers.get(c)):
        seen, without = codes.VISIBLE_JA[code]
        rows.append(
            [
                Code(code),
                Text(meaning(code), seen),
                codes.CLASSES[worst((code,))],
                Text(remedy(code), without),
                str(layers[code]),
            ]
        )
    heads = (sections.CODE, common.MEANING, sections.CLASS, common.REMEDY, common.LAYERS)
    says = common.SEEN_SAYS.of(n=str(len(rows)), kind=means_of(layers))
    return Fold(common.SEEN, says, [Table(common.SEEN, heads, rows, frozenset({4}))])


def class_of(seen: Iterable[str]) -> Text:
    """The class of leakage of these codes; those that there are none of count for nothing."""
    return codes.CLASSES[worst(code for code in seen if code in codes.VISIBLE_JA)]


def means_of(seen: Iterable[str]) -> Text:
    """What that class comes to, in words."""
    return codes.CLASS_MEANS[worst(code for code in seen if code in codes.VISIBLE_JA)]


def folded(table: Table, says: Text = NOTHING) -> Block:
    """A long table behind a line that says the essential of it; a short one as it is."""
    if len(table.rows) <= (LONG_SLIM if table.slim else LONG):
        return table
    return Fold(table.caption, says or common.DETAILS.of(n=f"{len(table.rows):,}"), [table])


def origin(
    machine: Mapping[str, Any], commit: str | None, sources: Sequence[Source], *more: Block
) -> Section:
    """Machine, commit, files with their digests."""
    rows: list[list[Cell]] = []
    cpu, cores = machine.get("cpu"), machine.get("cores")
    if cpu:
        rows.append([common.MACHINE, str(cpu)])
    if isinstance(cores, int):
        rows.append([common.MACHINE, common.CORES.of(n=str(cores))])
    gpus = machine.get("gpus")
    if isinstance(gpus, list) and gpus:
        rows.append([Text("GPU", "GPU"), ", ".join(str(g) for g in gpus)])
    rows += [
        [Text.same(name), str(machine[name])] for name in ("system", "python", "torch") if machine.get(name)
    ]
    rows.append([common.COMMIT, Code(commit) if commit else common.OUTSIDE])
    blocks: list[Block] = [
        Fold(
            common.MACHINE,
            Text.same(str(cpu)) if cpu else common.MACHINE_SAYS,
            [Table(common.MACHINE, (common.NAME, common.FIGURE), rows, slim=True)],
        ),
        *more,
    ]
    if sources:
        files: list[list[Cell]] = [[Code(s.name), s.what, Code(s.sha256)] for s in sources]
        heads = (common.FILE, common.MEANING, common.FINGERPRINT)
        says = common.SOURCES_SAYS.of(n=str(len(files)))
        blocks.append(Fold(common.SOURCES, says, [Table(common.SOURCES, heads, files)]))
    return Section("origin", common.ORIGIN, [*blocks, Para(common.OFFLINE)])
