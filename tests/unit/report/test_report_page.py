"""Pages as HTML: every section, nothing made up, and nothing of a file is ever more than text."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import plan_sample
import pytest
import report_samples as samples
from page_reader import Reader

pytest.importorskip("jinja2")

from tempo.errors import UsageError
from tempo.report.gather import Inputs, gather
from tempo.report.page import plan_page, render, run_page
from tempo.report.page.run_verdict import tone
from tempo.report.page.words import attacks
from tempo.report.plan_file import PlanFile
from tempo.report.run import Run
from tempo.report.sections import Audit, Source

RUN_SECTIONS = [
    "verdict",
    "protected",
    "saw",
    "events",
    "accuracy",
    "time",
    "speed",
    "cost",
    "trust",
    "unverified",
]
PLAN_SECTIONS = ["verdict", "time", "cost", "placement", "leak", "adoption", "assumptions"]
AUDIT = Audit(
    origin="example.org/x", entries=9, first="then", last="now", root="ab" * 32, kinds={"session_opened": 1},
    unsigned_bytes=0,
)  # fmt: skip


def run_of(folder: Path, **changes: Any) -> Run:
    return gather(Inputs(run=samples.written(folder, "demo.json", samples.demo(**changes))))


def plan_of(**changes: Any) -> PlanFile:
    return msgspec.convert(samples.plan(**changes), PlanFile)


def pages(folder: Path) -> list[str]:
    full = gather(
        Inputs(run=samples.whole_folder(folder), audit=(AUDIT, Source(name="l", what="log", sha256="0")))
    )
    return [render(run_page(full)), render(plan_page(plan_of()))]


def test_a_page_is_whole_and_alone(tmp_path: Path) -> None:
    for text, wanted in zip(pages(tmp_path), (RUN_SECTIONS, PLAN_SECTIONS), strict=True):
        page = Reader(text)
        assert page.open == []
        assert len(page.ids) == len(set(page.ids))
        assert set(wanted) <= set(page.ids)
        assert "origin" in page.ids
        # Nothing is loaded: no address but pictures in the page and anchors of it.
        for name, attrs in page.tags:
            for key in ("src", "href", "srcset", "action", "data"):
                assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,")), (name, attrs)
        anchors = {attrs["href"][1:] for attrs in page.of("a")}
        assert anchors <= set(page.ids)
        assert "@import" not in text
        assert "url(" not in text
        assert len(text) < 400_000


def test_landmarks_headings_tables_and_labels(tmp_path: Path) -> None:
    for text in pages(tmp_path):
        page = Reader(text)
        for landmark in ("header", "main", "nav", "footer", "h1", "title"):
            assert len(page.of(landmark)) == 1 + (landmark == "title") * text.count(
                '<svg viewBox="0 0 1000 100"'
            ), landmark
        levels = [int(name[1]) for name, _ in page.tags if re.fullmatch("h[1-6]", name)]
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
        assert len(page.of("caption")) == len(page.of("table"))
        assert all("scope" in attrs for attrs in page.of("th"))
        assert all("alt" in attrs and attrs["alt"] for attrs in page.of("img"))
        for attrs in page.of("svg"):
            assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"])
        assert all(attrs["type"] == "button" for attrs in page.of("button"))
        labels = {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs}
        assert labels <= set(page.ids)


def test_the_policy_names_this_style_and_this_script_alone(tmp_path: Path) -> None:
    for text in pages(tmp_path):
        (policy,) = [a["content"] for a in Reader(text).of("meta") if a.get("http-equiv")]
        for tag in ("style", "script"):
            (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("language", ["en", "ja"])
def test_nothing_of_a_file_is_more_than_text(language: str, tmp_path: Path) -> None:
    clean = [Reader(text) for text in pages(tmp_path)]
    for name in ("demo.json", "attack.json", "pictures.json", "bench-layers.json", "timeline.json"):
        made = {
            "demo.json": samples.demo, "attack.json": samples.attack, "pictures.json": samples.pictures,
            "bench-layers.json": samples.bench, "timeline.json": samples.trace,
        }[name]()  # fmt: skip
        samples.written(tmp_path, name, samples.poisoned(copy.deepcopy(made)))
    samples.written(tmp_path, "plan.json", samples.poisoned(samples.plan()))
    # A scheme of that name has no attacks: they are of the run's own.
    whole = gather(
        Inputs(
            run=tmp_path,
            title=samples.HOSTILE,
            audit=(AUDIT, Source(name=samples.HOSTILE, what="", sha256="")),
        )
    )
    plan = msgspec.convert(samples.poisoned(samples.plan()), PlanFile)
    for text, before in zip(
        (render(run_page(whole), language), render(plan_page(plan), language)), clean, strict=True
    ):
        page = Reader(text)
        assert page.open == []
        assert len(page.of("script")) == len(page.of("style")) == 1
        assert {name for name, _ in page.tags} <= {name for name, _ in before.tags} | {"details", "summary"}
        assert not [
            attrs for _, attrs in page.tags if any(key.startswith("on") or key == "style" for key in attrs)
        ]
        assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in page.of("img"))
        assert samples.HOSTILE in "".join(page.text)  # shown as it is, as text
        assert "49" not in "".join(page.text).split("{{ 7 * 7 }}")[0][-4:]


def test_what_was_not_measured_is_said_and_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run = run_of(tmp_path)
    bare = Run(tempo_run=1, tempo="0.1.0", made_at="now", session=run.session)
    bare.save(path)
    text = render(run_page(gather(Inputs(run=path))))
    assert text.count("Not measured in this run.") == 6  # accuracy, timeline, speed, cost, attestation, log
    for command in (
        "tempo demo",
        "tempo bench layers",
        "tempo plan MODEL",
        "tempo attest verify",
        "--log LOG",
    ):
        assert command in text
    words = "".join(Reader(text).text)
    assert "accuracy against plain training, cost, attestation of the hardware, the audit log" in words
    assert "reference runs" in words


def test_figures_are_those_of_the_file(tmp_path: Path) -> None:
    words = " ".join("".join(Reader(render(run_page(run_of(tmp_path)))).text).split())
    # 3000 of 3030 flops were sent; 3 of 668 checks failed; 5 s against 1 s.
    for figure in (
        "99.0 %",
        "3 of 668 checks failed",
        "95.0 %",
        "5.00 times",
        "10.0 MB",
        "20.0 MB",
        "decoys",
    ):
        assert figure in words
    assert "300" in words
    assert "365" in words


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "care"),
        ({"report": samples.session(scheme="unsafe_none")}, "bad"),
        ({"report": samples.session(scheme="monomial")}, "bad"),
        ({"broken_promises": ["at step 3 the losses differ"]}, "bad"),
        ({"report": samples.session(scheme="shares")}, "care"),
    ],
)
def test_tone(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert tone(run_of(tmp_path, **changes)) == expected


def shares(**changes: Any) -> dict[str, Any]:
    clean = {"checks_failed": 0, "quarantined": [], "settings": {"scheme": "shares"}}
    return samples.session(scheme="shares", **{**clean, **changes})


def audit_of(run: Run) -> Audit:
    """Of a log in which the run's session was closed."""
    names = ("checks", "checks_failed", "bytes_sent", "bytes_received")
    counts = {name: getattr(run.session, name) for name in names}
    return msgspec.structs.replace(AUDIT, closed=[counts])


