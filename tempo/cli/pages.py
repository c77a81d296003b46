"""Writing a page: what `tempo report` and `tempo plan --page` share."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tempo.cli.output import stderr, to_json
from tempo.errors import OutsideError, UsageError

if TYPE_CHECKING:
    from tempo.report.page.view import Page


class Language(StrEnum):
    """The page holds both; this is the one it opens in."""

    en = "en"
    ja = "ja"


def ready_for_pages(path: Path) -> None:
    """Asked before anything is measured. Raises UsageError without jinja2, OutsideError without a folder."""
    if find_spec("jinja2") is None:
        raise UsageError("pages are made with jinja2: pip install 'tempo-confidential[report]'")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OutsideError(f"{path} cannot be written. Name a file, in a folder that exists")


def write_page(page: Page, path: Path, language: Language) -> None:
    """Raises OutsideError."""
    from tempo.report.page import render

    text = render(page, language.value)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutsideError(
            f"the page cannot be written to {path} ({error.strerror}). Name a file in a folder that exists"
        ) from error
    stderr().print(f"Written: {path}", markup=False, soft_wrap=True)


def write_plan(fields: Mapping[str, Any], path: Path, language: Language) -> None:
    """fields: the JSON object of `tempo plan`."""
    from tempo.report.page import plan_page
    from tempo.report.plan_file import PlanFile

    # Through JSON, so that the page is the one that the file would give.
    plan = msgspec.json.decode(to_json(fields), type=PlanFile)
    write_page(plan_page(plan), path, language)
