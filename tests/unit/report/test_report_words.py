"""Every word of the pages is there in both languages, and says the same."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tempo.fleet import EventKind
from tempo.report import verdicts
from tempo.report.page import words
from tempo.report.page.text import Text, fields_of, joined
from tempo.report.page.words import adoption, attacks, codes, common
from tempo.report.page.words import run as run_words
from tempo.secrecy.scheme import SCHEMES
from tempo.secrecy.visible import CLASSES, CODES

JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
MODULES = [info.name for info in pkgutil.iter_modules(words.__path__)]


def texts(value: Any) -> Iterator[Text]:
    if isinstance(value, Text):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from texts(each)


def catalogue() -> list[tuple[str, Text]]:
    found = []
    for module in MODULES:
        for name, value in vars(importlib.import_module(f"{words.__name__}.{module}")).items():
            if name.isupper():
                found += [(f"{module}.{name}", text) for text in texts(value)]
    return found


#: Names of ours, the same in both.
SAME = {"common.FINGERPRINT", "sections.TEMPO", "sections.OPTIONS"}


def test_there_are_words() -> None:
    assert len(catalogue()) > 250
    assert len(MODULES) >= 8


@pytest.mark.parametrize(("name", "text"), catalogue(), ids=[name for name, _ in catalogue()])
def test_both_languages(name: str, text: Text) -> None:
    assert text.en.strip() == text.en != ""
    assert text.ja.strip() == text.ja != ""
    assert fields_of(text.en) == fields_of(text.ja)
    if name not in SAME and name != "plan.STAY":
        assert JAPANESE.search(text.ja), text.ja
        assert not JAPANESE.search(text.en)
    # A sentence is one in both.
    assert text.en.endswith((".", ":")) == text.ja.endswith(("。", "：")), (text.en, text.ja)
    # No half-width brackets around Japanese.
    assert not re.search(r"[\u3040-\u9fff]\(|\([\u3040-\u9fff]", text.ja)


def test_politeness_is_one() -> None:
    """Sentences end in です or ます (or their forms), and none in である or だ."""
    for name, text in catalogue():
        for sentence in text.ja.split("。")[:-1]:
            assert not re.search(r"(である|だ|(?<!まし)た|ない|する)$", sentence), (name, sentence)


def test_every_word_is_used() -> None:
    package = Path(words.__file__).parents[1]
    others = [p for p in package.rglob("*") if p.suffix in (".py", ".j2") and p.parent.name != "words"]
    text = "\n".join(p.read_text() for p in others)
    inside = "\n".join(p.read_text() for p in (package / "words").glob("*.py"))
    for module in MODULES:
        for name in vars(importlib.import_module(f"{words.__name__}.{module}")):
            if name.isupper() and not name.startswith("_"):
                used = len(re.findall(rf"\b{name}\b", text)) + len(re.findall(rf"\b{name}\b", inside)) - 1
                assert used, f"{module}.{name} is on no page"


def test_what_may_come_has_words() -> None:
    assert set(codes.VISIBLE_JA) == set(CODES)
    assert set(codes.CLASSES) == set(codes.CLASS_MEANS) == set(CLASSES)
    assert set(codes.EVENTS) == {kind.value for kind in EventKind}
    assert set(run_words.SCHEMES) == {*SCHEMES, "shares"}
    assert set(attacks.VERDICTS) == set(attacks.MEANINGS)
    named = {name for cells in verdicts.shipped()["schemes"].values() for name in cells}
    assert named <= set(attacks.ATTACKS)
    assert len(common.STANDING) == 3


def test_attacks_of_the_suite_have_words() -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("sklearn")
    from tempo.attacks.registry import ATTACKS

    assert {entry.attack.name for entry in ATTACKS} == set(attacks.ATTACKS)


def test_criteria_of_the_planner_have_words() -> None:
    source = (Path(words.__file__).parents[3] / "plan" / "adoption.py").read_text()
    named = set(re.findall(r'Criterion\(\s*"([a-z_]+)"', source)) | {"accuracy_epoch", "accuracy"}
    assert named == set(adoption.CRITERIA)
    assert set(re.findall(r'Stage\("([a-z]+)"', source)) == set(adoption.STAGES) == set(adoption.PURPOSE)


@pytest.mark.parametrize(
    "reason",
    [
        "fewer than 64 rows",
        "at most 4 input channels",
        "depthwise",
        "kept by the user",
        "product of two activations",
        "last weighted layer: its gradient gives away labels",
        "cheaper in the TEE: 3.1 ms here, 9 ms there",
    ],
)
def test_reasons_are_translated(reason: str) -> None:
    said = codes.reason(reason)
    assert said.en == reason
    assert JAPANESE.search(said.ja)
    assert [c for c in said.ja if c.isdigit()] == [c for c in reason if c.isdigit()]


def test_a_reason_that_nobody_knows_stays_as_it_is() -> None:
    assert codes.reason("<b>because</b>") == Text.same("<b>because</b>")
    assert codes.note("something new") == Text.same("something new")


def test_filling() -> None:
    text = Text("{n} of {what}", "{what} の {n} 件")
    assert text.of(n=3, what=Text("all", "全体")) == Text("3 of all", "全体の 3 件")
    with pytest.raises(KeyError):
        text.of(n=3)
    # A value is no format string, and reaches nothing.
    assert text.of(n="{what.__class__}", what="{n}").en == "{what.__class__} of {n}"
    assert joined([Text("a", "ア"), Text("b", "イ")]) == Text("a, b", "ア、イ")


def test_html_is_escaped() -> None:
    assert Text("<a>", "<a>").__html__() == "&lt;a&gt;"
    assert Text("<a>", "い").__html__() == (
        '<span class="en" lang="en">&lt;a&gt;</span><span class="ja" lang="ja">い</span>'
    )