def words_of(run: Run) -> str:
    return " ".join("".join(Reader(render(run_page(run))).text).split())


def test_good_is_proven_attested_and_logged(tmp_path: Path) -> None:
    run = run_of(tmp_path, report=shares())
    found = samples.attack()
    found["rows"] = [samples.attack_row(name, "shares", "holds") for name in attacks.ATTACKS]
    samples.written(tmp_path, "attack.json", found)
    evidence = samples.written(tmp_path, "e.json", samples.attestation())
    inputs = Inputs(
        run=tmp_path / "demo.json",
        attack=tmp_path / "attack.json",
        attestation=evidence,
        audit=(audit_of(run), Source(name="l", what="log", sha256="")),
    )
    good = gather(inputs)
    assert tone(good) == "good"
    assert tone(msgspec.structs.replace(good, audit=None)) == "care"
    other = msgspec.structs.replace(good.audit, closed=[{**good.audit.closed[0], "checks": 1}])
    strange = msgspec.structs.replace(good, audit=other)
    assert tone(strange) == "care"
    assert "the log may be of another one" in words_of(strange)
    assert "the log may be of another one" not in words_of(good)
    assert "12 bytes more" not in words_of(good)
    torn = msgspec.structs.replace(good.audit, unsigned_bytes=12)
    assert "12 bytes more, which nobody vouches for" in words_of(msgspec.structs.replace(good, audit=torn))
    simulated = [msgspec.structs.replace(good.attestations[0], simulated=True)]
    assert tone(msgspec.structs.replace(good, attestations=simulated)) == "care"
    refused = [msgspec.structs.replace(good.attestations[0], accepted=False)]
    assert tone(msgspec.structs.replace(good, attestations=refused)) == "bad"
    alone = run_of(tmp_path, report=shares(settings={"scheme": "shares", "unsafe_one_owner": True}))
    assert tone(alone) == "bad"
    assert run.session.scheme == "shares"


