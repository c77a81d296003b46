"""What was recovered beside what was true, as data: `tempo report` draws it. Shades of 8 bits, row by row."""

from __future__ import annotations

import base64
import json
from typing import Any

from torch import Tensor

from tempo.attacks.suite.figures import shades
from tempo.attacks.suite.rows import Picture, Result


def pictures_json(result: Result) -> str:
    """All pictures of a run of the suite; those of one's own model show one's own data."""
    return json.dumps({"pictures": [_fields(each) for each in result.pictures]})


def _fields(picture: Picture) -> dict[str, Any]:
    width, height, recovered = _eight_bits(picture.recovered)
    _, _, true = _eight_bits(picture.true)
    return {
        "attack": picture.attack,
        "scheme": picture.scheme,
        "reference": picture.reference,
        "title": picture.title,
        "width": width,
        "height": height,
        "recovered": recovered,
        "true": true,
    }


def _eight_bits(image: Tensor) -> tuple[int, int, str]:
    """Width, height, shades in base64."""
    grey = (255 * shades(image)).round().astype("uint8")
    height, width = grey.shape
    return width, height, base64.b64encode(grey.tobytes()).decode("ascii")
