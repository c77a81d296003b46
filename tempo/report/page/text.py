"""A text in both languages, and how it becomes HTML: both are in the page, and the page shows one of them.

Text("{n} checks", "検査 {n} 件").of(n="12")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal, Self, final

from markupsafe import Markup, escape

LANGUAGES: Final = ("en", "ja")
_JAPANESE: Final = r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
_GAP: Final = re.compile(f"(?<={_JAPANESE}) (?={_JAPANESE})")


@final
@dataclass(frozen=True, slots=True)
class Text:
    """en, ja: plain text, no markup; fields in braces are filled by `of`."""

    en: str
    ja: str

    @classmethod
    def same(cls, text: str) -> Self:
        """Data that is alike in both: names, figures, words of the run itself."""
        return cls(text, text)

    def of(self, **values: Text | str | int) -> Text:
        """With its fields filled. Raises KeyError for one that is not given."""
        english = {k: v.en if isinstance(v, Text) else str(v) for k, v in values.items()}
        japanese = {k: v.ja if isinstance(v, Text) else str(v) for k, v in values.items()}
        return Text(_filled(self.en, english), _closed(_filled(self.ja, japanese)))

    def __html__(self) -> str:
        """Escaped; jinja2 asks for it. What is alike in both languages stands there once."""
        if self.en == self.ja:
            return str(escape(self.en))
        en, ja = escape(self.en), escape(self.ja)
        return f'<span class="en" lang="en">{en}</span><span class="ja" lang="ja">{ja}</span>'

    def __bool__(self) -> bool:
        return bool(self.en)


NOTHING: Final = Text("", "")


def fields_of(text: str) -> set[str]:
    """Names in braces."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def joined(parts: list[Text], comma: Text | None = None) -> Text:
    """One after the other, with the comma of each language."""
    comma = comma or Text(", ", "、")
    return Text(comma.en.join(p.en for p in parts), comma.ja.join(p.ja for p in parts))


def sentences(parts: list[Text]) -> Text:
    return Text(" ".join(p.en for p in parts if p.en), "".join(p.ja for p in parts if p.ja))


def attribute(text: Text, language: str, name: Literal["aria-label", "alt"] = "aria-label") -> Markup:
    """An attribute in the language that the page opens in, and in both for the switch to choose from."""
    shown = text.ja if language == "ja" else text.en
    return Markup('{}="{}" data-en="{}" data-ja="{}"').format(name, shown, text.en, text.ja)


def _closed(japanese: str) -> str:
    """Without the spaces that filling left between two Japanese characters."""
    return _GAP.sub("", japanese)


def _filled(text: str, values: dict[str, str]) -> str:
    """Only names of fields are read: no attribute of a value is ever reached through a format string."""
    out = []
    for literal, name, _, _ in Formatter().parse(text):
        out.append(literal)
        if name is not None:
            out.append(values[name])
    return "".join(out)