def test_what_broke_it_is_named_with_what_it_presumes(tmp_path: Path) -> None:
    page = run_page(gather(Inputs(run=samples.whole_folder(tmp_path))))
    assert "What broke it: moments (presumes: public weights near the secret ones" in page.summary.en
    assert re.search(
        r"of \d+ attacks measured for this report and on reference runs, 1 broke it", page.summary.en
    )


@pytest.mark.parametrize(
    ("totals", "money", "expected"),
    [
        ({}, plan_sample.money(), "good"),
        ({"speedup_over_tee": 0.9}, plan_sample.money(), "bad"),
        ({"tee_fastest_seconds": 0.3}, plan_sample.money(), "care"),
        (
            {},
            [{**row, "cost": {"tempo": 9.0}.get(row["option"], 5.0)} for row in plan_sample.money()],
            "care",
        ),
        ({}, [], "good"),
    ],
)
def test_tone_of_a_plan(totals: dict[str, float], money: list[dict[str, Any]], expected: str) -> None:
    plan = samples.plan(money=money)
    plan["totals"] |= totals
    assert plan_page(msgspec.convert(plan, PlanFile)).tone == expected


def test_a_plan_that_sends_nothing() -> None:
    plan = samples.plan(break_even=[], money=[])
    for row in plan["rows"]:
        row |= {"decision": "stay", "visible": []}
    page = plan_page(msgspec.convert(plan, PlanFile))
    assert page.tone == "bad"
    assert "Nothing would be sent" in page.summary.en
    assert "--samples" in page.summary.en


def test_language_is_one_of_two(tmp_path: Path) -> None:
    page = run_page(run_of(tmp_path))
    assert '<html lang="ja">' in render(page, "ja")
    with pytest.raises(UsageError, match="en or ja"):
        render(page, "fr")


def test_an_attack_of_ones_own_that_broke_it_is_bad(tmp_path: Path) -> None:
    run = gather(Inputs(run=samples.whole_folder(tmp_path)))
    assert run.attacks is not None
    for reference, shipped, expected in (
        ("script", False, "bad"),
        ("transcript", False, "bad"),
        ("script", True, "care"),
        ("images", False, "care"),  # the references break mixing wherever they are run
    ):
        rows = [
            msgspec.structs.replace(row, shipped=shipped, reference=reference) for row in run.attacks.rows
        ]
        attacks_of = msgspec.structs.replace(run.attacks, rows=rows)
        assert tone(msgspec.structs.replace(run, attacks=attacks_of)) == expected


def test_public_weights_did_leave_under_shares(tmp_path: Path) -> None:
    rows = [samples.placed("body", offloaded=True, visible=("shapes",))]
    assert "plain data, labels and weights did not leave" in words_of(
        run_of(tmp_path, report=shares(rows=rows))
    )
    rows[0]["visible"].append("known-weights")
    said = words_of(run_of(tmp_path, report=shares(rows=rows)))
    assert "labels and weights did not leave" not in said
    assert "but for those declared public" in said


def test_workers_that_answered_nothing_do_not_count(tmp_path: Path) -> None:
    run = run_of(tmp_path, report=samples.session(jobs={"a": 3, "b": 0, "c": 9}))
    assert "done by 2 workers" in words_of(run)


def test_a_fine_promise_is_shown_with_its_digits(tmp_path: Path) -> None:
    report = samples.session()
    report["integrity"][0] |= {"of_row": 2.34e-12, "dtype": "float64"}
    assert "off by 2.3e-10 % of its size" in words_of(run_of(tmp_path, report=report))


def test_layers_that_show_other_things_are_rows_of_their_own(tmp_path: Path) -> None:
    rows = [
        samples.placed("plain", offloaded=True, visible=("shapes",)),
        samples.placed("trained", offloaded=True, visible=("shapes", "spectrum")),
        samples.placed("again", offloaded=True, visible=("shapes",)),
    ]
    said = words_of(run_of(tmp_path, report=samples.session(rows=rows)))
    assert "plain and 1 more" in said
    assert "trained and" not in said


@pytest.mark.parametrize(
    ("scheme", "command"), [("monomial", "--scheme monomial"), ("shares", "session.report()")]
)
def test_a_plans_command_measures_its_own_scheme(scheme: str, command: str) -> None:
    plan = plan_of(scheme=scheme, measured=[])
    words = " ".join("".join(Reader(render(plan_page(plan))).text).split())
    assert command in words
