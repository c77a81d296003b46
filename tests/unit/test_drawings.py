"""Drawings of the guides are what their code draws, and every page of the site is in its navigation."""

import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "docs" / "drawings"
DRAWINGS = runpy.run_path(str(FOLDER / "draw.py"))["DRAWINGS"]


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_what_its_code_draws(name):
    drawn = DRAWINGS[name]().svg
    assert (FOLDER / f"{name}.svg").read_text() == drawn, "run python docs/drawings/draw.py"


def test_no_drawing_is_left_over():
    recorded = {"demo"}  # of a real run: docs/drawings/record.py
    assert {path.stem for path in FOLDER.glob("*.svg")} - recorded == set(DRAWINGS)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_can_be_read_aloud_and_stays_on_its_sheet(name):
    root = ElementTree.fromstring(DRAWINGS[name]().svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text
    assert len(root.find(f"{space}desc").text) > 80
    _, _, width, height = map(int, root.get("viewBox").split())
    for box in root.iter(f"{space}rect"):
        x, y = int(box.get("x", 0)), int(box.get("y", 0))
        assert x + int(box.get("width")) <= width
        assert y + int(box.get("height")) <= height


def test_every_page_is_in_the_navigation():
    text = (PROJECT / "mkdocs.yml").read_text()
    pages = [str(path.relative_to(PROJECT / "docs")) for path in (PROJECT / "docs").rglob("*.md")]
    assert [page for page in sorted(pages) if f": {page}\n" not in text] == []
