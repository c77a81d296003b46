"""Long tables: a line on the screen, all of it on paper; and what a bare run lacks, said in each section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import report_samples as samples

pytest.importorskip("jinja2")

from tempo.report.gather import Inputs, gather
from tempo.report.page import plan_page, render, run_page
from tempo.report.page.shared import LONG, LONG_SLIM, folded
from tempo.report.page.text import Text
from tempo.report.page.view import Block, Fold, Missing, Page, Table
from tempo.report.plan_file import PlanFile
from tempo.report.run import Run


def blocks_of(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from blocks_of(block.blocks)


def pages(folder: Path) -> list[Page]:
    run = gather(Inputs(run=samples.whole_folder(folder)))
    return [run_page(run), plan_page(msgspec.convert(samples.plan(), PlanFile))]


def of_rows(count: int, *, slim: bool = False) -> Table:
    heads = (Text("a", "ア"), Text("b", "イ"))
    return Table(Text("t", "表"), heads, [["x", str(i)] for i in range(count)], slim=slim)


@pytest.mark.parametrize(("slim", "most"), [(False, LONG), (True, LONG_SLIM)])
def test_a_table_is_folded_by_its_length(slim: bool, most: int) -> None:
    short, long = of_rows(most, slim=slim), of_rows(most + 1, slim=slim)
    assert folded(short) is short
    made = folded(long)
    assert isinstance(made, Fold)
    assert made.blocks == [long]
    assert str(most + 1) in made.says.en
    assert str(most + 1) in made.says.ja


def test_no_long_table_stands_open_and_every_fold_says_what_is_inside(tmp_path: Path) -> None:
    for page in pages(tmp_path):
        folds = 0
        for section in page.sections:
            for block in section.blocks:
                if isinstance(block, Table):
                    assert len(block.rows) <= (LONG_SLIM if block.slim else LONG), block.caption
            for block in blocks_of(section.blocks):
                if isinstance(block, Fold):
                    folds += 1
                    assert block.title.en
                    assert block.says.en
                    assert block.says.ja
                    assert block.blocks
        assert folds >= 3


def test_the_line_above_attacks_names_what_to_read_first(tmp_path: Path) -> None:
    page = pages(tmp_path)[0]
    (saw,) = (section for section in page.sections if section.anchor == "saw")
    (fold,) = (b for b in saw.blocks if isinstance(b, Fold) and b.title.en == "Attack by attack")
    assert fold.says.en.startswith("1 broke it; ")
    assert "moments" in fold.says.en.partition("read first: ")[2]
    assert "labels" in fold.says.en.partition("read first: ")[2]
    assert fold.says.ja.startswith("突破 1 件、")


def bare(folder: Path, **changes: Any) -> Run:
    """A session and nothing else."""
    whole = gather(
        Inputs(run=samples.written(folder, "demo.json", samples.demo(report=samples.session(**changes))))
    )
    path = folder / "bare.json"
    Run(tempo_run=1, tempo="0.1.0", made_at="now", session=whole.session).save(path)
    return gather(Inputs(run=path))


def test_a_bare_run_says_in_each_section_what_would_fill_it(tmp_path: Path) -> None:
    page = run_page(bare(tmp_path, seconds={}))
    asks = {
        section.anchor: [" ".join(b.commands) for b in blocks_of(section.blocks) if isinstance(b, Missing)]
        for section in page.sections
    }
    for anchor, wanted in (
        ("accuracy", ["tempo demo"]),
        ("time", ["tempo demo", "--trace timeline.json"]),
        ("speed", ["tempo bench layers"]),
        ("cost", ["tempo plan MODEL"]),
        ("trust", ["tempo attest verify", "--log LOG --key KEY"]),
    ):
        assert len(asks[anchor]) == len(wanted), anchor
        for said, command in zip(asks[anchor], wanted, strict=True):
            assert command in said


def test_a_scheme_that_nobody_attacked_says_how_to(tmp_path: Path) -> None:
    text = render(run_page(bare(tmp_path, scheme="mixing-of-tomorrow")))
    assert "No attack was measured under this scheme." in text
    assert "--scheme mixing-of-tomorrow" in text
