"""What an install can bring beside the base: extras exist under the names that documents use, and agree."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tempo").rglob("*.py")),
]


def split(requirement):
    """Name, as an index has it, and the rest."""
    name, rest = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", requirement).groups()
    return re.sub(r"[-_.]+", "-", name).lower(), rest


def test_the_extras_of_every_role_are_there():
    assert {"gpu", "ray", "trust", "report"} <= set(EXTRAS)


def test_the_base_is_small():
    assert [split(each)[0] for each in PROJECT["dependencies"]] == [
        *("torch", "numpy", "msgspec", "cryptography", "typer", "rich")
    ]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_every_extra_is_bounded_and_documented(extra):
    for requirement in EXTRAS[extra]:
        _, rest = split(requirement)
        assert re.search(r"[=>]=\d", rest), requirement
    assert f"[{extra}]" in (ROOT / "docs/packaging.md").read_text()


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_what_is_tested_is_what_an_extra_installs(extra):
    """A package that [dev] has too is asked for in the same versions."""
    tested = dict(split(each) for each in EXTRAS["dev"])
    for name, rest in map(split, EXTRAS[extra]):
        assert tested.get(name, rest) == rest, (extra, name)


def test_documents_and_errors_name_extras_that_exist():
    named = {}
    for path in DOCUMENTS:
        for extras in re.findall(r"tempo-confidential\[([A-Za-z0-9_,-]+)\]", path.read_text()):
            named |= dict.fromkeys(extras.split(","), path.name)
    assert {"trust", "report", "examples"} <= set(named)
    assert {name: where for name, where in named.items() if name not in EXTRAS} == {}
