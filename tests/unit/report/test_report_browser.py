"""The pages in a real browser: every section, no script error, no overflow, both languages, keyboard, print.

Skipped where there is no Chromium. It is offline, so that a page that loads anything fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import report_samples as samples
from test_report_page import AUDIT, PLAN_SECTIONS, RUN_SECTIONS

pytest.importorskip("jinja2")
sync_api = pytest.importorskip("playwright.sync_api")

from tempo.report.gather import Inputs, gather  # noqa: E402
from tempo.report.page import plan_page, render, run_page  # noqa: E402
from tempo.report.plan_file import PlanFile  # noqa: E402
from tempo.report.sections import Source  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

WIDTHS = (360, 768, 1280)
#: Elements that reach beyond the window, but for those that scroll within themselves.
BEYOND = """() => {
  const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && box.right > wide + 1 && !e.closest('pre, .skip, .quiet');
  });
  return [document.documentElement.scrollWidth - wide, out.map(e => e.outerHTML.slice(0, 80)).slice(0, 3)];
}"""
#: Contrast of text against what is behind it (WCAG 2.2, 1.4.3), the least of the page.
CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const lum = c => { const [r, g, b] = c.map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  let least = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (e.closest('svg') || !e.offsetParent || !own) continue;
    const [a, b] = [lum(parse(getComputedStyle(e).color).slice(0, 3)), lum(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 100)];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    source = Source(name="log", what="audit log", sha256="00")
    run = gather(Inputs(run=samples.whole_folder(folder), audit=(AUDIT, source)))
    plan = msgspec.convert(samples.plan(), PlanFile)
    hostile = msgspec.convert(samples.poisoned(samples.plan()), PlanFile)
    long = {
        "rows": [
            samples.placed("a.very.long.name." * 8 + str(i), offloaded=True, visible=("shapes",))
            for i in range(20)
        ]
    }
    for row, i in zip(long["rows"], range(20), strict=True):
        row["shape"] = f"{i}x128"
    many = gather(
        Inputs(run=samples.written(folder, "many.json", samples.demo(report=samples.session(**long))))
    )
    texts = {
        "run": render(run_page(run)),
        "plan": render(plan_page(plan)),
        "hostile": render(plan_page(hostile)),
        "many": render(run_page(many), "ja"),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        # Root has no sandbox of Chromium's in containers; the pages are ours.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = play.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


@contextmanager
def opened(
    browser: Any, path: Path, width: int = 1280, theme: str = "light", script: bool = True
) -> Iterator[Any]:
    """A page whose console must stay empty and which may ask for nothing."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=theme, offline=True, java_script_enabled=script
    )
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:image/png")] == [path.as_uri()]
    context.close()


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", ["run", "plan", "hostile", "many"])
def test_sections_and_no_overflow(name: str, language: str, pages: dict[str, Path], browser: Any) -> None:
    for width in WIDTHS:
        with opened(browser, pages[name], width) as page:
            page.click(f"button[data-lang={language}]")
            over, where = page.evaluate(BEYOND)
            assert over == 0, (width, where)
            assert name == "hostile" or where == [], width  # words without end may scroll within their table
            for anchor in PLAN_SECTIONS if name in ("plan", "hostile") else RUN_SECTIONS:
                section = page.locator(f"section#{anchor}")
                assert section.is_visible()
                assert section.locator("h2").inner_text().strip()
                assert section.bounding_box()["height"] > 60
            assert page.evaluate("window.pwned") is None


def test_the_switch_changes_all_words(pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages["run"]) as page:
        english = page.inner_text("main")
        assert not any("\u3040" <= c <= "\u30ff" for c in english)
        page.click("button[data-lang=ja]")
        assert page.evaluate("document.documentElement.lang") == "ja"
        assert "実行レポート" in page.title()
        assert page.get_attribute("nav", "aria-label") == "目次"
        assert page.get_attribute("img", "alt").startswith("復元結果")
        assert "What the provider saw" not in page.inner_text("main")
        assert page.get_attribute("button[data-lang=ja]", "aria-pressed") == "true"
        page.click("button[data-lang=en]")
        assert page.inner_text("main") == english


@pytest.mark.parametrize("name", ["run", "plan"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(name: str, theme: str, pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages[name], theme=theme) as page:
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (before == "rgb(255, 255, 255)") == (theme == "light")
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, where
        other = "dark" if theme == "light" else "light"
        page.click(f"button[data-theme={other}]")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        ratio, where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, where


def test_by_keyboard(pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages["run"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "verdict"
        page.focus("button[data-lang=ja]")
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.lang") == "ja"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"


def test_without_script_one_language_is_shown(pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages["many"], script=False) as page:
        assert page.locator(".ja").first.is_visible()
        assert not page.locator(".en").first.is_visible()
        assert not page.locator(".switches").is_visible()


def test_print_opens_what_is_folded_and_is_light(
    pages: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    with opened(browser, pages["many"], theme="dark") as page:
        assert page.locator("details:not([open])").count() > 0
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() > 0
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible()
        assert page.locator("table.wide thead").first.is_visible()
        page.set_viewport_size({"width": 690, "height": 1000})  # what A4 leaves between its margins
        assert page.evaluate(BEYOND) == [0, []]
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


#: Where the content of what is folded is drawn: none of it on a screen, all of it on paper.
SHOWN = """() => [...document.querySelectorAll('details > :not(summary)')].map(
  e => e.checkVisibility({contentVisibilityAuto: true}) && e.getBoundingClientRect().height > 1)"""


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("name", ["run", "plan", "many"])
def test_folded_on_screen_whole_on_paper(
    name: str, script: bool, pages: dict[str, Path], browser: Any
) -> None:
    with opened(browser, pages[name], script=script) as page:
        screen = page.evaluate(SHOWN)
        assert len(screen) >= 3
        assert not any(screen)
        for media, wanted in (("print", True), ("screen", False)):
            page.emulate_media(media=media)
            for _ in range(
                40
            ):  # a change of medium is drawn with the next frame, which a busy machine delays
                if (now := page.evaluate(SHOWN)) == [wanted] * len(screen):
                    break
                page.wait_for_timeout(50)
            assert now == [wanted] * len(screen), media


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", ["run", "plan"])
def test_short_enough_for_a_phone(name: str, language: str, pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages[name], 390) as page:
        page.click(f"button[data-lang={language}]")
        assert page.evaluate("document.documentElement.scrollHeight") < 8_000
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert page.evaluate(BEYOND) == [0, []]


def test_a_fold_opens_by_keyboard_and_has_a_name(pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages["run"]) as page:
        first = page.locator("details").first
        first.locator("summary").focus()
        page.keyboard.press("Enter")
        assert first.evaluate("each => each.open")
        assert first.locator("caption").first.inner_text().strip()
        page.keyboard.press("Space")
        assert not first.evaluate("each => each.open")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        for summary in page.locator("summary").all():
            assert summary.bounding_box()["height"] >= 40
