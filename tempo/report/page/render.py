"""A page as one HTML file that loads nothing: style, script and pictures are in it.

Whatever comes from a file is escaped by jinja2. Should that ever fail, the page's own policy still runs no
script but ours: Content-Security-Policy names the digests of the one style and the one script, no more.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from tempo.errors import UsageError
from tempo.report.page.text import LANGUAGES, attribute
from tempo.report.page.view import Page
from tempo.report.page.words import common

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER: Final = "templates"


def ready() -> None:
    """Raises UsageError where jinja2 is missing: asked before anything is measured."""
    if find_spec("jinja2") is None:
        raise UsageError("pages are made with jinja2: pip install 'tempo-confidential[report]'")


def render(page: Page, language: str = "en") -> str:
    """language: that the page opens in, "en" or "ja"; it holds both. Raises UsageError without jinja2."""
    if language not in LANGUAGES:
        raise UsageError(f"language {language!r}: expected {' or '.join(LANGUAGES)}")
    ready()
    style = _own("page.css") + _own("narrow.css")
    script = _own("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    template = _environment().get_template("page.html.j2")
    return template.render(
        page=page,
        words=common,
        language=language,
        policy=policy,
        style=Markup(style),  # noqa: S704 (a file of ours)
        script=Markup(script),  # noqa: S704 (as above)
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(_own),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["label"] = attribute
    return made


@cache
def _own(name: str) -> str:
    """A file of ours."""
    return (files("tempo.report.page") / _FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As Content-Security-Policy names an inline element (W3C CSP level 3, 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
